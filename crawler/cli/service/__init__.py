"""`crawler install-service`: unit, account, example configuration, command, completions, man page, lnav formats."""

import shutil
import sys
from pathlib import Path

import click

from crawler.cli.output import say
from crawler.core.enums import Exit


@click.command(name="install-service")
@click.option("--instance", metavar="NAME", help="For one of several crawls: crawler@NAME, /etc/crawler/NAME.toml.")
@click.option("--dry-run", is_flag=True, help="Show every file as it would be written; write nothing.")
@click.option("--force", is_flag=True, help="Replace files that were changed; the old ones are kept as FILE.old.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=Path("/"), help="Write below this directory."
)
@click.option("--program", type=click.Path(path_type=Path), help="The crawler that the unit starts; else this one.")
def command(instance: str | None, dry_run: bool, force: bool, root: Path, program: Path | None) -> int:
    """Install the systemd unit, and completions, manual page and log formats.

    Nothing is started: the commands to do so are printed. An existing configuration is never changed. Files that an
    earlier version wrote are updated; a file that was changed since is not overwritten without --force.
    """
    from crawler.cli.manuals import man_page, script
    from crawler.cli.service import planned_files

    if instance is not None and not planned_files.is_instance(instance):
        raise click.BadParameter('letters, digits, ".", "_" and "-", a letter or digit first', param_hint="--instance")
    program = program or _this_program()
    if top := planned_files.hidden(program):
        say(f"warning: the unit hides {top} from the program, which is {program}; put it elsewhere, as in /opt/crawler")
    try:
        files = planned_files.plan(
            root=root, instance=instance, program=program, completions=script, man_page=man_page(),
            systemd=planned_files.systemd_version() if root == Path("/") else 0,
        )  # fmt: skip
    except planned_files.NoTemplates as missing:
        say(str(missing))
        return Exit.IO
    if dry_run:
        for file in files:
            if file.link_to is not None:
                click.echo(f"==> {file.path} ({file.state.value}, a link to {file.link_to})\n")
            else:
                click.echo(f"==> {file.path} ({file.state.value}, {len(file.content.encode())} bytes)")
                click.echo(file.content)
    changed = [] if force else planned_files.refused(files)
    for file in files:
        if file.link_to is not None and file.state is planned_files.InstallState.KEPT:
            say(f"{file.path} is another program, and stays; this one is {file.link_to}")
    for file in changed:
        say(f"{file.path} was changed; --force replaces it and keeps it as {file.path.name}{planned_files.OLD}")
    if changed:
        if not dry_run:
            say("nothing was written")
        return Exit.FINDINGS
    if dry_run:
        return Exit.OK
    for file, done in planned_files.write(files):
        click.echo(f"{file.path}  {done}")
    if root == Path("/"):
        planned_files.compile_program(planned_files.program_folders())
    if problem := planned_files.missing_directories(files):
        say(problem)
    click.echo("\nnext:")
    configuration = Path("/etc/crawler") / f"{instance or 'crawler'}.toml"
    command = planned_files.command_of(files, program, root=root)
    for step in planned_files.next_steps(instance, files, configuration, command):
        click.echo(f"  {step}")
    return Exit.OK


def _this_program() -> Path:
    """The command that runs, as a path that a unit can start."""
    beside = Path(sys.executable).parent / "crawler"
    if beside.is_file():
        return beside
    found = shutil.which("crawler")
    return Path(found).resolve() if found else Path("/opt/crawler/.venv/bin/crawler")
