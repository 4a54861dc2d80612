"""`crawler why URL`: each rule that decides about a URL, its attempts, and what happens to it next."""

import time
from pathlib import Path
from typing import Any, Final

import click
import orjson

from crawler.cli.crawl_options import FoundCrawl, crawl_options, default_crawl, find_crawl
from crawler.cli.hosts import read_totals
from crawler.cli.output import Pen, fetch_text, say, write_data
from crawler.core.enums import Exit, UrlState
from crawler.core.formatting import count, duration, printable, wall_time
from crawler.core.url import UrlError, parse
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.explanation import Explanation, add_auxiliary, logged_auxiliary
from crawler.inspection.explain.hosts import logged_gap_s
from crawler.inspection.explain.why import Explainer
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.url_history import UrlHistory, attempts, last_host_state, skipped_of_host, time_of_field
from crawler.obs.fetch_line import redact_text

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
def command(
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
        explanation = Explainer(
            reader, crawl.rules, is_live=is_live, now=now, has_seed=crawl.has_seed,
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
        if missing > 0 and history.searched:
            words += f", {count(missing)} of them not found (searched: {history.searched}; --full searches all)"
        elif missing > 0:
            words += f"; the logs no longer hold {count(missing)} of them"
        elif len(shown) < len(history.lines):
            words += f", the last {_SHOWN} of them:"
        add("history", "", words)
        lines += [f"    {fetch_text(line, pen)}" for line in shown]
    add("next", "", explanation.next_text)
    return lines
