"""`crawler report`: totals of a period as text, JSON or an HTML page with plots; or every request to one host."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
import orjson

from crawler.cli.crawl_options import FoundCrawl, crawl_options, find_crawl
from crawler.cli.output import OUTCOME_COLOURS, Pen, fetch_text, quantiles, say, table, write_data, write_lines
from crawler.core.enums import Exit
from crawler.core.formatting import (
    average,
    count,
    date_time,
    duration,
    printable,
    rate,
    size,
    timestamp,
    unreadable_robots,
)
from crawler.core.outcomes import STATE_TEXTS, urls_text
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.log.query import Matcher, Query, host_names
from crawler.inspection.log.rotated_log import RotatedLog, last_time, parse_moment, select, time_at
from crawler.inspection.log.totals import Gathered, gather
from crawler.inspection.report import (
    HOST_COUNTED,
    HOSTS_COUNTED,
    TITLES,
    EventTotals,
    HostReport,
    report,
    requests_to,
    total_events,
)

_DAY_S: Final = 86_400.0
_BINS: Final = 288  # bins of a plot, about: five minutes each for a day
_BIN_LENGTHS: Final = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)
_LABEL: Final = 14
_FLUSH: Final = 256


@click.command(name="report")
@crawl_options
@click.option("--since", metavar="TIME", help="Start of the period. Default: a day before the last line of the log.")
@click.option("--until", metavar="TIME", help="End of the period. Default: the last line of the log.")
@click.option("--all", "everything", is_flag=True, help="Everything in the logs.")
@click.option(
    "--host", metavar="HOST", help='Every request to this host, line by line ("*.name": to all hosts below it).'
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one HTML page with plots.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --host one per request, then the totals.")
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    since: str | None,
    until: str | None,
    everything: bool,
    host: str | None,
    html: Path | None,
    as_json: bool,
) -> int:
    """Report on a day: totals, errors, denied requests, slow and failing hosts, connections, seeds not reached."""
    if everything and (since or until):
        raise click.UsageError("--all cannot be combined with --since or --until")
    if host and html:
        raise click.UsageError("--html cannot be combined with --host, which prints text or --json")
    now = time.time()
    since_at, until_at = _moment(since, now, "--since"), _moment(until, now, "--until")
    crawl = find_crawl(config, overrides, output).with_file()
    log = crawl.paths.fetch_log
    if host is not None:
        return _print_host(crawl, host_names((host,))[0], since_at, until_at, as_json=as_json)
    with RotatedLog(log) as parts:
        if since_at is None and not everything:
            end = until_at if until_at is not None else last_time(parts)
            since_at = None if end is None else max(0.0, end - _DAY_S)
        query = Query(
            since="" if since_at is None else timestamp(since_at), until="" if until_at is None else timestamp(until_at)
        )
        bin_s = _bin_length(parts, since_at, until_at)
        gathered = gather(parts, select(parts, since_at, until_at), query, bin_s=bin_s, name=log.name)
    events = _events(crawl, query, gathered)
    reader = _reader(crawl)
    try:
        found = report(gathered.tally, events, reader)
    finally:
        if reader is not None:
            reader.close()
    for problem in gathered.problems:
        say(problem)
    if html is not None:
        from crawler.inspection.report_page import page

        html.write_text(page(found, gathered.tally), encoding="utf-8")
        say(f"{html} was written")
    if as_json:
        write_data(orjson.dumps(found) + b"\n")
    elif html is None:
        write_data(("\n".join(_text(found)) + "\n").encode("utf-8", "replace"))
    return Exit.OK


def _moment(text: str | None, now: float, option: str) -> float | None:
    try:
        return None if text is None else parse_moment(text, now)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _bin_length(parts: RotatedLog, since_at: float | None, until_at: float | None) -> int:
    """The length of a bin in seconds that gives a plot about _BINS of them."""
    plain = (part for part in parts.oldest_first if part.is_plain)
    first = next((at for part in plain if (at := time_at(part, 0)) is not None), None)
    first = max(filter(None, (first, since_at)), default=None)
    last = until_at if until_at is not None else last_time(parts)
    spent = last - first if first is not None and last is not None else _DAY_S
    return next((length for length in _BIN_LENGTHS if length * _BINS >= spent), _BIN_LENGTHS[-1])


def _events(crawl: FoundCrawl, query: Query, gathered: Gathered) -> EventTotals:
    try:
        with RotatedLog(crawl.paths.events_log) as parts:
            events, problems = total_events(parts, query)
    except OSError as error:
        gathered.problems.append(f"{crawl.paths.events_log}: {error.strerror}: events are left out")
        return EventTotals()
    gathered.problems += problems
    return events


def _reader(crawl: FoundCrawl) -> StoreReader | None:
    paths = crawl.paths
    try:
        return StoreReader(paths.frontier, is_live=paths.pid() is not None)
    except FileNotFoundError:
        say(f"{paths.frontier}: there is no store, so seeds and queue are left out")
        return None


# -- the report as text


def _text(found: Mapping[str, Any]) -> list[str]:
    pen = Pen()
    totals, times, connections = found["totals"], found["times_ms"], found["connections"]
    if not totals["attempts"]:
        return ["nothing was fetched in this period"]
    since, until = (date_time(str(found[name])) for name in ("since", "until"))
    lines = [pen(f"{since} … {until}", "bold")
             + pen(f"  {duration(found['duration_s'])}{_running(found)}", "dim")]  # fmt: skip

    def add(label: str, text: str) -> None:
        lines.append(f"{pen(f'{label:<{_LABEL}}', 'bold')}{text}")

    add("pages", f"{count(totals['pages'])}, {rate(totals['pages_per_s'])} while it ran; {size(totals['bytes'])}")
    others = totals["auxiliary"]
    of_others = [f"{count(others)} for robots.txt, sitemaps, feeds and probes"] if others else []
    of_pages = [_counts_text(found["outcomes"], pen, OUTCOME_COLOURS)] if found["outcomes"] else []
    add("attempts", f"{count(totals['attempts'])}: " + ", ".join(of_pages + of_others))
    if totals["gave_up"]:
        add("given up", f"{count(totals['gave_up'], 'URL')} after the last attempt failed")
    if found["statuses"]:
        add("statuses", _counts_text(found["statuses"], pen))
    if times["p50"] is not None:
        add("response time", ", ".join(f"{name} {duration(ms / 1e3)}" for name, ms in times.items()))
    add("links", f"{count(totals['links_found'])} found, {count(totals['links_new'])} new")
    if connections["opened"]:
        add(
            "connections",
            f"{count(connections['opened'])} opened, {connections['requests_each']} requests each; "
            f"{count(connections['tls_handshakes'], 'TLS handshake')}, {count(connections['tls_resumed'])} resumed, "
            f"{count(connections['full_handshakes_saved'])} full handshakes saved",
        )
    if connections["closed"]:
        add("close reason", _counts_text(connections["closed"], pen))
    if (now := found["now"]) is not None:
        add("URLs", f"{urls_text(now)}; {count(now['hosts'], 'host')}")
    for one in found["robots_unreadable"]:
        why = unreadable_robots(one["status"], one["error_type"])
        add("held", f"{count(one['hosts'], 'host')}: {why}, so no page is requested")
    for section in ("errors", "connect_failures", "backoffs", "refusals"):
        _section(lines, pen, TITLES[section], [(name, count(number)) for name, number in found[section].items()])
    _section(
        lines, pen, TITLES["refused_links"],
        [(k, f"{count(one['hosts'], 'host')}, e.g. {one['sample']}") for k, one in found["refused_links"].items()],
    )  # fmt: skip
    _section(
        lines, pen, TITLES["content_types"],
        [
            (name, f"{count(one['responses'], 'response')}, {size(one['bytes'])}")
            for name, one in found["content_types"].items()
        ],
    )  # fmt: skip
    for section in ("slowest_hosts", "faultiest_hosts"):
        _hosts(lines, pen, TITLES[section], found[section])
    _section(
        lines,
        pen,
        TITLES["slowest_urls"],
        [(duration(one["ms"] / 1e3), one["url"]) for one in found["slowest_urls"][:5]],
    )
    seeds = found["seeds_not_reached"]
    if seeds is not None:
        cut = "" if seeds["all_looked_through"] else " (there may be more: the search was cut short)"
        _section(
            lines, pen, f"{TITLES['seeds_not_reached']}{cut}",
            [(one["url"], f"{STATE_TEXTS.get(one['state'], one['state'])}: {one['why']}") for one in seeds["seeds"]],
        )  # fmt: skip
    if found["events"]:
        from crawler.cli.output import event_text

        lines += ["", pen(TITLES["events"], "bold"), *(f"  {event_text(line, pen)}" for line in found["events"])]
    return lines


def _running(found: Mapping[str, Any]) -> str:
    """For how much of its time the crawl ran, if there were pauses between runs."""
    running_s, pause_s = found["running_s"], found["duration_s"] - found["running_s"]
    return f", of which it ran {duration(running_s)}" if pause_s >= 1 else ""


def _section(lines: list[str], pen: Pen, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        width = min(44, max(len(name) for name, _ in rows))
        lines += ["", pen(title, "bold"), *(f"  {printable(name):<{width}}  {printable(text)}" for name, text in rows)]


def _hosts(lines: list[str], pen: Pen, title: str, hosts: list[dict[str, Any]]) -> None:
    if not hosts:
        return
    rows = [
        (
            printable(one["host"]), count(one["attempts"]), f"{one['ok']}/{one['bad']}", count(one["throttled"]),
            quantiles(one["p50_ms"], one["p95_ms"]),
            "" if one["requests_per_connection"] is None else average(one["requests_per_connection"]),
            printable(one["most_frequent_error"] or ""),
        )
        for one in hosts
    ]  # fmt: skip
    head = ("HOST", "ATTEMPTS", "OK/FAILED", "429/503", "P50/P95ms", "REQ/CONN", "MOST FREQUENT ERROR")
    lines += [
        "",
        pen(title, "bold") + pen(f"  {HOSTS_COUNTED}", "dim"),
        *table(head, rows, (False, True, True, True, True, True, False), pen),
    ]


def _counts_text(counts: Mapping[str, int], pen: Pen, colours: Mapping[str, str] | None = None) -> str:
    return ", ".join(
        pen(f"{count(number)} {printable(str(word))}", (colours or {}).get(word, "")) for word, number in counts.items()
        if number
    )  # fmt: skip


# -- requests to one host


def _print_host(crawl: FoundCrawl, host: str, since_at: float | None, until_at: float | None, *, as_json: bool) -> int:
    log = crawl.paths.fetch_log
    query = Query(
        hosts=(host,),
        since="" if since_at is None else timestamp(since_at),
        until="" if until_at is None else timestamp(until_at),
    )
    pen, matcher, figures = Pen(), Matcher(query), HostReport(host)
    held: list[bytes] = []
    with RotatedLog(log) as parts:
        for raw, line, figures in requests_to(parts, matcher, host):  # noqa: B007 - its last state is used below
            held.append(raw if as_json else fetch_text(line, pen).encode("utf-8", "replace"))
            if len(held) >= _FLUSH:
                write_lines(held)
        write_lines(held)
        problems = parts.problems() + matcher.problems(log.name)
    values = figures.values()
    if as_json:
        write_data(orjson.dumps({"event": "summary", **values}) + b"\n")
    else:
        write_data(("\n".join(_host_text(values, pen, _denied_in_store(crawl, host))) + "\n").encode())
    for problem in problems:
        say(problem)
    return Exit.OK


def _denied_in_store(crawl: FoundCrawl, host: str) -> int | None:
    """The number of URLs of a host that the store has as denied; None for "*.name" or without a store."""
    if host.startswith("*."):
        return None
    try:
        with StoreReader(crawl.paths.frontier, is_live=crawl.paths.pid() is not None) as reader:
            return reader.denied_of(host)
    except FileNotFoundError:
        return None


def _host_text(values: Mapping[str, Any], pen: Pen, denied: int | None) -> list[str]:
    if not values["requests"] and not values["denied"]:
        return [f"the logs have no request to {printable(values['host'])}"]
    gap_s = values["shortest_gap_s"]
    unknown = (
        "one request only" if values["requests"] < 2 else "not known: the log has fewer than two times of requests"
    )
    gap = unknown if gap_s is None else duration(gap_s) if gap_s >= 0 else "none, requests overlapped"
    each = "" if values["requests_per_minute"] is None else f", {average(values['requests_per_minute'])} per minute"
    stored = "" if denied is None else f"; {count(denied)} in the store now"
    rows = [
        ("requests", f"{count(values['requests'])}{each}, {size(values['bytes'])}"),
        ("from … to", f"{date_time(values['first'])} … {date_time(values['last'])}"),
        ("outcomes", _counts_text(values["outcomes"], pen, OUTCOME_COLOURS)),
        ("denied", f"{count(values['denied'], 'URL')} when due, by robots.txt or the crawl's own rules{stored}"),
        ("times above", "from the lease to the stored page, with waiting, connecting and parsing"),
        ("connections", f"{count(values['connections'])} to {', '.join(list(values['addresses'])[:4]) or 'nowhere'}"),
        ("shortest gap", f"{gap} (from the end of a response to the next request)"),
    ]
    title = f"Requests to {printable(values['host'])}"
    return ["", pen(title, "bold") + pen(f"  {HOST_COUNTED}", "dim"), *(f"  {name:<14}{text}" for name, text in rows)]
