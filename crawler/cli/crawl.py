"""Commands that fetch: `crawler crawl URL…` from start to end, with a live view and a summary; `crawler run` as a
service; `crawler fetch URL`, one URL with every step shown.
"""

import faulthandler
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from crawler.cli.crawl_options import (
    config_option,
    load_settings,
    no_seeds,
    override_option,
    refuse_file_names,
    require_configuration,
    shorthand_options,
    shorthand_overrides,
)
from crawler.cli.output import not_written, say, write_data
from crawler.core.enums import Exit, LeftReason, StoppedBy
from crawler.core.formatting import count, counts, date_time, duration, local_time
from crawler.core.outcomes import UrlCounts
from crawler.core.scope import Overrides, option_text
from crawler.core.url import parse_seed
from crawler.settings.schema import plain_toml
from crawler.settings.settings import DEFAULT_ORIGIN

if TYPE_CHECKING:
    from crawler.app import Result
    from crawler.engine.monitoring.bottleneck import Backlog
    from crawler.engine.monitoring.ending import Ending
    from crawler.frontier.base import Totals
    from crawler.settings.loading import Loaded
    from crawler.settings.settings import Settings

_TEMPLATES_SHOWN: Final = 10  # of suspects
_OVERRIDES_SHOWN: Final = 3  # of those with max_urls


@click.command(name="crawl")
@click.argument("urls", nargs=-1, metavar="URL...")
@config_option
@override_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="Directory for all files; an earlier crawl in it is continued.",
)
@click.option("--again", is_flag=True, help="Visit everything once more that was visited before (a round).")
@click.option("--max-duration", metavar="TIME", help='Stop after this long, e.g. "10m".')
@shorthand_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
def crawl_command(
    urls: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    again: bool,
    max_duration: str | None,
    as_json: bool,
    **shorthands: Any,
) -> int:
    """Crawl from URLs until nothing is left to do.

    With an output directory that was used before, the crawl continues where it stopped; the default is crawl/HOST,
    named after the host of the first URL. A URL without a scheme is https.
    """
    from crawler.app import View, run, with_seeds
    from crawler.output_directory import other_files
    from crawler.settings.loading import load

    refuse_file_names(urls, "-o crawl.seed_files={} takes the seeds in it")
    made = shorthand_overrides(shorthands, overrides)
    if max_duration is not None:
        made.append(f"crawl.max_duration={plain_toml(max_duration)}")
    given = [*overrides, *made]
    if output is not None and str(output) in ("", "."):
        raise click.UsageError("--output needs the name of a directory of its own")
    if output is not None:
        given.append(f"output.directory={plain_toml(str(output))}")
    if urls:
        given.append("crawl.seed_files=[]")
    settings = load_settings(config, tuple(given), "crawl", shorthands=made).settings
    if urls:
        settings = with_seeds(settings, list(urls))
    if settings.first_seed is None:
        raise no_seeds(config)
    settings = settings.with_default_output()
    if others := other_files(settings.output_directory, config):
        named = others[0] + (", …" if others[1:] else "")
        raise click.UsageError(
            f"{settings.output_directory} holds other files ({named}) and no crawl: take a directory of its own, "
            f"e.g. --output {shlex.quote(str(settings.output_directory / 'crawl'))}"
        )

    def read_again() -> "Loaded":
        loaded = load(config, given, os.environ, "crawl")
        found = with_seeds(loaded.settings, list(urls)) if urls else loaded.settings
        return replace(loaded, settings=found.with_default_output())

    is_terminal = sys.stderr.isatty()
    if is_terminal and settings.log.stderr == "auto":
        from crawler.cli.progress import Progress

        with Progress() as progress:

            def on_start(totals: "Totals") -> None:
                for sentence in _start_sentences(settings, totals):
                    progress.say(sentence)

            result = run(
                settings,
                mode="crawl",
                view=View(
                    progress.update,
                    output=progress,
                    on_start=on_start,
                    on_seeds=lambda done, total: progress.say(_seeds_sentence(done, total)),
                    tell=progress.say,
                ),
                configuration=str(config) if config else None,
                read_again=read_again if config else None,
                again=again,
            )
    else:
        result = run(
            settings,
            mode="crawl",
            view=View(tell=say),
            configuration=str(config) if config else None,
            read_again=read_again if config else None,
            again=again,
        )
    if as_json:
        write_data(orjson.dumps(result.summary) + b"\n")
    elif is_terminal:
        from rich.console import Console

        from crawler.cli.progress import summary_table

        Console(stderr=True).print(summary_table(result.summary | result.details))
    elif isinstance(last := result.summary["round"], Mapping):
        found = counts({name: last[name] for name in ("unchanged", "changed", "gone", "failed", "new")})
        rest = "; it is not over, the same command goes on with it"
        if last["ended"]:
            is_of_before = result.visited_at is not None and last["visited"] + last["new"] > 0
            rest = "; all in runs before, this one found nothing left of it" if is_of_before else ""
        say(f"round {last['number']}: {count(last['visited'])} visited again{found and ', ' + found}{rest}")
    if result.seeds_refused:
        say("every seed that responded did so with an HTTP error")
        for one in result.seeds_refused:
            say(one)
    _print_failures(result.details["failures"])
    if result.output_problems or result.gone:
        return not_written(result.output_problems, unstored=result.unstored, gone=result.gone)
    return _exit_code(result, settings)


