"""Commands on the store: add, requeue and forget change what is to be fetched; backup, export and verify read it.

Commands that change the store use the control socket of a running crawl. If none runs, they open the store themselves,
and a crawl that is started then must wait; the changes are in `engine/operations.py`. Commands that read the store work
at any time. Invariant: a change prints the same text, and results in the same store, whether a crawl runs or not.
"""

import asyncio
import csv
import errno
import io
import itertools
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

import click
import orjson

from crawler.cli.crawl_options import FoundCrawl, by_run_file, control_of, crawl_options, find_crawl, refuse_file_names
from crawler.cli.output import print_message, say, write_lines
from crawler.core.enums import DenyReason, Exit, UrlState
from crawler.core.formatting import count, printable, share, size
from crawler.core.scope import Scope
from crawler.core.url import NOT_UTF_8, UrlError, is_utf_8, parse_seed
from crawler.engine import operations
from crawler.frontier.base import Frontier, Recovered
from crawler.frontier.sqlite.database import OwnerLock
from crawler.frontier.sqlite.snapshots import HOST_FIELDS, URL_FIELDS, StoreBackup
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.inspection.archive.takedown_list import write_list
from crawler.inspection.archive.verify import Checked, verify
from crawler.inspection.log.query import host_names
from crawler.output_directory import CrawlPaths, find_paths, require_store

T = TypeVar("T")

_URLS_PER_REQUEST: Final = 1_000  # of a running crawl, which parses them
_URLS_PER_TRANSACTION: Final = 20_000
_REFUSED_SHOWN: Final = 10
_CHANGE_TIMEOUT_S: Final = 3_600.0  # a takedown of a host with millions of URLs takes minutes
_ROWS_PER_WRITE: Final = 512
_FINDINGS_SHOWN: Final = 200


@click.command(name="add")
@click.argument("urls", nargs=-1, metavar="URL…|-")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.File(errors="surrogateescape"),  # so a URL that is not UTF-8 is known as such
    help="A file with one URL per line; # begins a comment.",
)
@click.option("--priority", type=click.IntRange(-operations.MAX_PRIORITY, operations.MAX_PRIORITY), default=0,
              help="Smaller numbers are fetched first; links have 0.")  # fmt: skip
@crawl_options
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
    refuse_file_names(urls, "--from {} takes the URLs in it")
    crawl = find_crawl(config, overrides, output, changes=True)
    totals = Counter({"added": 0, "known": 0, "refused": 0, "sent": 0})
    shows = sys.stderr.isatty()

    def refuse(place: str, url: str, reason: str, rule: str) -> None:
        totals["refused"] += 1
        if totals["refused"] <= _REFUSED_SHOWN:
            say(f"not added: {url}: {reason}: {rule}{place and f' ({place})'}")

    def read() -> Iterator[tuple[str, str]]:
        for place, text in _given_urls(urls, files):
            if is_utf_8(text):
                yield place, text
            else:
                refuse(place, text, DenyReason.URL_INVALID, NOT_UTF_8)

    def add_up(part: Sequence[tuple[str, str]], result: dict[str, Any]) -> None:
        for name in ("added", "known", "sent"):
            totals[name] += result.get(name, 0)
        places = _places(part) if result["refused"] and totals["refused"] < _REFUSED_SHOWN else {}
        for one in result["refused"]:
            refuse(next(places.get(one["url"], iter(())), ""), **one)
        if shows and totals.total() > len(part):  # not the first
            sys.stderr.write(f"\r{count(totals.total(), 'URL')} read")

    if (control := control_of(crawl)) is not None:
        with control:
            for part in _in_slices(read(), _URLS_PER_REQUEST):
                urls_of_part = [text for _, text in part]
                add_up(part, control.call("add", {"urls": urls_of_part, "priority": priority}))
    else:

        async def store(frontier: Frontier, recovered: Recovered) -> None:
            scope = _scope(crawl, recovered)
            for part in _in_slices(read(), _URLS_PER_TRANSACTION):
                found, out = operations.judge_added((text for _, text in part), scope, priority)
                add_up(part, (await operations.add(frontier, found, out, time.time()))[1])

        with_store(crawl, store)
    if shows and totals.total() > _URLS_PER_REQUEST:
        sys.stderr.write("\n")
    if (more := totals["refused"] - _REFUSED_SHOWN) > 0:
        say(f"not added: {count(more, 'other URL')}")
    added, known, refused = (count(totals[name]) for name in ("added", "known", "refused"))
    sent = f", {count(totals['sent'])} sent to the agents of their hosts" if totals["sent"] else ""
    click.echo(f"{added} added, {known} known already, {refused} refused{sent}")
    return Exit.FINDINGS if totals["refused"] else Exit.OK


