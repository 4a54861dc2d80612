"""`crawler init`: a first configuration from three answers."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
import orjson

from crawler.cli.output import say
from crawler.core.enums import Exit

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
    "scope.hosts": 'What belongs to the crawl: "seed-hosts", "seed-domains", or a list of hosts.',
    "scope.exclude": 'URLs to leave out, as in ["/search/**", "**.zip"].',
    "scope.max_depth": "Links from a seed.",
    "scope.max_urls": "URLs, over the life of the directory.",
    "politeness.delay": "Time between two requests to one site.",
    "fetch.hours": 'When requests may leave, as in ["22:00-06:00"]; empty: always.',
    "recrawl.max_interval": "`crawler run` visits every page again after this time at the latest.",
}


@click.command(name="init")
@click.argument("file", type=click.Path(path_type=Path), default="crawler.toml")
@click.option("--url", help="URL to start from.")
@click.option("--contact", help="How site owners reach you: an e-mail address, or the URL of a page about the crawler.")
@click.option("--output", metavar="DIR", help="Directory for what is fetched. Default: crawl/HOST.")
def command(file: Path, url: str | None, contact: str | None, output: str | None) -> int:
    """Write a first configuration to FILE, crawler.toml if none is named.

    What is not given by options is asked on a terminal. A file that exists is left as it is.
    """
    if file.exists():
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
    click.echo(f"crawler crawl -c {file}")
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
    """What the loader says about an answer; "" if it can be used."""
    from crawler.settings.configuration_errors import ConfigurationError
    from crawler.settings.loading import load

    try:
        load(
            None, [f"{key}={_toml(value)}" for key, value in _overrides({**_PLACEHOLDERS, **answer}).items()], {}, "run"
        )
    except ConfigurationError as error:
        return error.problems[0].message
    return ""


def _default_output(url: str) -> str:
    from crawler.settings.loading import load

    settings = load(None, [f"crawl.seeds={_toml([url])}"], {}, "crawl").settings.with_default_output()
    return str(settings.output_directory)


def _text(answers: Mapping[str, str]) -> str:
    from crawler.settings.schema import keys, toml_text

    values = [_toml(value) for value in _overrides(answers).values()]
    lines = [_HEAD.format(url=values[0][1:-1], user_agent=values[1], output=values[2]).rstrip("\n")]
    section = ""
    for name, about in _KEYS.items():
        key = keys()[name]
        lines += [f"\n[{key.section}]"] if key.section != section else []
        lines += [f"# {about}", f"#{key.name} = {toml_text(key, key.default)}"]
        section = key.section
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return orjson.dumps(value).decode()  # a JSON string or list of strings is TOML too


def _write(file: Path, text: str) -> None:
    """Write a new file and read it as `crawler run` would. Raises OSError, ConfigurationError."""
    from crawler.settings.loading import load

    with file.open("x", encoding="utf-8") as opened:
        opened.write(text)
    for warning in load(file, (), {}, "run").warnings:
        say(f"warning: {warning}")
