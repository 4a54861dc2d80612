"""Commands that change what is to be fetched: add, requeue, forget.

They go through the control socket of a running crawl. While none runs they open the store themselves, and a crawl that
starts meanwhile has to wait. What each does is in `engine/operations.py`. Invariant: both ways end in the same store
and print the same text.
"""

import asyncio
import errno
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

import click

from crawler.admin.control_client import Control
from crawler.cli.output import say
from crawler.cli.place import Located, locate, place_options, refuse_files
from crawler.core.enums import Exit
from crawler.core.formatting import count
from crawler.core.scope import Scope
from crawler.engine import operations
from crawler.frontier.base import Frontier, Recovered
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.inspection.archive.takedown_list import write_list
from crawler.inspection.log.query import host_names, host_test
from crawler.output_directory import insist_on_store

T = TypeVar("T")

_SLICE: Final = 1_000  # URLs in one request
_PATIENCE_S: Final = 3_600.0  # a takedown of a host with millions of URLs takes minutes


@click.command(name="add")
@click.argument("urls", nargs=-1, metavar="URL…|-")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.File(errors="replace"),
    help="A file with one URL per line; # begins a comment.",
)
@click.option("--priority", type=click.IntRange(-operations.MAX_PRIORITY, operations.MAX_PRIORITY), default=0,
              help="Smaller numbers are fetched first; links have 0.")  # fmt: skip
@place_options
def add(
    urls: tuple[str, ...],
    files: tuple[TextIO, ...],
    priority: int,
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
) -> int:
    """Queue URLs as seeds: from arguments, files, or standard input (-)."""
    if not urls and not files:
        raise click.UsageError("name URLs, --from FILE, or - for standard input")
    refuse_files(urls, "--from {} takes the URLs in it")
    located = locate(config, overrides, output)
    texts = _texts(urls, files)
    totals = {"added": 0, "known": 0}
    refused: list[dict[str, str]] = []

    def take(answer: dict[str, Any]) -> None:
        for name in totals:
            totals[name] += answer[name]
        for one in answer["refused"]:
            say(f"not added: {one['url']}: {one['reason']}: {one['rule']}")
        refused.extend(answer["refused"])

    if located.place.pid() is not None:
        with Control(located.place.socket) as control:
            for part in _slices(texts):
                take(control.call("add", {"urls": part, "priority": priority}))
    else:

        async def store(frontier: Frontier, recovered: Recovered) -> None:
            scope = _scope(located, recovered)
            for part in _slices(texts):
                found, out = operations.judge_added(part, scope, priority)
                take((await operations.add(frontier, found, out, time.time()))[1])

        with_store(located, store)
    click.echo(f"{count(totals['added'])} added, {count(totals['known'])} known already, {count(len(refused))} refused")
    return Exit.FINDINGS if refused else Exit.OK


