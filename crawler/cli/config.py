"""Commands about the configuration: `crawler init` writes a first one from three answers, `crawler check` validates it,
`crawler config` shows it and writes its schema.
"""

import errno
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import orjson
import tomli

from crawler.cli.crawl_options import (
    config_option,
    default_configuration,
    load_settings,
    override_option,
    require_configuration,
)
from crawler.cli.output import print_message, say, write_data
from crawler.core.enums import Exit
from crawler.core.formatting import count
from crawler.settings.loading import Loaded
from crawler.settings.schema import OVERRIDE, SEED, TABLES, plain_toml
from crawler.settings.settings import masked_tables

_PLACEHOLDERS: Final = {"url": "https://example.org/", "contact": "a@example.org", "output": "crawl"}
_QUESTIONS: Final = {
    "url": "URL to start from",
    "contact": "How site owners reach you (e-mail address, or URL of a page about the crawler)",
    "output": "Directory for what is fetched",
}
_HEAD: Final = """\
# Configuration of a crawl. `crawler config show --default` has every key, with its meaning and default.

[crawl]
# Where to start.
seeds = [{url}]

[identity]
# Sent with every request, so that site owners can reach you.
user_agent = {user_agent}

[output]
# WARC files, pages, logs and the store; a relative path is taken from the directory of this file.
directory = {output}

# What follows stands here with its default: remove the "#" before what you change.
"""
# Keys that are commented out at their defaults, each with one line about it.
_KEYS: Final = {
    "scope.hosts": 'What belongs to the crawl: "seed-hosts", "seed-domains", "seed-prefix", or a list of hosts.',
    "scope.exclude": 'URLs to leave out, as in ["/search/**", "**.zip"].',
    "scope.max_depth": "Links from a seed.",
    "scope.max_urls": "URLs, over the life of the directory.",
    "politeness.delay": "Time between two requests to one site; longer while it responds slowly (adaptive).",
    "fetch.hours": 'When requests may leave, as in ["22:00-06:00"]; empty: always.',
    "recrawl.max_interval": "`crawler run` visits every page again after this time at the latest.",
}


@click.command(name="check")
@config_option
@override_option
@click.option("--no-environment", is_flag=True, help="Leave CRAWLER_… variables out.")
def check(config: Path | None, overrides: tuple[str, ...], no_environment: bool) -> int:
    """Validate a configuration as `crawler run` would read it.

    If a unit of systemd runs this configuration, also check what the unit allows: directories to write to, files to
    read, secrets. What is not allowed is printed with the lines and commands that allow it.
    """
    from crawler.cli.service.unit import refusals, unit_of
    from crawler.settings.loading import load

    config = require_configuration(config)
    environ = {} if no_environment else dict(os.environ)
    unit = unit_of(config)
    if unit is not None:
        environ |= unit.environment
        overrides = (*unit.overrides, *overrides)
    loaded = load(config, overrides, environ, "run")
    found = None if unit is None else refusals(unit, loaded, config)
    refused = loaded.settings.engine_configuration("run").refused_seeds()
    for warning in [*loaded.warnings, *refused, *(found.warnings if found else ())]:
        say(f"warning: {warning}")
    if unit is not None and found is not None and found.problems:
        print_message("\n".join(map(str, found.problems)))  # as a ConfigurationError is shown
        if found.drop_in:
            say(f"to allow it, `systemctl edit {unit.name}` with these lines, then `systemctl daemon-reload`:")
            print_message("\n".join(f"    {line}" for line in ("[Service]", *found.drop_in)))
        for line in found.commands:
            say(f"to allow it: {line}")
        return Exit.CONFIGURATION
    click.echo(
        f"{config}: ok, {count(loaded.settings.seed_count, 'seed')}, output {loaded.settings.output_directory}"
        + (f", run by {unit.name}" if unit is not None else "")
    )
    return Exit.OK


