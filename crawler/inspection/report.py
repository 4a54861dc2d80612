"""Report on a period: totals, outcomes, errors, refusals, hosts, connections, seeds that were not reached.

The report is one dict of plain values from the totals of the log, from events and from the store. The command prints
it, the HTML page draws it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from crawler.core.enums import Next, UrlState
from crawler.core.models import Origin
from crawler.core.outcomes import UrlCounts
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.log.query import Line, Matcher, Query, matching
from crawler.inspection.log.rotated_log import RotatedLog, epoch
from crawler.inspection.log.totals import HostTally, LogTotals, RunningTime
from crawler.obs.fetch_line import host_of, redact

# The title of each part, the same in text and HTML.
TITLES: Final = {
    "errors": "Errors",
    "connect_failures": "Connections that failed",
    "backoffs": "Hosts that backed off or were held",
    "refusals": "Denied requests",
    "refused_links": "Refused links",
    "content_types": "Content types",
    "slowest_hosts": "Slowest hosts",
    "faultiest_hosts": "Hosts with the most throttling and errors",
    "busiest_hosts": "Busiest hosts",
    "slowest_urls": "Slowest responses, from the request to the last byte",
    "seeds_not_reached": "Seeds not reached",
    "events": "Events",
}
HOSTS_COUNTED: Final = "attempts in this period, also at robots.txt, sitemaps, feeds and probes"
HOST_COUNTED: Final = "pages, robots.txt, sitemaps, feeds and probes"

LISTED: Final = 10
SEEDS_LISTED: Final = 20
SEEDS_WITHIN_S: Final = 4.0
_MIN_RESPONSES: Final = 5  # of a host among the slowest: fewer make no quantile
_REORDERED: Final = 10_000  # requests; more are never processed at once
_NOTED: Final = ("start", "stop", "recovered", "reload_ok", "reload_failed", "disk_low", "disk_ok", "log_dropped",
                 "tls_verify_off", "scope_widened", "loop_lag", "outage")  # fmt: skip


@dataclass(slots=True)
class EventTotals:
    """Counts of events.jsonl; `noted` are the last events that the report lists."""

    closes: Counter[str] = field(default_factory=Counter)
    failed_stages: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, tuple[set[str], str]] = field(default_factory=dict)  # reason → hosts, a sample
    states: Counter[str] = field(default_factory=Counter)  # "backoff: 429" → how often
    noted: list[Line] = field(default_factory=list)
    noted_in_all: int = 0

    def add(self, line: Line) -> None:
        match line.get("event"):
            case "conn_close":
                self.closes[str(line.get("reason"))] += 1
            case "conn_fail":
                self.failed_stages[f"{line.get('stage')}: {line.get('error_type')}"] += 1
            case "url_skipped":
                reason, url = str(line.get("deny_reason")), str(line.get("url_full", ""))
                hosts, _ = self.skipped.setdefault(reason, (set(), url))
                hosts.add(host_of(url))
            case "host_state" if line.get("to") in ("backoff", "held"):
                self.states[f"{line.get('to')}: {line.get('reason')}"] += 1
            case event if event in _NOTED:
                self.noted_in_all += 1
                self.noted.append(line)
                if len(self.noted) > 2 * LISTED:
                    del self.noted[0]


def total_events(parts: RotatedLog, query: Query) -> tuple[EventTotals, list[str]]:
    """Count the events of a period. The second value says what could not be read."""
    found, matcher = EventTotals(), Matcher(query)
    for _, line in matching(parts, matcher):
        found.add(line)
    return found, parts.problems() + matcher.problems("events.jsonl")


def report(tally: LogTotals, events: EventTotals, reader: StoreReader | None) -> dict[str, Any]:
    """The report, as values that JSON can hold."""
    period_s, running_s = _period_s(tally), tally.running.seconds
    full = tally.handshakes - tally.resumed
    over_tls = tally.requests if tally.handshakes else 0
    return {
        "since": tally.first_ts,
        "until": tally.last_ts,
        "duration_s": round(period_s, 1),
        "running_s": round(running_s, 1),
        "totals": {
            "attempts": tally.lines,
            "responses": tally.responses,
            "pages": tally.pages,
            "auxiliary": tally.auxiliary,
            "robots_txt": tally.robots,
            "bytes": tally.bytes,
            "pages_per_s": round(tally.pages / running_s, 2) if running_s else 0.0,
            "links_found": tally.links_found,
            "links_new": tally.links_new,
            "retries": tally.retries,
            "gave_up": tally.nexts[Next.GAVE_UP],
        },
        "times_ms": _times(tally),
        "outcomes": _ordered(tally.outcomes),
        "statuses": {str(status): number for status, number in sorted(tally.statuses.items())},
        "errors": _ordered(tally.error_types),
        "connect_failures": _ordered(events.failed_stages),
        "refusals": _ordered(tally.deny_reasons),
        "refused_links": {
            reason: {"hosts": len(hosts), "sample": redact(sample)}
            for reason, (hosts, sample) in sorted(events.skipped.items())
        },
        "backoffs": _ordered(events.states),
        "content_types": {
            name: {"responses": number, "bytes": tally.content_bytes[name]}
            for name, number in tally.content_types.most_common(LISTED)
        },
        "connections": {
            "opened": tally.opened,
            "requests": tally.requests,
            "requests_each": round(tally.requests / tally.opened, 1) if tally.opened else None,
            "tls_handshakes": tally.handshakes,
            "tls_resumed": tally.resumed,
            "full_handshakes_saved": max(0, over_tls - full),
            "resent": tally.resent,
            "closed": _ordered(events.closes),
        },
        "hosts": len(tally.hosts),
        "slowest_hosts": [_host(name, host) for name, host in _slowest(tally)],
        "faultiest_hosts": [_host(name, host) for name, host in _most_faulty(tally)],
        "busiest_hosts": [_host(name, host) for name, host in _busiest(tally)],
        "slowest_urls": [{"url": url, "ms": round(ms, 1)} for ms, url in sorted(tally.slowest, reverse=True)],
        "seeds_not_reached": _seeds(reader),
        "now": _now(reader),
        "urls": None if reader is None else asdict(UrlCounts.of(reader.totals())),
        "robots_unreadable": _unreadable(reader),
        "events": events.noted[-LISTED:],
        "events_in_all": events.noted_in_all,
    }


def _period_s(tally: LogTotals) -> float:
    first, last = epoch(tally.first_ts), epoch(tally.last_ts)
    return max(0.0, last - first) if first is not None and last is not None else 0.0


def _times(tally: LogTotals) -> dict[str, float | None]:
    return {name: _round(tally.spread.quantile(share)) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _slowest(tally: LogTotals) -> list[tuple[str, HostTally]]:
    named = [(host.spread.quantile(0.95) or 0.0, name, host) for name, host in tally.hosts.items()
             if sum(host.spread.values()) >= _MIN_RESPONSES]  # fmt: skip
    return [(name, host) for _, name, host in sorted(named, key=lambda one: (-one[0], one[1]))[:LISTED]]


def _most_faulty(tally: LogTotals) -> list[tuple[str, HostTally]]:
    """The hosts with the most throttling and faults. A missing page (4xx) is no fault of its host."""
    faults = {name: _faults(host) for name, host in tally.hosts.items()}
    faulty = [(name, host) for name, host in tally.hosts.items() if host.throttled or faults[name]]
    return sorted(faulty, key=lambda one: (-one[1].throttled, -faults[one[0]], one[0]))[:LISTED]


def _faults(host: HostTally) -> int:
    """The number of errors and of responses with status 5xx."""
    return sum(number for word, number in host.errors.items() if not word.startswith("4"))


def _busiest(tally: LogTotals) -> list[tuple[str, HostTally]]:
    return sorted(tally.hosts.items(), key=lambda one: (-one[1].attempts, one[0]))[:LISTED]


def _host(name: str, host: HostTally) -> dict[str, Any]:
    return {
        "host": name,
        "attempts": host.attempts,
        "ok": host.good,
        "bad": host.bad,
        "throttled": host.throttled,
        "p50_ms": _round(host.spread.quantile(0.5)),
        "p95_ms": _round(host.spread.quantile(0.95)),
        "requests_per_connection": round(host.requests / host.opened, 1) if host.opened else None,
        "bytes": host.bytes,
        "most_frequent_error": host.errors.most_common(1)[0][0] if host.errors else None,
    }


def _seeds(reader: StoreReader | None) -> dict[str, Any] | None:
    if reader is None:
        return None
    rows, is_whole = reader.unreached_seeds(SEEDS_LISTED, within_s=SEEDS_WITHIN_S)
    listed = []
    for row in rows:
        host = reader.host_by_id(row["host"])
        origin = "" if host is None else str(Origin(host["scheme"], host["host"], host["port"]))
        state = row["state"]
        why = row["last_error"] or (f"status {row['last_status']}" if row["last_status"] else "not tried yet")
        listed.append({"url": redact(f"{origin}{row['target']}"), "state": state, "why": why})
    return {"seeds": listed, "all_looked_through": is_whole}


def _now(reader: StoreReader | None) -> dict[str, int] | None:
    """URLs in the store by state."""
    counts = reader.totals() if reader is not None else None
    if not counts:
        return None
    return {str(name): counts.get(name, 0) for name in (*UrlState, "hosts")}


def _unreadable(reader: StoreReader | None) -> list[dict[str, Any]]:
    """Counts of hosts whose robots.txt cannot be read, by cause; nothing is fetched from them."""
    rows = [] if reader is None else reader.unreadable_robots()
    return [{"status": row["status_code"], "error_type": row["error"], "hosts": row["hosts"]} for row in rows[:LISTED]]


@dataclass(slots=True)
class HostReport:
    """Figures of all requests to a host. `shortest_gap_s` is the shortest time from the end of a response to the next
    request; below 0 they overlapped. Lines are in the order in which responses were processed: the last `_REORDERED`
    requests are held in a heap, from which they are taken in the order in which they were sent.
    """

    host: str
    requests: int = 0
    denied: int = 0
    first_ts: str = ""
    last_ts: str = ""
    running: RunningTime = field(default_factory=RunningTime)
    bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    shortest_gap_s: float | None = None
    _pending: list[tuple[float, float]] = field(default_factory=list)  # a heap of (sent, response ended)
    _last_end: float | None = None

    def add(self, line: Line) -> None:
        outcome = str(line.get("outcome", "?"))
        ts = str(line.get("ts", ""))
        self.first_ts = self.first_ts or ts
        self.last_ts = ts
        self.running.add(str(line.get("run_id", "")), ts)
        if outcome == "denied":  # no request
            self.denied += 1
            return
        self.outcomes[outcome] += 1
        self.requests += 1
        self.bytes += line.get("http_response_body_size", 0)
        if line.get("conn_request_n") == 1:
            self.connections += 1
        if address := line.get("network_peer_address"):
            self.addresses[str(address)] += 1
        begin = epoch(str(line.get("sent_at", "")))  # none: there was no connection, or an older version wrote the line
        if begin is None:
            return
        end = begin + (line.get("ttfb_ms", 0.0) + line.get("body_ms", 0.0)) / 1e3
        heappush(self._pending, (begin, end))
        if len(self._pending) > _REORDERED:
            self._measure_gap()

    def _measure_gap(self) -> None:
        """Take the pending request that was sent first, and measure the gap before it."""
        begin, end = heappop(self._pending)
        if self._last_end is not None:
            gap_s = begin - self._last_end
            self.shortest_gap_s = gap_s if self.shortest_gap_s is None else min(gap_s, self.shortest_gap_s)
            end = max(end, self._last_end)
        self._last_end = end

    def values(self) -> dict[str, Any]:
        """The figures of all lines, as values that JSON can hold."""
        while self._pending:
            self._measure_gap()
        running_s = self.running.seconds
        return {
            "host": self.host,
            "requests": self.requests,
            "denied": self.denied,
            "first": self.first_ts,
            "last": self.last_ts,
            "requests_per_minute": round(self.requests / running_s * 60, 2) if running_s > 60 else None,
            "bytes": self.bytes,
            "outcomes": _ordered(self.outcomes),
            "connections": self.connections,
            "addresses": _ordered(self.addresses),
            "shortest_gap_s": None if self.shortest_gap_s is None else round(self.shortest_gap_s, 3),
        }


def requests_to(parts: RotatedLog, matcher: Matcher, host: str) -> Iterable[tuple[bytes, Line, HostReport]]:
    """Each line about a host, as its bytes and parsed, and the figures up to it."""
    figures = HostReport(host)
    for raw, line in matching(parts, matcher):
        figures.add(line)
        yield raw, line, figures
