// The status page: reads /api/… and draws; with admin.actions and a token it changes the crawl as well. What comes from the crawl goes in as text, never as markup.
"use strict";

// The page comes with what it shows first, so that it is whole as soon as it is loaded.
const still = location.search === "?still"; // nothing after that: for pictures of the page
const at = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en-US", { maximumFractionDigits: n < 10 ? 1 : 0 });

// average, size and duration as crawler/core/formatting.py has them: a fact has the same words in every view.
const average = (n) => (n >= 99.95 ? number(n) : n.toFixed(1));

function size(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1023.95) return unit === "B" ? `${Math.round(n)} B` : `${n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} TiB`;
}

function duration(s) {
  if (s < 0.9995) {
    const ms = Math.max(0, 1000 * s);
    const shown = Number(ms.toFixed(ms < 9.95 ? 1 : 0));
    return shown ? `${shown} ms` : "0 s";
  }
  if (s < 9.95) return `${Number(s.toFixed(1))} s`;
  const whole = Math.round(s);
  for (const [length, unit, part, smaller] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole < length) continue;
    const rest = Math.floor((whole % length) / part);
    return `${Math.floor(whole / length)} ${unit}` + (rest ? ` ${String(rest).padStart(2, "0")} ${smaller}` : "");
  }
  return `${whole} s`;
}

const clock = (epoch, end = 19) => new Date(epoch * 1000).toISOString().slice(11, end) + "Z";

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// A button that looks like a link. `key` tells it from the others of its table: the focus stays on it when that is filled anew.
function link(text, key, onClick) {
  const made = element("button", text, "link");
  made.type = "button";
  made.dataset.key = key;
  made.addEventListener("click", onClick);
  return made;
}

// A cell of a class with such a link.
function linked(text, key, onClick, kind) {
  const cell = element("td", undefined, kind);
  cell.append(link(text, key, onClick));
  return cell;
}

