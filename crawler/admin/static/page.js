// The status page: reads /api/…, draws, changes nothing. What comes from the crawl goes in as text, never as markup.
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

// Cells are a text, or [text, class], or an element.
function fill(table, rows, none) {
  const body = table.tBodies[0];
  const made = rows.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      if (cell instanceof Element) { const td = element("td"); td.append(cell); row.append(td); }
      else row.append(Array.isArray(cell) ? element("td", cell[0], cell[1]) : element("td", cell));
    }
    return row;
  });
  if (!made.length) {
    const cell = element("td", none, "dim");
    cell.colSpan = table.tHead.rows[0].cells.length;
    const row = document.createElement("tr");
    row.append(cell);
    made.push(row);
  }
  body.replaceChildren(...made);
}

const STATES = { crawling: "good", idle: "good", ready: "good", lingering: "good", paused: "warn", draining: "warn", off_hours: "warn", outage: "warn",
  backoff: "warn", held: "bad", blocked: "bad", new: "dim" };

function showStatus(s) {
  document.title = `${s.crawl}: ${s.state}`;
  at("crawl").textContent = s.crawl;
  at("state").textContent = s.state;
  at("state").className = `state ${STATES[s.state] || ""}`;
  at("sentence").textContent = s.sentence;
  at("about").textContent = `pid ${s.pid}, up ${duration(s.elapsed_s)}, version ${s.version}, ${s.output}, as of ${clock(s.at)}`;
  const c = s.connections;
  const figures = [
    ["pages", number(s.counts.pages), `${average(s.rates.pages_per_s)}/s`],
    ["received", size(s.counts.bytes), `${size(s.rates.bytes_per_s)}/s`],
    ["errors", number(s.counts.errors), `${number(s.counts.denied)} denied`],
    ["HTTP errors", number((s.counts.answers || {}).http_error || 0), "status 4xx, 5xx"],
    ["queued", number(s.urls.queued), `${number(s.urls.waiting)} due later`],
    ["hosts", number(s.hosts.total), `${s.hosts.with_work} with work, ${s.hosts.backoff} in backoff, ${s.hosts.held} held, ${s.hosts.blocked} blocked`],
    ["connections", number(c.open), `${average(c.requests_per_connection)} requests each`],
    ["in flight", number(s.in_flight.length), `${number(s.uncommitted)} unstored`],
    ["processor", `${Math.round(s.rates.cpu_percent)} %`, `loop late ${duration(s.rates.loop_lag_s)}`],
    ["memory", size(s.rss_bytes), `${size(s.max_rss_bytes)} at most`],
  ];
  at("figures").replaceChildren(...figures.map(([name, value, more]) => {
    const box = element("div", name, "");
    box.append(element("b", value), element("span", more, "dim"));
    return box;
  }));
  fill(at("flight"), s.in_flight.slice(0, 30).map((f) =>
    [[duration(f.age_s), "n"], f.stage, f.url, [f.conn_id, "n wide"], [f.requests, "n wide"]]), "nothing");
  const left = new Set(["ts", "event", "level", "crawl", "run_id"]);
  fill(at("warnings"), [...s.warnings].reverse().slice(0, 20).map((w) => [w.ts.slice(11, 19), w.event,
    Object.entries(w).filter(([k]) => !left.has(k)).map(([k, v]) => `${k}=${v}`).join(" ")]), "none");
  fill(at("memory"), s.memory.map((m) => {
    const shown = m.unit === "bytes" ? size : number;
    const meter = element("meter");
    meter.max = m.limit || 1; meter.value = m.limit ? m.held : 0;
    return [m.name, [shown(m.held), "n"], [m.limit === null ? "none" : shown(m.limit), "n"], m.limit === null ? "" : meter];
  }), "nothing");
}

function showHosts(hosts) {
  fill(at("hosts"), hosts.map((h) => [h.host, [h.state, `word ${STATES[h.state] || ""}`], [number(h.queued), "n"], [number(h.fetched), "n"],
    [h.in_flight, "n wide"], [duration(h.delay_s), "n wide"], [h.until_at ? clock(h.until_at) : "", "wide"], h.why]), "none yet");
}

const COLOURS = ["#3a86c8", "#8ab8d8", "#c8963a", "#c8603a", "#b3372f", "#8a5ac8", "#888888", "#444444"];
const HEIGHT = 170;
const NARROWEST_S = 120; // a plot of fewer points is not drawn wider than this
const plots = {};

// Steps of an axis: of tens, and of twos for what is told in KiB and MiB.
const TENS = [-3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((n) => [1, 2, 5].map((digit) => Number(`${digit}e${n}`)));
const TWOS = Array.from({ length: 45 }, (_, n) => 2 ** n);

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const width = target.clientWidth;
    if (width && plots[target.id].width !== width) plots[target.id].setSize({ width, height: HEIGHT });
  }
});

// `least` is the least that the upper end of the axis stands for: what is all zeros has an axis to read it by as well.
function plot(id, series, data, scale, least, steps) {
  const place = at(id);
  if (plots[id]) {
    plots[id].setData(data);
    return;
  }
  if (!data[0].length) {
    place.replaceChildren(element("p", "no point yet; one is taken every 10 s", "dim"));
    return;
  }
  place.replaceChildren();
  const width = place.clientWidth || 300;
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--dim");
  const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
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
    { stroke: ink, grid: { stroke: line, width: 1 }, size: 68, space: 24, incrs: steps, values: (u, ticks) => ticks.map(scale) }],
    series: [{ label: "time", value: (u, epoch) => (epoch === null ? "–" : clock(epoch)) }, ...series.map((label, n) => ({ label, stroke: COLOURS[n], width: 1.5, spanGaps: false,
      value: (u, v) => (v === null ? "–" : scale(v)) }))],
  }, data, place);
  resized.observe(place);
}

function showHistory(h) {
  const words = Object.keys(h.outcomes);
  plot("plot-outcomes", words, [h.at, ...words.map((word) => h.outcomes[word])], number, 1, TENS);
  plot("plot-bytes", ["bytes"], [h.at, h.bytes_per_s], size, 1024, TWOS);
  plot("plot-latency", ["median", "95 %"], [h.at, h.p50_s, h.p95_s], duration, 0.01, TENS);
  plot("plot-connections", ["open", "requests each"], [h.at, h.connections, h.reuse], number, 4, TENS);
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

async function slowly() {
  try {
    showHistory(await get("/api/history"));
    showHosts(await get("/api/hosts"));
  } catch (error) { /* the stream says when the crawl is gone */ }
  setTimeout(slowly, 5000);
}

at("why").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = new FormData(event.target).get("url").trim();
  if (!url) return;
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
    at("sentence").textContent = "The crawler does not answer; this page looks again.";
  };
  setTimeout(slowly, 5000);
}
