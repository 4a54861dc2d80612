"""The report as one HTML page: what needs attention, figures, four plots in SVG, tables. It loads nothing and runs no
script.

Invariant: text from the web is escaped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from crawler.core.enums import OutcomeLabel
from crawler.core.formatting import average, count, date_time, duration, event_fields, share, size
from crawler.core.outcomes import STATE_TEXTS, urls_text
from crawler.inspection.log.totals import Bin, LogTotals
from crawler.inspection.report import HOSTS_COUNTED, TITLES

# A plot is drawn on a ground of this many units and stretched to the width of the screen; texts stand beside it.
_WIDTH: Final = 1_000
_HEIGHT: Final = 200
_MAX_BARS: Final = 600
_ROWS: Final = 24  # of the table below a plot
_MARKS: Final = 4  # times below a plot
# The names of colours in _STYLE: the same order in every plot, good outcomes at the bottom.
_OUTCOMES: Final = (
    OutcomeLabel.OK, OutcomeLabel.NOT_MODIFIED, OutcomeLabel.REDIRECT, OutcomeLabel.DENIED, OutcomeLabel.HTTP_ERROR,
    OutcomeLabel.TRUNCATED, OutcomeLabel.ERROR,
)  # fmt: skip
# Texts have 4.5:1 on their ground, what is drawn has 3:1 (WCAG 2.2 AA); a test computes both.
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #59626a; --line: #d9dee2; --paper: #ffffff; --tile: #f4f6f7;
  --ok: #1f7a4d; --not_modified: #0b7f93; --redirect: #2f6fb5; --denied: #6d6d6d; --http_error: #9a6200;
  --truncated: #8a4fbf; --error: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaed; --soft: #a3adb5; --line: #363d43; --paper: #15191c; --tile: #1f2529;
    --ok: #5bb98b; --not_modified: #4fc3d6; --redirect: #7fb2ea; --denied: #a8a8a8; --http_error: #e0a526;
    --truncated: #c39bf0; --error: #ef7d74; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
.soft { color: var(--soft); } .tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { background: var(--tile); border-radius: 6px; padding: .5rem .9rem; flex: 1 1 8rem; }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.look { border-left: 5px solid var(--error); background: var(--tile); margin: .35rem 0; padding: .3rem .8rem;
  overflow-wrap: anywhere; } .none { border-color: var(--ok); }
.scroll { overflow-x: auto; } :focus-visible { outline: 3px solid var(--redirect); }
table.short { width: 26rem; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; } td { min-width: 3rem; }
td.n, th.n { text-align: right; white-space: nowrap; }
.plot { display: grid; grid-template-columns: 5rem 1fr; margin-top: .8em; font-size: 12px;
  color: var(--soft); }
.plot svg { width: 100%; height: 200px; display: block; grid-column: 2; }
.up { display: flex; flex-direction: column-reverse; justify-content: space-between; text-align: right;
  margin: -.75em .5rem -.75em 0; }
.times { grid-column: 2; display: flex; justify-content: space-between; gap: .5rem; margin-top: .4em; }
@media (max-width: 500px) { .times span:not(:first-child):not(:last-child) { display: none; }
  .plot { grid-template-columns: 4.2rem 1fr; } th, td { padding-right: .4rem; } }
.grid { stroke: var(--line); stroke-width: 1; } svg * { vector-effect: non-scaling-stroke; }
.curve { fill: none; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.curve ~ .curve { stroke-dasharray: 6 4; }
.key { display: inline-block; margin-right: 1rem; }
.key i { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .35em; }
details { margin: .2rem 0 0; color: var(--soft); font-size: 13px; } summary { cursor: pointer; }
"""


_BACKOFFS: Final[Mapping[str, str]] = {"backoff": "hosts backed off", "held": "hosts were held"}


def page(found: Mapping[str, Any], tally: LogTotals) -> str:
    """The whole page. `found` is the report, `tally` has the bins for the plots."""
    since, until = (date_time(str(found[name])) for name in ("since", "until"))
    body = [f"<h1>Crawl report</h1><div class=soft>{escape(since)} … {escape(until)}</div>"]
    if not found["totals"]["attempts"]:
        body.append("<p>Nothing was fetched in this period.</p>")
    else:
        body += [_attention(found), _tiles(found), *_plots(tally), *_tables(found)]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1"><link rel=icon href="data:,">'
        f"<title>Crawl report {escape(since[:10])}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


# -- figures


