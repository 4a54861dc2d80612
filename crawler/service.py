"""The service around a running crawl: status, control socket with its commands, and reload of the configuration. Part
of the composition root.

It decides nothing about the crawl. Invariants: all that is opened here is closed again, also when the crawl fails. If
anything is wrong with a changed configuration, no part of it is applied.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from crawler import __version__, daemon
from crawler.admin.attention import attention
from crawler.admin.commands import QUIET, Commands, brief
from crawler.admin.control_socket import Arguments, Caller, ControlServer
from crawler.admin.fleet_commands import FleetCommands
from crawler.admin.metrics import exposition
from crawler.admin.unix_socket import CommandRefused
from crawler.core.enums import Exit
from crawler.core.formatting import shortened, timestamp
from crawler.engine.engine import Engine
from crawler.engine.monitoring.event_log import MAX_LOGGED_REFUSALS, EventLog
from crawler.engine.monitoring.status import Bounded
from crawler.fetch.http1.message import LocalProtocolError
from crawler.frontier.base import FrontierFull
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.why import Explainer
from crawler.inspection.log.query import Line
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.url_history import last_attempts
from crawler.obs.events import Event
from crawler.obs.log_files import PENDING_LIMIT
from crawler.obs.logs import FETCH_FILE, Logs
from crawler.output_directory import link_configuration, unlink_configuration, write_run_file
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded
from crawler.settings.schema import TABLES
from crawler.settings.settings import Changes, Mode, Settings, changes, keeping, masked, tables_text

TOKEN_FILE = "status-page.token"
ATTEMPTS_SHOWN = 20  # of a host, on the status page
MAX_LOGGED_VALUE = 300  # characters of a value in `reload_ok`: seeds may be thousands
LAG_LOGGED_FROM_S = 0.5  # an event loop that was late by more is logged


class WebServes(Protocol):
    """The server of the status page; its module is imported only if admin.listen is set."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class Service:
    """The control socket and the status page of a crawl, and what they show (admin.status_page.MonitoredCrawl).

    `configuration` is the path of the file, `read_again` loads it again.
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
        self._mode: Mode = mode
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
        admin = settings.admin
        self._token_file = (
            settings.control_socket.with_name(TOKEN_FILE) if admin.actions and admin.listen is not None else None
        )
        self.reloader = Reloader(settings, mode, engine, logs, configuration=configuration, read_again=read_again)
        self._commands = Commands(engine, reloads=self.reloader, status=self.status, stop=daemon.terminate).table()
        if engine.fleet is not None and engine.frontier.agents is not None:
            for_all = FleetCommands(self._commands, engine.frontier.agents)
            engine.fleet.carry_out = partial(self._carry_out, for_all)
            self._commands = for_all.table()
        self._web: WebServes | None = None
        self._link: Path | None = None
        # (A crawl in the foreground ends when its terminal is closed.)
        self.on_hangup = None if read_again is None or mode == "crawl" else self.reloader.on_hangup
        self.control = ControlServer(settings.control_socket, self._commands, on_command=self._on_command)

    async def open(self) -> None:
        """Listen. Raises SocketTaken, OSError."""
        listen = self.reloader.settings.admin.listen
        if listen is not None:
            # aiohttp takes a fifth of a second to import
            from crawler.admin.status_page import PageActions, WebServer

            actions = None
            if self._token_file is not None:
                actions = PageActions(self._token_file, self._commands, self._on_action)
            self._web = WebServer(listen, self, self._engine.clock, actions)
            await self._web.open()
        configuration = self._about["configuration"]
        if self._about["mode"] == "run" and configuration is not None:
            self._link = link_configuration(str(configuration), self.reloader.settings.output_directory, os.environ)
        self.control.open()

    async def close(self) -> None:
        """Close what `open` opened, also if it failed half-way."""
        unlink_configuration(self._link)
        if self._web is not None:
            await self._web.close()
        self.control.close()

    def _warnings(self) -> Sequence[Mapping[str, object]]:
        """The last warnings, without those of failed reloads before the last successful one."""
        warnings = self._logs.warnings
        succeeded_at = self.reloader.reloaded_at
        if succeeded_at is None:
            return warnings
        succeeded = timestamp(succeeded_at)
        return [one for one in warnings if one["event"] != Event.RELOAD_FAILED or str(one["ts"]) > succeeded]

    def _bounded(self) -> list[Bounded]:
        """The sizes of what is kept in memory, each with its limit."""
        return [
            *self._engine.bounded(),
            Bounded("log lines", "bytes", self._logs.pending_bytes, 2 * PENDING_LIMIT),
            Bounded("logged refusals", "entries", self._reporter.logged_refusals, MAX_LOGGED_REFUSALS),
        ]

    def status(self) -> Mapping[str, Any]:
        """The whole status, in the form of its JSON."""
        beside = {
            "memory": [asdict(one) for one in self._bounded()],
            "warnings": self._warnings(),
            "log_dropped": self._logs.dropped,
            "reloaded_at": self.reloader.reloaded_at,
            "listen": self.reloader.settings.admin.listen,
            "token_file": None if self._token_file is None else str(self._token_file.absolute()),
        }
        status = self._about | self._engine.monitor.status().as_json() | beside
        disk = _free_bytes(self.reloader.settings.output_directory), self.reloader.settings.output.min_free
        return status | {
            "attention": attention(status, self.stall(), *disk),
            "recent_errors": [asdict(one) for one in self._reporter.recent_errors],
        }

    def metrics(self) -> str:
        """The metrics in Prometheus's text format."""
        return exposition(
            self._engine.monitor.status(),
            self._engine.meters,
            self._bounded(),
            version=__version__,
            log_dropped=self._logs.dropped,
            last_reload_succeeded=self.reloader.last_succeeded,
            progress_at=self._engine.health.progress_at,
            free_bytes=_free_bytes(self.reloader.settings.output_directory),
            min_free_bytes=self.reloader.settings.output.min_free,
        )

    async def why(self, url: str) -> Mapping[str, Any]:
        """Why a URL was fetched or not, read from the store in a thread."""
        settings, now = self.reloader.settings, self._engine.clock.now()
        if settings.frontier.store == "postgresql":
            raise FileNotFoundError(errno.ENOENT, "the store is in PostgreSQL: `crawler why` reads a copy of it", url)

        def explain() -> Mapping[str, Any]:
            reader = StoreReader(settings.frontier_path, is_live=True)
            try:
                rules, has_seed = settings.rules(self._mode), settings.engine_configuration(self._mode).has_seed
                return Explainer(reader, rules, is_live=True, now=now, has_seed=has_seed).why(url).as_json()
            finally:
                reader.close()

        return await asyncio.to_thread(explain)

    # -- for the status page

    def history(self) -> Mapping[str, Any]:
        return self._engine.monitor.history()

    def stall(self) -> str:
        return self._engine.health.stall()

    async def hosts(self, *, text: str, state: str, sort: str, limit: int) -> Mapping[str, Any]:
        return await self._engine.monitor.find_hosts(text=text, state=state, sort=sort, limit=limit)

    async def last_attempts(self, host: str) -> list[Line]:
        """The last lines of the log about a host, read in a thread."""

        def read() -> list[Line]:
            with RotatedLog(self.reloader.settings.log_directory / FETCH_FILE) as log:
                return last_attempts(log, host, ATTEMPTS_SHOWN)

        return await asyncio.to_thread(read)

    def is_ready(self) -> bool:
        return not self._engine.crawl.is_draining

    # -- called by the daemon and the control socket

    async def sample(self) -> None:
        """Take a sample of the figures. The daemon calls it every SAMPLE_S."""
        self._engine.health.check()
        lag_s = await self._engine.monitor.sample()
        if lag_s > LAG_LOGGED_FROM_S:
            self._logs.event(Event.LOOP_LAG, lag_ms=round(lag_s * 1e3))

    def _on_command(self, name: str, arguments: Arguments, caller: Caller, refusal: str | None) -> None:
        if name not in QUIET:
            fields = {"command": name, "arguments": brief(arguments) or None, "pid": caller.pid, "uid": caller.uid}
            self._logs.emit(
                Event.CONTROL, fields if refusal is None else fields | {"detail": " ".join(refusal.split())}
            )

    async def _carry_out(self, commands: FleetCommands, name: str, arguments: Arguments) -> dict[str, Any]:
        """Carry out a command that came through the database, and log it."""
        answer = await commands.carry_out(name, arguments)
        detail = "from the database" if "refused" not in answer else f"refused: {' '.join(answer['refused'].split())}"
        self._logs.emit(Event.CONTROL, {"command": name, "arguments": brief(arguments) or None, "detail": detail})
        return answer

    def _on_action(self, name: str, arguments: Arguments, refusal: str | None) -> None:
        """Log an action on the status page."""
        detail = "on the status page" if refusal is None else f"refused on the status page: {' '.join(refusal.split())}"
        self._logs.emit(Event.CONTROL, {"command": name, "arguments": brief(arguments) or None, "detail": detail})


