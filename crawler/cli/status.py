"""`crawler status` and `crawler fleet`: the status of the running crawl, and of all agents of one, as text or JSON."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from crawler.admin.attention import fleet_attention
from crawler.cli.crawl_options import connect_to_daemon, crawl_options, find_database
from crawler.cli.output import Pen, table, write_data
from crawler.core.enums import Exit
from crawler.core.formatting import (
    average,
    count,
    date_time,
    duration,
    event_fields,
    printable,
    rate,
    share,
    size,
)
from crawler.core.outcomes import outcomes_text, urls_text
from crawler.core.url import SLOTS

if TYPE_CHECKING:
    from crawler.frontier.postgresql.fleet_control import FleetView

LABEL_WIDTH: Final = 13
_IN_FLIGHT_SHOWN: Final = 5
_WARNINGS_SHOWN: Final = 5
_LEVELS: Final[Mapping[str, str]] = {"bad": "problem", "warn": "look"}


@click.command(name="status")
@crawl_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(config: Path | None, overrides: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Show the status of the running crawl. Exit code 69 if none is running."""
    with connect_to_daemon(config, overrides, output) as control:
        status = control.call("status")
    if as_json:
        write_data(orjson.dumps(status) + b"\n")
    else:
        click.echo("\n".join(lines(status)))
    return Exit.OK


def lines(status: Mapping[str, Any]) -> list[str]:
    """The status as lines for a screen."""
    flights = status["in_flight"]
    shown = [
        f"{status['crawl']} is {status['state']}: {printable(status['sentence'])}",
        f"  {'process':<{LABEL_WIDTH}}pid {status['pid']}, up {duration(status['elapsed_s'])}",
        f"  {'output':<{LABEL_WIDTH}}{status['output']}",
        *_page_lines(status),
    ]
    shown += [f"  {label:<{LABEL_WIDTH}}{text}" for label, text, _ in attention_lines(status)]
    shown += [f"  {label:<{LABEL_WIDTH}}{''.join(text for text, _ in pieces)}" for label, pieces in figures(status)]
    shown.append(f"  {'in flight':<{LABEL_WIDTH}}{count(len(flights))}")
    shown += [
        f"    {duration(one['age_s']):>12}  {one['stage']:<10}  {printable(one['url'])}"
        for one in flights[:_IN_FLIGHT_SHOWN]
    ]
    if status["scheduled_at"] is not None:
        shown.append(f"  {'schedule':<{LABEL_WIDTH}}visits anew at {date_time(status['scheduled_at'])}")
    if warnings := status["warnings"][-_WARNINGS_SHOWN:]:
        shown.append("  last warnings")
        shown += [f"    {date_time(str(one['ts']))}  {printable(warning_text(one))}" for one in warnings]
    return shown


