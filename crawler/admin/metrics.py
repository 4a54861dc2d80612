"""The metrics in Prometheus's text format (version 0.0.4), from a Status and the Meters.

Names and labels are a contract (docs/reference/metrics.md). No label has a host or a URL: series stay few whatever is
crawled. A scrape reads existing counters and counts nothing itself.
"""

from collections.abc import Mapping, Sequence

from crawler.core.enums import Bottleneck, CloseReason, CrawlState, OutcomeLabel
from crawler.engine.monitoring.counters import BOUNDS_S, LatencyMeters
from crawler.engine.monitoring.status import Bounded, Status
from crawler.fetch.pool_statistics import REQUEST_BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(
    status: Status,
    meters: LatencyMeters,
    memory: Sequence[Bounded],
    *,
    version: str,
    log_dropped: int,
    last_reload_succeeded: bool,
    progress_at: float,
    free_bytes: int | None,
    min_free_bytes: int,
) -> str:
    """The whole page. `progress_at` (UTC) is when the crawl last made progress or had a reason to wait.
    `free_bytes` are those on the disk of the output, None if they cannot be known.
    """
    counts, stats = status.counts, status.connections
    in_bytes = [one for one in memory if one.unit == "bytes"]
    values: list[tuple[str, str, str, float]] = [
        ("crawler_response_bytes_total", "counter", "Bytes of heads and bodies received.", counts.bytes),
        ("crawler_connections_opened_total", "counter", "Connections opened.", stats.opened),
        ("crawler_inflight", "gauge", "URLs that workers are fetching.", len(status.in_flight)),
        ("crawler_oldest_ready_seconds", "gauge", "Time since the longest due politeness key became due.",
         status.oldest_ready_s),
        ("crawler_event_loop_lag_seconds", "gauge", "Largest delay of the event loop in the last seconds.",
         status.rates.loop_lag_s),
        ("crawler_uncommitted_visits", "gauge", "Visits that are not stored yet.", status.uncommitted),
        ("crawler_output_min_free_bytes", "gauge", "output.min_free: the crawl pauses with less on the disk.",
         min_free_bytes),
        ("crawler_log_dropped_total", "counter", "Log lines lost.", log_dropped),
        ("crawler_config_last_reload_success", "gauge", "Whether the last reload came into force.",
         int(last_reload_succeeded)),
        ("crawler_last_progress_timestamp_seconds", "gauge", "Last progress, or reason to wait.",
         round(progress_at, 3)),
        ("crawler_resident_memory_bytes", "gauge", "Memory of the process.", status.rss_bytes),
    ]  # fmt: skip
    if (fleet := status.fleet) is not None:
        values += [
            ("crawler_agents_alive", "gauge", "Agents that share the database and live.", fleet.alive),
            ("crawler_slots_owned", "gauge", "Slots of this agent, of 1,024.", fleet.slots),
            ("crawler_lease_age_seconds", "gauge", "Time since the lease was renewed.", fleet.renewed_s),
            ("crawler_lease_seconds", "gauge", "frontier.lease.", fleet.lease_s),
            ("crawler_inbox_urls", "gauge", "URLs that agents found for each other and have not stored yet.",
             fleet.inbox_urls),
            ("crawler_database_look_seconds", "gauge", "Duration of the last look at the other agents.", fleet.look_s),
        ]  # fmt: skip
    if free_bytes is not None:
        values.append(("crawler_output_free_bytes", "gauge", "Free on the disk of the output.", free_bytes))
    labelled: list[tuple[str, str, str, str, Mapping[str, int]]] = [
        ("crawler_fetches_total", "counter", "Attempts, by outcome.", "outcome",
         {word: counts.outcomes.get(word, 0) for word in OutcomeLabel}),
        ("crawler_fetch_errors_total", "counter", "Failed attempts, by error type.", "error_type",
         counts.error_types),
        ("crawler_denied_total", "counter", "URLs refused when they were due, by reason.", "reason",
         counts.deny_reasons),
        ("crawler_connections", "gauge", "Connections now.", "state",
         {"idle": stats.idle, "lent": stats.open - stats.idle, "opening": stats.opening, "waiting": stats.waiting}),
        ("crawler_connections_closed_total", "counter", "Connections closed, by reason.", "reason",
         {reason: stats.closed.get(reason, 0) for reason in CloseReason}),
        ("crawler_tls_handshakes_total", "counter", "TLS handshakes.", "resumed",
         {"true": stats.tls_resumed, "false": stats.tls_handshakes - stats.tls_resumed}),
        ("crawler_frontier_urls", "gauge", "URLs in the store.", "state", status.urls),
        ("crawler_hosts", "gauge", "Hosts known.", "state",
         {word: n for word, n in status.hosts.items() if word not in ("total", "with_work")}),
        ("crawler_state", "gauge", "1 for what the crawl does, 0 for the other states.", "state",
         {state: int(state == status.state) for state in CrawlState}),
        ("crawler_bottleneck", "gauge", "1 for what would have to change for it to be faster.", "bottleneck",
         {bottleneck: int(bottleneck == status.bottleneck) for bottleneck in Bottleneck}),
        ("crawler_build_info", "gauge", "The version that runs.", "version", {version: 1}),
        ("crawler_memory_held_bytes", "gauge", "Bytes held by bounded structures.", "structure",
         {one.name: one.held for one in in_bytes}),
        ("crawler_memory_limit_bytes", "gauge", "Limits of bounded structures.", "structure",
         {one.name: one.limit for one in in_bytes if one.limit is not None}),
    ]  # fmt: skip
    lines: list[str] = []
    for name, kind, help_text, value in values:
        lines += [*_head(name, kind, help_text), f"{name} {_number(value)}"]
    for name, kind, help_text, label, by_label in labelled:
        lines += _head(name, kind, help_text)
        lines += [f'{name}{{{label}="{_escaped(text)}"}} {_number(n)}' for text, n in sorted(by_label.items())]
    name = "crawler_fetch_duration_seconds"
    lines += _head(name, "histogram", "Duration of attempts.")
    lines += _buckets(name, "", BOUNDS_S, meters.duration.counts, meters.duration.total_s)
    name = "crawler_fetch_phase_seconds"
    lines += _head(name, "histogram", "Duration of the phases of attempts.")
    for phase, histogram in meters.phases.items():
        lines += _buckets(name, f'phase="{phase}"', BOUNDS_S, histogram.counts, histogram.total_s)
    name = "crawler_connection_requests"
    lines += _head(name, "histogram", "Requests carried by connections that are closed.")
    lines += _buckets(name, "", REQUEST_BOUNDS, stats.requests_at_close, stats.requests_closed)
    return "\n".join(lines) + "\n"


def _buckets(name: str, labels: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> list[str]:
    before = f"{labels}," if labels else ""
    lines, so_far = [], 0
    for bound, count in zip([*map(_number, bounds), "+Inf"], counts, strict=True):
        so_far += count
        lines.append(f'{name}_bucket{{{before}le="{bound}"}} {so_far}')
    braced = f"{{{labels}}}" if labels else ""
    return [*lines, f"{name}_sum{braced} {_number(total)}", f"{name}_count{braced} {so_far}"]


def _head(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) or value != int(value) else str(int(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
