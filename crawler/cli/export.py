"""Commands that copy the store, also while the crawl runs: `crawler backup FILE`, `crawler export urls|hosts`."""

import csv
import io
import itertools
import sys
from pathlib import Path
from typing import Any

import click
import orjson

from crawler.cli.output import write_lines
from crawler.cli.place import locate, place_options
from crawler.core.enums import Exit, UrlState
from crawler.core.formatting import share, size
from crawler.frontier.sqlite.backup import HOST_FIELDS, URL_FIELDS, StoreBackup
from crawler.output_directory import insist_on_store


@click.command(name="backup")
@click.argument("file", type=click.Path(path_type=Path))
@place_options
def backup(file: Path, config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
    """Copy the store to FILE as it stands at this moment. To restore: put it in the place of frontier.db."""
    place = locate(config, overrides, output).place
    insist_on_store(place.frontier, place.output)
    shows = sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shows:
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{share(done / max(1, total))} of {size(total * 4096)}{end}")

    with StoreBackup(place.frontier, is_live=place.pid() is not None) as store:
        store.backup(file, progress)
    click.echo(f"{file}: {size(file.stat().st_size)}")
    return Exit.OK


_BLOCK = 512  # rows a write


@click.command(name="export")
@click.argument("what", type=click.Choice(["urls", "hosts"]))
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--state", type=click.Choice([str(state) for state in UrlState if state is not UrlState.FORGOTTEN]),
              help="Only URLs in this state.")  # fmt: skip
@place_options
def export(
    what: str, form: str, state: str | None, config: Path | None, overrides: tuple[str, ...], output: Path | None
) -> int:
    """Write every URL or host of a crawl to standard output; times are UTC epoch seconds."""
    if what == "hosts" and state is not None:
        raise click.UsageError("--state is a URL's: hosts are listed whole")
    place = locate(config, overrides, output).place
    with StoreBackup(place.frontier, is_live=place.pid() is not None) as store:
        fields = URL_FIELDS if what == "urls" else HOST_FIELDS
        rows = store.urls(state) if what == "urls" else store.hosts_listed()
        held: list[bytes] = []
        if form == "csv":
            rows = itertools.chain((fields,), rows)
        for row in rows:
            held.append(_csv(row) if form == "csv" else orjson.dumps(dict(zip(fields, row, strict=True))))
            if len(held) >= _BLOCK:
                write_lines(held)
        write_lines(held)
    return Exit.OK


def _csv(row: tuple[Any, ...]) -> bytes:
    """One record as RFC 4180 has it, less the line's end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue().encode()
