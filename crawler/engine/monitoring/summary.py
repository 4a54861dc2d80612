"""The summary of a crawl: the names of `crawl --json`, which scripts rely on."""

import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from crawler.core.enums import OutcomeLabel
from crawler.core.models import Origin
from crawler.engine.monitoring.counters import CrawlCounters
from crawler.engine.monitoring.ending import Ending
from crawler.fetch.pool_statistics import HostConnections, PoolStats


def peak_rss_bytes() -> int:
    """The most memory this process has held. Not ru_maxrss, which remembers the process this one was forked from."""
    return _memory("VmHWM:")


def rss_bytes() -> int:
    """The memory this process holds now."""
    return _memory("VmRSS:")


def _memory(name: str) -> int:
    with suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summarise(
    counters: CrawlCounters,
    stats: PoolStats,
    hosts: int,
    output: Path,
    end: Ending,
    duration_s: float,
    *,
    most_opened: Sequence[tuple[Origin, HostConnections]] = (),
    unstored: int = 0,
) -> dict[str, object]:
    """What this run did, not what the directory has seen in its life. `most_opened`: of which hosts to show the
    connections.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "responses": counters.responses,
        "pages": counters.pages,
        "bytes": counters.bytes,
        "errors": counters.errors,
        "answers": {str(word): number for word, number in sorted(counters.answers.items()) if number},
        "auxiliary": counters.auxiliary,
        "http_errors": counters.answers[OutcomeLabel.HTTP_ERROR],
        "gave_up": counters.gave_up.total(),
        "denied": counters.denied,
        "unstored": unstored,
        "urls": asdict(end.urls),
        "left_by": end.left_by,
        "suspects": [
            {"host": host, "template": one.template, "urls": one.urls, "examples": list(one.examples)}
            for host, one in end.suspects
        ],
        "links_found": counters.links_found,
        "links_new": counters.links_new,
        "hosts": hosts,
        "connections_opened": stats.opened,
        "requests_per_connection": stats.requests_per_connection,
        "connection_reuse_ratio": round(stats.reuse_ratio, 4),
        "connections_failed": stats.failed,
        "connections_closed": {reason.value: count for reason, count in sorted(stats.closed.items())},
        "connections_by_host": [_of_host(origin, host) for origin, host in most_opened],
        "tls_handshakes": stats.tls_handshakes,
        "tls_resumed": stats.tls_resumed,
        "duration_s": round(duration_s, 3),
        "pages_per_s": round(counters.pages / duration_s, 1) if duration_s > 0 else 0.0,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "max_rss_bytes": peak_rss_bytes(),
        "output": str(output),
        "stopped_by": end.stopped_by.value,
    }


def _of_host(origin: Origin, host: HostConnections) -> dict[str, object]:
    return {
        "host": str(origin),
        "connections": host.opened,
        "requests": host.requests,
        "reuse_ratio": round(host.reuse_ratio, 4),
        "tls_handshakes": host.tls_handshakes,
        "tls_resumed": host.tls_resumed,
    }