@click.command(name="requeue")
@click.option("--error-type", "errors", multiple=True, metavar="WORD", help="E.g. connect_timeout, or a deny_reason.")
@click.option("--status", "statuses", multiple=True, metavar="CODE", help="E.g. 404, or 5xx.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help='Only of this host; "*.name": of all below it.')
@click.option("--file", "files", multiple=True, metavar="NAME", help="Everything that was stored in this lost file.")
@click.option("--dry-run", is_flag=True, help="Count what would be queued, and change nothing.")
@place_options
def requeue(
    errors: tuple[str, ...],
    statuses: tuple[str, ...],
    hosts: tuple[str, ...],
    files: tuple[str, ...],
    dry_run: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
) -> int:
    """Queue URLs again whose last attempt ended in an error or with a status, with all their attempts before them.

    Several values of one option are alternatives; different options must all hold. Exit code 1 if no host has the name.
    --file names a lost output file as warc/NAME; it works while no crawl runs and without other options.
    """
    if files:
        if errors or statuses or hosts or dry_run:
            raise click.UsageError("--file cannot be combined with other options")
        return _requeue_files(locate(config, overrides, output), [name.removesuffix(".open") for name in files])
    try:
        wanted = operations.ending(errors, statuses)
    except ValueError as error:
        raise click.UsageError(f"{error} (--error-type WORD, --status CODE)") from None
    hosts = host_names(hosts)
    located = locate(config, overrides, output)
    if located.place.pid() is not None:
        arguments = {"error_type": errors, "status": statuses, "host": hosts, "dry_run": dry_run}
        with Control(located.place.socket) as control:
            answer = control.call("requeue", arguments, timeout_s=_PATIENCE_S)
    else:

        async def store(frontier: Frontier, recovered: Recovered) -> dict[str, int] | None:
            ending = wanted
            if hosts:
                is_one = host_test(hosts)
                ids = tuple(row.id for row in recovered.hosts if is_one(row.origin.host.strip("[]")))
                ending = replace(wanted, host_ids=ids)
                if not ids:
                    return None
            counts = await frontier.requeue(ending, dry_run=dry_run)
            return {"urls": sum(counts.values()), "hosts": len(counts)}

        answer = with_store(located, store)
        if answer is None:
            say(f"the store knows no host {' or '.join(hosts)}")
            return Exit.FINDINGS
    would = "would be queued" if dry_run else "queued"
    click.echo(f"{count(answer['urls'], 'URL')} of {count(answer['hosts'], 'host')} {would} again")
    return Exit.OK


def _requeue_files(located: Located, names: Sequence[str]) -> int:
    if located.place.pid() is not None:
        raise click.UsageError("--file works while no crawl runs: a running one notices lost files itself")

    async def store(frontier: Frontier, recovered: Recovered) -> dict[int, int]:
        known = {f"{file.sink}/{file.name}" for file in recovered.sink_files}
        if strange := [name for name in names if name not in known]:
            raise click.UsageError(f"the store knows no output file {strange[0]} (--file warc/NAME, pages/NAME)")
        counts: Counter[int] = Counter()
        for name in names:
            counts.update(await frontier.lose_file(*name.split("/")))
        return counts

    counts = with_store(located, store)
    click.echo(f"{count(sum(counts.values()), 'URL')} of {count(len(counts), 'host')} queued again")
    return Exit.OK


@click.command(name="forget")
@click.argument("targets", nargs=-1, required=True, metavar="URL|HOST…")
@click.option("--no-scan", is_flag=True, help="Do not search the WARC files for its records.")
@place_options
def forget(
    targets: tuple[str, ...], no_scan: bool, config: Path | None, overrides: tuple[str, ...], output: Path | None
) -> int:
    """Take down a URL or a whole host: erase it from the store and never fetch it again.

    Its records in the WARC files are listed for removal in takedown.jsonl. Names and URLs are whole: patterns are
    refused. Exit code 1 if nothing of a target was known; it is never fetched all the same.
    """
    wanted = [operations.TakedownTarget.of(text) for text in targets]
    located = locate(config, overrides, output)
    place = located.place
    if place.pid() is not None:
        with Control(place.socket) as control:
            answer = control.call("forget", {"targets": [str(one) for one in wanted]}, timeout_s=_PATIENCE_S)
    else:

        async def store(frontier: Frontier, recovered: Recovered) -> dict[str, Any]:
            done = [(one, await operations.forget(frontier, one, time.time())) for one in wanted]
            hosts = [row.origin.host for row in recovered.hosts]
            return {"forgotten": [operations.told_of(one, erased, hosts) for one, erased in done]}

        answer = with_store(located, store)
    for one in answer["forgotten"]:
        _tell_forgotten(**one)
    listed = write_list(place, [] if no_scan else wanted, forgotten=wanted, now=time.time())
    click.echo(f"{count(listed.new, 'new record')} to remove, {count(listed.records)} in all, in {listed.path}")
    for problem in listed.problems:
        say(problem)
    missed = any(not one["urls"] and not one["again"] for one in answer["forgotten"])
    return Exit.FINDINGS if listed.problems or missed else Exit.OK


def _tell_forgotten(target: str, urls: int, again: bool, hosts_below: int) -> None:
    if urls:
        text = f"{count(urls, 'URL')} forgotten"
    elif again:
        text = "was already taken down"
    elif "/" in target:
        literal = ' ("*" is no pattern here)' if "*" in target else ""
        text = f"was not known{literal}; it will never be fetched"
    else:
        text = "no URL of this host was known; it will never be fetched"
    click.echo(f"{target}: {text}")
    if hosts_below:
        say(
            f"{count(hosts_below, 'host')} below {target} stay: take down each by its name, or stop all with "
            f"`crawler block {target}`"
        )


def _texts(urls: Sequence[str], files: Sequence[TextIO]) -> Iterator[str]:
    for url in urls:
        if url == "-":
            yield from _lines(line.decode("utf-8", "replace") for line in sys.stdin.buffer)
        else:
            yield url
    for file in files:
        yield from _lines(file)


def _lines(file: Iterable[str]) -> Iterator[str]:
    for line in file:
        text = line.strip()
        if text and not text.startswith("#"):
            yield text


def _slices(texts: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for text in texts:
        part.append(text)
        if len(part) == _SLICE:
            yield part
            part = []
    if part:
        yield part


def _scope(located: Located, recovered: Recovered) -> Scope:
    if located.rules is None:
        raise click.UsageError("the scope is not known: name the configuration (-c FILE)")
    scope = Scope(located.rules.scope, located.rules.seed_hosts, located.rules.traps)
    for host in recovered.scope_hosts:
        scope = scope.with_host(host)
    return scope


def with_store(located: Located, work: Callable[[Frontier, Recovered], Awaitable[T]]) -> T:
    """Run `work` on the store of a crawl that does not run; how its last run ended stays known."""
    path = located.place.frontier
    insist_on_store(path, located.place.output)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no store of a crawl", str(path))

    async def run() -> T:
        frontier = SqliteFrontier(path)
        recovered = await frontier.open()
        try:
            return await work(frontier, recovered)
        finally:
            await frontier.close(clean=recovered.clean)

    return asyncio.run(run())
