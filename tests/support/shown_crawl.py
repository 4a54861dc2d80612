"""A crawl to be shown: the status, series and hosts of an engine in the midst of a scripted web with faults."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crawler.admin.attention import attention
from crawler.core.enums import ErrorType, StoppedBy, TaskKind
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import ScopeOptions
from crawler.engine.monitoring.counters import SAMPLE_S
from crawler.engine.monitoring.event_log import RecentError
from crawler.engine.options import EngineOptions
from tests.support.engine import Harness
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import run

HOSTS = 70


@dataclass
class ShownCrawl:
    """`MonitoredCrawl` of admin.status_page, as it stood at one moment."""

    now: dict[str, Any]
    series: dict[str, Any]
    rows: dict[tuple[str, str], dict[str, Any]]  # by state and sort

    def status(self) -> Mapping[str, Any]:
        return self.now

    def history(self) -> Mapping[str, Any]:
        return self.series

    async def hosts(self, *, text: str, state: str, sort: str, limit: int) -> Mapping[str, Any]:
        found = self.rows[state, sort]
        hosts = [row for row in found["hosts"] if text in row["host"]]
        return found | {"matching": len(hosts) if text else found["matching"], "hosts": hosts[:limit]}

    async def last_attempts(self, host: str) -> list[dict[str, Any]]:
        line = {"ts": "2026-11-30T03:00:00.000Z", "fetch_id": 7, "url_full": f"https://{host}/a?b", "outcome": "error"}
        return [line | {"error_type": "read_timeout", "dur_ms": 1234.5}]

    def metrics(self) -> str:
        return ""

    def stall(self) -> str:
        return ""

    def is_ready(self) -> bool:
        return True

    async def why(self, url: str) -> Mapping[str, Any]:
        chain = [{"step": "scope", "verdict": "ok", "text": "the host is a seed's"}]
        chain.append({"step": "robots.txt", "verdict": "DENY", "text": "Disallow: /a"})
        return {"url": url, "headline": f"{url} is not fetched", "chain": chain, "next": "nothing"}


def _response(origin: Origin, task: Task) -> FetchResult:
    number = int(origin.host.split(".")[0][1:])
    if number % 11 == 3:
        return response(503, retry_after="900")
    if number % 13 == 5:
        return failed(ErrorType.CONNECT_REFUSED)
    if task.kind is TaskKind.ROBOTS:
        return response(404)
    rest = len(task.url) % 5
    if rest == 0:
        return response(404)
    if rest == 1:
        return response(301, location="/moved" + "x" * len(task.url))
    links = [f"https://h{(number * 7 + n) % HOSTS}.test/{'p' * (n + rest)}" for n in range(6)]
    return response(200, page(*links), took_s=0.2)


def shown_crawl(*, is_idle: bool = False) -> ShownCrawl:
    """A crawl of two minutes, or one (`is_idle`) that has not begun."""
    return run(_crawl(0.0 if is_idle else 125.0))


async def _crawl(seconds: float) -> ShownCrawl:
    engine = Harness(
        *(f"https://h{n}.test/" for n in range(0 if not seconds else HOSTS)),
        scope=ScopeOptions(hosts=("*.test",)),
        engine=EngineOptions(workers=32, linger_s=None, min_free=0, drain_s=5.0),
    )
    engine.web.other = _response
    await engine.open()
    running = asyncio.ensure_future(engine.engine.run())
    await engine.monitor.sample()
    for _ in range(int(seconds / SAMPLE_S)):
        await asyncio.sleep(SAMPLE_S)
        await engine.monitor.sample()
    status: dict[str, Any] = engine.monitor.status().as_json() | {
        "crawl": "example.org", "mode": "run", "pid": 1234, "version": "0.1.0", "output": "/var/lib/crawler/example",
        "memory": [asdict(one) for one in engine.engine.bounded()],
        "warnings": [], "log_dropped": 0, "recent_errors": [],
    }  # fmt: skip
    if seconds:
        warning = {"ts": "2026-11-30T02:59:00.000Z", "event": "reload_failed", "level": "warning"}
        status["warnings"] = [warning | {"message": "crawl.seeds: expected a list"}]
        errors = [
            RecentError(f"h{n}.test", "status 503", 3 + n, status["at"], f"https://h{n}.test/a?b=c") for n in range(12)
        ]
        status["recent_errors"] = [asdict(one) for one in errors]
    status["attention"] = attention(status, "", 1_500 << 20 if seconds else None, 1_000 << 20)
    rows = {
        (state, sort): await engine.monitor.find_hosts(text="", state=state, sort=sort, limit=50)
        for state in ("", "broken", "held", "backoff", "blocked", "ready", "new")
        for sort in ("broken", "busy", "queued", "fetched", "host")
    }
    shown = ShownCrawl(status, engine.monitor.history(), rows)
    engine.crawl.drain(StoppedBy.SIGNAL)
    await running
    await engine.close()
    return shown