@click.command(name="requeue")
@click.option("--error-type", "errors", multiple=True, metavar="WORD", help="E.g. connect_timeout, or a deny_reason.")
@click.option("--status", "statuses", multiple=True, metavar="CODE", help="E.g. 404, or 5xx.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help='Only of this host; "*.name": of all below it.')
@click.option("--file", "files", multiple=True, metavar="NAME", help="Everything that was stored in this lost file.")
@click.option("--dry-run", is_flag=True, help="Count what would be queued, and change nothing.")
@crawl_options
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
        return _requeue_files(
            find_crawl(config, overrides, output, changes=True), [name.removesuffix(".open") for name in files]
        )
    try:
        wanted = operations.parse_endings(errors, statuses)
    except ValueError as error:
        raise click.UsageError(f"{error} (--error-type WORD, --status CODE)") from None
    hosts = host_names(hosts)
    crawl = find_crawl(config, overrides, output, changes=True)
    if (control := control_of(crawl)) is not None:
        arguments = {"error_type": errors, "status": statuses, "host": hosts, "dry_run": dry_run}
        with control:
            result = control.call("requeue", arguments, timeout_s=_CHANGE_TIMEOUT_S)
    else:

        async def store(frontier: Frontier, _: Recovered) -> dict[str, int] | None:
            ending = wanted
            if hosts:
                ids = await operations.host_ids(frontier, hosts)
                ending = replace(wanted, host_ids=ids)
                if not ids:
                    return None
            counts = await operations.requeue(frontier, ending, dry_run=dry_run)
            return {"urls": sum(counts.values()), "hosts": len(counts)}

        result = with_store(crawl, store)
        if result is None:
            say(f"the store knows no host {' or '.join(hosts)}")
            return Exit.FINDINGS
    would = "would be queued" if dry_run else "queued"
    click.echo(f"{count(result['urls'], 'URL')} of {count(result['hosts'], 'host')} {would} again")
    return Exit.OK


def _requeue_files(crawl: FoundCrawl, names: Sequence[str]) -> int:
    if crawl.paths.pid() is not None:
        raise click.UsageError("--file works while no crawl runs: a running crawl finds lost files itself")

    async def store(frontier: Frontier, recovered: Recovered) -> dict[int, int]:
        known = {f"{file.sink}/{file.name}" for file in recovered.sink_files}
        if unknown := [name for name in names if name not in known]:
            raise click.UsageError(f"the store knows no output file {unknown[0]} (--file warc/NAME, pages/NAME)")
        counts: Counter[int] = Counter()
        for name in names:
            counts.update(await frontier.lose_file(*name.split("/")))
        return counts

    counts = with_store(crawl, store)
    click.echo(f"{count(sum(counts.values()), 'URL')} of {count(len(counts), 'host')} queued again")
    return Exit.OK


@click.command(name="forget")
@click.argument("targets", nargs=-1, required=True, metavar="URL|HOST…")
@click.option("--no-scan", is_flag=True, help="Do not search the WARC files for its records.")
@crawl_options
def forget(
    targets: tuple[str, ...], no_scan: bool, config: Path | None, overrides: tuple[str, ...], output: Path | None
) -> int:
    """Take down a URL or a whole host: erase it from the store and never fetch it again.

    Its records in the WARC files are listed for removal in takedown.jsonl. Names and URLs are whole: patterns are
    refused. Exit code 1 if nothing of a target was known; it is never fetched all the same.
    """
    wanted = [operations.TakedownTarget.of(text) for text in targets]
    crawl = find_crawl(config, overrides, output, changes=True)
    if (control := control_of(crawl)) is not None:
        with control:
            result = control.call("forget", {"targets": [str(one) for one in wanted]}, timeout_s=_CHANGE_TIMEOUT_S)
    else:

        async def store(frontier: Frontier, _: Recovered) -> dict[str, Any]:
            done = []
            for one in wanted:
                erased = await operations.forget(frontier, one, time.time())
                below = await operations.hosts_below(frontier, one)
                done.append(operations.takedown_result(one, erased, below))
            return {"forgotten": done}

        result = with_store(crawl, store)
    for one in result["forgotten"]:
        _print_forgotten(**one)
    missed = any(not one["urls"] and not one["again"] for one in result["forgotten"])
    if control is not None and not crawl.paths.output.is_dir():  # no agent of this machine
        say(f"{crawl.paths.output} is not here: the same command where the files of the agents are lists their records")
        return Exit.FINDINGS if missed else Exit.OK
    listed = write_list(crawl.with_file().paths, [] if no_scan else wanted, forgotten=wanted, now=time.time())
    click.echo(f"{count(listed.new, 'new record')} to remove, {count(listed.records)} in all, in {listed.path}")
    for problem in listed.problems:
        say(problem)
    return Exit.FINDINGS if listed.problems or missed else Exit.OK


def _print_forgotten(target: str, urls: int, again: bool, hosts_below: int) -> None:
    if urls:
        text = f"{count(urls, 'URL')} forgotten"
    elif again:
        text = "was already taken down"
    elif "/" in target:
        literal = ' ("*" is no pattern here)' if "*" in target else ""
        text = f"was not known{literal}; it will never be fetched"
    else:
        text = "no URL of this host was known; none will ever be fetched"
    click.echo(f"{target}: {text}")
    if hosts_below:
        say(
            f"{count(hosts_below, 'host')} below {target} stay: take each down by its name, or block all with "
            f"`crawler block {target}`"
        )


def _given_urls(urls: Sequence[str], files: Sequence[TextIO]) -> Iterator[tuple[str, str]]:
    """The URLs with their places, which are empty for those on the command line."""
    for url in urls:
        if url == "-":
            yield from _lines("<stdin>", (line.decode("utf-8", "surrogateescape") for line in sys.stdin.buffer))
        else:
            yield "", url
    for file in files:
        yield from _lines(file.name, file)


def _lines(name: str, file: Iterable[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(file, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield f"{name}:{number}", text


def _places(part: Iterable[tuple[str, str]]) -> dict[str, Iterator[str]]:
    """The places of each URL in their order; of what is no URL, by its text."""
    found: dict[str, list[str]] = {}
    for place, text in part:
        try:
            name = parse_seed(text)[0]
        except UrlError:
            name = text
        found.setdefault(name, []).append(place)
    return {name: iter(places) for name, places in found.items()}


def _in_slices(urls: Iterator[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    while part := list(itertools.islice(urls, size)):
        yield part


def _scope(crawl: FoundCrawl, recovered: Recovered) -> Scope:
    if crawl.rules is None:
        raise click.UsageError("the scope is not known: name the configuration (-c FILE)")
    return Scope.by(crawl.rules, recovered.scope_hosts)


def with_store(crawl: FoundCrawl, work: Callable[[Frontier, Recovered], Awaitable[T]]) -> T:
    """Run `work` on the store of a crawl that does not run. The mark of how its last run ended stays as it is."""
    path = crawl.paths.frontier
    if crawl.database is None:
        require_store(path, crawl.paths.output)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "there is no store of a crawl", str(path))

    async def run() -> T:
        frontier = _frontier(crawl)
        recovered = await frontier.open()
        try:
            return await work(frontier, recovered)
        finally:
            await frontier.close(clean=recovered.clean)

    return asyncio.run(run())


def _frontier(crawl: FoundCrawl) -> Frontier:
    path = crawl.paths.frontier
    if crawl.database is None:
        return SqliteFrontier(path)
    from crawler.frontier.postgresql.store import PostgresFrontier  # its library is an extra

    dsn, password = crawl.database
    # Without the directory of an agent here, its name in the database is lock enough
    lock = OwnerLock(path.with_name(path.name + ".lock")) if path.parent.is_dir() else None
    return PostgresFrontier(dsn, password=password, lock=lock, agent=crawl.paths.agent, is_alone=True)


@click.group(name="frontier")
def frontier_group() -> int:
    """Move the store of a crawl."""
    return Exit.OK


@frontier_group.command(name="copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy_command(source: str, target: str) -> int:
    """Copy the store of a crawl from its directory to a PostgreSQL database, or from there to a directory.

    FROM and TO: a directory with frontier.db, or that file, and a URI postgresql://…; the password may be in PGPASSWORD
    or PGPASSFILE. The copy is compared with the original, table by table, and nothing is overwritten. No crawl may run.
    Then the crawl goes on with the other store: frontier.store names it.
    """
    from crawler.frontier.copying import copy_store  # its library is an extra

    counted = asyncio.run(copy_store(source, target))
    for table, rows in counted.items():
        if rows:
            click.echo(f"{table}: {count(rows, 'row')}, the same in both")
    return Exit.OK


@click.command(name="backup")
@click.argument("file", type=click.Path(path_type=Path))
@crawl_options
def backup(file: Path, config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Copy the store to FILE as it stands at this moment. To restore: put it in the place of frontier.db."""
    paths = find_crawl(config, overrides, output).with_file(is_kept=True).paths
    require_store(paths.frontier, paths.output)
    shows = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shows:
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{share(done / max(1, total))} of {size(total * 4096)}{end}")

    with StoreBackup(paths.frontier, is_live=paths.pid() is not None) as store:
        store.backup(file, progress)
    click.echo(f"{file}: {size(file.stat().st_size)}")
    return Exit.OK


@click.command(name="export")
@click.argument("what", type=click.Choice(["urls", "hosts"]))
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--state", type=click.Choice([str(state) for state in UrlState if state is not UrlState.FORGOTTEN]),
              help="Only URLs in this state.")  # fmt: skip
@crawl_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row: --format jsonl.")
def export(
    what: str,
    form: str,
    state: str | None,
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> int:
    """Write every URL or host of a crawl to standard output; times are UTC epoch seconds."""
    if what == "hosts" and state is not None:
        raise click.UsageError("--state selects URLs; hosts are exported without it")
    if as_json and form != "jsonl":
        raise click.UsageError(f"--json and --format {form} exclude each other")
    paths = find_crawl(config, overrides, output).with_file().paths
    with StoreBackup(paths.frontier, is_live=paths.pid() is not None) as store:
        fields = URL_FIELDS if what == "urls" else HOST_FIELDS
        rows = store.urls(state) if what == "urls" else store.hosts_listed()
        held: list[bytes] = []
        if form == "csv":
            rows = itertools.chain((fields,), rows)
        for row in rows:
            held.append(_csv(row) if form == "csv" else orjson.dumps(dict(zip(fields, row, strict=True))))
            if len(held) >= _ROWS_PER_WRITE:
                write_lines(held)
        write_lines(held)
    return Exit.OK


def _csv(row: tuple[Any, ...]) -> bytes:
    """One CSV record (RFC 4180) without its line end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue().encode()


@click.command(name="verify")
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path, readable=False), metavar="[DIRECTORY]…")
@crawl_options
@click.option("--all", "shows_all", is_flag=True, help=f"Print every finding, not only the first {_FINDINGS_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding, all of them, then the totals.")
def verify_command(
    directories: tuple[Path, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    shows_all: bool,
    as_json: bool,
) -> int:
    """Check an output directory, also while the crawl runs.

    Several directories: those of all agents of one crawl, which share a database. Each finding is a line on standard
    output. Exit code 1 if there are any.
    """
    if directories and (config is not None or output is not None):
        raise click.UsageError("name the crawl once: by DIRECTORY, -c or --output")
    named = [find_paths(one) for one in directories]
    found_crawl = by_run_file(named[0]) if named else find_crawl(config, overrides, output)
    _refuse_other_crawls(named)
    paths = found_crawl.with_file().paths
    require_store(paths.frontier, paths.output)
    checked = Checked()
    found = 0
    for finding in verify([paths, *named[1:]], checked):
        found += 1
        if as_json:
            click.echo(orjson.dumps({"event": "finding", "text": finding}))
        elif shows_all or found <= _FINDINGS_SHOWN:
            click.echo(printable(finding))
    if as_json:
        counts = {name: number for name, number in asdict(checked).items() if name != "archive"}
        click.echo(orjson.dumps({"event": "summary", "findings": found, **counts}))
    elif not shows_all and found > _FINDINGS_SHOWN:
        click.echo(f"… and {count(found - _FINDINGS_SHOWN)} more")
    checked_text = (
        f"{count(checked.records, 'record')} and {count(checked.pages, 'page')} in "
        f"{count(checked.files, 'file')}, "
        f"{count(checked.log_lines, 'log line')}"
    )
    also = [
        f"{count(number, noun)}{more}"
        for number, noun, more in (
            (checked.away, "closed file", " moved away"),
            (checked.lost, "file", " lost while it was written"),
            (checked.uncommitted, "byte", " not committed"),
            (checked.torn_lines, "incomplete log line", ""),
            (checked.elsewhere, "URL", " in files of other agents"),
        )
        if number
    ]
    verdict = count(found, "finding") if found else "no findings"
    print_message(f"{verdict}: {checked_text}" + (f" ({', '.join(also)})" if also else ""))
    return Exit.FINDINGS if found else Exit.OK


def _refuse_other_crawls(named: Sequence[CrawlPaths]) -> None:
    """Raise UsageError unless several directories are those of different agents."""
    if len(named) < 2:
        return
    for paths in named:
        if not paths.is_database:
            raise click.UsageError(f"{paths.output} has a store of its own: check it alone")
    agents = Counter(paths.agent for paths in named)
    agent, times = agents.most_common(1)[0]
    if times > 1:
        raise click.UsageError(f"{times} of these directories are of the agent {agent}: name each agent's once")
