"""Reads a changed configuration while the crawl runs, and has the engine put it into force or says why not.

Part of the composition root. Invariant: whatever is wrong with the file, the configuration in force stays whole.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crawler.admin.protocol import CommandRefused
from crawler.core.enums import Exit
from crawler.engine.engine import Engine
from crawler.fetch.http1.message import LocalProtocolError
from crawler.frontier.base import FrontierFull
from crawler.obs.events import Event
from crawler.obs.logs import Logs
from crawler.output_directory import write_run_file
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded
from crawler.settings.settings import Changes, Mode, Settings, changes, keeping
from crawler.settings.show import masked


class Reloader:
    """`settings` are in force. `read_again` loads the configuration as at the start; None where there is no file."""

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
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, *, dry_run: bool = False) -> Mapping[str, object]:
        """See admin.commands.Reloads."""
        async with self._one_at_a_time:
            if not dry_run:  # logrotate may have moved the files away, whatever becomes of the configuration
                self._logs.reload(self.settings.log_options())
            new, found = _in_force(self.settings, await self._read(dry_run))
            options = new.engine_configuration(self._mode)
            result = self._told(new, found) | {"new_seeds": len(self._engine.new_seeds(options)), "dry_run": dry_run}
            if dry_run:
                return result | {"preview": await self._engine.preview(options)}
            try:
                await self._engine.reconfigure(options)
            except FrontierFull as error:
                raise self._refused(f"the store cannot take it: {error}", Exit.IO) from None
            except (OSError, LocalProtocolError) as error:
                raise self._refused(str(error), Exit.CONFIGURATION, "\nthe configuration in force stays") from None
            self._applied(new, found)
            return result

    async def on_hangup(self) -> None:
        """SIGHUP: the log says how it went."""
        try:
            await self.reload()
        except CommandRefused:
            return

    async def _read(self, dry_run: bool) -> Settings:
        if self._read_again is None:
            raise CommandRefused("this crawl has no configuration file that could be read again", Exit.CONFIGURATION)
        try:
            return (await asyncio.to_thread(self._read_again)).settings
        except ConfigurationError as error:
            if not dry_run:
                self._failed(error.problems)
            details = {"problems": [_fields_of(problem) for problem in error.problems]}
            raise CommandRefused(f"{error}\nthe configuration in force stays", Exit.CONFIGURATION, details) from None

    def _refused(self, message: str, exit_code: int, hint: str = "") -> CommandRefused:
        self._failed([Problem("", 0, 0, message)])
        return CommandRefused(message + hint, exit_code)

    def _failed(self, problems: Sequence[Problem]) -> None:
        self.last_succeeded = False
        for problem in problems:
            self._logs.emit(Event.RELOAD_FAILED, _fields_of(problem))

    def _told(self, new: Settings, found: Changes) -> dict[str, object]:
        values = {shown.key: shown.text or shown.note for shown in masked(self.settings, {})}
        new_values = {shown.key: shown.text or shown.note for shown in masked(new, {})}
        return {
            "changed": [{"key": key, "old": values.get(key, ""), "new": new_values.get(key, "")} for key in found.live],
            "needs_restart": list(found.restart),
        }

    def _applied(self, new: Settings, found: Changes) -> None:
        self._logs.reload(new.log_options())
        self.settings = new
        self.last_succeeded = True
        self.reloaded_at = self._engine.clock.now()
        self._logs.event(Event.RELOAD_OK, changed=list(found.live), needs_restart=list(found.restart))
        try:
            write_run_file(new.place(), run_id=self._logs.run_id, configuration=self._configuration, rules=new.rules())
        except OSError as error:  # on a full disk: what is in force is in force; others judge by the older rules
            output = str(new.output_directory)
            self._logs.event(Event.DISK_LOW, path=output, free_bytes=0, min_free_bytes=0, detail=str(error))


def _in_force(old: Settings, new: Settings) -> tuple[Settings, Changes]:
    """The settings that a reload brings into force, what needs a restart as it was, and what they change."""
    found = changes(old, new)
    new = keeping(old, new, found.restart)
    if new.robots_token != old.robots_token:  # by another user_agent: rules are parsed for the one of the start
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