def _seeds_sentence(done: int, total: int) -> str:
    return f"{count(done)} of {count(total, 'seed')} stored"


def _start_sentences(settings: "Settings", totals: "Totals") -> Iterator[str]:
    """What is about to happen, and what was done before in this output directory."""
    politeness, seeds = settings.politeness_options(), settings.seed_count
    more = f" and {count(seeds - 1, 'other seed')}" if seeds > 1 else ""
    robots = "obeyed" if politeness.robots == "obey" else "ignored"
    speed = "no delay between requests"
    if politeness.delay_s > 0:
        speed = f"at least {duration(politeness.delay_s)} between two requests to a {politeness.key}"
    yield f"Crawling {settings.first_seed}{more} into {settings.output_directory}: robots.txt is {robots}, {speed}."
    urls = UrlCounts.of({name: getattr(totals, name) for name in totals.__slots__})
    if urls.found > urls.left:
        yield f"Continued: {count(urls.found, 'URL')} found before: {urls.text()}."


def _print_failures(failures: Mapping[str, int]) -> None:
    """Print how many URLs failed in the end, by their last failure."""
    if failures:
        say(f"{count(sum(failures.values()), 'URL')} failed in the end: {counts(failures)}")


def _exit_code(result: "Result", settings: "Settings") -> int:
    """Print what is left and why; returns the exit code."""
    end = result.ending
    by_reason = [str(_with_limits(one, settings) if one.reason is LeftReason.LIMIT else one) for one in end.left]
    left = f"{count(end.urls.left, 'URL')} {'is' if end.urls.left == 1 else 'are'} left"
    if end.stopped_by is StoppedBy.WAITING and result.opens_at is not None:
        say(f"fetch.hours are closed until {local_time(result.opens_at)}; {left}, the same command continues with them")
        return end.exit_code
    if result.seed_problems:
        say("no seed responded")
        for problem in result.seed_problems:
            say(problem)
        return Exit.FINDINGS
    match end.stopped_by:
        case StoppedBy.WAITING:
            command = "the same command" if result.summary["round"] is None else "`crawler crawl` without --again"
            say(f"{left} that may not be requested within crawl.linger; {command} continues with them")
        case StoppedBy.SIGNAL | StoppedBy.OPERATOR if end.left:
            say(f"stopped; {left}, the same command continues with them")
            return end.exit_code
        case StoppedBy.MAX_DURATION if end.left:
            limit = duration(settings.crawl.max_duration or 0.0)
            say(f"stopped after crawl.max_duration = {limit}; {left}, the same command continues with them")
            return end.exit_code
        case StoppedBy.DISK if end.left:
            say(f"nothing could be stored for as long as crawl.linger; {left}, the same command continues with them")
        case _ if len(by_reason) == 1:
            by_reason = [f"left: {by_reason[0]}"]
        case _ if end.left:
            say(left)
    for one in by_reason:
        say(one)
    if result.visited_at is not None and end.stopped_by is StoppedBy.EMPTY and not result.summary["round"]:
        urls = end.urls
        all_of = (
            f"all {count(urls.found, 'URL')} were fetched before" if urls.fetched == urls.found > 1 else urls.text()
        )
        say(f"{all_of}, last on {date_time(result.visited_at)}; `crawler crawl --again` visits them anew")
    _print_suspects(end)
    if result.seeds_refused and not end.left:  # all that there was to do is done, and no seed was served
        return end.exit_code or Exit.FINDINGS
    return end.exit_code


def _with_limits(held: "Backlog", settings: "Settings") -> "Backlog":
    """URLs that are held back by a limit, with the limits that may do so: those of their host if it is one."""
    overrides, limits = Overrides(settings.host_overrides()), ["max_urls", "max_urls_per_host"]
    by_override = [(one.hosts[0], one) for one in overrides.all if one.max_urls]
    if held.hosts == 1 and held.example:
        deciding = overrides.deciding(parse_seed(held.example)[1].host, "max_urls")
        by_override = [deciding] if deciding is not None and deciding[1].max_urls else []
        limits = limits if deciding is None else ["max_urls"]
    of_scope = {name: getattr(settings.scope, name) for name in limits}
    named = [f"scope.{name} = {value}" for name, value in of_scope.items() if value is not None]
    named += [option_text(one, "max_urls") for one in by_override[:_OVERRIDES_SHOWN]]
    if (more := len(by_override) - _OVERRIDES_SHOWN) > 0:
        named.append(f"max_urls of {count(more, 'other override')}")
    return replace(held, text=f"held back by {' or '.join(named)}") if named else held


