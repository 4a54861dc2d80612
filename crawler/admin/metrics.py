"""The metrics in Prometheus's text format (version 0.0.4), from a Status and the Meters.

Names and labels are a contract (docs/OPERATIONS.md). No label has a host or a URL: series stay few whatever is crawled.
Nothing is counted here; a scrape reads what is counted anyway.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crawler.core.enums import CloseReason, OutcomeWord
from crawler.engine.monitoring.latency import BOUNDS_S, Histogram, LatencyMeters
from crawler.engine.monitoring.status import Status
from crawler.fetch.pool_statistics import REQUEST_BOUNDS, PoolStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Beside:
    """What a Status does not say. Times are UTC epoch seconds."""

    version: str
    last_reload_succeeded: bool
    progress_at: float


def exposition(status: Status, meters: LatencyMeters, stats: PoolStats, beside: Beside) -> str:
    """The whole page."""
    counts, rates = status.counts, status.rates
    outcomes = {str(word): counts.outcomes.get(word, 0) for word in OutcomeWord}
    closed = {str(reason): stats.closed.get(reason, 0) for reason in CloseReason}
    lent = stats.open - stats.idle
    urls = dict(status.urls)
    hosts = {word: n for word, n in status.hosts.items() if word not in ("total", "with_work")}
    resumed = {"true": stats.tls_resumed, "false": stats.tls_handshakes - stats.tls_resumed}
    lines: list[str] = []
    add = lines.extend
    add(_counter("crawler_fetches_total", "Attempts, by how they ended.", "outcome", outcomes))
    add(
        _counter(
            "crawler_fetch_errors_total", "Attempts that failed, by what went wrong.", "error_type", counts.error_types
        )
    )
    add(_counter("crawler_denied_total", "URLs refused when their turn came, by why.", "reason", counts.deny_reasons))
    add(_histogram("crawler_fetch_duration_seconds", "Whole attempts.", [("", meters.duration)]))
    add(
        _histogram(
            "crawler_fetch_phase_seconds",
            "Phases of attempts.",
            [(f'phase="{name}"', histogram) for name, histogram in meters.phases.items()],
        )
    )
    add(_one("crawler_response_bytes_total", "counter", "Bytes of heads and bodies received.", counts.bytes))
    add(
        _gauge(
            "crawler_connections",
            "Connections now.",
            "state",
            {"idle": stats.idle, "lent": lent, "opening": stats.opening, "waiting": stats.waiting},
        )
    )
    add(_one("crawler_connections_opened_total", "counter", "Connections opened.", stats.opened))
    add(_counter("crawler_connections_closed_total", "Connections closed, by why.", "reason", closed))
    add(_connection_requests(stats))
    add(_counter("crawler_tls_handshakes_total", "TLS handshakes.", "resumed", resumed))
    add(_one("crawler_inflight", "gauge", "URLs that workers have.", len(status.in_flight)))
    add(_gauge("crawler_frontier_urls", "URLs in the store.", "state", urls))
    add(_gauge("crawler_hosts", "Hosts known.", "state", hosts))
    add(
        _one(
            "crawler_oldest_ready_seconds",
            "gauge",
            "How long the key has been due that is due longest.",
            status.oldest_ready_s,
        )
    )
    add(
        _one(
            "crawler_event_loop_lag_seconds",
            "gauge",
            "Worst lateness of the event loop in the last seconds.",
            rates.loop_lag_s,
        )
    )
    add(_one("crawler_log_dropped_total", "counter", "Log lines lost.", status.log_dropped))
    add(
        _one(
            "crawler_config_last_reload_success",
            "gauge",
            "Whether the last reload came into force.",
            int(beside.last_reload_succeeded),
        )
    )
    add(_gauge("crawler_build_info", "The version that runs.", "version", {beside.version: 1}))
    add(
        _one(
            "crawler_last_progress_timestamp_seconds",
            "gauge",
            "When something last happened, or had a reason not to.",
            round(beside.progress_at, 3),
        )
    )
    add(
        _gauge(
            "crawler_memory_held_bytes",
            "Bytes held by bounded structures.",
            "structure",
            {one.name: one.held for one in status.memory if one.unit == "bytes"},
        )
    )
    add(
        _gauge(
            "crawler_memory_limit_bytes",
            "What they may come to.",
            "structure",
            {one.name: one.limit for one in status.memory if one.unit == "bytes" and one.limit is not None},
        )
    )
    add(_one("crawler_resident_memory_bytes", "gauge", "Memory of the process.", status.rss_bytes))
    return "\n".join(lines) + "\n"  # fmt: skip


def _one(name: str, kind: str, words: str, value: float) -> list[str]:
    return [*_head(name, kind, words), f"{name} {_number(value)}"]


def _counter(name: str, words: str, label: str, values: Mapping[str, int]) -> list[str]:
    return _labelled(name, "counter", words, label, values)


def _gauge(name: str, words: str, label: str, values: Mapping[str, int]) -> list[str]:
    return _labelled(name, "gauge", words, label, values)


def _labelled(name: str, kind: str, words: str, label: str, values: Mapping[str, int]) -> list[str]:
    samples = [f'{name}{{{label}="{_escaped(word)}"}} {_number(value)}' for word, value in sorted(values.items())]
    return [*_head(name, kind, words), *samples]


def _histogram(name: str, words: str, histograms: Iterable[tuple[str, Histogram]]) -> list[str]:
    lines = _head(name, "histogram", words)
    for labels, histogram in histograms:
        lines += _buckets(name, labels, BOUNDS_S, histogram.counts, histogram.total_s)
    return lines


def _connection_requests(stats: PoolStats) -> list[str]:
    """Requests that each closed connection had carried."""
    name = "crawler_connection_requests"
    lines = _head(name, "histogram", "Requests carried by connections that are closed.")
    return lines + _buckets(name, "", REQUEST_BOUNDS, stats.requests_at_close, stats.requests_closed)


def _buckets(name: str, labels: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> list[str]:
    before = f"{labels}," if labels else ""
    lines, so_far = [], 0
    for bound, count in zip(bounds, counts, strict=False):
        so_far += count
        lines.append(f'{name}_bucket{{{before}le="{_number(bound)}"}} {so_far}')
    so_far += counts[len(bounds)]
    lines.append(f'{name}_bucket{{{before}le="+Inf"}} {so_far}')
    braced = f"{{{labels}}}" if labels else ""
    return [*lines, f"{name}_sum{braced} {_number(total)}", f"{name}_count{braced} {so_far}"]


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) or value != int(value) else str(int(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