def attention_lines(status: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What needs attention, as the status page has it: a label, the text and a style for each line."""
    if not (found := status["attention"]):
        return [("attention", "nothing: the crawl does what it should", "")]
    return [
        (
            "attention" if number == 0 else "",
            f"{_LEVELS[one['level']]}: {printable(one['text'])}{'; ' if one['advice'] else ''}{one['advice']}",
            "red" if one["level"] == "bad" else "yellow",
        )
        for number, one in enumerate(found)
    ]


def _page_lines(status: Mapping[str, Any]) -> list[str]:
    """Where the status page is, and the token for its actions."""
    if (listen := status.get("listen")) is None:
        return []
    shown = [f"  {'status page':<{LABEL_WIDTH}}{listen if listen.startswith('/') else f'http://{listen}/'}"]
    if (file := status.get("token_file")) is not None:
        try:
            token = Path(file).read_text().strip()
        except OSError as error:
            token = f"in {file}, which cannot be read: {error.strerror}"
        shown.append(f"  {'token':<{LABEL_WIDTH}}{token}")
    return shown


def figures(status: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The figures of a status: labels, each with pieces of text and their styles."""
    counts, rates, urls, hosts = status["counts"], status["rates"], status["urls"], status["hosts"]
    connections, fleet = status["connections"], status.get("fleet")
    buffers = [one for one in status["memory"] if one["unit"] == "bytes" and one["limit"]]
    held, limit = sum(one["held"] for one in buffers), sum(one["limit"] for one in buffers)
    return [
        ("pages", [(f"{count(counts['pages'])} in this run, {rate(rates['pages_per_s'])}", "")]),
        ("attempts",
         [(f"{count(sum(counts['outcomes'].values()))}: ", ""),
          (outcomes_text(counts["outcomes"]) or "none", "red" if counts["errors"] else "")]),
        ("responses",
         [(f"{count(counts['responses'])}{_auxiliary(counts)}, {rate(rates['responses_per_s'])}, "
           f"{size(rates['bytes_per_s'])}/s", "")]),
        ("URLs", [(urls_text(urls, status["held_back_by"]), "")]),
        ("hosts", [(hosts_text(hosts), "yellow" if hosts["backoff"] + hosts["held"] else "")]),
        ("connections",
         [(f"{count(connections['open'])} open, {count(connections['idle'])} idle; ", ""),
          (average(connections["requests_per_connection"]), "bold"),
          (f" requests each, {count(connections['tls_handshakes'], 'handshake')}, "
           f"{count(connections['tls_resumed'])} resumed", "")]),
        ("processor",
         [(f"{share(rates['cpu_percent'] / 100)} of a core, event loop late by {duration(rates['loop_lag_s'])}", "")]),
        ("memory", [(f"{size(status['rss_bytes'])}, {size(held)} of {size(limit)} in buffers", "")]),
        *([("agents", [(_fleet_text(fleet), "")])] if fleet else []),
    ]  # fmt: skip


def _fleet_text(fleet: Mapping[str, Any]) -> str:
    """What an agent knows of those that share its database."""
    return (
        f"{count(fleet['alive'])} alive; {fleet['agent']} has {count(fleet['slots'], 'slot')}, renewed its lease "
        f"{duration(fleet['renewed_s'])} ago, and had to wait {duration(fleet['look_s'])} for the database; "
        f"{count(fleet['inbox_urls'], 'URL')} in the inbox"
    )


def _auxiliary(counts: Mapping[str, Any]) -> str:
    """How many of the responses are not to pages: a robots.txt that is not there counts among the HTTP errors."""
    number = counts["auxiliary"]
    return f" ({count(number)} to robots.txt, sitemaps, feeds and probes)" if number else ""


def hosts_text(hosts: Mapping[str, int]) -> str:
    """Counts of hosts by state: "31, 12 with work, 2 in backoff, 1 held"."""
    labels = {"with_work": "with work", "backoff": "in backoff", "held": "held", "blocked": "blocked"}
    shown = [f"{count(hosts[word])} {text}" for word, text in labels.items() if hosts[word] or word == "with_work"]
    return ", ".join([count(hosts["total"]), *shown])


def warning_text(warning: Mapping[str, Any]) -> str:
    """A warning of the log in one line, without the fields that all events have."""
    return " ".join([warning["event"], *(f"{name}={text}" for name, text in event_fields(warning))])


# -- all agents of a crawl

_HEAD: Final = ("AGENT", "STATE", "RENEWED", "SLOTS", "PAGES/s", "QUEUED", "INBOX", "BOTTLENECK", "PROCESS")
_RIGHT: Final = (False, False, True, True, True, True, True, False, False)
_AGENT_STYLES: Final[Mapping[str, str]] = {"alive": "green", "overdue": "red", "left": "dim"}


@click.command(name="fleet")
@crawl_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def fleet_command(config: Path | None, overrides: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Show all agents that share the database of a crawl.

    It reads the database alone, from any machine. Exit code 69 if no agent lives.
    """
    from crawler.frontier.postgresql.fleet_control import read_fleet  # its library is an extra

    found = fleet_json(asyncio.run(read_fleet(*find_database(config, overrides, output))))
    if as_json:
        write_data(orjson.dumps(found) + b"\n")
    else:
        write_data(("\n".join(fleet_lines(found)) + "\n").encode("utf-8", "replace"))
    return Exit.OK if found["alive"] else Exit.UNREACHABLE


def fleet_json(view: "FleetView") -> dict[str, Any]:
    """The agents and the whole crawl, as `crawler fleet --json` has them."""
    agents = [
        {
            "name": one.name,
            "state": "left" if one.has_left else "alive" if one.lives else "overdue",
            "process": one.process,
            "renewed_s": round(one.renewed_s, 3),
            "lease_s": one.lease_s,
            "slots": one.slots,
            "pages_per_s": one.status.get("pages_per_s") if one.lives else None,
            "crawl_state": one.status.get("state") if one.lives else None,
            "bottleneck": one.status.get("bottleneck") if one.lives else None,
            "queued": one.queued,
            "inbox_urls": one.inbox_urls,
        }
        for one in view.agents
    ]
    totals = view.totals
    found: dict[str, Any] = {
        "at": round(time.time(), 3),
        "database": view.address,
        "alive": sum(one.lives for one in view.agents),
        "agents": agents,
        "slots": SLOTS,
        "free_slots": view.free_slots,
        "inbox_urls": view.inbox_urls,
        "inbox_waits_s": round(view.inbox_waits_s, 3),
        "pages": view.pages,
        "pages_per_s": round(sum(one.status.get("pages_per_s", 0.0) for one in view.agents if one.lives), 2),
        "urls": {
            "queued": totals.queued, "waiting": totals.waiting, "done": totals.done, "denied": totals.denied,
            "gave_up": totals.gave_up, "suspect": totals.suspect,
        },
        "hosts": {"total": totals.hosts, "with_work": totals.hosts_with_work},
    }  # fmt: skip
    return found | {"attention": fleet_attention(found)}


def fleet_lines(fleet: Mapping[str, Any]) -> list[str]:
    """The agents as lines for a screen: what needs attention, a table, the whole crawl."""
    pen = Pen()
    by_state = Counter(one["state"] for one in fleet["agents"])
    more = "".join(f", {count(number)} {state}" for state, number in by_state.items() if state != "alive")
    alive = f"{count(fleet['alive'], 'agent')} {'lives' if fleet['alive'] == 1 else 'live'}"
    lines = [f"{alive}{more} in {printable(fleet['database'])}"]
    lines += [f"  {label:<{LABEL_WIDTH}}{pen(text, style)}" for label, text, style in attention_lines(fleet)]
    rows = [
        (
            printable(one["name"]),
            one["state"],
            f"{duration(one['renewed_s'])} ago",
            count(one["slots"]),
            "" if one["pages_per_s"] is None else f"{one['pages_per_s']:.1f}",
            "" if one["queued"] is None else count(one["queued"]),
            count(one["inbox_urls"]),
            one["bottleneck"] or "",
            printable(one["process"]),
        )
        for one in fleet["agents"]
    ]
    styles = [["bold", _AGENT_STYLES[one["state"]], *[""] * (len(_HEAD) - 2)] for one in fleet["agents"]]
    lines += ["", *table(_HEAD, rows, _RIGHT, pen, styles), ""]
    hosts, free = fleet["hosts"], fleet["free_slots"]
    for label, text in (
        ("pages", f"{count(fleet['pages'])} since the crawl began, {rate(fleet['pages_per_s'])} now"),
        ("URLs", urls_text(fleet["urls"])),
        ("hosts", f"{count(hosts['total'])}, {count(hosts['with_work'])} with work"),
        ("slots", f"{count(fleet['slots'])}, {count(free) if free else 'none'} free"),
        ("inbox", f"{count(fleet['inbox_urls'], 'URL')} that the owners of their slots have not taken in yet"),
    ):
        lines.append(f"  {label:<{LABEL_WIDTH}}{text}")
    return lines
