"""`crawler verify DIR`: check that the store, the archive, pages/ and the logs are whole and agree."""

from pathlib import Path

import click

from crawler.core.enums import Exit
from crawler.core.formatting import count, printable
from crawler.inspection.archive.verify import Checked, verify
from crawler.output_directory import find, insist_on_store

_SHOWN = 200


@click.command(name="verify")
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option("--all", "shows_all", is_flag=True, help=f"Print every finding, not only the first {_SHOWN}.")
def command(directory: Path, shows_all: bool) -> int:
    """Check an output directory, also while the crawl runs.

    Each finding is a line on standard output. Exit code 1 if there are any.
    """
    place = find(directory)
    insist_on_store(place.frontier, place.output)
    checked = Checked()
    found = 0
    for finding in verify(place, checked):
        found += 1
        if shows_all or found <= _SHOWN:
            click.echo(printable(finding))
    if not shows_all and found > _SHOWN:
        click.echo(f"… and {count(found - _SHOWN)} more")
    seen = (
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
        )
        if number
    ]
    verdict = count(found, "finding") if found else "no findings"
    click.echo(f"{verdict}: {seen}" + (f" ({', '.join(also)})" if also else ""), err=True)
    return Exit.FINDINGS if found else Exit.OK
