"""What an operator should look at in a running crawl, or in all agents of one, the most serious first.

Pure functions of the status. Invariant: what is as it should be is not in it, so that an empty list means all is well.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from crawler.core.enums import Bottleneck, CrawlState, LeftReason
from crawler.core.formatting import count, date_time, duration, event_fields, size

NEARLY_FULL: Final = 0.8  # of the limit of a structure in memory
_NEAR_THE_LIMIT: Final = 2  # times output.min_free
_INBOX_S: Final = 10.0  # agents take in what is in the inbox several times a second
_ALWAYS_FULL: Final = "recent URL keys"  # it is full from the start
_STOPS: Final[Mapping[str, str]] = {
    Bottleneck.OPERATOR: "`crawler resume` goes on",
    Bottleneck.DISK: "make room on the disk of the output directory; the crawl goes on by itself",
    Bottleneck.OUTAGE: "check this machine's network and name servers; the crawl goes on by itself",
}


def attention(
    status: Mapping[str, Any], stall: str, free_bytes: int | None, min_free_bytes: int
) -> list[dict[str, str]]:
    """Each with `level` (bad, warn), `text`, `advice` and `show`: which part of the page has more, "" for none.

    `status` is that of `crawler status --json`, `stall` what makes no progress; `free_bytes` are
    those on the disk of the output, None if unknown.
    """
    found = [
        *_stops(status, stall),
        *_disk(free_bytes, min_free_bytes),
        *_hosts(status["hosts"]),
        *_urls(status),
        *_process(status),
    ]
    found.sort(key=lambda one: one["level"])  # "bad" before "warn"
    return found


def fleet_attention(fleet: Mapping[str, Any]) -> list[dict[str, str]]:
    """The same of `crawler fleet --json`."""
    agents = fleet["agents"]
    found = []
    if not fleet["alive"]:
        found.append(_entry("bad", "no agent lives: nothing is crawled", "start one: `crawler run`"))
    for one in agents:
        if one["state"] == "overdue":
            since, lease = duration(one["renewed_s"]), duration(one["lease_s"])
            slots = f"; {count(one['slots'], 'slot')} {'is' if one['slots'] == 1 else 'are'} still its own"
            text = f"{one['name']} renewed its lease of {lease} {since} ago{slots if one['slots'] else ''}"
            found.append(_entry("bad", text, f"see whether {one['process']} runs and reaches the database"))
        elif one["crawl_state"] in (CrawlState.PAUSED, CrawlState.OUTAGE):
            text = f"{one['name']} stands still: {one['bottleneck']}"
            found.append(_entry("bad", text, _STOPS.get(one["bottleneck"], "")))
    if (free := fleet["free_slots"]) and fleet["alive"]:
        verb = "has" if free == 1 else "have"
        text = f"{count(free, 'slot')} of {count(fleet['slots'])} {verb} no agent"
        found.append(_entry("warn", text, "the agents that live take them over within seconds"))
    if fleet["inbox_waits_s"] > _INBOX_S:
        waits = duration(fleet["inbox_waits_s"])
        urls = fleet["inbox_urls"]
        text = f"{count(urls, 'URL')} {'is' if urls == 1 else 'are'} in the inbox, the first for {waits}"
        found.append(_entry("warn", text, "their owners do not take them in as fast as they are found"))
    found.sort(key=lambda one: one["level"])
    return found


def _entry(level: str, text: str, advice: str, show: str = "") -> dict[str, str]:
    return {"level": level, "text": text, "advice": advice, "show": show}


def _stops(status: Mapping[str, Any], stall: str) -> Iterator[dict[str, str]]:
    if stall:
        yield _entry("bad", stall, "the events have more; a restart loses nothing", "warnings")
    is_stopped = status["state"] in (CrawlState.PAUSED, CrawlState.OUTAGE)
    if is_stopped or (status["state"] == CrawlState.DRAINING and status["bottleneck"] == Bottleneck.DISK):
        yield _entry("bad", status["sentence"], _STOPS.get(status["bottleneck"], ""))


def _disk(free_bytes: int | None, min_free_bytes: int) -> Iterator[dict[str, str]]:
    if free_bytes is not None and min_free_bytes <= free_bytes < _NEAR_THE_LIMIT * min_free_bytes:
        yield _entry(
            "warn",
            f"{size(free_bytes)} are free on the disk of the output",
            f"the crawl pauses below output.min_free, {size(min_free_bytes)}",
        )


def _hosts(hosts: Mapping[str, int]) -> Iterator[dict[str, str]]:
    for state, text, advice in (
        (
            "held",
            "held: nothing is fetched, since robots.txt cannot be read",
            "it is tried again by itself, and at once by `crawler retry HOST`",
        ),
        (
            "backoff",
            "backing off after errors, 429 or 503",
            "requests go on by themselves when the time is over, or by `crawler retry HOST`",
        ),
        ("blocked", "blocked by the operator", "`crawler unblock HOST` lets requests go on"),
    ):
        if number := hosts[state]:
            verb = "is" if number == 1 else "are"
            yield _entry("warn", f"{count(number, 'host')} {verb} {text}", advice, f"hosts:{state}")


def _urls(status: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for reason, text, advice in (
        (LeftReason.LIMIT, "a limit", "scope.max_urls and scope.max_urls_per_host are the limits"),
        (LeftReason.BLOCKED, "a block", "`crawler unblock HOST` ends a block, `crawler block --list` has all"),
    ):
        if number := status["held_back_by"][reason]:
            verb = "is" if number == 1 else "are"
            yield _entry("warn", f"{count(number, 'queued URL')} {verb} held back by {text}", advice)
    if number := status["urls"]["suspect"]:
        yield _entry(
            "warn",
            f"{count(number, 'URL')} {'is' if number == 1 else 'are'} set aside in parts that look endless",
            "`crawler hosts` lists the hosts; `crawler release HOST` fetches what is set aside",
        )


def _process(status: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    if warnings := status["warnings"]:
        last = warnings[-1]
        text = " ".join(f"{name}={value}" for name, value in event_fields(last))
        yield _entry(
            "bad" if last["level"] in ("error", "critical") else "warn",
            f"last warning: {last['event']} at {date_time(str(last['ts']))}, {text}"[:300],
            f"{count(len(warnings), 'warning')} in the log lately",
            "warnings",
        )
    if lost := status["log_dropped"]:
        yield _entry("bad", f"{count(lost, 'log line')} could not be written", "look at the disk of log.directory")
    for one in status["memory"]:
        if one["limit"] and one["held"] > NEARLY_FULL * one["limit"] and one["name"] != _ALWAYS_FULL:
            shown = size if one["unit"] == "bytes" else count
            yield _entry(
                "warn", f"{one['name']}: {shown(one['held'])} of {shown(one['limit'])}", "a limit is near", "memory"
            )
