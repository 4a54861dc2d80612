"""The crawl, or the configuration, of a command that has neither -c nor --output.

Invariants: what is taken is printed on stderr. A command that steers or changes a crawl takes $CRAWLER_CONFIG, and
nothing that is only near: its error names the command that would do it. A file is not taken if another user may have
put it there.
"""

import os
import pwd
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from crawler.cli.output import say

VARIABLE: Final = "CRAWLER_CONFIG"
SYSTEM_CONFIGURATION: Final = Path("/etc/crawler/crawler.toml")
_CONFIGURATION: Final = Path("crawler.toml")
_CRAWLS: Final = Path("crawl")  # where `crawler crawl` puts crawls without output.directory
_LISTED: Final = 10

_NAME_IT: Final = "name the crawl by its configuration (-c FILE) or its output directory (--output DIR)"


@dataclass(frozen=True, slots=True)
class _Default:
    """A configuration or an output directory; `why` it, for a person."""

    config: Path | None
    output: Path | None
    why: str

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.config)] if self.config is not None else ["--output", str(self.output)]


def default_crawl(
    config: Path | None, overrides: tuple[str, ...], output: Path | None, *, changes: bool = False, here: bool = False
) -> tuple[Path | None, Path | None]:
    """Configuration and output directory as given, or the default of one of the two.

    `changes`: the command steers or changes the crawl; `here`: all the same it takes the crawl in whose directory it is
    called, if that belongs to this user. Raises UsageError if there is no default.
    """
    if config is not None or output is not None:
        return config, output
    found = _from_environment()
    if found is None:
        is_named = any(one.partition("=")[0].strip() == "output.directory" for one in overrides)
        found = (None if is_named else _here()) or _configuration_file() or (None if is_named else _only_crawl())
        if found is None:
            raise click.UsageError(_NAME_IT)
        if changes and not (here and found.output == Path() and _stranger(Path("run.json")) is None):
            raise click.UsageError(f"{_NAME_IT}{_found_here(found)}")
    say(f"using {found.why}")
    return found.config, found.output


def default_configuration(config: Path | None) -> Path | None:
    """The configuration as given, or the default; None if there is none."""
    if config is not None:
        return config
    found = _from_environment() or _configuration_file()
    if found is None:
        return None
    say(f"using {found.why}")
    return found.config


def no_seeds(config: Path | None) -> click.UsageError:
    """The error of `crawler crawl` without a URL, with the command for the configuration that is here."""
    found = None if config is not None else _from_environment() or _configuration_file()
    return click.UsageError(
        "no URL: name one, or put crawl.seeds into the configuration (-c FILE)" + (_found_here(found) if found else "")
    )


def require_configuration(config: Path | None) -> Path:
    """The configuration as given, or the default. Raises UsageError if there is none."""
    found = default_configuration(config)
    if found is None:
        raise click.UsageError(
            f"name the configuration (-c FILE): ${VARIABLE} is not set, and there is neither ./{_CONFIGURATION} nor "
            f"{SYSTEM_CONFIGURATION} that can be read. `crawler init` writes one"
        )
    return found


def _found_here(found: _Default) -> str:
    return f". The one found here: {_with_options(found.options)}"


def _from_environment() -> _Default | None:
    given = os.environ.get(VARIABLE)
    return _Default(Path(given), None, f"{given} (${VARIABLE})") if given else None


def _here() -> _Default | None:
    if not Path("run.json").exists():
        return None
    return _Default(None, Path(), f"the crawl in this directory, {Path.cwd()}")


def _configuration_file() -> _Default | None:
    """The configuration in the current directory, or of the service. Raises UsageError for one of another user."""
    if _CONFIGURATION.exists():
        for path in (_CONFIGURATION, Path("conf.d")):
            if (stranger := _stranger(path)) is not None:
                raise click.UsageError(
                    f"./{path} belongs to {stranger}, neither to you nor to root, so it is used only if you name it: "
                    f"{_with_options(['-c', str(_CONFIGURATION)])}"
                )
        return _Default(_CONFIGURATION, None, f"./{_CONFIGURATION}")
    if os.access(SYSTEM_CONFIGURATION, os.R_OK):
        return _Default(SYSTEM_CONFIGURATION, None, str(SYSTEM_CONFIGURATION))
    return None


def _only_crawl() -> _Default | None:
    """The crawl below ./crawl. Raises UsageError if there are several."""
    try:
        crawls: dict[Path, Path] = {}
        for path in sorted((_CRAWLS, *_CRAWLS.iterdir()), key=lambda path: (path.is_symlink(), path)):
            if _is_crawl(path):
                crawls.setdefault(path.resolve(), path)  # a link to one of them is no other
        found = sorted(crawls.values())
    except OSError:
        return None
    if len(found) > 1:
        listed = ", ".join(map(str, found[:_LISTED])) + (", …" if found[_LISTED:] else "")
        example = _with_options(["--output", str(found[0])])
        raise click.UsageError(f"several crawls are here: {listed}. Name one with --output DIR, as in {example}")
    return _Default(None, found[0], f"{found[0]}, the only crawl in ./{_CRAWLS}") if found else None


def _is_crawl(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "frontier.db").exists()


def _stranger(path: Path) -> str | None:
    """The owner of a file, or of the link to it, if that is neither this user nor root."""
    for status in (path.lstat, path.stat):
        try:
            owner = status().st_uid
        except FileNotFoundError:
            return None
        if owner not in (0, os.geteuid()):
            try:
                return f"user {pwd.getpwuid(owner).pw_name}"
            except KeyError:
                return f"user {owner}"
    return None


def _with_options(options: list[str]) -> str:
    """The command as it was called, with these options."""
    context = click.get_current_context()
    words = context.command_path.split()
    rest = list(context.find_root().obj or ())[len(words) - 1 :]
    return shlex.join([*words, *options, *rest])
