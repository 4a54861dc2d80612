"""`crawler top`: a live view of the running crawl: bottleneck, rates, requests in flight, hosts.

It requests the status over the control socket each second and draws it. Hosts are read from the store every
HOSTS_EVERY_S, unless there are more than HOSTS_AT_MOST. Nothing is changed.
Invariant: while no daemon responds, the screen says so, and the connection is tried again until the user ends it.
"""

import itertools
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
import orjson

from crawler.admin.control_socket import Control, Unreachable
from crawler.cli.crawl_options import connect_to_daemon, crawl_options, default_crawl, find_crawl
from crawler.cli.output import is_terminal, write_lines
from crawler.cli.status import LABEL_WIDTH, attention_lines, figures, warning_text
from crawler.cli.status import lines as status_lines
from crawler.core.enums import Exit
from crawler.core.formatting import count, date_time, duration, printable, rate
from crawler.core.options import PolitenessOptions
from crawler.core.scope import Overrides
from crawler.frontier.base import FrontierError
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.hosts import SORTS, HostView, views
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.url_history import present_state

HOSTS_EVERY_S: Final = 5.0
HOSTS_AT_MOST: Final = 20_000  # a store with more hosts is not read every few seconds
_REMEMBERED: Final = 120
_ATTENTION_SHOWN: Final = 3
_HIGH: Final = 30  # lines of a screen with room for three warnings
_ATTENTION_FROM: Final = 22  # lines of a screen; the head without it, a request in flight and a host come first
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_STATE_STYLES: Final = {
    "crawling": "green",
    "idle": "green",
    "paused": "yellow",
    "draining": "yellow",
    "lingering": "yellow",
}
_HOST_STYLES: Final = {"blocked": "red", "held": "red", "backoff": "yellow", "ready": "green", "new": "dim"}

Line = list[tuple[str, str]]  # pieces of text, each with a style
Status = Mapping[str, Any]


@click.command(name="top")
@crawl_options
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, help="Seconds between two updates."
)
@click.option("-n", "--count", "frames", type=click.IntRange(min=1), help="End after this many updates.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an update: what `status --json` prints.")
def command(
    config: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    interval: float,
    frames: int | None,
    as_json: bool,
) -> int:
    """Watch the running crawl. `q` or Ctrl-C leaves; exit code 69 if none runs."""
    config, output = default_crawl(config, overrides, output)
    with connect_to_daemon(config, overrides, output) as control:
        first = control.call("status")
    poller = _StatusPoller(lambda: connect_to_daemon(config, overrides, output, quiet=True))
    try:
        if as_json or not is_terminal():
            return _piped(poller, interval, frames, as_json=as_json)
        return _on_terminal(poller, _HostList(Path(first["output"])), interval, frames)
    except KeyboardInterrupt:
        return Exit.OK


class _StatusPoller:
    """Requests the status from the daemon, over a new connection if the last one ended."""

    def __init__(self, connect: Callable[[], Control]) -> None:
        self._connect = connect
        self._control: Control | None = None
        self.problem = ""

    def poll(self) -> Status | None:
        """Return the status; None if the daemon does not respond: `problem` then says why."""
        self.problem = ""
        try:
            if self._control is None:
                self._control = self._connect()
            status: Status = self._control.call("status")
        except Unreachable as error:
            if self._control is not None:
                self._control.close()
            self._control = None
            self.problem = str(error)
            return None
        return status


