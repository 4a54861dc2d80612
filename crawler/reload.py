"""Brings a changed configuration into force while the crawl runs, or keeps the old one and says why.

The file is read and checked in a thread, compared with what is in force, and applied in one step without a wait in it:
no visit sees half of it, and those in flight finish under the old one. Part of the composition root.

Invariant: whatever is wrong with the file, the configuration in force stays whole.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from crawler.admin.protocol import CommandRefused
from crawler.client import Client, make_client
from crawler.core.enums import Exit, Source
from crawler.core.hours import Hours
from crawler.core.models import Discovered
from crawler.core.scope import Scope
from crawler.core.url import key_of, seed
from crawler.engine.system_clock import utc_offset_s
from crawler.fetch.http1.message import LocalProtocolError
from crawler.frontier.base import FrontierFull
from crawler.inspection.rules import fingerprint
from crawler.obs.events import Event
from crawler.parts import Parts
from crawler.rundir import rules_of, write_run_file
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import Loaded
from crawler.settings.settings import Changes, Settings, changes, keeping
from crawler.settings.show import masked

# What a client is made from; a change of any of these replaces it, and with it connections and DNS answers.
_CLIENT_SECTIONS: Final = frozenset({"identity", "fetch", "network", "tls"})
_CLIENT_KEYS: Final = frozenset({"politeness.connections_per_host", "politeness.connections_per_address"})
_HOSTS_NAMED: Final = 20  # of those that come and go, in an answer


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload would do. `scope` is the one that would be in force, with the hosts that redirects brought in."""

    settings: Settings
    changes: Changes
    scope: Scope
    new_seeds: tuple[Discovered, ...]


