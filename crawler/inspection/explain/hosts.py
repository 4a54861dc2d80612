"""The hosts of a crawl: state and queue from the store, speed and connections from the newest part of the log.

The time until a queue is empty is the larger of two lower bounds: one from the delay, one from the gaps between
requests in the log. URLs that are not found yet are not considered.
Invariants: a host has one state, the most severe one that applies, and `why` is the reason. The time is None if neither
a delay nor a gap is known.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from crawler.core.enums import HostState
from crawler.core.formatting import count, unreadable_robots
from crawler.core.models import Origin
from crawler.core.options import PolitenessOptions
from crawler.core.politeness import CLOCK_GUARD_S, host_delay, overridden, politeness_key
from crawler.core.scope import Overrides, option_text
from crawler.engine.scheduling.restrictions import Blocklist
from crawler.frontier.sqlite.store_reader import Row, StoreReader
from crawler.inspection.log.query import host_test
from crawler.inspection.log.totals import HostTally

_USUAL_GAPS: Final = 0.95  # share of the gaps between requests; the longest are left out: nights, restarts, back-offs
WAITING: Final = "waiting"  # the host waits for the delay after its last request
_WAITS_FROM_S: Final = 1.0  # a shorter wait is not shown: it is over before a person reads it
STATES: Final = (
    HostState.BLOCKED.value,
    HostState.HELD.value,
    HostState.BACKOFF.value,
    WAITING,
    HostState.READY.value,
    HostState.NEW.value,
)


LOOKED_AT: Final = 5_000  # hosts of which the first are shown, in a store of more
_BESIDE_AT_MOST: Final = 20_000  # hosts of the same politeness keys that count in a time until a queue is empty
_PARKED_STATES: Final = frozenset((HostState.BLOCKED.value, HostState.HELD.value, HostState.BACKOFF.value))
_ORDERS: Final[Mapping[str, str]] = {  # of HOST_ORDERS, for each of SORTS
    "state": "queued",
    "host": "host",
    "queued": "queued",
    "fetched": "fetched",
    "errors": "errors",
    "bytes": "bytes",
    "slow": "queued",
    "eta": "queued",
    "until": "ready",
    "last": "last",
}


@dataclass(slots=True)
class HostView:
    """The facts about one origin. `ok` and `errors` count attempts at pages since the crawl began.

    Response times (p50 and p95, milliseconds), connections opened and requests per connection come from the log; they
    are None if it has no line of the host. `eta_s` is the time in seconds until the queue is empty, None if unknown or
    if the host gets no requests. `agent` owns the host, of those that share a database.
    """

    host: str
    origin: str
    state: str
    until_at: float | None
    queued: int
    fetched: int
    ok: int
    errors: int
    bytes: int
    last_at: float | None
    why: str
    suspects: int = 0  # URLs set aside because their pages look endless
    p50_ms: float | None = None
    p95_ms: float | None = None
    throttled: int = 0
    connections_open: int | None = None
    connections_opened: int | None = None
    requests_per_connection: float | None = None
    eta_s: float | None = None
    agent: str | None = None


def views(
    reader: StoreReader,
    politeness: PolitenessOptions,
    tallies: Mapping[str, HostTally],
    states: Mapping[tuple[str, int], Mapping[str, Any]],
    open_now: Mapping[str, int] | None,
    *,
    now: float,
    host_ids: Sequence[int] | None = None,
    overrides: Overrides | None = None,
) -> list[HostView]:
    """The views of all hosts, or of those with these ids. `states` maps (host, port) to the last `host_state` event of
    the present run. `open_now` maps hosts to their number of open connections; it is None if no crawl runs.
    """
    overrides = Overrides() if overrides is None else overrides
    blocks = Blocklist()
    blocks.load(reader.blocks())
    suspects: dict[int, list[int]] = {}
    for row in reader.suspects(host_ids):
        suspects.setdefault(row["host"], []).append(row["urls"])
    found = []
    rows = list(reader.hosts(host_ids))
    if host_ids is None:
        beside, backoffs, responses = [], reader.backoffs(), reader.response_times()
    else:
        beside = reader.hosts_beside(host_ids, _BESIDE_AT_MOST)
        names = {politeness_key(row["host"], politeness) for row in rows}
        backoffs = {name: backoff for name in names if (backoff := reader.backoff(name)) is not None}
        responses = {name: reader.response_time(name) for name in names}
    requested: list[tuple[HostView, str, Row]] = []  # hosts that get requests, with their politeness keys
    keys = _keys([*rows, *beside], politeness, overrides, responses)
    agents = reader.slot_agents()
    for row in rows:
        origin = Origin(row["scheme"], row["host"], row["port"])
        key = politeness_key(origin.host, politeness)
        state, until_at, why = _state(row, keys[key].next_at, backoffs.get(key), blocks, overrides, states, now)
        view = HostView(
            host=origin.host if origin.port in (80, 443) else f"{origin.host}:{origin.port}",
            origin=str(origin),
            state=state,
            until_at=until_at,
            queued=row["queued"],
            fetched=row["fetched"],
            ok=row["ok"],
            errors=row["errors"],
            bytes=row["bytes"],
            last_at=row["last_at"],
            why=why,
            suspects=sum(suspects.get(row["id"], ())),
            agent=agents.get(row.get("slot", -1)),
        )
        if view.suspects:
            templates = count(len(suspects[row["id"]]), "URL template")
            traps = f"{count(view.suspects, 'URL')} of {templates} set aside because the pages look endless"
            view.why = f"{why}; {traps}" if why else traps
        tally = tallies.get(origin.host)
        if tally is not None:
            view.p50_ms, view.p95_ms = _hundredths(tally.spread.quantile(0.5)), _hundredths(tally.spread.quantile(0.95))
            view.throttled = tally.throttled
            view.connections_opened = tally.opened
            view.requests_per_connection = _hundredths(tally.requests / tally.opened) if tally.opened else None
        if open_now is not None:
            view.connections_open = open_now.get(origin.host, 0)
        found.append(view)
        if state not in (HostState.BLOCKED, HostState.HELD):
            requested.append((view, key, row))
    others = [
        row for row in beside
        if (row["robots_verdict"] != "unreachable" or overrides.of(row["host"]).robots == "ignore")
        and blocks.covers(row["host"]) is None and overrides.disabled_by(row["host"]) is None
    ]  # fmt: skip
    _estimate(requested, others, politeness, overrides, responses, tallies, now)
    return found


def first_hosts(
    reader: StoreReader,
    *,
    sort: str,
    hosts: Sequence[str],
    states: Collection[str],
    now: float,
    tallies: Mapping[str, HostTally],
    limit: int,
) -> tuple[list[int], bool]:
    """The ids of the hosts among which the first by `sort` are, and whether these are all: `limit` that the store
    finds first in about this order, and as many that may not be requested now. `hosts`: only those named so ("*.name":
    all below it). `states`: those that are shown; () shows all.
    """
    only_parked = bool(states) and _PARKED_STATES.issuperset(states)
    names = list(hosts) or [""]
    if sort == "slow":
        is_one = host_test(tuple(hosts))
        names = sorted(tallies, key=lambda name: -(tallies[name].spread.quantile(0.95) or 0.0))
        names = [name for name in names if not hosts or is_one(name.strip("[]"))][:limit]
    ids: dict[int, None] = {}
    is_complete = sort != "slow"
    for name in names:
        for parked in {only_parked, only_parked or sort in ("state", "until")}:
            found = reader.first_hosts(_ORDERS[sort], name, only_parked=parked, now=now, limit=limit)
            is_complete = is_complete and len(found) < limit
            ids |= dict.fromkeys(found)
    return list(ids), is_complete


def _hundredths(value: float | None) -> float | None:
    """More figures would only look exact: quantiles are, to a tenth."""
    return None if value is None else round(value, 2)


@dataclass(slots=True)
class _KeyState:
    """A politeness key: the time of the last stored request to one of its hosts, and its delay."""

    last_at: float = 0.0
    delay_s: float = 0.0

    @property
    def next_at(self) -> float:
        return self.last_at + self.delay_s


def _keys(
    rows: list[Row], politeness: PolitenessOptions, overrides: Overrides, responses: Mapping[str, float]
) -> dict[str, _KeyState]:
    keys: dict[str, _KeyState] = {}
    for row in rows:
        name = politeness_key(row["host"], politeness)
        key = keys.setdefault(name, _KeyState())
        key.last_at = max(key.last_at, row["last_at"] or 0.0)
        options = overridden(politeness, overrides.of(row["host"]))
        delay_s = host_delay(options, row["robots_crawl_delay_s"], responses.get(name, 0.0))
        key.delay_s = max(key.delay_s, delay_s)
    return keys


def _estimate(
    requested: list[tuple[HostView, str, Row]],
    others: Sequence[Row],
    politeness: PolitenessOptions,
    overrides: Overrides,
    responses: Mapping[str, float],
    tallies: Mapping[str, HostTally],
    now: float,
) -> None:
    """Set `eta_s` of each host that gets requests; `others` that have requests stand beside them."""
    of_key: defaultdict[str, list[int]] = defaultdict(list)
    of_name: defaultdict[str, list[int]] = defaultdict(list)
    for _, key, row in requested:
        of_key[key].append(row["queued"])
        of_name[row["host"]].append(row["queued"])
    for row in others:
        of_key[politeness_key(row["host"], politeness)].append(row["queued"])
        of_name[row["host"]].append(row["queued"])
    by_key = {key: RoundRobin(lengths) for key, lengths in of_key.items()}
    by_name = {name: RoundRobin(lengths) for name, lengths in of_name.items()}
    for view, key, row in requested:
        options = overridden(politeness, overrides.of(row["host"]))
        gap_s = request_gap_s(options, row["robots_crawl_delay_s"], responses.get(key, 0.0))
        view.eta_s = eta_s(
            view.queued,
            gap_s * by_key[key].until_done(view.queued),
            logged_gap_s(tallies.get(row["host"])) * by_name[row["host"]].until_done(view.queued),
            0.0 if view.until_at is None or view.state == WAITING else view.until_at - now,
        )


def _state(
    row: Row,
    next_at: float,
    backoff: Row | None,
    blocks: Blocklist,
    overrides: Overrides,
    states: Mapping[tuple[str, int], Mapping[str, Any]],
    now: float,
) -> tuple[str, float | None, str]:
    """The state of a host, its end (None if unknown), and the reason."""
    host = row["host"]
    block = blocks.covers(host)
    if block is not None:
        return HostState.BLOCKED.value, None, block.reason or "by command"
    if (rule := overrides.disabled_by(host)) is not None:
        return HostState.BLOCKED.value, None, rule
    override = overrides.of(host)
    if row["robots_verdict"] == "unreachable" and override.robots != "ignore":
        why = unreadable_robots(row["robots_status"], row["robots_error"])
        return HostState.HELD.value, row["robots_expires_at"], why
    if backoff is not None and backoff["until_at"] > now:
        return HostState.BACKOFF.value, backoff["until_at"], backoff["reason"]
    event = states.get((host, row["port"]))
    if event is not None and event["to"] == HostState.BACKOFF and event["until_at"] > now:
        return HostState.BACKOFF.value, event["until_at"], str(event["reason"])
    if row.get("parked") == HostState.BACKOFF and row["ready_at"] > now:
        return HostState.BACKOFF.value, row["ready_at"], row["reason"] or ""
    delay = row["robots_crawl_delay_s"] if override.robots != "ignore" else None
    why = f"Crawl-delay {delay:g} s" if delay else ""
    decided = ((option, overrides.deciding(host, option)) for option in ("delay_s", "recrawl"))
    why = ", ".join(
        filter(None, (*(option_text(found, option) for option, found in decided if found is not None), why))
    )
    if row["queued"] and next_at >= now + _WAITS_FROM_S:
        return WAITING, next_at, why or "delay"
    if row["robots_verdict"] is None:
        return HostState.NEW.value, None, ""
    return HostState.READY.value, None, why


SORTS: Final[Mapping[str, Callable[[HostView], tuple[Any, ...]]]] = {
    "state": lambda view: (STATES.index(view.state), -view.queued, view.host),
    "host": lambda view: (view.host,),
    "queued": lambda view: (-view.queued, view.host),
    "fetched": lambda view: (-view.fetched, view.host),
    "errors": lambda view: (-view.errors, view.host),
    "bytes": lambda view: (-view.bytes, view.host),
    "slow": lambda view: (-(view.p95_ms or 0.0), view.host),
    "eta": lambda view: (view.eta_s is None, -(view.eta_s or 0.0), view.host),
    "until": lambda view: (view.until_at is None, view.until_at or 0.0, view.host),
    "last": lambda view: (-(view.last_at or 0.0), view.host),
}


# -- when a queue is empty


class RoundRobin:
    """Queues of hosts that share a rate limit. The hosts get one request each in turn."""

    __slots__ = ("_lengths", "_sums")

    def __init__(self, lengths: Iterable[int]) -> None:
        self._lengths = sorted(lengths)
        self._sums = list(accumulate(self._lengths, initial=0))

    def until_done(self, queued: int) -> int:
        """Compute the number of requests to all hosts until a queue of length `queued` is empty."""
        shorter = bisect_left(self._lengths, queued)
        return self._sums[shorter] + (len(self._lengths) - shorter) * queued


def request_gap_s(politeness: PolitenessOptions, crawl_delay_s: float | None, response_s: float) -> float:
    """Compute the seconds between two requests from the delay; 0 without a delay. `response_s`: 0 if unknown."""
    delay_s = host_delay(politeness, crawl_delay_s, response_s)
    return delay_s + CLOCK_GUARD_S + response_s if delay_s > 0 else 0.0


def logged_gap_s(tally: HostTally | None) -> float:
    """Compute the mean seconds between two requests in the log; 0 if unknown."""
    return 0.0 if tally is None else (tally.gaps.mean(_USUAL_GAPS) or 0.0) / 1e3


def eta_s(queued: int, by_delay_s: float, by_log_s: float, backoff_s: float) -> float | None:
    """Compute the seconds until a queue is empty, including a back-off of `backoff_s`. A bound of 0 is unknown."""
    if queued <= 0:
        return 0.0
    longer_s = max(by_delay_s, by_log_s)
    return round(max(0.0, backoff_s) + longer_s, 1) if longer_s > 0 else None
