"""Commands that steer a running crawl: pause, resume, stop, reload, block, unblock, release, retry."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from crawler.admin.control_socket import Unreachable
from crawler.cli.crawl_options import connect_to_crawl, control_of, crawl_options, default_crawl, find_crawl
from crawler.cli.output import Pen, is_terminal, say, table, write_data
from crawler.cli.store_commands import with_store
from crawler.core.enums import Exit, RetryEffect
from crawler.core.formatting import count, date_time, printable
from crawler.engine import operations
from crawler.engine.scheduling.restrictions import DOMAIN, MAX_REASON, Blocklist, block_of, block_result, blocked_name
from crawler.frontier.base import Frontier, Recovered
from crawler.inspection.log.query import host_names
from crawler.settings.loading import load

STOP_TIMEOUT_S = 3_600.0  # `stop --wait`: longer than any drain


@click.command(name="pause")
@crawl_options
def pause(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Start no new request until `crawler resume`; those in flight are finished. A restart ends the pause."""
    with connect_to_crawl(config, overrides, output) as control:
        result = control.call("pause")
    click.echo("paused" if result["changed"] else "already paused")
    return Exit.OK


@click.command(name="resume")
@crawl_options
def resume(config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Go on after `crawler pause`."""
    with connect_to_crawl(config, overrides, output) as control:
        result = control.call("resume")
    if result["state"] == "paused":
        click.echo("resumed, but the crawl waits because nothing can be written: see `crawler status`")
    else:
        click.echo("resumed" if result["changed"] else "not paused")
    return Exit.OK


@click.command(name="stop")
@crawl_options
@click.option("--wait", is_flag=True, help="Return when the crawl has ended.")
def stop(config: Path | None, overrides: tuple[str, ...], output: Path | None, wait: bool) -> int:
    """Finish what is in flight, store it, and end: what SIGTERM does."""
    with connect_to_crawl(config, overrides, output) as control:
        result = control.call("stop")
        if not result["changed"]:
            say("already stopping")
        if wait and not control.wait_for_end(STOP_TIMEOUT_S):
            say("the crawl has not ended")
            return Exit.UNREACHABLE
    click.echo("stopped" if wait else f"stopping; {count(result['in_flight'], 'request')} in flight")
    return Exit.OK


@click.command(name="block")
@click.argument("name", metavar="HOST", required=False)
@crawl_options
@click.option("--reason", default="", help="The reason, shown by status, hosts and why.")
@click.option("--host-only", is_flag=True, help="Only this host, not the hosts below it.")
@click.option("--list", "as_list", is_flag=True, help="Print the blocked hosts; in a pipe, one JSON object per line.")
@click.option("--json", "as_json", is_flag=True, help="With --list: one JSON object per line, also on a terminal.")
def block(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    name: str | None,
    reason: str,
    host_only: bool,
    as_list: bool,
    as_json: bool,
) -> int:
    """Stop every request to HOST and all hosts below it, now and after every restart.

    Its connections are closed at once. Its URLs stay in the store, and are fetched when it is unblocked.
    """
    if as_list == (name is not None):
        raise click.UsageError("name one HOST, or use --list")
    if len(reason) > MAX_REASON:
        raise click.UsageError(f"--reason is longer than {count(MAX_REASON, 'character')}")
    if as_json and not as_list:
        raise click.UsageError("--json is for --list")
    crawl = find_crawl(config, overrides, output, changes=not as_list)
    if (control := control_of(crawl)) is not None:
        with control:
            if as_list:
                return _print(control.call("blocks"), as_json=as_json)
            result = control.call("block", {"name": name, "reason": reason, "host_only": host_only})
    elif as_list:

        async def read(frontier: Frontier, _: Recovered) -> list[dict[str, Any]]:
            return [asdict(one) for one in await frontier.blocks()]

        return _print(with_store(crawl, read), as_json=as_json)
    else:
        wanted = block_of(name or "", host_only=host_only, reason=reason, at=time.time())

        async def put(frontier: Frontier, _: Recovered) -> dict[str, Any]:
            blocks = Blocklist()
            blocks.load(await frontier.blocks())
            was = blocks.get(wanted.name)
            blocks.add(wanted)
            new, held = await frontier.block(wanted), blocks.get(wanted.name) or wanted
            covered = await operations.hosts_covered(frontier, held)
            return block_result(held, was, covered) | {"new": new, "connections_cut": 0}

        result = with_store(crawl, put)
    below = " and all below it" if result["kind"] == DOMAIN else ""
    blocked = f"blocked {result['name']}{below}"
    if not result["new"]:
        blocked = f"{result['name']}{below} was blocked already"
        if below and host_only:
            say("to block less, unblock it first")
    unknown = "" if result["hosts"] else "; no host of that name is known to this crawl: is it spelled right?"
    click.echo(
        f"{blocked}: {count(result['hosts'], 'host')}, {count(result['connections_cut'], 'connection')} closed{unknown}"
    )
    for line in block_lines(result):
        click.echo(line)
    return Exit.OK


def block_lines(result: Mapping[str, Any]) -> list[str]:
    """Lines about the block that there was before: what changed of it, or since when it has been and why."""
    was = result["was"]
    if was is None:
        return []
    if not result.get("new"):
        return [_since(was)]
    return [
        f"changed: {name} = {shown(result)}   (was {shown(was)})"
        for name, shown in (("covers", _covers), ("reason", _reason))
        if shown(result) != shown(was)
    ]


def _since(block: Mapping[str, Any]) -> str:
    return f"it had been blocked since {date_time(block['at'])}: {_covers(block)}; reason: {_reason(block)}"


def _covers(block: Mapping[str, Any]) -> str:
    return "it and below" if block["kind"] == DOMAIN else "it alone"


def _reason(block: Mapping[str, Any]) -> str:
    return printable(block["reason"]) or "none given"


@click.command(name="unblock")
@click.argument("name", metavar="HOST")
@crawl_options
def unblock(config: Path | None, overrides: tuple[str, ...], output: Path | None, name: str) -> int:
    """Allow requests to a blocked HOST again. Exit code 1 if it was not blocked."""
    crawl = find_crawl(config, overrides, output, changes=True)
    if (control := control_of(crawl)) is not None:
        with control:
            result = control.call("unblock", {"name": name})
        click.echo(f"unblocked {result['name']}: {count(result['hosts'], 'host')}")
        click.echo(_since(result["was"]))
        return Exit.OK
    host = blocked_name(name)

    async def remove(frontier: Frontier, _: Recovered) -> Blocklist:
        blocks = Blocklist()
        blocks.load(await frontier.blocks())
        await frontier.unblock(host)
        await frontier.unpark("blocked", at=0.0)
        return blocks

    before = with_store(crawl, remove)
    if (was := before.get(host)) is None:
        say(before.why_not(host))
        return Exit.FINDINGS
    click.echo(f"unblocked {host}")
    click.echo(_since(asdict(was)))
    return Exit.OK


def _print(blocks: list[dict[str, Any]], *, as_json: bool) -> int:
    if is_terminal() and not as_json:
        rows = [
            (printable(one["name"]), _covers(one), date_time(one["at"]), printable(one["reason"]))
            for one in blocks
        ]  # fmt: skip
        head = ("HOST", "COVERS", "BLOCKED AT", "REASON")
        lines = table(head, rows, (False,) * len(head), Pen()) if rows else ["nothing is blocked"]
        write_data(("\n".join(lines) + "\n").encode("utf-8", "replace"))
        return Exit.OK
    for one in blocks:
        write_data(orjson.dumps(one) + b"\n")
    return Exit.OK


@click.command(name="release")
@click.argument("name", metavar="HOST")
@click.option("--template", help="Only this URL template, as the log names it. Default: all of the host.")
@crawl_options
def release(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, name: str, template: str | None
) -> int:
    """Fetch the URLs of HOST that were set aside as endless. Exit code 1 if there are none."""
    crawl = find_crawl(config, overrides, output, changes=True)
    host = blocked_name(name)
    if (control := control_of(crawl)) is not None:
        with control:
            result = control.call("release", {"name": host} | ({} if template is None else {"template": template}))
    else:

        async def store(frontier: Frontier, _: Recovered) -> dict[str, Any]:
            host_ids = {row.id for row in await frontier.hosts_named(host)}
            released, _queued = await operations.release(frontier, host_ids, template, time.time())
            await frontier.unpark("traps", at=0.0, host_ids=host_ids)
            return {"templates": released}

        result = with_store(crawl, store)
    for one, urls in result["templates"].items():
        click.echo(f"released {one}: {count(urls, 'URL')} queued")
    if not result["templates"]:
        say(f"no URL template of {host} is suspected" if template is None else f"{template} is not suspected")
    return Exit.OK if result["templates"] else Exit.FINDINGS


RETRY_TIMEOUT_S = 3_600.0  # the URLs of a large store are looked through


@click.command(name="retry")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@crawl_options
def retry(config: Path | None, overrides: tuple[str, ...], output: Path | None, hosts: tuple[str, ...]) -> int:
    """Request hosts again that back off or are held, as soon as their delay allows.

    "*.name" stands for all hosts below a name. A URL of theirs that last failed so is queued again, and robots.txt that
    could not be read is requested anew. What the server itself asked for (Retry-After) is kept. Exit code 1 if no host
    has the name.
    """
    hosts = host_names(hosts)
    crawl = find_crawl(config, overrides, output, changes=True)
    if (control := control_of(crawl)) is not None:
        with control:
            result = control.call("retry", {"host": hosts}, timeout_s=RETRY_TIMEOUT_S)
    else:

        async def store(frontier: Frontier, _: Recovered) -> dict[str, Any] | None:
            ids = await operations.host_ids(frontier, hosts)
            return await operations.retry_stored(frontier, ids, time.time()) if ids else None

        result = with_store(crawl, store)
        if result is None:
            say(f"the store knows no host {' or '.join(hosts)}")
            return Exit.FINDINGS
    for line in retry_lines(result):
        click.echo(line)
    return Exit.OK


def retry_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Lines about what `retry` did: one for each host that it names, and their sums."""
    for one in result["hosts"]:
        match one["effect"]:
            case RetryEffect.WOKEN:
                text = f"woken; it backed off after {one['reason']}"
            case RetryEffect.ROBOTS:
                text = f"woken; its {one['reason']}, and is requested again"
            case RetryEffect.KEPT:
                text = f"waits until {date_time(one['until_at'])}, as its server asked ({one['reason']})"
            case RetryEffect.BLOCKED:
                text = "is blocked, or switched off by an override"
            case _:
                text = "neither backs off nor is held"
        yield f"{one['host']}: {text}"
    if more := sum(result["effects"].values()) - len(result["hosts"]):
        yield f"and {count(more, 'other host')}"
    if result["urls"]:
        yield f"{count(result['urls'], 'URL')} queued again"


RELOAD_TIMEOUT_S = 120.0  # a preview judges up to 200,000 URLs; the crawl goes on meanwhile


@click.command(name="reload")
@crawl_options
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def reload(config: Path | None, overrides: tuple[str, ...], output: Path | None, dry_run: bool, as_json: bool) -> int:
    """Have the daemon read its configuration again. It comes into force whole, or not at all.

    -c and --output only find the daemon: it reads the file, and the -o, that it was started with. Exit code 78 if the
    file is wrong: the current configuration then stays, and the daemon's log says so.
    """
    config, output = default_crawl(config, overrides, output, changes=True, here=True)
    try:
        control = connect_to_crawl(config, overrides, output, quiet=True)  # the daemon reports mistakes in the file
    except Unreachable:
        if config is not None:
            load(config, overrides, os.environ, "run")  # no daemon runs: raises ConfigurationError for mistakes
        raise
    with control:
        result = control.call("reload", {"dry_run": dry_run}, timeout_s=RELOAD_TIMEOUT_S)
    if as_json:
        write_data(orjson.dumps(result) + b"\n")
    else:
        click.echo("\n".join(change_lines(result)))
    return Exit.OK


def change_lines(result: Mapping[str, Any]) -> list[str]:
    """Lines about what changed, or would change."""
    changed, restart = result["changed"], result["needs_restart"]
    would = "would change" if result["dry_run"] else "changed"
    shown = [f"{would}: {one['key']} = {one['new']}   (was {one['old']})" for one in changed]
    if result["new_seeds"]:
        shown.append(f"{'would add' if result['dry_run'] else 'added'}: {count(result['new_seeds'], 'seed')}")
    if result["dry_run"] and result.get("file_seeds"):
        seeds = count(result["file_seeds"], "seed")
        shown.append(f"would read: {seeds} of changed seed files; those that the store does not know are added")
    if not changed:
        shown.append("nothing would change" if result["dry_run"] else "nothing changed")
    shown += [f"needs a restart: {key}" for key in restart]
    preview = result.get("preview", {})
    if preview.get("scope_changes"):
        shown += _preview(preview)
    return shown


def _preview(preview: Mapping[str, Any]) -> list[str]:
    at_least = "" if preview["complete"] else f" among the first {count(preview['judged'])} judged"
    shown = [
        f"queued URLs that fall out of scope: {count(preview['queued_dropped'])}{at_least}",
        f"denied URLs that come back: {count(preview['denied_back'])}{at_least}",
    ]
    compared = preview["hosts_compared"]
    of = f" among the first {count(compared)} compared" if compared < preview["hosts"] else ""
    for verb, words in (("come", "hosts that come into scope"), ("go", "hosts that go out of scope")):
        hosts, named = preview[f"hosts_{verb}_count"], preview[f"hosts_{verb}"]
        more = f" and {count(hosts - len(named))} more" if hosts > len(named) else ""
        shown.append(f"{words}{of}: {', '.join(named)}{more}" if hosts else f"{words}{of}: none")
    return shown