// Replace the children of an element, with the focus where it was.
function replace(place, made) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...made);
  if (focused !== undefined) [...place.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

// What is read out by a screen reader changes only when it says something else.
function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

// Cells are a text, or [text, class], or an element.
function fill(table, rows, none) {
  const made = rows.map((cells) => {
    const row = element("tr");
    for (const cell of cells) {
      if (cell instanceof HTMLTableCellElement) row.append(cell);
      else if (cell instanceof Element) { const td = element("td"); td.append(cell); row.append(td); }
      else row.append(Array.isArray(cell) ? element("td", cell[0], cell[1]) : element("td", cell));
    }
    return row;
  });
  if (!made.length) {
    const cell = element("td", none, "dim");
    cell.colSpan = [...table.tHead.rows[0].cells].filter((head) => !head.hidden).length;
    const row = element("tr");
    row.append(cell);
    made.push(row);
  }
  replace(table.tBodies[0], made);
}

const STATES = { crawling: "good", idle: "good", ready: "good", lingering: "good", paused: "warn", draining: "warn", off_hours: "warn", outage: "warn",
  backoff: "warn", held: "bad", blocked: "bad", new: "dim" };
const LEVELS = { bad: "Problem", warn: "Look" };

// Go to the part of the page that has more: "hosts:held", "warnings".
function show(part) {
  const [id, state] = part.split(":");
  if (state) {
    at("filter").elements.state.value = state;
    findHosts();
  }
  at(`h-${id}`).scrollIntoView();
  (state ? at("filter").elements.state : at(`h-${id}`)).focus({ preventScroll: true });
}

let attentionShown = null;

function showAttention(found) {
  const now = JSON.stringify(found);
  if (now === attentionShown) return;
  attentionShown = now;
  const made = found.map((one) => {
    const item = element("li", undefined, one.level);
    item.append(element("b", LEVELS[one.level]), one.show ? link(one.text, one.show, () => show(one.show)) : one.text);
    if (one.advice) item.append(element("div", one.advice, "dim"));
    return item;
  });
  replace(at("attention"), made.length ? made : [element("li", "Nothing: the crawl does what it should.")]);
}

// 1,240 of 3,100 URLs, and what becomes of the others: the parts add up to the whole.
function showProgress(s) {
  const u = s.urls;
  const found = u.queued + u.waiting + u.done + u.denied + u.gave_up + u.suspect;
  const ended = u.done + u.denied + u.gave_up;
  at("done").max = found || 1;
  at("done").value = ended;
  const parts = [["fetched", u.done], ["denied", u.denied], ["given up", u.gave_up], ["queued", u.queued], ["due later", u.waiting], ["set aside", u.suspect]];
  const eta = s.eta_s === null ? "no time can be told for the rest"
    : `what may be requested is done in about ${duration(s.eta_s)} if no more URLs are found`;
  say("progress", `${number(found)} URLs found in all runs: ${parts.filter(([, n]) => n).map(([word, n]) => `${number(n)} ${word}`).join(", ") || "none"}${u.queued ? `; ${eta}` : ""}.`);
  say("run", `In this run, since ${new Date((s.at - s.elapsed_s) * 1000).toISOString().slice(0, 19).replace("T", " ")}Z:`);
  const outcomes = Object.entries(s.counts.outcomes).filter(([, n]) => n);
  const attempts = outcomes.reduce((sum, [, n]) => sum + n, 0);
  say("sums", `${number(attempts)} attempts: ${outcomes.map(([word, n]) => `${number(n)} ${word.replace("_", " ")}`).join(", ") || "none"}. `
    + `${number(s.counts.responses)} responses: ${number(s.counts.responses - s.counts.auxiliary)} to pages, ${number(s.counts.auxiliary)} to robots.txt, `
    + "sitemaps, feeds and probes.");
}

function showStatus(s) {
  document.title = `${s.attention.some((one) => one.level === "bad") ? "(!) " : ""}${s.crawl}: ${s.state}`;
  at("crawl").textContent = s.crawl;
  at("state").textContent = s.state;
  at("state").className = `state ${STATES[s.state] || ""}`;
  say("sentence", s.sentence);
  at("about").textContent = `pid ${s.pid}, up ${duration(s.elapsed_s)}, version ${s.version}, ${s.output}, as of ${clock(s.at)}`;
  for (const part of ["actions", "host-actions"]) at(part).hidden = !s.token_file;
  document.querySelector("#errors .actions").hidden = !s.token_file;
  showAttention(s.attention);
  showProgress(s);
  const c = s.connections;
  const figures = [
    ["pages stored", number(s.counts.pages), `${average(s.rates.pages_per_s)}/s`],
    ["received", size(s.counts.bytes), `${size(s.rates.bytes_per_s)}/s`],
    ["errors", number(s.counts.errors), "no complete response"],
    ["HTTP errors", number(s.counts.outcomes.http_error || 0), "status 4xx, 5xx"],
    ["hosts", number(s.hosts.total), `${number(s.hosts.with_work)} with work`],
    ["connections", number(c.open), `${average(c.requests_per_connection)} requests each`],
    ["in flight", number(s.in_flight.length), `${number(s.uncommitted)} not stored yet`],
    ["processor", `${Math.round(s.rates.cpu_percent)} %`, `loop late ${duration(s.rates.loop_lag_s)}`],
    ["memory", size(s.rss_bytes), `${size(s.max_rss_bytes)} at most`],
    ...(s.fleet ? [
      ["agents alive", number(s.fleet.alive), `${s.fleet.agent} has ${number(s.fleet.slots)} slots`],
      ["lease renewed", `${duration(s.fleet.renewed_s)} ago`, `of ${duration(s.fleet.lease_s)}`],
      ["inbox", number(s.fleet.inbox_urls), "URLs not stored yet"],
      ["database", duration(s.fleet.look_s), "for the last look"],
    ] : []),
  ];
  at("figures").replaceChildren(...figures.map(([name, value, more]) => {
    const box = element("div"), shown = element("dd");
    shown.append(element("b", value), element("span", more, "dim"));
    box.append(element("dt", name), shown);
    return box;
  }));
  fill(at("errors"), s.recent_errors.map((e) => [[clock(e.at), "word"], linked(e.host, `${e.host} ${e.error}`, () => showHost(new URL(e.url).origin), "wide"), e.error, [number(e.times), "n"],
    link(e.url, e.url, () => why(e.url)), ...(s.token_file ? [link("retry", `retry ${e.host} ${e.error}`, () => retry(e))] : [])]), "none");
  fill(at("flight"), s.in_flight.slice(0, 30).map((f) =>
    [[duration(f.age_s), "n"], f.stage, f.url, [f.conn_id, "n wide"], [f.requests, "n wide"]]), "nothing");
  const left = new Set(["ts", "event", "level", "crawl", "run_id"]);
  fill(at("warnings"), [...s.warnings].reverse().slice(0, 20).map((w) => [w.ts.slice(0, 19).replace("T", " "), w.event,
    Object.entries(w).filter(([k]) => !left.has(k)).map(([k, v]) => `${k}=${v}`).join(" ")]), "none");
  fill(at("memory"), s.memory.map((m) => {
    const shown = m.unit === "bytes" ? size : number;
    return [m.name, [shown(m.held), "n"], [m.limit === null ? "none" : shown(m.limit), "n"],
      [m.limit === null ? "" : `${Math.round(100 * m.held / m.limit)} %`, "n"]];
  }), "nothing");
}

function showHosts(found) {
  const { hosts, matching, total } = found;
  const all = `${number(total)} host${total === 1 ? "" : "s"}`;
  at("more").hidden = hosts.length >= matching || hosts.length >= 500;
  say("count", matching === total ? `${number(hosts.length)} of ${all} shown` : `${number(matching)} of ${all} match, ${number(hosts.length)} shown`);
  fill(at("hosts"), hosts.map((h) => [link(h.host.replace("https://", ""), h.host, () => showHost(h.host)), [h.state, `word ${STATES[h.state] || ""}`],
    [number(h.queued), "n"], [number(h.fetched), "n wide"], [h.in_flight, "n wide"], [duration(h.delay_s), "n wide"], [h.until_at ? clock(h.until_at) : "", "wide"],
    h.why + (h.failures ? ` (${number(h.failures)} in a row)` : "")]), "none");
}

let hostsShown = 20;

async function findHosts() {
  const search = new URLSearchParams(new FormData(at("filter")));
  search.set("limit", hostsShown);
  showHosts(await get(`/api/find_hosts?${search}`));
}

async function showHost(origin) {
  const name = new URL(origin).hostname.replace(/^\[|\]$/g, "");
  at("host").hidden = false;
  at("h-host").textContent = `${name}: the last attempts`;
  at("block").onclick = () => confirm(`Block ${name}? It gets no request until it is unblocked.`) && act("block", { name, host_only: true });
  at("unblock").onclick = () => act("unblock", { name });
  at("release").onclick = () => act("release", { name });
  at("ask").onclick = () => why(`${origin}/`);
  try {
    fill(at("attempts"), (await get(`/api/attempts?host=${encodeURIComponent(name)}`)).map((line) => [line.ts.slice(0, 19).replace("T", " "),
      [line.outcome, line.error_type || line.deny_reason, line.http_response_status_code].filter(Boolean).join(" "),
      [line.dur_ms === undefined ? "" : duration(line.dur_ms / 1000), "n"], link(line.url_full, line.fetch_id, () => why(line.url_full))]),
    "none in the newest part of the log");
  } catch (error) {
    fill(at("attempts"), [], String(error.message || error));
  }
  at("h-host").scrollIntoView({ block: "nearest" });
  at("h-host").focus({ preventScroll: true });
}

// Lines are told apart by their colour and by their dashes.
const DASHES = [[], [8, 4], [2, 3], [8, 3, 2, 3], [14, 4], [4, 4], [1, 5]];
const HEIGHT = 170;
const NARROWEST_S = 120; // a plot of fewer points is not drawn wider than this
const plots = {};
let shownHistory = null;

// Steps of an axis: of tens, and of twos for what is told in KiB and MiB.
const TENS = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((n) => [1, 2, 5].map((digit) => Number(`${digit}e${n}`)));
const TWOS = Array.from({ length: 45 }, (_, n) => 2 ** n);

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const width = target.clientWidth;
    if (width && plots[target.id] && plots[target.id].width !== width) plots[target.id].setSize({ width, height: HEIGHT });
  }
});

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

