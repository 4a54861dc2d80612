"""The event catalogue: every event of events.jsonl, with its level and its fields.

Names are a contract: operators' scripts and the lnav format match on them. Closed vocabularies in fields (close
reasons, host states …) are those of `core.enums`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Event(StrEnum):
    """Everything that is logged besides attempts."""

    # the process
    START = "start"
    READY = "ready"
    RECOVERED = "recovered"
    RELOAD_OK = "reload_ok"
    RELOAD_FAILED = "reload_failed"
    CONTROL = "control"
    REEVALUATION_OVER = "reevaluation_over"  # of all hosts, by changed rules; numbers of URLs denied and queued again
    PROGRESS = "progress"
    HOURS = "hours"
    SCHEDULE = "schedule"
    ROUND_OVER = "round_over"
    DRAIN = "drain"
    STOP = "stop"
    LOOP_LAG = "loop_lag"
    CLOCK_SET = "clock_set"
    # connections
    CONN_OPEN = "conn_open"
    CONN_CLOSE = "conn_close"
    CONN_FAIL = "conn_fail"
    TLS_VERIFY_OFF = "tls_verify_off"
    DESCRIPTORS_FEW = "descriptors_few"
    # hosts and URLs
    HOST_STATE = "host_state"
    ROBOTS = "robots"
    URL_SKIPPED = "url_skipped"
    SCOPE_WIDENED = "scope_widened"
    PROBE = "probe"
    SUSPECT = "suspect"
    REEVALUATED = "reevaluated"
    ROBOTS_CHANGED = "robots_changed"
    SLOTS = "slots"  # of a database that agents share: this one took some over, or gave some back
    AGENT_GONE = "agent_gone"
    OUTAGE = "outage"
    OUTAGE_OVER = "outage_over"
    # output
    FILE_CLOSED = "file_closed"
    FILE_LOST = "file_lost"  # deleted, moved or truncated while it was written
    DISK_LOW = "disk_low"
    DISK_OK = "disk_ok"
    LOG_DROPPED = "log_dropped"
    # records of other loggers: the standard library's logging and warnings, asyncio
    LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class Spec:
    """Level and fields of an event."""

    level: int  # the usual one
    lifecycle: bool  # shown on the console and in the journal even if it is no warning
    required: frozenset[str]  # fields that are always there
    optional: frozenset[str] = frozenset()


def _spec(required: str = "", optional: str = "", *, level: int = logging.INFO, lifecycle: bool = False) -> Spec:
    return Spec(level, lifecycle, frozenset(required.split()), frozenset(optional.split()))


CATALOGUE: Final[Mapping[Event, Spec]] = {
    Event.START: _spec("version pid", "config output agent python proxy round round_started_at", lifecycle=True),
    Event.READY: _spec("", "queued waiting hosts socket admin dur_ms", lifecycle=True),
    Event.RECOVERED: _spec("clean", "orphans cut missing truncated_bytes hosts backoffs", lifecycle=True),
    Event.RELOAD_OK: _spec("changed needs_restart", "old new new_seeds", lifecycle=True),
    Event.RELOAD_FAILED: _spec("message", "file line column", level=logging.ERROR, lifecycle=True),
    Event.CONTROL: _spec("command", "arguments pid uid detail", lifecycle=True),
    Event.REEVALUATION_OVER: _spec("hosts denied queued", lifecycle=True),
    Event.PROGRESS: _spec(
        "responses_per_s pages_per_s bytes_per_s queued hosts bottleneck",
        "responses pages bytes errors denied waiting in_flight connections max_rss_bytes cpu_percent open_at",
        lifecycle=True,
    ),
    Event.HOURS: _spec("open", "until", lifecycle=True),
    Event.SCHEDULE: _spec("what", "queued round next detail", lifecycle=True),
    Event.ROUND_OVER: _spec("round started_at visited unchanged changed gone failed new", lifecycle=True),
    Event.DRAIN: _spec("", "in_flight reason", lifecycle=True),
    Event.STOP: _spec(
        "reason",
        "responses pages bytes errors dur_ms round round_ended visited unchanged changed gone failed new",
        lifecycle=True,
    ),
    Event.LOOP_LAG: _spec("lag_ms", level=logging.WARNING),
    Event.CLOCK_SET: _spec("step_s", level=logging.WARNING),
    Event.CONN_OPEN: _spec(
        "conn_id server_address network_peer_address",
        "server_port network_peer_port dns_ms connect_ms tls_ms tls_protocol_version tls_resumed "
        "tls_next_protocol proxy",
    ),
    Event.CONN_CLOSE: _spec(
        "conn_id requests age_ms bytes reason",
        "server_address server_port network_peer_address detail tls_protocol_version tls_resumed tls_next_protocol "
        "host_connections host_requests host_reuse_ratio",
    ),
    Event.CONN_FAIL: _spec(
        "stage error_type", "conn_id server_address server_port network_peer_address network_peer_port detail dur_ms"
    ),
    Event.TLS_VERIFY_OFF: _spec("", "server_address", level=logging.WARNING),
    Event.DESCRIPTORS_FEW: _spec("limit connections wanted", level=logging.WARNING),
    Event.HOST_STATE: _spec("server_address from to reason", "server_port until strikes"),
    Event.ROBOTS: _spec(
        "server_address", "server_port url_full verdict status crawl_delay_s expires_at error_type detail"
    ),
    Event.URL_SKIPPED: _spec("url_full deny_reason", "rule via server_address source"),
    Event.SCOPE_WIDENED: _spec("server_address via", lifecycle=True),
    Event.PROBE: _spec("server_address soft_404", "server_port"),
    Event.SUSPECT: _spec(
        "server_address template why action", "server_port judged alike pages urls", level=logging.WARNING
    ),
    Event.REEVALUATED: _spec("server_address denied queued", "server_port"),
    Event.ROBOTS_CHANGED: _spec("server_address added removed", "server_port"),
    Event.SLOTS: _spec("taken given_back own", lifecycle=True),
    Event.AGENT_GONE: _spec("agent slots", level=logging.WARNING),
    Event.OUTAGE: _spec("hosts since error_type", level=logging.WARNING),
    Event.OUTAGE_OVER: _spec("hosts outage_s", level=logging.WARNING),
    Event.FILE_CLOSED: _spec("name bytes records sha256", "sink"),
    Event.FILE_LOST: _spec("name how bytes urls", "sink place", level=logging.WARNING),
    Event.DISK_LOW: _spec("path free_bytes min_free_bytes", "detail", level=logging.WARNING),
    Event.DISK_OK: _spec("path free_bytes", "paused_s", level=logging.WARNING),
    Event.LOG_DROPPED: _spec("file lines", "lines_total", level=logging.WARNING),
    Event.LIBRARY: _spec("logger message", "exception", level=logging.WARNING),
}
