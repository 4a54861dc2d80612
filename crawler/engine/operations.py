"""Operations of operators on a store: add URLs, queue them again, wake hosts, forget URLs, release suspects.

They are the same whether a crawl runs or not. While a crawl runs, the scheduler is updated as well.
Invariant: a URL that an operation removed from the store is in no buffer any more. If its request is in flight at that
moment, it is finished, and the store lists its record.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from crawler.core.enums import DenyReason, ErrorType, OutcomeLabel, RetryEffect, Source
from crawler.core.formatting import unreadable_robots
from crawler.core.models import Discovered, HostReadiness, HostRow, Origin, TemplateRow
from crawler.core.outcomes import TEMPORARY_STATUSES, backs_off_origin
from crawler.core.ownership import slot_in
from crawler.core.scope import Scope
from crawler.core.url import UrlError, key_of, parse_seed
from crawler.engine.scheduling.host_table import RETRY_AFTER, Woken
from crawler.engine.scheduling.restrictions import DOMAIN, Blocklist
from crawler.engine.scheduling.scheduler import Scheduler
from crawler.frontier.base import (
    Batch,
    BlockedHost,
    Forgotten,
    Frontier,
    Leaving,
    Receipt,
    RowQueries,
    UrlSelection,
    Wanted,
)

ERRORS: Final = frozenset((*ErrorType, *DenyReason))  # the words that `requeue` accepts
MAX_PRIORITY: Final = 1_000_000
RELEASED_AT_ONCE: Final = 5_000  # suspects of one transaction, for which other calls wait
_HOSTS_ONE_BY_ONE: Final = 1_000  # whose URLs are read by themselves; of more, all URLs are read in their order
_WOKEN_AT_ONCE: Final = 512  # hosts read into memory together
_WOKEN_NAMED: Final = 100  # hosts of one result
_ORIGIN_ERRORS: Final = tuple(filter(backs_off_origin, ErrorType))
FORGOTTEN_RULE: Final = "it was taken down by `crawler forget`, for good"
_IS_URL: Final = re.compile(r"[/\\?#@]")
_NO_STATUS: Final = '{!r} is neither a status code nor a class such as "4xx"'


def judge_added(texts: Iterable[str], scope: Scope, priority: int) -> tuple[list[Discovered], list[dict[str, str]]]:
    """Judge URLs to be added by the rules for seeds: any host is allowed, but exclude patterns apply.

    Return the URLs to add, and the refused ones with `url`, `reason` and `rule`.
    """
    found: list[Discovered] = []
    refused: list[dict[str, str]] = []
    for text in texts:
        try:
            url, origin = parse_seed(text)
        except UrlError as error:
            refused.append({"url": text, "reason": error.reason, "rule": str(error)})
            continue
        denied = scope.judge(url, origin, depth=0, hop_path="", source=Source.SEED)
        if denied is not None:
            refused.append({"url": url, "reason": denied.reason, "rule": denied.rule})
        else:
            found.append(Discovered(url, origin, key_of(url), 0, "", Source.SEED, priority))
    return found, refused


@dataclass(frozen=True, slots=True)
class TakedownTarget:
    """The target of a takedown: one URL, or every URL of `host` if `url` is None."""

    host: str
    url: str | None = None

    @classmethod
    def of(cls, text: str) -> "TakedownTarget":
        """A text without a path or query names a host. Raises UrlError."""
        text = text.strip()
        if text.startswith("*."):
            hint = f'`crawler hosts --host "{text}"` lists them, `crawler block {text[2:]}` stops them all'
            raise UrlError(DenyReason.URL_INVALID, f"hosts are taken down by their names, one by one: {hint}")
        url, origin = parse_seed(text)
        if _IS_URL.search(text):
            return cls(origin.host, url)
        if str(origin) != f"https://{origin.host}":
            raise UrlError(DenyReason.URL_INVALID, f"a host is forgotten on all its ports: {origin.host} names it")
        return cls(origin.host)

    def __str__(self) -> str:
        return self.url or self.host


async def host_ids(frontier: RowQueries, hosts: Iterable[str]) -> tuple[int, ...]:
    """The ids of the hosts with these names, without the brackets of an IPv6 address; "*.name": all below it."""
    found: set[int] = set()
    for host in map(str.lower, hosts):
        if host.startswith("*."):
            found.update((await frontier.hosts_below(host[2:])).ids)
        else:
            name = f"[{host}]" if ":" in host and not host.startswith("[") else host
            found.update(row.id for row in await frontier.hosts_named(name))
    return tuple(sorted(found))


async def forget(frontier: Frontier, target: TakedownTarget, now: float) -> Forgotten:
    if target.url is not None:
        return await frontier.forget_url(target.url, now=now)
    return await frontier.forget_host(target.host, now=now)


async def hosts_covered(frontier: RowQueries, block: BlockedHost) -> int:
    """The number of hosts that a block covers."""
    named = len(await frontier.hosts_named(block.name))
    return named + (len((await frontier.hosts_below(block.name)).ids) if block.kind == DOMAIN else 0)


async def hosts_below(frontier: RowQueries, target: TakedownTarget) -> int:
    """The number of host names below the target of a takedown, which are kept; 0 if it is a URL."""
    return 0 if target.url is not None else (await frontier.hosts_below(target.host)).names


def takedown_result(target: TakedownTarget, erased: Forgotten, hosts_below: int) -> dict[str, object]:
    """The result of a takedown, for the operator. `hosts_below`: of the store, below the target; they are kept."""
    return {"target": str(target), "urls": erased.urls, "again": erased.again, "hosts_below": hosts_below}


async def add(
    frontier: Frontier, found: Sequence[Discovered], refused: Sequence[dict[str, str]], now: float
) -> tuple[Receipt, dict[str, object]]:
    """Store the URLs that `judge_added` allowed. URLs that were taken down before are refused. Return the receipt, and
    the result for the operator; `sent` of the URLs went to other agents, which own their hosts.
    """
    agents = frontier.agents
    receipt = await frontier.add(found, now=now)
    sent = [] if agents is None else [one for one in found if not agents.owns_host(one.origin.host)]
    elsewhere = {id(one) for one in sent}
    known = [
        one for one, is_new in zip(found, receipt.links_new, strict=True) if not is_new and id(one) not in elsewhere
    ]
    gone = await frontier.forgotten(known)
    taken_down = [{"url": one.url, "reason": "forgotten", "rule": FORGOTTEN_RULE} for one in gone]
    new = sum(receipt.links_new)
    result: dict[str, object] = {"added": new, "known": len(known) - len(gone), "refused": [*refused, *taken_down]}
    return receipt, result | ({"sent": len(sent)} if sent else {})


def parse_endings(errors: Sequence[str], statuses: Sequence[str]) -> UrlSelection:
    """Parse the words of `requeue`: error_types and deny_reasons, and statuses such as "404" or "5xx".

    Raises ValueError, with a message for people, if a name is unknown or none is given.
    """
    for word in errors:
        if word not in ERRORS:
            hint = ": HTTP errors are named by their status, as 404 or 5xx" if word == OutcomeLabel.HTTP_ERROR else ""
            raise ValueError(f"{word!r} is neither an error_type nor a deny_reason{hint}")
    codes: set[int] = set()
    for text in statuses:
        word = text.strip().lower()
        if len(word) != 3 or not word.isascii() or word[0] not in "123456789":
            raise ValueError(_NO_STATUS.format(text))
        if word[1:] == "xx":
            codes.update(range(int(word[0]) * 100, int(word[0]) * 100 + 100))
        elif word.isdigit():
            codes.add(int(word))
        else:
            raise ValueError(_NO_STATUS.format(text))
    if not errors and not codes:
        raise ValueError("what ended how? Name an error_type, a deny_reason or a status")
    return UrlSelection(errors=tuple(errors), statuses=tuple(sorted(codes)))


async def requeue(
    frontier: Frontier, selection: UrlSelection, *, dry_run: bool = False, slots: Collection[int] | None = None
) -> Counter[int]:
    """Queue the selected URLs, of these slots of a shared store if they are given; their attempts start over. Returns
    host id → number of URLs; with `dry_run` nothing is changed. It runs in slices: after a crash only some may be
    queued.
    """
    counts: Counter[int] = Counter()
    host_ids = selection.host_ids
    is_one_by_one = host_ids is not None and len(host_ids) <= _HOSTS_ONE_BY_ONE
    for host_id in host_ids if host_ids is not None and is_one_by_one else (None,):
        after: int | None = None
        while True:
            found, after = await frontier.settled_urls(selection, after=after, host_id=host_id)
            if slots is not None:
                found = [one for one in found if slot_in(one.host_id) in slots]
            if dry_run:
                counts.update(one.host_id for one in found)
            elif found:
                counts.update(await frontier.queue_urls([one.id for one in found]))
            if after is None:
                break
    return counts


async def retry(
    scheduler: Scheduler, frontier: Frontier, host_ids: Sequence[int], on_host: Callable[[str], None]
) -> dict[str, object]:
    """Wake hosts of a running crawl, and queue their URLs that failed. `on_host` is called with the name of each.
    Returns the result for the operator.
    """
    woken: list[tuple[int, Origin, Woken]] = []
    for start in range(0, len(host_ids), _WOKEN_AT_ONCE):
        part = host_ids[start : start + _WOKEN_AT_ONCE]
        scheduler.workbench.need_hosts(part)
        for host_id in part:
            if (host := await scheduler.workbench.load_host(host_id)) is not None:
                on_host(host.origin.host)
                woken.append((host_id, host.origin, scheduler.retry(host)))
                host.pins -= 1
    counts = await _queue_failed(frontier, woken)
    scheduler.requeued(counts)
    return _retry_result(woken, counts)


async def retry_stored(frontier: Frontier, host_ids: Sequence[int], now: float) -> dict[str, object]:
    """The same while no crawl runs: the next run requests the hosts at once."""
    blocks = Blocklist()
    blocks.load(await frontier.blocks())
    woken: list[tuple[int, Origin, Woken]] = []
    for row in await frontier.host_rows_of(host_ids):
        is_blocked = blocks.covers(row.origin.host) is not None
        woken.append(
            (row.id, row.origin, Woken(RetryEffect.BLOCKED) if is_blocked else await _wake(frontier, row, now))
        )
    return _retry_result(woken, await _queue_failed(frontier, woken))


async def _wake(frontier: Frontier, row: HostRow, now: float) -> Woken:
    """Wake a stored host, as `HostTable.wake` does one in memory."""
    woken = Woken(RetryEffect.READY)
    if row.parked == "backoff" or (row.failures and row.ready_at > now):
        woken = Woken(RetryEffect.WOKEN, row.reason or "")
    if row.robots is not None and row.robots.verdict == "unreachable":  # a new run requests it at once
        woken = Woken(RetryEffect.ROBOTS, unreadable_robots(row.robots.status_code, row.robots.error))
    (key,) = (await frontier.exchange(Leaving(), Wanted(host_ids=[row.id]))).keys
    open_at, backoff = key.open_at, key.backoff
    backoffs = []
    if backoff is not None and backoff.until_at > now and RETRY_AFTER in backoff.reason:
        woken = Woken(RetryEffect.KEPT, backoff.reason, backoff.until_at)
    elif backoff is not None and backoff.until_at > now:
        woken = woken if woken.reason else Woken(RetryEffect.WOKEN, backoff.reason)
        open_at, backoffs = 0.0, [replace(backoff, until_at=0.0)]
    host = HostReadiness(row.id, 0.0, has_responded=row.has_responded)
    await frontier.exchange(Leaving([host], [(key.id, key.requested_at or 0.0, open_at)], backoffs), Wanted())
    return woken


async def _queue_failed(frontier: Frontier, woken: Iterable[tuple[int, Origin, Woken]]) -> Counter[int]:
    """Queue the URLs of hosts that last had no response, or a status that may be over soon, if the hosts may be
    requested.
    """
    ids = tuple(host_id for host_id, _, one in woken if one.effect not in (RetryEffect.KEPT, RetryEffect.BLOCKED))
    counts: Counter[int] = Counter()
    if ids:
        counts.update(await requeue(frontier, UrlSelection(errors=_ORIGIN_ERRORS, host_ids=ids)))
        counts.update(await requeue(frontier, UrlSelection(statuses=TEMPORARY_STATUSES, host_ids=ids)))
    return counts


def _retry_result(woken: Sequence[tuple[int, Origin, Woken]], counts: Counter[int]) -> dict[str, object]:
    """`hosts` has up to _WOKEN_NAMED hosts, those that had nothing to wait for last; `effects` counts all."""
    named = sorted(woken, key=lambda one: one[2].effect is RetryEffect.READY)[:_WOKEN_NAMED]
    return {
        "hosts": [{"host": str(origin), **one._asdict()} for _, origin, one in named],
        "effects": Counter(one.effect.value for _, _, one in woken),
        "urls": counts.total(),
    }


def drop_forgotten(scheduler: Scheduler, erased: Forgotten) -> None:
    """Drop erased URLs from the scheduler: none of them may be leased any more."""
    named = frozenset(erased.ids)
    for host_id in erased.host_ids:
        host = scheduler.host_table.hosts.get(host_id)
        if host is None:
            continue
        for task in [task for task in host.buffer if not named or task.id in named]:
            host.buffer.remove(task)
            host.leased.discard(task.id)
    scheduler.note_counts()


async def release(
    frontier: Frontier, host_ids: Collection[int], template: str | None, now: float
) -> tuple[dict[str, int], dict[int, int]]:
    """Release suspects of hosts: queue those of one template, or all, and hold none back again. Return their numbers by
    template and by host id.
    """
    rows: list[TemplateRow] = []
    queued: dict[str, int] = {}
    by_host: dict[int, int] = {}
    for host_id in sorted(host_ids):
        known = await frontier.templates_of_host(host_id)
        suspected = {row.template: row for row in known.rows if row.since_at is not None}
        held = {one.template: one.urls for one in known.suspects}
        for name in sorted(suspected.keys() | held.keys()):
            row = suspected.get(name) or TemplateRow(host_id, name)
            if template in (None, name) and (row.released_at is None or held.get(name)):
                rows.append(replace(row, released_at=now))
                queued.setdefault(name, 0)
    if rows:
        await frontier.settle(Batch([], [], templates=rows))
    for row in rows:
        while ids := await frontier.queue_suspects(row.host_id, row.template, RELEASED_AT_ONCE):
            queued[row.template] += len(ids)
            by_host[row.host_id] = by_host.get(row.host_id, 0) + len(ids)
    return queued, by_host
