"""The two commands that explain a crawl from its store and logs.

`crawler hosts`: one line per host: state, queue, response times, connections, and the reason why it waits.
`crawler why URL`: each rule that decides about a URL, its attempts, and what happens to it next.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click
import orjson

from crawler.cli.crawl_options import FoundCrawl, control_of, crawl_options, default_crawl, find_crawl
from crawler.cli.output import Pen, fetch_text, is_terminal, quantiles, say, table, tsv, write_data
from crawler.core.enums import Exit, UrlState
from crawler.core.formatting import average, count, date_time, duration, printable, timestamp, wall_time
from crawler.core.options import PolitenessOptions
from crawler.core.scope import Overrides
from crawler.core.url import UrlError, parse
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.explanation import Explanation, add_auxiliary, logged_auxiliary
from crawler.inspection.explain.hosts import LOOKED_AT, SORTS, STATES, HostView, first_hosts, logged_gap_s, views
from crawler.inspection.explain.why import Explainer
from crawler.inspection.log.query import Query, host_names, host_test
from crawler.inspection.log.rotated_log import RotatedLog, newest, parse_moment, select
from crawler.inspection.log.totals import Gathered, LogTotals, gather
from crawler.inspection.log.url_history import (
    PresentState,
    UrlHistory,
    attempts,
    last_host_state,
    present_state,
    skipped_of_host,
    time_of_field,
)
from crawler.obs.fetch_line import redact_text

T = TypeVar("T")

_ON_TERMINAL: Final = 40
_LOG_BUDGET: Final = 256 * 1024 * 1024  # bytes of the newest lines, for response times and connections
_HEAD: Final = (
    "HOST",
    "STATE",
    "UNTIL",
    "QUEUED",
    "ETA",
    "PAGES OK/ERR",
    "P50/P95ms",
    "CONNS",
    "REQ/CONN",
    "AGENT",
    "WHY",
)
_RIGHT: Final = (False, False, False, True, True, True, True, True, True, False, False)
_AGENT_AT: Final = _HEAD.index("AGENT")  # only of a database that agents share
# The columns of a pipe, by their names in JSON; `until` is a time.
_COLUMNS: Final = (
    "host", "state", "until", "queued", "eta_s", "ok", "errors", "p50_ms", "p95_ms", "connections_open",
    "connections_opened", "requests_per_connection", "why", "agent",
)  # fmt: skip
_COLOURS: Final = {
    "blocked": "red",
    "held": "red",
    "backoff": "yellow",
    "waiting": "cyan",
    "ready": "green",
    "new": "dim",
}


@click.command(name="hosts")
@crawl_options
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only hosts in this state.")
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help='Only this host; "*.example.org" for all below it.'
)
@click.option("--sort", type=click.Choice(list(SORTS)), default="state", show_default=True)
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), help="At most this many hosts. Default: 40 on a terminal, else all."
)
@click.option(
    "--since", metavar="TIME", help="Response times and connections since TIME. Default: in the newest 256 MiB of log."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per host.")
def hosts_command(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    states: tuple[str, ...],
    hosts: tuple[str, ...],
    sort: str,
    limit: int | None,
    since: str | None,
    as_json: bool,
) -> int:
    """List the hosts of a crawl.

    State and queue are from the store. PAGES OK/ERR counts attempts at pages since the crawl began, without those at
    robots.txt, sitemaps, feeds and probes. Response times, connections opened and requests per connection are from the
    newest part of the log. ETA is how long the queue takes at the present rate. In a pipe, values are
    separated by tabs. On a terminal and with -n, of a store of more than 5,000 hosts only the first 5,000 in that
    order are looked at, and as many that may not be requested now.
    """
    now = time.time()
    try:
        since_at = None if since is None else parse_moment(since, now)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from None
    names = host_names(hosts)
    crawl = find_crawl(config, overrides, output).with_file()
    is_live = crawl.paths.pid() is not None
    on_terminal = is_terminal() and not as_json
    limit = _ON_TERMINAL if limit is None and on_terminal else limit
    state = _read_present_state(crawl) if is_live else PresentState()
    politeness = crawl.rules.politeness if crawl.rules is not None else PolitenessOptions()
    overriding = Overrides(crawl.rules.overrides if crawl.rules is not None else ())
    open_now = state.open if is_live else None
    is_one = host_test(names)

    def is_chosen(view: HostView) -> bool:
        return (not states or view.state in states) and (not hosts or is_one(_name(view)))

    is_complete, gathered = True, None
    with StoreReader(crawl.paths.frontier, is_live=is_live) as reader:
        total = reader.totals().get("hosts", 0)
        is_small = total <= LOOKED_AT or not reader.has_keys
        if is_small or (not hosts and (limit is None or limit > LOOKED_AT)):
            gathered = read_totals(crawl, since_at)
            found = views(
                reader, politeness, gathered.tally.hosts, state.states, open_now, now=now, overrides=overriding
            )
            total = len(found)
            chosen = sorted(filter(is_chosen, found), key=SORTS[sort])
            shown = chosen if limit is None else chosen[:limit]
        else:
            if sort == "slow":
                gathered = read_totals(crawl, since_at)
            ids, is_complete = first_hosts(
                reader, sort=sort, hosts=names, states=states, now=now,
                tallies=gathered.tally.hosts if gathered is not None else {},
                limit=total if limit is None or limit > LOOKED_AT else LOOKED_AT,
            )  # fmt: skip
            found = views(reader, politeness, {}, state.states, open_now, now=now, host_ids=ids, overrides=overriding)
            chosen = sorted(filter(is_chosen, found), key=SORTS[sort])
            origins = {view.origin for view in chosen[:limit]}
            shown_names = {_name(view) for view in chosen[:limit]}
            if gathered is None:
                gathered = read_totals(crawl, since_at, tuple(sorted(shown_names)) or ("",))
            found = views(
                reader, politeness, gathered.tally.hosts, state.states, open_now, now=now, overrides=overriding,
                host_ids=[id_ for name in shown_names for id_ in reader.host_ids(name)],
            )  # fmt: skip
            shown = sorted((view for view in found if view.origin in origins), key=SORTS[sort])
        is_known = any(is_one(_name(view)) for view in found) or any(
            reader.first_hosts("host", name, now=now, limit=1) for name in names
        )
    for problem in gathered.problems:
        say(problem)
    if hosts and not is_known:
        say(f"the store knows no host {' or '.join(hosts)}")
        return Exit.FINDINGS
    if as_json:
        write_data(b"".join(orjson.dumps(asdict(view), option=orjson.OPT_APPEND_NEWLINE) for view in shown))
        return Exit.OK
    if not on_terminal:
        write_data(tsv(_COLUMNS, (_values(view) for view in shown)))
        return Exit.OK
    lines = _table(shown, now)
    lines.append(Pen()(_footer(len(shown), len(chosen), total, gathered.tally, is_complete=is_complete), "dim"))
    write_data(("\n".join(lines) + "\n").encode("utf-8", "replace"))
    return Exit.OK


def _name(view: HostView) -> str:
    """The host without port and without the brackets of an IPv6 address."""
    return urlsplit(view.origin).hostname or ""


def read_totals(crawl: FoundCrawl, since_at: float | None = None, hosts: tuple[str, ...] = ()) -> Gathered:
    """The totals of the newest part of the log, or of that since a time, of all hosts or some."""
    log = crawl.paths.fetch_log
    try:
        with RotatedLog(log) as parts:
            ranges = select(parts, since_at)
            if since_at is None:
                ranges = newest(ranges, _LOG_BUDGET)
            query = Query(hosts=hosts, since="" if since_at is None else timestamp(since_at))
            return gather(parts, ranges, query, bin_s=3_600, name=log.name)
    except OSError as error:
        return Gathered(LogTotals(), [f"{log}: {error.strerror}: response times and connections are not known"])


def _read_present_state(crawl: FoundCrawl) -> PresentState:
    try:
        with RotatedLog(crawl.paths.events_log) as parts:
            return present_state(parts, crawl.paths.run_id)
    except OSError as error:
        say(f"{crawl.paths.events_log}: {error.strerror}: open connections are not known")
        return PresentState()


def _values(view: HostView) -> list[object]:
    until = None if view.until_at is None else date_time(view.until_at)
    return [until if name == "until" else getattr(view, name) for name in _COLUMNS]


def _table(shown: Sequence[HostView], now: float) -> list[str]:
    rows, styles = [], []
    for view in shown:
        colour = _COLOURS.get(view.state, "")
        left = "" if view.until_at is None or view.until_at <= now else f" {duration(view.until_at - now)}"
        rows.append(
            (
                printable(view.host),
                view.state + left,
                "" if view.until_at is None else wall_time(view.until_at, now),
                count(view.queued),
                duration(view.eta_s) if view.eta_s else "",
                f"{view.ok}/{view.errors}",
                quantiles(view.p50_ms, view.p95_ms),
                _connections(view),
                "" if view.requests_per_connection is None else average(view.requests_per_connection),
                printable(view.agent or ""),
                printable(view.why),
            )
        )
        errors = "red" if view.errors > view.ok else "yellow" if view.errors else ""
        styles.append(["bold", colour, "", "", "", errors, "", "", "", "", colour])
    if any(view.agent for view in shown):
        return table(_HEAD, rows, _RIGHT, Pen(), styles)
    return table(
        _without_agent(_HEAD),
        [*map(_without_agent, rows)],
        _without_agent(_RIGHT),
        Pen(),
        [*map(_without_agent, styles)],
    )


def _without_agent(cells: Sequence[T]) -> Sequence[T]:
    return [*cells[:_AGENT_AT], *cells[_AGENT_AT + 1 :]]


def _connections(view: HostView) -> str:
    """The number of open connections, of those opened ("1 of 74"). If no crawl runs, only the number opened."""
    if view.connections_open is None:
        return "" if view.connections_opened is None else count(view.connections_opened)
    return f"{view.connections_open} of {count(max(view.connections_open, view.connections_opened or 0))}"


def _footer(shown: int, chosen: int, total: int, tally: LogTotals, *, is_complete: bool) -> str:
    parts = []
    if not is_complete:
        of = f"the first {count(chosen, 'host')} that the store finds in this order"
        parts.append(f"{count(shown)} of {of} shown; {count(total, 'host')} in all")
    else:
        parts.append(f"{count(shown)} of {count(chosen, 'host')} shown" if shown < chosen else "")
        parts.append(f"{count(total, 'host')} in all" if chosen < total or not parts[0] else "")
    if tally.first_ts:
        parts.append(f"response times from {count(tally.lines, 'line')} of the log since {date_time(tally.first_ts)}")
    return "; ".join(filter(None, parts))


_SHOWN: Final = 10  # attempts shown to a person
_HEADLINES: Final = {
    "fetched": "green", "would_fetch": "green", "queued": "cyan", "waiting": "yellow", "denied": "red",
    "would_deny": "red", "gave_up": "red", "forgotten": "red",
}  # fmt: skip
_VERDICTS: Final = {"ok": "green", "DENY": "red", "wait": "yellow"}


@click.command(name="why")
@click.argument("url")
@crawl_options
@click.option("--full", is_flag=True, help="Search all logs for attempts, however long that takes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def why_command(
    url: str, config: Path | None, overrides: tuple[str, ...], output: Path | None, full: bool, as_json: bool
) -> int:
    """Explain why URL was fetched or not, or what would happen to it."""
    now = time.time()
    config, output = default_crawl(config, overrides, output)
    crawl = find_crawl(config, overrides, output).with_file()
    paths = crawl.paths
    if crawl.differs:
        say(f"the running crawl has other rules than {config}: the verdicts are by those of the running crawl")
    is_live = paths.pid() is not None
    try:
        reader: StoreReader | None = StoreReader(paths.frontier, is_live=is_live)
    except FileNotFoundError:
        reader = None
    try:
        runs = is_live or (crawl.database is not None and control_of(crawl) is not None)
        explanation = Explainer(
            reader, crawl.rules, is_live=runs, now=now, has_seed=crawl.has_seed, agent=paths.agent,
            gap_s_of=lambda host: logged_gap_s(read_totals(crawl, hosts=(host,)).tally.hosts.get(host)),
        ).why(url)  # fmt: skip
    finally:
        if reader is not None:
            reader.close()
    history = _history(crawl, explanation, now, full=full)
    if as_json:
        write_data(orjson.dumps(_as_json(explanation, history, crawl)) + b"\n")
    else:
        write_data(("\n".join(_text(explanation, history, now)) + "\n").encode("utf-8", "replace"))
    return Exit.OK


def _history(crawl: FoundCrawl, explanation: Explanation, now: float, *, full: bool) -> UrlHistory:
    """Read the attempts from the log, and add to the explanation what its events say about the host."""
    paths = crawl.paths
    try:
        _, origin = parse(explanation.url)
    except UrlError:
        return UrlHistory()
    try:
        with RotatedLog(paths.events_log) as events:
            if (
                paths.pid() is not None
                and explanation.known
                and (state := last_host_state(events, origin.host, origin.port))
            ):
                until = time_of_field(state, "until")
                waits = any(step.verdict == "wait" and step.name != "trap" for step in explanation.steps)
                if until is not None and until > now and not waits:
                    text = (
                        f"{state['to']} until {wall_time(until, now)} (in {duration(until - now)}): {state['reason']}"
                    )
                    explanation.add("origin", "wait", text, until_at=until, reason=state["reason"])
            elif explanation.deny_reason and (skipped := skipped_of_host(events, origin.host, explanation.deny_reason)):
                text = f"links to {origin.host} are refused for this reason, lately {skipped['url_full']}"
                explanation.add(
                    "log", "", text, deny_reason=skipped.get("deny_reason"), at=time_of_field(skipped, "ts")
                )
        with RotatedLog(paths.fetch_log) as fetches:
            # A denied URL has a line too, although it was not requested.
            wanted = explanation.attempts + (explanation.state == UrlState.DENIED) if explanation.known else None
            found = attempts(fetches, explanation.url, wanted=wanted, last_at=explanation.last_at, whole=full)
            add_auxiliary(explanation, logged_auxiliary(found.lines), now)
            for problem in fetches.problems():
                say(problem)
            return found
    except FileNotFoundError:
        return UrlHistory(searched="nothing: there is no log")
    except OSError as error:
        say(f"{error.filename or paths.logs}: {error.strerror}; the attempts are not known")
        return UrlHistory(searched="nothing: the log cannot be read")


def _as_json(explanation: Explanation, history: UrlHistory, crawl: FoundCrawl) -> dict[str, Any]:
    return explanation.as_json() | {
        "rules_from": crawl.rules_from if crawl.rules is not None else None,
        "history": history.lines,
        "history_searched": history.searched or "all",
    }


def _text(explanation: Explanation, history: UrlHistory, now: float) -> list[str]:
    pen = Pen()
    lines = [pen(printable(redact_text(explanation.headline)), "bold", _HEADLINES.get(explanation.verdict, ""))]

    def add(name: str, verdict: str, text: str) -> None:
        lines.append(f"  {name:<9} {pen(f'{verdict:<4}', _VERDICTS.get(verdict, ''))}  {printable(redact_text(text))}")

    for step in explanation.steps:
        add(step.name, step.verdict, step.text)
        for via in step.facts.get("via", ())[1:]:
            add("", "", f"  ← {via}")
    if explanation.known or history.lines:
        shown = history.lines[-_SHOWN:]
        words = count(explanation.attempts if explanation.known else len(history.lines), "attempt")
        missing = explanation.attempts - len(history.lines)
        if missing > 0 and explanation.log_agent is not None:
            words += f", {count(missing)} of them in the logs of other agents (the last of {explanation.log_agent})"
        elif missing > 0 and history.searched:
            words += f", {count(missing)} of them not found (searched: {history.searched}; --full searches all)"
        elif missing > 0:
            words += f"; the logs no longer hold {count(missing)} of them"
        elif len(shown) < len(history.lines):
            words += f", the last {_SHOWN} of them:"
        add("history", "", words)
        lines += [f"    {fetch_text(line, pen)}" for line in shown]
    add("next", "", explanation.next_text)
    return lines