// What a plot shows, in words: for those who do not see it, and on a screen that is too small for it.
function inWords(series, data, scale) {
  const shown = series.map((label, n) => {
    const values = data[n + 1].filter((v) => v !== null);
    if (!values.length || (series.length > 2 && !Math.max(...values))) return "";
    return `${label} ${scale(values.at(-1))} now, ${scale(Math.max(...values))} at most`;
  });
  return shown.filter(Boolean).join("; ") || "nothing yet; a point is taken every 10 s";
}

// `least` is the least that the upper end of the axis stands for: what is all zeros has an axis to read it by as well.
function plot(id, title, series, colours, data, scale, least, steps) {
  let place = at(id);
  if (!place) {
    const figure = element("figure"), caption = element("figcaption", title), words = element("p");
    place = element("div");
    [place.id, words.id] = [id, `${id}-words`];
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", title);
    place.setAttribute("aria-describedby", words.id);
    figure.append(caption, place, words);
    at("plots").append(figure);
  }
  at(`${id}-words`).textContent = inWords(series, data, scale);
  if (!data[0].length) return;
  if (plots[id]) {
    plots[id].setData(data);
    return;
  }
  const width = place.clientWidth || 300;
  const [ink, line] = [colour("dim"), colour("line")];
  plots[id] = new uPlot({
    width, height: HEIGHT,
    tzDate: (epoch) => uPlot.tzDate(new Date(epoch * 1000), "Etc/UTC"),
    cursor: { drag: { x: false, y: false } },
    scales: {
      x: { time: true, range: (u) => [Math.min(u.data[0][0], u.data[0].at(-1) - NARROWEST_S), u.data[0].at(-1)] },
      y: { range: (u, low, high) => [0, Math.max(high * 1.1, least)] },
    },
    axes: [{ stroke: ink, grid: { stroke: line, width: 1 }, size: 32, space: 80,
      values: (u, ticks, axis, space, step) => ticks.map((epoch) => clock(epoch, step < 60 ? 19 : 16)) },
    { stroke: ink, grid: { stroke: line, width: 1 }, size: 68, space: 24, incrs: steps, values: (u, ticks) => ticks.map((tick) => scale(tick).replace(".0 ", " ")) }],
    series: [{ label: "time", value: (u, epoch) => (epoch === null ? "–" : clock(epoch)) }, ...series.map((label, n) => ({ label,
      stroke: colour(colours[n]), dash: DASHES[n], width: 2, spanGaps: false, value: (u, v) => (v === null ? "–" : scale(v)) }))],
  }, data, place);
  resized.observe(place);
}

