"""`crawler status`: how the running crawl stands, in a screenful or as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from crawler.cli.daemon import reach
from crawler.cli.look import counted
from crawler.cli.place import place_options
from crawler.cli.streams import write_data
from crawler.core.vocabulary import Exit

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
    counts, rates, urls, hosts = status["counts"], status["rates"], status["urls"], status["hosts"]
    connections, flights = status["connections"], status["in_flight"]
    resting = (
        ", ".join(f"{hosts[word]} {word}" for word in ("backoff", "held", "blocked") if hosts[word]) or "0 resting"
    )
    shown = [
        f"{status['crawl']} is {status['state']}: {status['sentence']}",
        f"  process      pid {status['pid']}, up {_duration(status['elapsed_s'])}, {_size(status['rss_bytes'])} memory",
        f"  output       {status['output']}",
        f"  pages        {counts['pages']}, {rates['pages_per_s']:.1f}/s",
        f"  responses    {counts['responses']}, {rates['responses_per_s']:.1f}/s, {_size(rates['bytes_per_s'])}/s; "
        f"{counted(counts['errors'], 'error')}, "
        f"{counted(counts['outcomes'].get('http_error', 0), 'HTTP error')} (4xx, 5xx), {counts['denied']} denied",
        f"  queue        {urls['queued']} queued, {urls['waiting']} waiting, {urls['done']} done, "
        f"{urls['denied']} denied, {urls['gave_up']} given up",
        f"  hosts        {hosts['total']}, {hosts['with_work']} with work, {resting}",
        f"  connections  {connections['open']} open, {connections['requests_per_connection']} requests each, "
        f"{connections['tls_handshakes']} handshakes, {connections['tls_resumed']} resumed",
        f"  processor    {rates['cpu_percent']:.0f} % of a core, event loop late by {rates['loop_lag_s'] * 1e3:.0f} ms",
        f"  in flight    {len(flights)}",
    ]
    shown += [f"    {one['age_s']:6.1f} s  {one['stage']:<10}  {one['url']}" for one in flights[:_IN_FLIGHT_SHOWN]]
    full = [one for one in status["memory"] if one["limit"] and one["held"] > 0.8 * one["limit"]]
    shown += [
        f"  nearly full  {one['name']}: {one['held']} of {one['limit']} {one['unit']}"
        for one in full
        if one["name"] != "recent URL keys"  # takes all its room from the start
    ]
    if status["log_dropped"]:
        shown.append(f"  log          {status['log_dropped']} lines lost")
    shown += [f"  {warning['ts']}  {_words(warning)}" for warning in status["warnings"][-_WARNINGS_SHOWN:]]
    return shown


def _words(warning: Mapping[str, Any]) -> str:
    left_out = {"ts", "event", "level", "crawl", "run_id"}
    return " ".join([warning["event"], *(f"{key}={value}" for key, value in warning.items() if key not in left_out)])


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1_024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_024
    return f"{size:.1f} GiB"
