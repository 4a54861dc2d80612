"""What stands around a running crawl: its status, the control socket and what its commands do. Part of the composition
root.

It decides nothing about the crawl. Invariant: whatever is opened here is closed again, also when the crawl fails.
"""

import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any

from crawler import __version__, daemon
from crawler.admin.commands import QUIET, Commands, brief
from crawler.admin.control import Arguments, Caller, ControlServer
from crawler.engine.admission import PARSED_BYTES
from crawler.engine.pace import Pace
from crawler.engine.report import REMEMBERED
from crawler.engine.scheduler import PREFETCH_ALL
from crawler.engine.status import Bounded, StatusView
from crawler.engine.views import Views
from crawler.obs.events import Event
from crawler.obs.writer import PENDING_LIMIT
from crawler.parts import Parts
from crawler.reload import Reloader
from crawler.settings.loading import Loaded
from crawler.settings.settings import Mode, Settings

LAG_TOLD_OVER_S = 0.5  # a loop that stood still for longer is worth a line in the log


class Service:
    """The status of a crawl, and the socket that tells it. `configuration` is the file's path, `read_again` loads it
    anew.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        parts: Parts,
        views: Views,
        *,
        configuration: str | None,
        read_again: Callable[[], Loaded] | None,
    ) -> None:
        self._parts = parts
        self._views = views
        self._pace = Pace(parts.tally, parts.clock)
        self._about = {
            "crawl": settings.crawl.name,
            "mode": mode,
            "pid": os.getpid(),
            "run_id": parts.logs.run_id,
            "version": __version__,
            "configuration": configuration,
            "output": str(parts.output.resolve()),
            "started_at": round(parts.clock.now(), 3),
        }
        self.view = StatusView(
            crawl=parts.crawl,
            scheduler=parts.scheduler,
            committer=parts.committer,
            workers=parts.workers,
            tally=parts.tally,
            pool_stats=parts.clients.stats,
            exchanges=parts.clients.exchanges,
            pace=self._pace,
            clock=parts.clock,
            totals=lambda: views.totals,
            disk_reason=lambda: parts.reporter.disk_reason,
            bounded=self._bounded,
            warnings=lambda: parts.logs.warnings,
            log_dropped=lambda: parts.logs.dropped,
        )
        self.reloader = Reloader(settings, parts, configuration=configuration, read_again=read_again)
        commands = Commands(
            crawl=parts.crawl,
            scheduler=parts.scheduler,
            admission=parts.admission,
            frontier=parts.frontier,
            clock=parts.clock,
            blocks=parts.blocks,
            cut=parts.clients.cut,
            reloads=self.reloader,
            status=self.status,
            stop=daemon.ask_to_stop,
        )
        self.control = ControlServer(settings.control_socket, commands.table(), on_command=self._on_command)

    @property
    def services(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What is to run beside the crawl."""
        return [self.control.run, self._parts.clients.run, self._parts.sweeper.run]

    def open(self) -> None:
        """Listen. Raises SocketTaken, OSError."""
        self.control.open()

    def close(self) -> None:
        self.control.close()

    def status(self) -> Mapping[str, Any]:
        """The whole status, as JSON holds it."""
        return self._about | {"reloaded_at": self.reloader.reloaded_at} | asdict(self.view.status())

    async def beat(self) -> None:
        """To be called every SAMPLE_S."""
        await self._views.refresh_totals()
        lag_s = self._pace.sample()
        if lag_s > LAG_TOLD_OVER_S:
            self._parts.logs.event(Event.LOOP_LAG, lag_ms=round(lag_s * 1e3))

    def _on_command(self, name: str, arguments: Arguments, caller: Caller, refusal: str | None) -> None:
        if name not in QUIET:
            fields = {"command": name, "arguments": brief(arguments), "pid": caller.pid, "uid": caller.uid}
            self._parts.logs.emit(Event.CONTROL, fields if refusal is None else fields | {"detail": refusal})

    def _bounded(self) -> list[Bounded]:
        """What is held in memory, against what it may come to."""
        parts, settings, client = self._parts, self.reloader.settings, self._parts.clients.current
        memory = settings.engine.memory
        buffered = sum(len(host.buffer) for host in parts.books.hosts.values())
        jar = client.cookies
        cookies = [] if jar is None else [Bounded("cookies", "bytes", jar.held_bytes, jar.limit_bytes)]
        return [
            *cookies,
            Bounded("bodies", "bytes", client.budget.held, memory),
            Bounded("uncommitted", "bytes", parts.committer.uncommitted_bytes, memory // 2),
            Bounded("log lines", "bytes", parts.logs.pending_bytes, 2 * PENDING_LIMIT),
            Bounded("parsed robots.txt", "bytes", parts.admission.parsed_bytes, PARSED_BYTES),
            Bounded("recent URL keys", "bytes", parts.reader.seen_bytes, parts.reader.seen_bytes),
            Bounded("URLs ready", "entries", buffered, PREFETCH_ALL),
            Bounded("connections", "entries", parts.clients.stats().open, settings.fetch.connections),
            Bounded("DNS answers", "entries", client.resolver.cached, client.resolver.cache_limit),
            Bounded("refusals told", "entries", parts.reporter.told, REMEMBERED),
            Bounded("hosts", "entries", len(parts.books.hosts), None),
        ]