class _HostList:
    """The hosts to be shown, read from the store: those that back off first, then those with the most queued."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._due_mono = 0.0
        self._views: list[HostView] = []

    def first(self, limit: int, status: Status) -> list[HostView]:
        if status["hosts"]["total"] > HOSTS_AT_MOST:
            return []
        if time.monotonic() >= self._due_mono:
            self._due_mono = time.monotonic() + HOSTS_EVERY_S
            self._views = []
            with suppress(FrontierError, OSError):  # a temporary error, or one that `crawler hosts` reports
                self._views = self._read(limit)
        return self._views[:limit]

    def _read(self, limit: int) -> list[HostView]:
        paths = find_crawl(None, (), self._output).paths
        with RotatedLog(paths.events_log) as log:
            state = present_state(log, paths.run_id)
        politeness = paths.rules.politeness if paths.rules is not None else PolitenessOptions()
        overrides = Overrides(paths.rules.overrides if paths.rules is not None else ())
        with StoreReader(paths.frontier, is_live=True) as reader:
            found = views(reader, politeness, {}, state.states, state.open, now=time.time(), overrides=overrides)
        found.sort(key=SORTS["state"])
        return found[: max(limit, 50)]


def _piped(poller: _StatusPoller, interval_s: float, frames: int | None, *, as_json: bool) -> int:
    """Print the status again and again; as text, each ends with an empty line. Raises Unreachable, ReaderGone."""
    for shown in itertools.count(1):
        status = poller.poll()
        if status is None:
            raise Unreachable(poller.problem)
        if as_json:
            write_lines([orjson.dumps(status)])
        else:
            write_lines([line.encode("utf-8", "replace") for line in (*status_lines(status), "")])
        if shown == frames:
            break
        time.sleep(interval_s)
    return Exit.OK


def _on_terminal(poller: _StatusPoller, hosts: _HostList, interval_s: float, frames: int | None) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    history: deque[float] = deque(maxlen=_REMEMBERED)
    last: Status | None = None
    with _Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        for shown in itertools.count(1):
            status = poller.poll()
            if status is not None:
                last = status
                history.append(status["rates"]["responses_per_s"])
            height = console.size.height
            lines = frame(
                last, history, hosts.first(height, last) if last is not None else [], poller.problem,
                height=height, width=console.size.width, now=time.time(),
            )  # fmt: skip
            text = Text(no_wrap=True, overflow="ellipsis", end="")
            for i, line in enumerate(lines):
                text.append("\n" if i else "")
                for piece, style in line:
                    text.append(piece, style or None)
            live.update(text, refresh=True)
            if shown == frames or keys.pressed(interval_s) in ("q", "Q"):
                break
    return Exit.OK


def frame(
    status: Status | None,
    history: Sequence[float],
    hosts: Sequence[HostView],
    problem: str,
    *,
    height: int,
    width: int,
    now: float,
) -> list[Line]:
    """The lines of a screen: the head, then requests in flight, hosts and warnings in the room that is left."""
    if status is None:
        return [[("● ", "red"), (problem, "bold red")]]
    lines = _head(status, history, width, attention=max(0, min(_ATTENTION_SHOWN, height - _ATTENTION_FROM)))
    if problem:
        lines[0] = [("● ", "red"), (printable(problem), "bold red"), ("; trying again. The last status:", "red")]
    left = height - len(lines) - 1
    flights, warnings = status["in_flight"], status["warnings"]
    warned = min(len(warnings), 3 if height >= _HIGH else 1)
    for_hosts = min(len(hosts), max(0, (left - warned - 4) // 2))
    for_flights = max(0, left - for_hosts - warned - (2 if for_hosts else 0) - (2 if warned else 0) - 2)
    lines += _flights(flights, for_flights)
    if for_hosts:
        lines += _host_lines(hosts[:for_hosts], now)
    if warned:
        lines += [[], [("last warnings", "bold")]]
        lines += [
            [(f"  {date_time(str(one['ts']))[11:]}  ", "dim"), (printable(warning_text(one)), "yellow")]
            for one in warnings[-warned:]
        ]
    return lines[:height]


def _head(status: Status, history: Sequence[float], width: int, *, attention: int) -> list[Line]:
    colour = _STATE_STYLES.get(status["state"], "yellow")
    recent = sparkline(list(history)[-max(10, width - 40) :])
    labelled = [
        ("bottleneck", [(printable(status["sentence"]), "bold")]),
        ("recently", [(rate(status["rates"]["responses_per_s"]), "bold"), ("  ", ""), (recent, "cyan")]),
        *((label, [(text, style)]) for label, text, style in attention_lines(status)[:attention]),
        *figures(status),
    ]
    return [
        [("● ", colour), (f"{status['crawl']} is {status['state']}", f"bold {colour}"),
         (f"  up {duration(status['elapsed_s'])}, pid {status['pid']}", "dim")],
        *([(f"  {label:<{LABEL_WIDTH}}", "dim"), *pieces] for label, pieces in labelled),
    ]  # fmt: skip


def _flights(flights: Sequence[Mapping[str, Any]], room: int) -> list[Line]:
    more = f", the {room} oldest" if 0 < room < len(flights) else ""
    lines: list[Line] = [[], [(f"in flight: {len(flights)}{more}", "bold")]]
    for one in flights[:room]:
        style = "red" if one["age_s"] > 20 else "yellow" if one["age_s"] > 5 else ""
        connection = "" if one["conn_id"] is None else f"#{one['conn_id']}.{one['requests']}"
        lines.append(
            [(f"  {duration(one['age_s']):>12}  ", style), (f"{one['stage']:<10}  ", ""), (f"{connection:>9}  ", "dim"),
             (printable(one["url"]), "")]
        )  # fmt: skip
    return lines


def _host_lines(hosts: Sequence[HostView], now: float) -> list[Line]:
    lines: list[Line] = [[], [("hosts", "bold")]]
    for view in hosts:
        left = "" if view.until_at is None or view.until_at <= now else f" {duration(view.until_at - now)}"
        lines.append(
            [(f"  {printable(view.host)[:36]:<36}  ", ""),
             (f"{view.state + left:<16}", _HOST_STYLES.get(view.state, "")),
             (f"{count(view.queued):>10} queued  {view.ok}/{view.errors} ok/err  ", ""), (printable(view.why), "dim")]
        )  # fmt: skip
    return lines


def sparkline(values: Sequence[float]) -> str:
    """A small plot in text: one column for each value; the highest value fills the line."""
    top = max(values, default=0.0)
    if top <= 0:
        return _SPARKS[0] * len(values)
    return "".join(_SPARKS[min(7, int(value / top * 7.999))] for value in values)


class _Keys:
    """Reads single keys from the terminal, without Enter. On exit it restores the mode of the terminal."""

    def __enter__(self) -> "_Keys":
        self._before: list[Any] | None = None
        if sys.stdin.isatty():
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, within_s: float) -> str:
        """The key that is pressed within `within_s`, "" if none is."""
        if self._before is None:
            time.sleep(within_s)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], within_s)
        return sys.stdin.read(1) if ready else ""
