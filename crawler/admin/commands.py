"""The commands of the control socket, carried out on the running crawl.

A handler checks its arguments, changes the engine and returns a value that JSON can hold.
Invariant: it either did what its result says, or raised CommandRefused and changed nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final, Protocol

from crawler.admin.control_socket import Arguments, Command
from crawler.admin.unix_socket import CommandRefused
from crawler.core.enums import Exit, StoppedBy
from crawler.core.formatting import count, value_text
from crawler.core.url import UrlError
from crawler.engine.engine import Engine
from crawler.engine.operations import (
    MAX_PRIORITY,
    TakedownTarget,
    add,
    drop_forgotten,
    forget,
    host_ids,
    hosts_below,
    hosts_covered,
    judge_added,
    parse_endings,
    release,
    requeue,
    retry,
    takedown_result,
)
from crawler.engine.scheduling.restrictions import MAX_REASON, block_of, block_result, blocked_name
from crawler.frontier.base import BlockedHost, FrontierFull

QUIET: Final = frozenset({"status", "ping"})  # not logged: `crawler top` sends them every second


class Reloads(Protocol):
    """Applies a changed configuration, or refuses it with the reason."""

    async def reload(self, *, dry_run: bool) -> Mapping[str, object]:
        """Return the changes, made or (with `dry_run`) only planned. Raises CommandRefused: the current configuration
        then stays.
        """


class Commands:
    """`status` returns the status of the crawl, `stop` ends the process as a signal does."""

    def __init__(
        self,
        engine: Engine,
        *,
        reloads: Reloads,
        status: Callable[[], Mapping[str, object]],
        stop: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._crawl = engine.crawl
        self._scheduler = engine.scheduler
        self._frontier = engine.frontier
        self._clock = engine.clock
        self._blocklist = engine.blocklist
        self._reloads = reloads
        self._status = status
        self._stop = stop

    def table(self) -> dict[str, Command]:
        """Every command by its name in requests."""
        return {
            "ping": self._ping,
            "status": self._get_status,
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop_crawl,
            "add": self._add,
            "requeue": self._requeue,
            "retry": self._retry,
            "forget": self._forget,
            "reload": self._reload,
            "release": self._release,
            "block": self._block,
            "unblock": self._unblock,
            "blocks": self._list_blocks,
        }

    async def _ping(self, _: Arguments) -> object:
        return {"state": self._status()["state"]}

    async def _get_status(self, _: Arguments) -> object:
        return self._status()

    async def _pause(self, _: Arguments) -> object:
        was_held = self._crawl.is_held
        self._crawl.hold(True)
        return {"changed": not was_held, "in_flight": self._in_flight()}

    async def _resume(self, _: Arguments) -> object:
        was_held = self._crawl.is_held
        self._crawl.hold(False)
        return {"changed": was_held, "state": self._status()["state"]}

    async def _stop_crawl(self, _: Arguments) -> object:
        was_draining = self._crawl.is_draining
        if not was_draining:
            self._crawl.drain(StoppedBy.OPERATOR)  # before the signal: the first reason is kept
            self._stop()
        return {"changed": not was_draining, "in_flight": self._in_flight()}

    def _refuse_while_draining(self) -> None:
        if self._crawl.is_draining:
            raise CommandRefused("the crawl is ending; the same command works once it has", Exit.WAITING)

    def _in_flight(self) -> int:
        return sum(len(lease.tasks) for lease in self._scheduler.leases_out.values())

    async def _add(self, arguments: Arguments) -> object:
        """Add URLs as seeds: any host is allowed, but scope.exclude holds."""
        self._refuse_while_draining()
        urls = _texts(arguments, "urls")
        priority = arguments.get("priority", 0)
        if not isinstance(priority, int) or abs(priority) > MAX_PRIORITY:
            raise CommandRefused('"priority" must be a number between -1000000 and 1000000')
        found, refused = judge_added(urls, self._engine.url_policy.scope, priority)
        receipt, result = await _stored(add(self._frontier, found, refused, self._clock.now()))
        self._scheduler.discoveries_stored(receipt)
        return result

    async def _requeue(self, arguments: Arguments) -> object:
        self._refuse_while_draining()
        dry_run = _flag(arguments, "dry_run")
        try:
            wanted = parse_endings(_text_or_list(arguments, "error_type"), _text_or_list(arguments, "status"))
        except ValueError as error:
            raise CommandRefused(str(error)) from None
        if hosts := _text_or_list(arguments, "host"):
            wanted = replace(wanted, host_ids=await _stored(host_ids(self._frontier, hosts)))
            if not wanted.host_ids:
                raise CommandRefused(f"the store knows no host {' or '.join(hosts)}", Exit.FINDINGS)
        slots = _slots(arguments)  # of several agents, this one has carried it out for its other slots
        counts = await _stored(requeue(self._frontier, wanted, dry_run=dry_run, slots=slots))
        if not dry_run:
            self._scheduler.requeued(counts)
        return {"urls": sum(counts.values()), "hosts": len(counts), "dry_run": dry_run}

    async def _retry(self, arguments: Arguments) -> object:
        self._refuse_while_draining()
        hosts = _text_or_list(arguments, "host")
        ids = await _stored(host_ids(self._frontier, hosts))
        if not ids:
            raise CommandRefused(f"the store knows no host {' or '.join(hosts)}", Exit.FINDINGS)
        return await _stored(retry(self._scheduler, self._frontier, ids, self._engine.client.forget_failure))

    async def _forget(self, arguments: Arguments) -> object:
        """Take targets down, one after the other; all are checked before the first."""
        self._refuse_while_draining()
        try:
            targets = [TakedownTarget.of(text) for text in _texts(arguments, "targets")]
        except UrlError as error:
            raise CommandRefused(str(error)) from None
        done = []
        for target in targets:
            hosts = list(self._scheduler.host_table.hosts.values())
            async with self._scheduler.without_prefetch(host for host in hosts if host.origin.host == target.host):
                erased = await _stored(forget(self._frontier, target, self._clock.now()))
                drop_forgotten(self._scheduler, erased)
            below = await _stored(hosts_below(self._frontier, target))
            done.append(takedown_result(target, erased, below))
        return {"forgotten": done}

    async def _reload(self, arguments: Arguments) -> object:
        self._refuse_while_draining()
        return await self._reloads.reload(dry_run=_flag(arguments, "dry_run"))

    async def _release(self, arguments: Arguments) -> object:
        """Queue the suspects of a host; their templates are never suspected again."""
        name, template = _name(arguments), arguments.get("template")
        if template is not None and not isinstance(template, str):
            raise CommandRefused('"template" must be a text')
        ids = {row.id for row in await _stored(self._frontier.hosts_named(name))}
        released, queued = await _stored(release(self._frontier, ids, template, self._clock.now()))
        for host in list(self._scheduler.host_table.hosts.values()) if released else ():
            if host.id in ids:
                await _stored(self._scheduler.reload_templates(host))
        await _stored(self._scheduler.unpark("traps", ids))
        self._scheduler.requeued(queued, are_retries=False)
        return {"name": name, "templates": released}

    async def _block(self, arguments: Arguments) -> object:
        """Block a host at once; the response is sent when the block is stored."""
        reason = arguments.get("reason", "")
        if not isinstance(reason, str) or len(reason) > MAX_REASON:
            raise CommandRefused('"reason" must be a text of 1000 characters at most')
        block = self._block_of(arguments, host_only=_flag(arguments, "host_only"), reason=reason)
        name, was = block.name, self._blocklist.get(block.name)
        self._blocklist.add(block)
        self._scheduler.blocklist_changed()
        cut = self._engine.client.cut(lambda origin: not self._blocklist.permits(origin))
        try:
            new = await _stored(self._frontier.block(block))
        except CommandRefused as refused:
            raise CommandRefused(f"blocked until the next restart only: {refused}", refused.exit_code) from None
        held = self._blocklist.get(name) or block
        hosts = await _stored(hosts_covered(self._frontier, held))
        return block_result(held, was, hosts) | {"new": new, "connections_cut": cut}

    def _block_of(self, arguments: Arguments, *, host_only: bool = False, reason: str = "") -> BlockedHost:
        text = _text(arguments, "name")
        try:
            return block_of(text, host_only=host_only, reason=reason, at=self._clock.now())
        except UrlError as error:
            raise CommandRefused(f'"{text}" is no host: {error}') from None

    async def _unblock(self, arguments: Arguments) -> object:
        name = _name(arguments)
        was = self._blocklist.get(name)
        if was is None:
            raise CommandRefused(self._blocklist.why_not(name), Exit.FINDINGS)
        await _stored(self._frontier.unblock(name))
        self._blocklist.remove(name)
        self._scheduler.blocklist_changed()
        await _stored(self._scheduler.unpark("blocked"))
        hosts = await _stored(hosts_covered(self._frontier, was))
        return {"name": name, "hosts": hosts, "was": asdict(was)}

    async def _list_blocks(self, _: Arguments) -> object:
        return [{"name": b.name, "kind": b.kind, "at": b.at, "reason": b.reason} for b in self._blocklist.all()]


async def _stored(storing: Awaitable[Any]) -> Any:
    """The result of a store operation. Raises CommandRefused for a full disk."""
    try:
        return await storing
    except FrontierFull as error:
        raise CommandRefused(f"could not be stored: {error}", Exit.IO) from None


def _flag(arguments: Arguments, name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise CommandRefused(f'"{name}" must be true or false')
    return value


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise CommandRefused(f'"{name}" must be a text')
    return value


def _name(arguments: Arguments) -> str:
    """The host name in the arguments, as the store spells it."""
    text = _text(arguments, "name")
    try:
        return blocked_name(text)
    except UrlError as error:
        raise CommandRefused(f'"{text}" is no host: {error}') from None


def _texts(arguments: Arguments, name: str) -> list[str]:
    value = arguments.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CommandRefused(f'"{name}" must be a list of texts')
    return value


def _text_or_list(arguments: Arguments, name: str) -> list[str]:
    """A list of texts, for a text, a list, or nothing."""
    value = arguments.get(name, [])
    return [value] if isinstance(value, str) else _texts({name: value}, name)


def _slots(arguments: Arguments) -> frozenset[int] | None:
    value = arguments.get("slots")
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise CommandRefused('"slots" must be a list of numbers')
    return frozenset(value)


def brief(arguments: Arguments) -> str:
    """Arguments as text for the log; a long list is replaced by its length."""
    shown = {
        name: count(len(value), "item") if isinstance(value, list) and len(value) > 3 else value_text(value)
        for name, value in arguments.items()
    }
    return " ".join(f"{name}={text}" for name, text in shown.items() if text)[:500]