class Reloader:
    """`settings` are the current ones. `read_again` loads the configuration as at the start; None: there is no file."""

    def __init__(
        self,
        settings: Settings,
        mode: Mode,
        engine: Engine,
        logs: Logs,
        *,
        configuration: str | None,
        read_again: Callable[[], Loaded] | None,
    ) -> None:
        self.settings = settings
        self.reloaded_at: float | None = None
        self.last_succeeded = True
        self._mode = mode
        self._engine = engine
        self._logs = logs
        self._configuration = configuration
        self._read_again = read_again
        self._lock = asyncio.Lock()

    async def reload(self, *, dry_run: bool = False) -> Mapping[str, object]:
        """See admin.commands.Reloads."""
        async with self._lock:
            if not dry_run:  # logrotate may have moved the files, even if the configuration is refused
                self._logs.reload(self.settings.log_options())
            new, found = _reloadable(self.settings, await self._read(dry_run))
            options = new.engine_configuration(self._mode)
            seeds, files = len(self._engine.new_seeds(options)), self._engine.changed_files(options)
            result = self._differences(new, found) | {"new_seeds": seeds, "dry_run": dry_run}
            result["file_seeds"] = sum(file.count for file in files)
            agents = self._engine.frontier.agents
            if agents is not None:
                result["rules"] = new.shared_rules()
            if dry_run:
                return result | {"preview": await self._engine.preview(options)}
            try:
                await self._engine.reconfigure(options)
            except FrontierFull as error:
                raise self._refused(f"the store cannot take it: {error}", Exit.IO) from None
            except (OSError, LocalProtocolError) as error:
                raise self._refused(str(error), Exit.CONFIGURATION, "\nthe current configuration stays") from None
            problem: OSError | FrontierFull | None = None
            try:
                result["new_seeds"] = seeds + await self._engine.add_seed_files()
            except (OSError, FrontierFull) as error:
                problem = error
            if agents is not None:
                with suppress(FrontierFull):  # then agents with these rules are refused until the next reload
                    await agents.put_rules(new.shared_rules())
            self._applied(new, found, result)
            if problem is not None:
                words = f"the configuration is in force, but not all seeds of changed files are stored: {problem}"
                raise self._refused(words, Exit.IO, "; reload again")
            return result

    async def on_hangup(self) -> None:
        """Reload after SIGHUP. The result is only in the log."""
        try:
            await self.reload()
        except CommandRefused:
            return

    async def _read(self, dry_run: bool) -> Settings:
        if self._read_again is None:
            raise CommandRefused(
                "the crawl was started without a configuration file: stop it, and give its command again with other "
                "options",
                Exit.CONFIGURATION,
            )
        try:
            return (await asyncio.to_thread(self._read_again)).settings
        except ConfigurationError as error:
            if not dry_run:
                self._failed(error.problems)
            details = {"problems": [_fields_of(problem) for problem in error.problems]}
            raise CommandRefused(f"{error}\nthe current configuration stays", Exit.CONFIGURATION, details) from None

    def _refused(self, message: str, exit_code: int, hint: str = "") -> CommandRefused:
        self._failed([Problem("", 0, 0, message)])
        return CommandRefused(message + hint, exit_code)

    def _failed(self, problems: Sequence[Problem]) -> None:
        self.last_succeeded = False
        for problem in problems:
            self._logs.emit(Event.RELOAD_FAILED, _fields_of(problem))

    def _differences(self, new: Settings, found: Changes) -> dict[str, object]:
        values = {shown.key: shown.text or shown.note for shown in masked(self.settings, {})}
        values |= {name: tables_text(self.settings, name) for name in TABLES}
        new_values = {shown.key: shown.text or shown.note for shown in masked(new, {})}
        new_values |= {name: tables_text(new, name) for name in TABLES}
        return {
            "changed": [{"key": key, "old": values.get(key, ""), "new": new_values.get(key, "")} for key in found.live],
            "needs_restart": list(found.restart),
        }

    def _applied(self, new: Settings, found: Changes, result: Mapping[str, Any]) -> None:
        self._logs.reload(new.log_options())
        self.settings = new
        self.last_succeeded = True
        self.reloaded_at = self._engine.clock.now()
        self._logs.event(
            Event.RELOAD_OK,
            changed=list(found.live),
            needs_restart=list(found.restart),
            old={one["key"]: shortened(one["old"], MAX_LOGGED_VALUE) for one in result["changed"]} or None,
            new={one["key"]: shortened(one["new"], MAX_LOGGED_VALUE) for one in result["changed"]} or None,
            new_seeds=result["new_seeds"] or None,
        )
        try:
            rules = new.rules(self._mode)
            write_run_file(new.paths(), run_id=self._logs.run_id, configuration=self._configuration, rules=rules)
        except OSError as error:  # on a full disk: other programs judge by the older rules until the next reload
            output = str(new.output_directory)
            free, min_free = _free_bytes(new.output_directory) or 0, new.output.min_free
            self._logs.event(Event.DISK_LOW, path=output, free_bytes=free, min_free_bytes=min_free, detail=str(error))


def _free_bytes(directory: Path) -> int | None:
    """The bytes that are free on the disk of a directory; None if it is gone, or its file system is."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def _reloadable(old: Settings, new: Settings) -> tuple[Settings, Changes]:
    """The settings that a reload applies: `new`, except keys that need a restart; and the differences from `old`."""
    found = changes(old, new)
    new = keeping(old, new, found.restart)
    if new.robots_token != old.robots_token:  # from another user_agent: rules are parsed for the one at the start
        new = replace(new, identity=new.identity.model_copy(update={"robots_token": old.robots_token}))
        found = replace(found, restart=(*found.restart, "identity.robots_token"))
    return new, found


def _fields_of(problem: Problem) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": problem.message}
    if problem.file:
        fields["file"] = problem.file
    if problem.line:
        fields |= {"line": problem.line, "column": problem.column}
    return fields
