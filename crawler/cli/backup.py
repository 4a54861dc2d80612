"""`crawler backup FILE`: a consistent copy of the store, also while the crawl runs."""

import sys
from pathlib import Path

import click

from crawler.cli.place import locate, place_options
from crawler.core.enums import Exit
from crawler.core.formatting import share, size
from crawler.frontier.sqlite.backup import StoreBackup
from crawler.inspection.place import insist_on_store


@click.command(name="backup")
@click.argument("file", type=click.Path(path_type=Path))
@place_options
def command(file: Path, config: Path | None, overrides: tuple[str, ...], output: Path | None) -> int:
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