function showHistory(h) {
  shownHistory = h;
  const words = Object.keys(h.outcomes);
  plot("plot-outcomes", "Attempts a second, by outcome", words.map((word) => word.replace("_", " ")), words, [h.at, ...words.map((word) => h.outcomes[word])], number, 1, TENS);
  plot("plot-bytes", "Bytes received a second", ["received"], ["redirect"], [h.at, h.bytes_per_s], size, 1024, TWOS);
  plot("plot-latency", "Duration of an attempt", ["median", "95 %"], ["ok", "http_error"], [h.at, h.p50_s, h.p95_s], duration, 0.01, TENS);
  plot("plot-queued", "URLs queued", ["queued"], ["truncated"], [h.at, h.queued], number, 4, TENS);
  plot("plot-connections", "Connections open", ["open"], ["redirect"], [h.at, h.connections], number, 4, TENS);
  plot("plot-reuse", "Requests on each connection that was opened", ["requests"], ["ok"], [h.at, h.reuse], number, 4, TENS);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const id of Object.keys(plots)) {
    plots[id].destroy();
    delete plots[id];
  }
  showHistory(shownHistory);
});

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

async function slowly() {
  try {
    showHistory(await get("/api/history"));
    await findHosts();
  } catch (error) { /* the stream says when the crawl is gone */ }
  setTimeout(slowly, 5000);
}

async function why(url) {
  at("why").elements.url.value = url;
  const place = at("answer");
  try {
    const answer = await get(`/api/why?url=${encodeURIComponent(url)}`);
    const table = element("table");
    for (const step of answer.chain || []) {
      const row = element("tr");
      row.append(element("td", step.step), element("td", step.verdict || "", step.verdict === "DENY" ? "bad" : step.verdict === "ok" ? "good" : "warn"),
        element("td", step.text));
      table.append(row);
    }
    const next = element("p", answer.next ? `next: ${answer.next}` : "");
    place.replaceChildren(element("p", answer.headline), table, next);
  } catch (error) {
    place.replaceChildren(element("p", String(error.message || error), "bad"));
  }
  at("h-why").scrollIntoView();
}

// An action: with the token in a header, which no other page can send.
async function act(action, args) {
  const token = at("token").elements.token.value.trim();
  try {
    const answer = await fetch("/api/action", { method: "POST", body: JSON.stringify({ action, arguments: args }),
      headers: { Authorization: `Bearer ${token}` } });
    say("done-action", `${action}: ${answer.ok ? "done" : (await answer.text()).trim()}`);
  } catch (error) {
    say("done-action", `${action}: ${error.message || error}`);
  }
  at("h-actions").scrollIntoView({ block: "nearest" });
}

function retry(error) {
  const [word, status] = error.error.split(" ");
  act("requeue", { host: error.host, ...(status ? { status } : { error_type: word }) });
}

at("token").addEventListener("submit", (event) => event.preventDefault());
at("pause").addEventListener("click", () => act("pause", {}));
at("resume").addEventListener("click", () => act("resume", {}));
at("why").addEventListener("submit", (event) => {
  event.preventDefault();
  const url = new FormData(event.target).get("url").trim();
  if (url) why(url);
});
let typed = 0;
at("filter").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(findHosts, 200);
});
at("more").addEventListener("click", () => {
  hostsShown = Math.min(500, hostsShown + 80);
  findHosts();
});
at("close").addEventListener("click", () => {
  at("host").hidden = true;
  at("filter").elements.text.focus();
});

const first = JSON.parse(at("first").textContent);
showStatus(first.status);
showHistory(first.history);
showHosts(first.hosts);
if (!still) {
  const stream = new EventSource("/api/events");
  stream.onmessage = (message) => showStatus(JSON.parse(message.data));
  stream.onerror = () => {
    at("state").textContent = "no answer";
    at("state").className = "state bad";
    say("sentence", "The crawler does not answer; this page looks again.");
  };
  setTimeout(slowly, 5000);
}