@click.group(name="config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command(name="show")
@config_option
@override_option
@click.option("--default", is_flag=True, help="The annotated file with every key at its default.")
@click.option("--origin", is_flag=True, help="Say where each value came from.")
@click.option("--for", "url", metavar="URL", help="Only the keys that an [[override]] may change, for URL.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a key.")
def show(
    config: Path | None, overrides: tuple[str, ...], default: bool, origin: bool, url: str | None, as_json: bool
) -> int:
    """Print the effective values; secrets are masked."""
    if default:
        from crawler.settings.schema import example_text

        click.echo(example_text(), nl=False)
        return 0
    loaded = load_settings(default_configuration(config), overrides, "crawl")
    if url is not None:
        origin, found = True, loaded.masked_for(_parsed(url))
    else:
        found = loaded.masked()
    section = ""
    for shown in found:
        if as_json:
            fields = {"key": shown.key, "value": shown.value, "origin": shown.origin, "restart": shown.restart}
            write_data(orjson.dumps(fields) + b"\n")
            continue
        head, _, name = shown.key.partition(".")
        if head in TABLES:  # it has no place outside of one
            click.echo(f"# {name} = {shown.text}  # {shown.origin}")
            section = head
            continue
        if head != section:
            click.echo(f"{chr(10) if section else ''}[{head}]")
            section = head
        comment = "  # " + ", ".join(part for part in (shown.origin if origin else "", shown.note) if part)
        # what is not set has no value that TOML could hold: as a comment, the output stays a configuration
        line = f"{name} = {shown.text}" if shown.text else f"#{name} ="
        click.echo(f"{line}{comment if len(comment) > 4 else ''}")
    if url is None:
        _show_tables(loaded, origin=origin, as_json=as_json)
    return 0


def _parsed(text: str) -> str:
    from crawler.core.url import UrlError, parse_typed

    try:
        return parse_typed(text)[0]
    except UrlError as error:
        raise click.UsageError(f"--for: {error}") from None


def _show_tables(loaded: Loaded, *, origin: bool, as_json: bool) -> None:
    settings = loaded.settings
    for table, places in ((OVERRIDE, settings.override_places), (SEED, settings.seed_places)):
        for place, one in zip(places, masked_tables(settings, table), strict=True):
            if as_json:
                value = {name: tomli.loads(f"x = {text}")["x"] for name, text in one.items()}
                write_data(orjson.dumps({"key": table, "value": value, "origin": place, "restart": False}) + b"\n")
                continue
            click.echo(f"\n[[{table}]]" + (f"  # {place}" if origin else ""))
            for name, text in one.items():
                click.echo(f"{name} = {text}")


@config_group.command(name="schema")
def schema() -> int:
    """Print the JSON schema of the configuration, for editors."""
    from crawler.settings.schema import schema_text

    click.echo(schema_text(), nl=False)
    return 0


# -- a first configuration


@click.command(name="init")
@click.argument("file", type=click.Path(path_type=Path), default="crawler.toml")
@click.option("--url", help="URL to start from.")
@click.option("--contact", help="How site owners reach you: an e-mail address, or the URL of a page about the crawler.")
@click.option("--output", metavar="DIR", help="Directory for what is fetched. Default: crawl/HOST.")
def init(file: Path, url: str | None, contact: str | None, output: str | None) -> int:
    """Write a first configuration to FILE, crawler.toml if none is named.

    What is not given by options is asked on a terminal. A file that exists is left as it is.
    """
    if os.path.lexists(file):
        raise click.UsageError(f"{file} exists, and is not overwritten: name another file, or change that one")
    given = {name: value for name, value in (("url", url), ("contact", contact), ("output", output)) if value}
    for name in given:
        if problem := _problem({name: given[name]}):
            raise click.UsageError(f"--{name}: {problem}")
    missing = [f"--{name}" for name in ("url", "contact") if name not in given]
    if sys.stdin.isatty():
        _ask(given)
    elif missing:
        raise click.UsageError(
            f"give {' and '.join(missing)}: nothing can be asked where standard input is no terminal"
        )
    given.setdefault("output", _default_output(given["url"]))
    if file.parent != Path():  # the key is relative to the file, the answer to the current directory
        given["output"] = str(Path(given["output"]).absolute())
    _write(file, _text(given))
    say(f"{file} was written; see what is commented out in it, then:")
    click.echo(shlex.join(["crawler", "crawl", "-c", str(file)]))
    return Exit.OK


def _ask(given: dict[str, str]) -> None:
    """Ask for what is not given, each again until it can be used."""
    for name, question in _QUESTIONS.items():
        default = _default_output(given["url"]) if name == "output" else None
        while name not in given:
            text = click.prompt(question, default=default, err=True).strip()
            if problem := _problem({name: text}):
                say(problem)
            else:
                given[name] = text


def _overrides(answers: Mapping[str, str]) -> dict[str, object]:
    from crawler.settings.schema import keys

    contact = answers["contact"]
    by = f"+{contact}" if "://" in contact else contact
    return {
        "crawl.seeds": [answers["url"]],
        "identity.user_agent": f"{keys()['identity.user_agent'].default} ({by})",
        "output.directory": answers["output"],
    }


def _problem(answer: Mapping[str, str]) -> str:
    """What the loader, or a crawl at its start, says about an answer; "" if it can be used."""
    from crawler.output_directory import other_files
    from crawler.settings.configuration_errors import ConfigurationError
    from crawler.settings.loading import load

    try:
        load(
            None,
            [f"{key}={plain_toml(value)}" for key, value in _overrides({**_PLACEHOLDERS, **answer}).items()],
            {},
            "run",
        )
    except ConfigurationError as error:
        return error.problems[0].message
    if "@" in urlsplit(answer.get("url", "")).netloc:
        return "a URL is crawled without user name and password: leave them out, and put them into identity.secrets"
    if "output" in answer and (others := other_files(Path(answer["output"]), None)):
        return f"{answer['output']} holds other files ({others[0]}, …) and no crawl: name a directory of its own"
    return ""


def _default_output(url: str) -> str:
    from crawler.settings.loading import load

    settings = load(None, [f"crawl.seeds={plain_toml([url])}"], {}, "crawl").settings.with_default_output()
    return str(settings.output_directory)


def _text(answers: Mapping[str, str]) -> str:
    from crawler.settings.schema import keys, toml_text

    values = [plain_toml(value) for value in _overrides(answers).values()]
    lines = [_HEAD.format(url=values[0][1:-1], user_agent=values[1], output=values[2]).rstrip("\n")]
    section = ""
    for name, about in _KEYS.items():
        key = keys()[name]
        lines += [f"\n[{key.section}]"] if key.section != section else []
        lines += [f"# {about}", f"#{key.name} = {toml_text(key, key.default)}"]
        section = key.section
    return "\n".join(lines) + "\n"


def _write(file: Path, text: str) -> None:
    """Write a new file and read it as `crawler run` would. Raises OSError, ConfigurationError."""
    from crawler.settings.loading import load

    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        if error.errno != errno.EEXIST:  # what is there of it would be taken for a configuration
            file.unlink(missing_ok=True)
        raise
    for warning in load(file, (), {}, "run").warnings:
        say(f"warning: {warning}")