class Reloader:
    """`settings` are in force. `read_again` loads the configuration as at the start; None where there is no file."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        *,
        configuration: str | None,
        read_again: Callable[[], Loaded] | None,
    ) -> None:
        self.settings = settings
        self.reloaded_at: float | None = None
        self.last_succeeded = True
        self._parts = parts
        self._configuration = configuration
        self._read_again = read_again
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, *, dry_run: bool = False) -> Mapping[str, object]:
        """See admin.commands.Reloads."""
        async with self._one_at_a_time:
            if not dry_run:  # logrotate may have moved the files away, whatever becomes of the configuration
                self._parts.logs.reload(self.settings.log_options())
            new = await self._read(dry_run)
            plan = self._plan(new)
            client = None
            if not dry_run:
                client = await self._client_for(plan)
            result = self._told(plan) | {"dry_run": dry_run}
            if dry_run:
                return result | {"preview": await self._preview(plan)}
            await self._apply(plan, client)
            return result

    async def on_hangup(self) -> None:
        """SIGHUP: the log says how it went."""
        try:
            await self.reload()
        except CommandRefused:
            return

    # -- reading

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

    def _failed(self, problems: Sequence[Problem]) -> None:
        self.last_succeeded = False
        for problem in problems:
            self._parts.logs.emit(Event.RELOAD_FAILED, _fields_of(problem))

    def _plan(self, new: Settings) -> Plan:
        old = self.settings
        found = changes(old, new)
        new = keeping(old, new, found.restart)
        if new.robots_token != old.robots_token:  # by another user_agent: rules are parsed for the one of the start
            new = replace(new, identity=new.identity.model_copy(update={"robots_token": old.robots_token}))
            found = replace(found, restart=(*found.restart, "identity.robots_token"))
        scope = self._scope_under(new)
        before = set(old.seeds)
        seeds = []
        for text in new.seeds:
            if text not in before:
                url, origin = seed(text)
                if scope.judge(url, origin, depth=0, hop_path="", source=Source.SEED) is None:
                    seeds.append(Discovered(url, origin, key_of(url), 0, "", Source.SEED))
        return Plan(new, found, scope, tuple(seeds))

    def _scope_under(self, new: Settings) -> Scope:
        """The scope that these settings make of the one in force: hosts that redirects brought in stay."""
        scope, old = self._parts.admission.scope, self.settings
        rules, new_rules = ((one.scope_options(), one.trap_options(), _hosts_of(one)) for one in (old, new))
        if rules == new_rules:
            return scope
        brought_in = scope.seed_hosts - _hosts_of(old)
        return Scope(new.scope_options(), _hosts_of(new) | brought_in, new.trap_options())

    async def _client_for(self, plan: Plan) -> Client | None:
        """A new client, if one is needed: made before anything is changed, since making it can fail."""
        changed = plan.changes.live
        if not any(key.partition(".")[0] in _CLIENT_SECTIONS or key in _CLIENT_KEYS for key in changed):
            return None
        parts, current = self._parts, self._parts.clients.current
        try:
            return make_client(
                plan.settings,
                clock=parts.clock,
                gate=parts.gate,
                permits=parts.blocks.permits,
                memory=current.budget.limit,
                budget=current.budget,
                cookies=current.cookies,
                first_connection_id=current.pool.next_id,
                spool_directory=str(parts.output),
                on_event=lambda name, fields: parts.reporter.event(Event(name), fields),
            )
        except (OSError, LocalProtocolError) as error:
            problem = Problem("", 0, 0, str(error))
            self._failed([problem])
            raise CommandRefused(f"{error}\nthe configuration in force stays", Exit.CONFIGURATION) from None

    # -- telling

    def _told(self, plan: Plan) -> dict[str, object]:
        values = {shown.key: shown.text or shown.note for shown in masked(self.settings, {})}
        new_values = {shown.key: shown.text or shown.note for shown in masked(plan.settings, {})}
        return {
            "changed": [
                {"key": key, "old": values.get(key, ""), "new": new_values.get(key, "")} for key in plan.changes.live
            ],
            "needs_restart": list(plan.changes.restart),
            "new_seeds": len(plan.new_seeds),
        }

    async def _preview(self, plan: Plan) -> dict[str, object]:
        """Which hosts the scope would let in and leave out. Only hosts the crawl knows can be named."""
        old, new = self._parts.admission.scope, plan.scope
        if new is old:
            return {"scope_changes": False}
        known = {host.origin.host for host in self._parts.books.hosts.values()}
        come = sorted(host for host in known | new.seed_hosts if new.has_host(host) and not old.has_host(host))
        go = sorted(host for host in known | old.seed_hosts if old.has_host(host) and not new.has_host(host))
        queued = {host.origin.host: 0 for host in self._parts.books.hosts.values()}
        for host in self._parts.books.hosts.values():
            queued[host.origin.host] += host.queued
        return {
            "scope_changes": True,
            "hosts_come": come[:_HOSTS_NAMED],
            "hosts_come_count": len(come),
            "hosts_go": go[:_HOSTS_NAMED],
            "hosts_go_count": len(go),
            **await self._parts.rejudger.count(new),
        }

    # -- applying

    async def _apply(self, plan: Plan, client: Client | None) -> None:
        """What can fail comes first; then everything at once."""
        parts = self._parts
        receipt, new = None, plan.settings
        try:
            if plan.new_seeds:
                receipt = await parts.frontier.add(plan.new_seeds, now=parts.clock.now())
            await parts.revisits.prepare(new.recrawl_options(parts.mode))
            unswept = await parts.frontier.judge_by(fingerprint(rules_of(new)))
            suspects = await parts.frontier.suspects(limit=len(parts.books.hosts))
        except FrontierFull as error:
            if client is not None:
                await client.close()
            self._failed([Problem("", 0, 0, f"the store cannot take it: {error}")])
            raise CommandRefused(f"the store cannot take it: {error}", Exit.IO) from None
        politeness = new.politeness_options()
        # Not the plan's: a seed's redirect may have brought a host in while the store was asked.
        parts.admission.scope = self._scope_under(new)
        parts.admission.obey = politeness.robots == "obey"
        parts.books.reconfigure(politeness, new.scope_options())
        parts.gate.reconfigure(new.address_politeness())
        parts.reader.reconfigure(
            content=new.content_options(),
            fetch=new.fetch_options(),
            token=new.robots_token,
            obey=politeness.robots == "obey",
            requisites=new.scope.requisites,
            lazy=new.scope.lazy,
        )
        if client is not None:
            parts.clients.replace(client)
            parts.valve.set_bandwidth(client.bandwidth)
            for worker in parts.workers:
                worker.reconfigure(client.fetcher, new.fetch_options())
        hours = new.engine_options("run").hours
        parts.valve.set_hours(Hours(hours, utc_offset_s) if hours else None)
        parts.scheduler.traps.reconfigure(new.trap_options())
        for one in suspects:
            parts.books.hosts[one.host_id].has_suspects = True  # as far as is known before they are looked at anew
        parts.scheduler.reconfigure(politeness)
        parts.revisits.reconfigure(new.recrawl_options(parts.mode))
        parts.listings.mode = new.sitemaps(parts.mode)
        parts.scheduler.wake()
        parts.logs.reload(new.log_options())
        if receipt is not None:
            parts.scheduler.stored(receipt)
        if unswept:
            parts.rejudger.rules_changed(unswept)
        self.settings = new
        self.last_succeeded = True
        self.reloaded_at = parts.clock.now()
        parts.logs.event(Event.RELOAD_OK, changed=list(plan.changes.live), needs_restart=list(plan.changes.restart))
        try:
            write_run_file(new, self._configuration, parts.logs.run_id)
        except OSError as error:  # on a full disk: what is in force is in force; others judge by the older rules
            parts.logs.event(Event.DISK_LOW, path=str(parts.output), free_bytes=0, min_free_bytes=0, detail=str(error))


def _hosts_of(settings: Settings) -> frozenset[str]:
    return frozenset(seed(text)[1].host for text in settings.seeds)


def _fields_of(problem: Problem) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": problem.message}
    if problem.file:
        fields["file"] = problem.file
    if problem.line:
        fields |= {"line": problem.line, "column": problem.column}
    return fields
