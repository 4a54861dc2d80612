"""The report as one HTML page: figures, four plots in SVG, tables. It loads nothing and runs no script.

Invariant: text from the web is escaped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from crawler.core.enums import OutcomeLabel
from crawler.core.formatting import average, count, date_time, duration, event_fields, size
from crawler.inspection.log.totals import Bin, LogTotals
from crawler.inspection.report import HOSTS_COUNTED, TITLES

_WIDTH: Final = 860
_HEIGHT: Final = 200
_LEFT: Final = 76
_BOTTOM: Final = 24
_TOP: Final = 10
_MAX_BARS: Final = 600
# Distinguishable without red or green; the same order in every plot, good outcomes at the bottom.
_COLOURS: Final[Mapping[str, str]] = {
    OutcomeLabel.OK: "#2a9d6f", OutcomeLabel.NOT_MODIFIED: "#8ccfb0", OutcomeLabel.REDIRECT: "#4c8bd6",
    OutcomeLabel.DENIED: "#9b9b9b", OutcomeLabel.HTTP_ERROR: "#e0a526", OutcomeLabel.TRUNCATED: "#d9741f",
    OutcomeLabel.ERROR: "#c8322f",
}  # fmt: skip
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #667079; --line: #d9dee2; --paper: #fff; --tile: #f4f6f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaed; --soft: #98a2aa; --line: #363d43; --paper: #15191c; --tile: #1f2529; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
.soft, caption { color: var(--soft); } .tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { background: var(--tile); border-radius: 6px; padding: .5rem .9rem; flex: 1 1 8rem; }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
table.short { width: 26rem; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } .key { display: inline-block; margin-right: 1rem; }
.key i { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .35em; }
"""


def page(found: Mapping[str, Any], tally: LogTotals) -> str:
    """The whole page. `found` is the report, `tally` has the bins for the plots."""
    since, until = (date_time(str(found[name])) for name in ("since", "until"))
    body = [f"<h1>Crawl report</h1><div class=soft>{escape(since)} … {escape(until)} UTC</div>"]
    if not found["totals"]["attempts"]:
        body.append("<p>Nothing was fetched in this period.</p>")
    else:
        body += [_tiles(found), *_plots(tally), *_tables(found)]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1"><link rel=icon href="data:,">'
        f"<title>Crawl report {escape(since[:10])}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


# -- figures


def _tiles(found: Mapping[str, Any]) -> str:
    totals, connections, times = found["totals"], found["connections"], found["times_ms"]
    each = connections["requests_each"]
    tiles = [
        ("pages", count(totals["pages"])),
        ("pages per second", average(totals["pages_per_s"])),
        ("bytes", size(totals["bytes"])),
        ("attempts that failed", count(found["outcomes"].get("error", 0) + found["outcomes"].get("truncated", 0))),
        ("median response time", "–" if times["p50"] is None else _milliseconds(times["p50"])),
        ("requests per connection", "–" if each is None else average(each)),
        ("full TLS handshakes saved", count(connections["full_handshakes_saved"])),
        ("hosts", count(found["hosts"])),
    ]
    return f"<div class=tiles>{''.join(f'<div class=tile><b>{b}</b>{escape(name)}</div>' for name, b in tiles)}</div>"


def _milliseconds(value: float) -> str:
    return duration(value / 1e3)


# -- plots