def _tiles(found: Mapping[str, Any]) -> str:
    totals, connections, times = found["totals"], found["connections"], found["times_ms"]
    each = connections["requests_each"]
    tiles = [
        ("pages", count(totals["pages"])),
        ("pages per second while it ran", average(totals["pages_per_s"])),
        ("bytes", size(totals["bytes"])),
        (
            "attempts at pages without a complete response",
            count(found["outcomes"].get("error", 0) + found["outcomes"].get("truncated", 0)),
        ),
        ("median response time", "–" if times["p50"] is None else _milliseconds(times["p50"])),
        ("requests per connection", "–" if each is None else average(each)),
        ("full TLS handshakes saved", count(connections["full_handshakes_saved"])),
        ("hosts", count(found["hosts"])),
    ]
    shown = "".join(f"<div class=tile><b>{b}</b>{escape(name)}</div>" for name, b in tiles)
    return f"<div class=tiles>{shown}</div>{_urls(found)}"


def _urls(found: Mapping[str, Any]) -> str:
    """What became of the URLs over the life of the output directory."""
    return "" if found["now"] is None else f"<p>URLs: {escape(urls_text(found['now']))}.</p>"


def _milliseconds(value: float) -> str:
    return duration(value / 1e3)


def _attention(found: Mapping[str, Any]) -> str:
    """The part that an operator should read first: the failures, and the hosts with most of them."""
    outcomes = found["outcomes"]
    attempts = sum(outcomes.values())
    looks = []
    for words, text in (
        (("error", "truncated"), "got no complete response"),
        (("http_error",), "got a response with status 4xx or 5xx"),
    ):
        if number := sum(outcomes.get(word, 0) for word in words):
            looks.append(
                f"{count(number)} of {count(attempts, 'attempt')} at pages ({share(number / attempts)}) {text}"
            )
    for state, number in found["backoffs"].items():
        word, _, why = state.partition(": ")
        looks.append(f"{_BACKOFFS.get(word, word)} {count(number, 'time')} ({why})")
    if worst := found["faultiest_hosts"]:
        named = ", ".join(
            f"{one['host']} ({count(one['throttled'])} with 429 or 503, {count(one['bad'])} failed or 4xx, 5xx)"
            for one in worst[:3]
        )
        looks.append(f"{TITLES['faultiest_hosts']}: {named}")
    if (seeds := found["seeds_not_reached"]) is not None and seeds["seeds"]:
        looks.append(f"{count(len(seeds['seeds']), 'seed')} not reached, for example {seeds['seeds'][0]['url']}")
    shown = [f"<div class=look>{escape(look)}</div>" for look in looks]
    return "<h2>Needs attention</h2>" + ("".join(shown) or '<div class="look none">Nothing failed.</div>')


# -- plots


def _plots(tally: LogTotals) -> Iterable[str]:
    if not tally.bins:
        return
    time = _TimeAxis(tally)
    words = [word for word in _OUTCOMES if any(one.outcomes.get(word) for one in time.bars)]
    stacks: list[list[tuple[str, float]]]
    stacks = [[(word, float(one.outcomes.get(word, 0))) for word in words] for one in time.bars]
    yield _plot(
        "Attempts by outcome", time.unit, _bars(stacks, count), [(str(word), str(word)) for word in words], time
    )
    yield time.table("Attempts by outcome", lambda one: {str(word): one.outcomes.get(word, 0) for word in words})

    stacks = [[("redirect", float(one.bytes))] for one in time.bars]
    yield _plot("Bytes of bodies", time.unit, _bars(stacks, size, _top_size), [], time)
    yield time.table("Bytes of bodies", lambda one: {"bytes": size(one.bytes)})

    parts = (("median", "ok", 0.5), ("95th percentile", "http_error", 0.95))
    curves = [(colour, [one.spread.quantile(part) for one in time.bars]) for _, colour, part in parts]
    yield _plot(
        "Response times", "", _curves(curves, _milliseconds), [(name, colour) for name, colour, _ in parts], time
    )
    yield time.table(
        "Response times", lambda one: {name: _time_of(one.spread.quantile(part)) for name, _, part in parts}
    )

    idle, new = "on an open connection", "on a connection opened for it"
    stacks = [[("http_error", float(one.opened)), ("redirect", float(one.requests - one.opened))] for one in time.bars]
    yield _plot("Requests", time.unit, _bars(stacks, count), [(idle, "redirect"), (new, "http_error")], time)
    yield time.table("Requests", lambda one: {idle: one.requests - one.opened, new: one.opened})


