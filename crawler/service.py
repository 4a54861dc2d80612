"""What stands around a running crawl: its status, the control socket and what its commands do. Part of the composition
root.

It decides nothing about the crawl. Invariant: whatever is opened here is closed again, also when the crawl fails.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from crawler import __version__, daemon
from crawler.admin.commands import QUIET, Commands, brief
from crawler.admin.control_server import Arguments, Caller, ControlServer
from crawler.admin.metrics import exposition
from crawler.core.formatting import timestamp
from crawler.engine.engine import Engine
from crawler.engine.monitoring.event_log import REMEMBERED, EventLog
from crawler.engine.monitoring.status import Bounded
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.answer import table
from crawler.inspection.explain.why import Inquiry
from crawler.obs.events import Event
from crawler.obs.log_files import PENDING_LIMIT
from crawler.obs.logs import Logs
from crawler.output_directory import announce, withdraw
from crawler.reload import Reloader
from crawler.settings.loading import Loaded
from crawler.settings.settings import Mode, Settings

HOSTS_SHOWN = 50  # on the status page
LAG_TOLD_OVER_S = 0.5  # a loop that stood still for longer is worth a line in the log


class WebServes(Protocol):
    """The status page's server; its module is imported only where it is wanted."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Service:
    """The status of a crawl for its socket and its page (admin.status_page.MonitoredCrawl). `configuration` is the
    file's path, `read_again` loads it anew.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        engine: Engine,
        reporter: EventLog,
        logs: Logs,
        *,
        configuration: str | None,
        read_again: Callable[[], Loaded] | None,
    ) -> None:
        self._engine = engine
        self._reporter = reporter
        self._logs = logs
        self._about = {
            "crawl": settings.crawl.name,
            "mode": mode,
            "pid": os.getpid(),
            "run_id": logs.run_id,
            "version": __version__,
            "configuration": configuration,
            "output": str(settings.output_directory.resolve()),
            "started_at": round(engine.clock.now(), 3),
        }
        self.reloader = Reloader(settings, mode, engine, logs, configuration=configuration, read_again=read_again)
        commands = Commands(engine, reloads=self.reloader, status=self.status, stop=daemon.ask_to_stop)
        self._web: WebServes | None = None
        self._announced: Path | None = None
        self.on_hangup = None if read_again is None else self.reloader.on_hangup
        self.control = ControlServer(settings.control_socket, commands.table(), on_command=self._on_command)

    async def open(self) -> None:
        """Listen. Raises SocketTaken, OSError."""
        listen = self.reloader.settings.admin.listen
        if listen is not None:
            from crawler.admin.status_page import WebServer  # aiohttp takes a fifth of a second to import

            self._web = WebServer(listen, self, self._engine.clock)
            await self._web.open()
        configuration = self._about["configuration"]
        if self._about["mode"] == "run" and configuration is not None:
            self._announced = announce(str(configuration), self.reloader.settings.output_directory, os.environ)
        self.control.open()

    async def close(self) -> None:
        withdraw(self._announced)
        if self._web is not None:
            await self._web.close()
        self.control.close()

    def _warnings(self) -> Sequence[Mapping[str, object]]:
        """The last warnings; not those of refused reloads that a later one has settled."""
        warnings = self._logs.warnings
        done_at = self.reloader.reloaded_at
        if done_at is None:
            return warnings
        done = timestamp(done_at)
        return [one for one in warnings if one["event"] != Event.RELOAD_FAILED or str(one["ts"]) > done]

    def _bounded(self) -> list[Bounded]:
        """What is held in memory, against what it may come to."""
        return [
            *self._engine.bounded(),
            Bounded("log lines", "bytes", self._logs.pending_bytes, 2 * PENDING_LIMIT),
            Bounded("refusals told", "entries", self._reporter.told, REMEMBERED),
        ]

    def status(self) -> Mapping[str, Any]:
        """The whole status, as JSON holds it."""
        beside = {
            "memory": [asdict(one) for one in self._bounded()],
            "warnings": self._warnings(),
            "log_dropped": self._logs.dropped,
            "reloaded_at": self.reloader.reloaded_at,
        }
        return self._about | self._engine.monitor.status().as_json() | beside

    def metrics(self) -> str:
        """In Prometheus's text format."""
        return exposition(
            self._engine.monitor.status(),
            self._engine.meters,
            self._bounded(),
            version=__version__,
            log_dropped=self._logs.dropped,
            last_reload_succeeded=self.reloader.last_succeeded,
            progress_at=self._engine.health.progress_at,
        )

    async def why(self, url: str) -> Mapping[str, Any]:
        """Why a URL was fetched or not, from the store; in a thread."""
        settings, now = self.reloader.settings, self._engine.clock.now()

        def ask() -> Mapping[str, Any]:
            reader = StoreReader(settings.frontier_path, is_live=True)
            try:
                return table(Inquiry(reader, settings.rules(), is_live=True, now=now).why(url))
            finally:
                reader.close()

        return await asyncio.to_thread(ask)

    # -- for the status page

    def history(self) -> Mapping[str, Any]:
        return self._engine.monitor.history()

    def stall(self) -> str:
        return self._engine.health.stall()

    def hosts(self) -> list[dict[str, Any]]:
        return self._engine.monitor.busiest_hosts(HOSTS_SHOWN)

    def is_ready(self) -> bool:
        return not self._engine.crawl.is_draining

    # -- what happens by itself

    async def sample(self) -> None:
        """To be called every SAMPLE_S."""
        self._engine.health.check()
        lag_s = await self._engine.monitor.sample()
        if lag_s > LAG_TOLD_OVER_S:
            self._logs.event(Event.LOOP_LAG, lag_ms=round(lag_s * 1e3))

    def _on_command(self, name: str, arguments: Arguments, caller: Caller, refusal: str | None) -> None:
        if name not in QUIET:
            fields = {"command": name, "arguments": brief(arguments) or None, "pid": caller.pid, "uid": caller.uid}
            self._logs.emit(
                Event.CONTROL, fields if refusal is None else fields | {"detail": " ".join(refusal.split())}
            )
