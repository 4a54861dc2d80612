"""`crawler status`: how the running crawl stands, in a screenful or as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from crawler.cli.output import write_data
from crawler.cli.place import place_options, reach
from crawler.core.enums import Exit
from crawler.core.formatting import average, count, date_time, duration, event_fields, printable, rate, share, size

_IN_FLIGHT_SHOWN = 5
_WARNINGS_SHOWN = 5


@click.command(name="status")
@place_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(config: Path | None, overrides: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Say how the running crawl stands. Exit code 69 if none is running."""
    with reach(config, overrides, output) as control:
        status = control.call("status")
    if as_json:
        write_data(orjson.dumps(status) + b"\n")
    else:
        click.echo("\n".join(lines(status)))
    return Exit.OK


def lines(status: Mapping[str, Any]) -> list[str]:
    """The screenful."""
    counts, rates, urls = status["counts"], status["rates"], status["urls"]
    connections, flights = status["connections"], status["in_flight"]
    refused = counts.get("answers", counts["outcomes"]).get("http_error", 0)
    shown = [
        f"{status['crawl']} is {status['state']}: {printable(status['sentence'])}",
        f"  process      pid {status['pid']}, up {duration(status['elapsed_s'])}, {size(status['rss_bytes'])} memory",
        f"  output       {status['output']}",
        f"  pages        {count(counts['pages'])}, {rate(rates['pages_per_s'])}",
        f"  responses    {count(counts['responses'])}, {rate(rates['responses_per_s'])}, "
        f"{size(rates['bytes_per_s'])}/s; {count(counts['errors'], 'error')}, "
        f"{count(refused, 'HTTP error')} (4xx, 5xx), {count(counts['denied'])} denied",
        f"  queue        {count(urls['queued'])} queued, {count(urls['waiting'])} waiting, {count(urls['done'])} done, "
        f"{count(urls['denied'])} denied, {count(urls['gave_up'])} given up"
        + (f", {count(urls['suspect'])} suspects" if urls["suspect"] else ""),
        f"  hosts        {hosts_text(status['hosts'])}",
        f"  connections  {count(connections['open'])} open, {average(connections['requests_per_connection'])} requests "
        f"each, {count(connections['tls_handshakes'], 'handshake')}, {count(connections['tls_resumed'])} resumed",
        f"  processor    {share(rates['cpu_percent'] / 100)} of a core, event loop late by "
        f"{duration(rates['loop_lag_s'])}",
        f"  in flight    {count(len(flights))}",
    ]
    shown += [
        f"    {duration(one['age_s']):>12}  {one['stage']:<10}  {printable(one['url'])}"
        for one in flights[:_IN_FLIGHT_SHOWN]
    ]
    full = [one for one in status["memory"] if one["limit"] and one["held"] > 0.8 * one["limit"]]
    shown += [
        f"  nearly full  {one['name']}: {_amount(one, 'held')} of {_amount(one, 'limit')}"
        for one in full
        if one["name"] != "recent URL keys"  # takes all its room from the start
    ]
    if status["log_dropped"]:
        shown.append(f"  log          {count(status['log_dropped'], 'line')} lost")
    if warnings := status["warnings"][-_WARNINGS_SHOWN:]:
        shown.append("  last warnings")
        shown += [f"    {date_time(str(one['ts']))} UTC  {printable(warning_words(one))}" for one in warnings]
    return shown


def hosts_text(hosts: Mapping[str, int]) -> str:
    """Hosts by what they do: "31, 12 with work, 2 in backoff, 1 held"."""
    words = {"with_work": "with work", "backoff": "in backoff", "held": "held", "blocked": "blocked"}
    shown = [f"{count(hosts[word])} {text}" for word, text in words.items() if hosts[word] or word == "with_work"]
    return ", ".join([count(hosts["total"]), *shown])


def _amount(bounded: Mapping[str, Any], which: str) -> str:
    return size(bounded[which]) if bounded["unit"] == "bytes" else count(bounded[which])


def warning_words(warning: Mapping[str, Any]) -> str:
    """A logged event in a line, without what every event has."""
    return " ".join([warning["event"], *(f"{name}={text}" for name, text in event_fields(warning))])