class _TimeAxis:
    """The period of a report: in at most _MAX_BARS `bars` for plots, and in at most _ROWS rows for tables."""

    def __init__(self, tally: LogTotals) -> None:
        self._bin_s = tally.bin_s
        first, last = min(tally.bins), max(tally.bins)
        self._start_at = first * tally.bin_s
        bins = last - first + 1
        self._bins_a_bar = 1
        while bins / self._bins_a_bar > _MAX_BARS:
            self._bins_a_bar *= 2
        self._bins_a_row = -(-bins // _ROWS)
        self.bars = _merged(tally, first, bins, self._bins_a_bar)
        self._rows = _merged(tally, first, bins, self._bins_a_row)
        self.unit = f"per {duration(tally.bin_s * self._bins_a_bar)}"

    def marks(self) -> list[str]:
        """Some times, from the first to the last."""
        steps = min(_MARKS, len(self.bars))
        bars = [round(n * (len(self.bars) - 1) / max(1, steps - 1)) for n in range(steps)]
        return [date_time(self._start_at + bar * self._bins_a_bar * self._bin_s)[5:16] for bar in bars]

    def table(self, title: str, cells: Callable[[Bin], Mapping[str, object]]) -> str:
        """The figures of a plot as a table."""
        starts = [date_time(self._start_at + i * self._bins_a_row * self._bin_s)[:16] for i in range(len(self._rows))]
        rows = [(start, *cells(one).values()) for start, one in zip(starts, self._rows, strict=True)]
        shown = _plain_table(title, ("from, UTC", *cells(Bin())), rows)
        return f"<details><summary>{escape(title)} as a table</summary>{shown}</details>"


def _plot(
    title: str, unit: str, drawn: tuple[str, Sequence[str]], keys: Iterable[tuple[str, str]], time: _TimeAxis
) -> str:
    """A plot with its axes. `drawn` is what is in it, and the texts beside it; `keys` are names and colours."""
    inner, marks = drawn
    colours = "".join(
        f'<span class=key><i style="background:var(--{colour})"></i>{escape(name)}</span>' for name, colour in keys
    )
    up = "".join(f"<span>{escape(mark)}</span>" for mark in marks)
    below = "".join(f"<span>{mark}</span>" for mark in time.marks())
    label = escape(f"{title}, in figures in the table below")
    head = f"<h2>{escape(title)} <span class=soft>{escape(unit)}</span></h2>"
    return (
        f"{head}{colours}<div class=plot><div class=up>{up}</div>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio=none role=img aria-label="{label}">{_grid()}{inner}'
        f"</svg><div class=times>{below}</div></div>"
    )


def _merged(tally: LogTotals, first: int, bins: int, each: int) -> list[Bin]:
    """The bins from the first to the last, `each` of them as one."""
    merged: dict[int, Bin] = {}
    for number in sorted(tally.bins):
        merged.setdefault((number - first) // each, Bin()).merge(tally.bins[number])
    return [merged.get(i, Bin()) for i in range((bins + each - 1) // each)]


def _time_of(value: float | None) -> str:
    return "" if value is None else _milliseconds(value)


def _grid() -> str:
    return "".join(
        f"<line class=grid x1=0 x2={_WIDTH} y1={y} y2={y} />"
        for y in (round(_HEIGHT * (1 - step / 4)) for step in range(5))
    )


def _marks(top: float, shown: Callable[[float], str]) -> list[str]:
    return [shown(top * step / 4) for step in range(5)]


def _top(value: float) -> float:
    """A round number not below `value`, a multiple of four where it counts things."""
    if value <= 4:
        return 4.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    return next(power * factor for factor in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if power * factor >= value)


def _top_size(value: float) -> float:
    """The same for bytes: a power of two."""
    power = 1024.0
    while power < value:
        power *= 2
    return power


def _bars(
    stacks: Sequence[Sequence[tuple[str, float]]],
    shown: Callable[[float], str],
    round_up: Callable[[float], float] = _top,
) -> tuple[str, list[str]]:
    """The bars, each a stack of colours and values, and the texts beside them."""
    top = round_up(max((sum(value for _, value in stack) for stack in stacks), default=0.0))
    step = _WIDTH / len(stacks)
    width = max(0.6, step - (1 if step > 4 else 0))
    rects = []
    for i, stack in enumerate(stacks):
        y = float(_HEIGHT)
        for colour, value in stack:
            height = _HEIGHT * value / top
            y -= height
            if height > 0:
                rects.append(
                    f'<rect x={i * step:.2f} y={y:.2f} width={width:.2f} height={height:.2f} fill="var(--{colour})"/>'
                )
    return "".join(rects), _marks(top, shown)


def _curves(
    lines: Sequence[tuple[str, Sequence[float | None]]], shown: Callable[[float], str]
) -> tuple[str, list[str]]:
    """The curves, each a colour and values with gaps, and the texts beside them. A value alone is a dot."""
    bins = len(lines[0][1])
    top = _top(max((value for _, values in lines for value in values if value is not None), default=0.0))
    parts = []
    for colour, values in lines:
        path, is_down = [], False
        for i, value in enumerate(values):
            if value is None:  # no responses: a gap
                is_down = False
                continue
            x = _WIDTH * (i + 0.5) / bins
            y = _HEIGHT - _HEIGHT * value / top
            path.append(f"L{x:.1f} {y:.1f}" if is_down else f"M{x:.1f} {y:.1f}h0")
            is_down = True
        parts.append(f'<path class=curve d="{" ".join(path)}" stroke="var(--{colour})"/>')
    return "".join(parts), _marks(top, shown)


# -- tables


def _tables(found: Mapping[str, Any]) -> Iterable[str]:
    for name in ("errors", "connect_failures", "backoffs", "refusals"):
        yield _counts(TITLES[name], found[name])
    yield _table(
        TITLES["refused_links"], ("reason", "hosts", "for example"),
        [(reason, one["hosts"], one["sample"]) for reason, one in found["refused_links"].items()],
    )  # fmt: skip
    yield _counts("Status codes", found["statuses"])
    yield _table(
        TITLES["content_types"], ("type", "responses", "bytes"),
        [(name, one["responses"], size(one["bytes"])) for name, one in found["content_types"].items()],
    )  # fmt: skip
    yield _counts("Connections closed, by reason", found["connections"]["closed"])
    head = (
        "host",
        "attempts",
        "ok",
        "failed",
        "429/503",
        "p50 ms",
        "p95 ms",
        "requests/connection",
        "most frequent error",
    )
    for name in ("slowest_hosts", "faultiest_hosts", "busiest_hosts"):
        rows = [
            (h["host"], h["attempts"], h["ok"], h["bad"], h["throttled"], h["p50_ms"], h["p95_ms"],
             h["requests_per_connection"], h["most_frequent_error"]) for h in found[name]
        ]  # fmt: skip
        yield _table(f"{TITLES[name]} ({HOSTS_COUNTED})", head, rows)
    yield _table(
        TITLES["slowest_urls"],
        ("ms", "URL"),
        [(one["ms"], one["url"]) for one in found["slowest_urls"]],
    )
    seeds = found["seeds_not_reached"]
    if seeds is not None:
        unreached = [(one["url"], STATE_TEXTS.get(one["state"], one["state"]), one["why"]) for one in seeds["seeds"]]
        yield _table(TITLES["seeds_not_reached"], ("URL", "state", "why"), unreached)
    events = [
        (str(line.get("ts", ""))[:19].replace("T", " "), line.get("event"), _fields(line)) for line in found["events"]
    ]
    yield _table(TITLES["events"], ("time", "event", "fields"), events)


def _fields(line: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={text}" for name, text in event_fields(line))


def _counts(title: str, counts: Mapping[str, int]) -> str:
    return _table(title, ("what", "number"), list(counts.items())).replace("<table>", "<table class=short>")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return f"<h2>{escape(title)}</h2>{_plain_table(title, head, rows)}" if rows else ""


def _plain_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls for itself where it is too wide for the screen."""
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(head))]

    def cell(tag: str, i: int, value: Any) -> str:
        text = "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
        scope = " scope=col" if tag == "th" else ""
        return f"<{tag}{scope}{' class=n' if numeric[i] else ''}>{escape(text)}</{tag}>"

    lines = ["<tr>" + "".join(cell("td", i, value) for i, value in enumerate(row)) + "</tr>" for row in rows]
    header = "".join(cell("th", i, name) for i, name in enumerate(head))
    return (
        f'<div class=scroll tabindex=0 role=group aria-label="{escape(title)}"><table><tr>{header}</tr>{"".join(lines)}'
        "</table></div>"
    )