def _print_suspects(end: "Ending") -> None:
    """Print which URL templates were left because their pages look endless, and what to do."""
    for host, one in end.suspects[:_TEMPLATES_SHOWN]:
        say(f"{count(one.urls, 'URL')} of {host} like {one.template}, for example {', '.join(one.examples)}")
    if (more := len(end.suspects) - _TEMPLATES_SHOWN) > 0:
        say(f"and {count(more, 'other URL template')}: `crawler hosts` lists their hosts")
    if end.suspects:
        host = end.suspects[0][0]
        say(f'`crawler release {host}` fetches them; with traps.detect = "report" none are held back')


@click.command(name="run")
@config_option
@override_option
@click.option(
    "--agents",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Start N processes that share a PostgreSQL store, each with an output directory of its own, and keep them "
    "running.",
)
@click.option("--end-with-stdin", is_flag=True, hidden=True)
def run_command(config: Path | None, overrides: tuple[str, ...], agents: int | None, end_with_stdin: bool) -> int:
    """Crawl until stopped, and visit pages again, each as often as it changes.

    The first SIGTERM drains, the second ends at once; SIGHUP reloads.
    """
    from crawler import daemon

    daemon.defer_hangups()
    if end_with_stdin:
        daemon.end_with_stdin()
    path = require_configuration(config)
    if agents is not None:
        faulthandler.enable()
        return _run_agents(agents, path, overrides)
    from crawler.app import View, run
    from crawler.settings.loading import load

    def on_seeds(done: int, total: int) -> None:
        say(_seeds_sentence(done, total))

    faulthandler.enable()  # at SIGABRT from the watchdog the stacks of all threads are printed
    settings = load_settings(path, overrides, "run").settings
    result = run(
        settings,
        mode="run",
        view=View(console=True, on_seeds=on_seeds if sys.stderr.isatty() else None, tell=say),
        configuration=str(path),
        read_again=lambda: load(path, overrides, os.environ, "run"),
    )
    if result.output_problems or result.gone:
        return not_written(result.output_problems, unstored=result.unstored, gone=result.gone)
    return Exit.OK


def _run_agents(number: int, path: Path, overrides: tuple[str, ...]) -> int:
    """Run several agents of one configuration to their end. Returns the exit code."""
    from crawler import agent_processes

    loaded = load_settings(path, overrides, "run")
    settings = loaded.settings
    if settings.frontier.store != "postgresql":
        raise click.UsageError('--agents needs frontier.store = "postgresql": a SQLite file has one process')
    for file in (path, *map(Path, settings.crawl.seed_files)):
        if not file.is_file():
            raise click.UsageError(f"{file} is no file that each of --agents can read for itself")
    is_named = loaded.origins["frontier.agent"] != DEFAULT_ORIGIN
    command = [sys.executable, "-P", "-m", "crawler", "run", "--end-with-stdin", "-c", str(path)]
    command += [word for one in overrides for word in ("-o", one)]
    try:
        found = agent_processes.agents_of(settings, settings.frontier.agent if is_named else "", number, command)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return agent_processes.run(found, settings, say)


@click.command(name="fetch")
@click.argument("url")
@config_option
@override_option
@click.option("--no-robots", is_flag=True, help="Do not request robots.txt: fetch the URL whatever it says.")
@click.option("--links", "all_links", is_flag=True, help="List every link; without, the first few.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def fetch_command(
    url: str, config: Path | None, overrides: tuple[str, ...], no_robots: bool, all_links: bool, as_json: bool
) -> int:
    """Fetch one URL and show every step of it, and what a crawl would do with the response.

    robots.txt is requested first and obeyed. Nothing is stored. Exit code 1: there was no complete response with a
    status below 400, or a crawl with this configuration would not request it.
    """
    import uvloop

    from crawler.trace.facts import facts
    from crawler.trace.terminal import show
    from crawler.trace.tracer import trace

    settings = load_settings(config, overrides, "crawl").settings

    def on_wait(seconds: float, why: str) -> None:
        if sys.stderr.isatty():
            say(f"waiting {duration(seconds)} ({why})")

    found = facts(uvloop.run(trace(settings, url, robots=not no_robots, on_wait=on_wait)))
    if as_json:
        write_data(orjson.dumps(found) + b"\n")
    else:
        show(found, all_links=all_links)
    return Exit.OK if found["is_fine"] else Exit.FINDINGS