def _plots(tally: LogTotals) -> Iterable[str]:
    numbers = sorted(tally.bins)
    if not numbers:
        return
    first, bins = numbers[0], numbers[-1] - numbers[0] + 1
    length, each = tally.bin_s, 1
    while bins / each > _MAX_BARS:
        each *= 2
    merged: dict[int, Bin] = {}
    for number in numbers:
        merged.setdefault((number - first) // each, Bin()).merge(tally.bins[number])
    bars = [merged.get(i, Bin()) for i in range((bins + each - 1) // each)]
    start_at, length = first * length, length * each

    def when(i: int) -> str:
        return date_time(start_at + i * length)[:16]

    words = [str(word) for word in _COLOURS if tally.outcomes.get(word)]
    unit = duration(length)
    yield f"<h2>Attempts by outcome <span class=soft>per {unit}</span></h2>"
    yield "".join(f'<span class=key><i style="background:{_COLOURS[OutcomeLabel(w)]}"></i>{w}</span>' for w in words)
    stacks = [[(_COLOURS[OutcomeLabel(word)], float(one.outcomes.get(word, 0))) for word in words] for one in bars]
    texts = [f"{when(i)}: " + ", ".join(f"{count(one.outcomes[w])} {w}" for w in words if one.outcomes.get(w))
             for i, one in enumerate(bars)]  # fmt: skip
    yield _bars(stacks, texts, when, count)
    yield f"<h2>Bytes of bodies <span class=soft>per {unit}</span></h2>"
    yield _bars([[("#4c8bd6", float(one.bytes))] for one in bars],
                [f"{when(i)}: {size(one.bytes)}" for i, one in enumerate(bars)], when, size, _top_size)  # fmt: skip
    yield "<h2>Response times</h2>"
    yield '<span class=key><i style="background:#2a9d6f"></i>median</span>'
    yield '<span class=key><i style="background:#d9741f"></i>95th percentile</span>'
    lines = [
        ("#2a9d6f", [one.spread.quantile(0.5) for one in bars]),
        ("#d9741f", [one.spread.quantile(0.95) for one in bars]),
    ]
    yield _curves(lines, when, _milliseconds)
    yield f"<h2>Connections <span class=soft>per {unit}</span></h2>"
    yield '<span class=key><i style="background:#4c8bd6"></i>requests on an open connection</span>'
    yield '<span class=key><i style="background:#e0a526"></i>connections opened for a request</span>'
    yield _bars(
        [[("#e0a526", float(one.opened)), ("#4c8bd6", float(one.requests - one.opened))] for one in bars],
        [
            f"{when(i)}: {count(one.requests, 'request')}, {count(one.opened, 'connection')} opened"
            for i, one in enumerate(bars)
        ],
        when, count,
    )  # fmt: skip


def _frame(top: float, bins: int, when: Callable[[int], str], shown: Callable[[float], str], inner: str) -> str:
    """Axes around a plot."""
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BOTTOM}" role=img>']
    for step in range(5):
        y = _TOP + (_HEIGHT - _TOP) * (1 - step / 4)
        parts.append(f"<line class=grid x1={_LEFT} x2={_WIDTH} y1={y:.1f} y2={y:.1f} />")
        parts.append(f"<text x={_LEFT - 6} y={y + 4:.1f} text-anchor=end>{escape(shown(top * step / 4))}</text>")
    marks = min(6, bins)
    for mark in range(marks):
        i = round(mark * (bins - 1) / max(1, marks - 1))
        x = _LEFT + (_WIDTH - _LEFT) * (i + 0.5) / bins
        anchor = "end" if x > _WIDTH - 36 else "middle"
        parts.append(f"<text x={x:.1f} y={_HEIGHT + 16} text-anchor={anchor}>{when(i)[5:]}</text>")
    return "".join(parts) + inner + "</svg>"


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
    texts: Sequence[str],
    when: Callable[[int], str],
    shown: Callable[[float], str],
    round_up: Callable[[float], float] = _top,
) -> str:
    top = round_up(max((sum(value for _, value in stack) for stack in stacks), default=0.0))
    step = (_WIDTH - _LEFT) / len(stacks)
    width = max(0.6, step - (1 if step > 4 else 0))
    parts = []
    for i, stack in enumerate(stacks):
        y = float(_HEIGHT)
        rects = []
        for colour, value in stack:
            height = (_HEIGHT - _TOP) * value / top
            y -= height
            if height > 0:
                rects.append(
                    f'<rect x={_LEFT + i * step:.2f} y={y:.2f} width={width:.2f} height={height:.2f} fill="{colour}"/>'
                )
        if rects:
            parts.append(f"<g><title>{escape(texts[i])}</title>{''.join(rects)}</g>")
    return _frame(top, len(stacks), when, shown, "".join(parts))


def _curves(
    lines: Sequence[tuple[str, Sequence[float | None]]], when: Callable[[int], str], shown: Callable[[float], str]
) -> str:
    bins = len(lines[0][1])
    top = _top(max((value for _, values in lines for value in values if value is not None), default=0.0))
    parts = []
    for colour, values in lines:
        path, is_down = [], False
        for i, value in enumerate(values):
            if value is None:  # no responses: a gap
                is_down = False
                continue
            x = _LEFT + (_WIDTH - _LEFT) * (i + 0.5) / bins
            y = _HEIGHT - (_HEIGHT - _TOP) * value / top
            path.append(f"{'L' if is_down else 'M'}{x:.1f} {y:.1f}")
            is_down = True
            if (i == 0 or values[i - 1] is None) and (i + 1 == bins or values[i + 1] is None):
                parts.append(f'<circle cx={x:.1f} cy={y:.1f} r=2 fill="{colour}"/>')
        parts.append(
            f'<path d="{" ".join(path)}" fill=none stroke="{colour}" stroke-width=1.8 stroke-linejoin=round />'
        )
    return _frame(top, bins, when, shown, "".join(parts))


# -- tables


def _tables(found: Mapping[str, Any]) -> Iterable[str]:
    for name in ("errors", "connect_failures", "rests", "refusals"):
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
    for name in ("slowest_hosts", "rudest_hosts", "busiest_hosts"):
        rows = [
            (h["host"], h["attempts"], h["ok"], h["bad"], h["pushed_back"], h["p50_ms"], h["p95_ms"],
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
        unreached = [(one["url"], one["state"], one["why"]) for one in seeds["seeds"]]
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
    if not rows:
        return ""
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(head))]

    def cell(tag: str, i: int, value: Any) -> str:
        text = "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
        return f"<{tag}{' class=n' if numeric[i] else ''}>{escape(text)}</{tag}>"

    lines = ["<tr>" + "".join(cell("td", i, value) for i, value in enumerate(row)) + "</tr>" for row in rows]
    header = "".join(cell("th", i, name) for i, name in enumerate(head))
    return f"<h2>{escape(title)}</h2><table><tr>{header}</tr>{''.join(lines)}</table>"
