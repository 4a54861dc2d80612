"""The summary of a crawl: the names of `crawl --json`, which scripts rely on."""

import resource
from contextlib import suppress
from pathlib import Path

from crawler.core.vocabulary import StoppedBy
from crawler.engine.tally import Tally
from crawler.fetch.ledger import PoolStats


def peak_rss_bytes() -> int:
    """The most memory this process has held. Not ru_maxrss, which remembers the process this one was forked from."""
    with suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summarise(
    tally: Tally, stats: PoolStats, hosts: int, output: Path, stopped_by: StoppedBy, duration_s: float
) -> dict[str, object]:
    """What this run did, not what the directory has seen in its life."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "responses": tally.responses,
        "pages": tally.pages,
        "bytes": tally.bytes,
        "errors": tally.errors,
        "denied": tally.denied,
        "links_found": tally.links_found,
        "links_new": tally.links_new,
        "hosts": hosts,
        "connections_opened": stats.opened,
        "requests_per_connection": round(stats.requests / stats.opened, 1) if stats.opened else 0.0,
        "tls_handshakes": stats.tls_handshakes,
        "tls_resumed": stats.tls_resumed,
        "duration_s": round(duration_s, 3),
        "pages_per_s": round(tally.pages / duration_s, 1) if duration_s > 0 else 0.0,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "max_rss_bytes": peak_rss_bytes(),
        "output": str(output),
        "stopped_by": stopped_by.value,
    }
