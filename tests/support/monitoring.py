"""The status of a crawl in a test."""

from crawler.engine.monitoring.latency import LatencyMeters
from crawler.engine.monitoring.status import Monitor
from crawler.fetch.pool_statistics import REQUEST_BOUNDS, PoolStats
from tests.support.engine import Engine

NO_CONNECTIONS = PoolStats(
    opened=0, closed={}, failed=0, requests=0, reused=0, tls_handshakes=0, tls_resumed=0, bytes=0,
    requests_at_close=(0,) * (len(REQUEST_BOUNDS) + 1), requests_closed=0, open=0, idle=0, opening=0, waiting=0,
)  # fmt: skip


def monitor_of(engine: Engine, meters: LatencyMeters | None = None) -> Monitor:
    """Of an engine whose fetcher has no connections."""
    return Monitor(
        crawl=engine.crawl, scheduler=engine.scheduler, committer=engine.committer, workers=engine.workers,
        tally=engine.tally, meters=meters or LatencyMeters(), pool_stats=lambda: NO_CONNECTIONS, exchanges=dict,
        frontier=engine.frontier, clock=engine.clock,
    )  # fmt: skip
