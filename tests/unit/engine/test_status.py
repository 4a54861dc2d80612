"""The status of a crawl: every view shows the same, and it is right at each turn of a crawl."""

import asyncio
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from rich.console import Console

from crawler.admin.metrics import exposition
from crawler.cli.progress import panel
from crawler.cli.status import lines
from crawler.core.enums import CrawlState, StoppedBy, TaskKind
from crawler.core.models import FetchResult, Origin, Task
from crawler.core.options import PolitenessOptions, ScopeOptions
from crawler.engine.monitoring.counters import POINT_S, SAMPLE_S, CrawlCounters, LatencyMeters, RateMeter
from crawler.engine.monitoring.status import Monitor, Status
from crawler.engine.options import EngineOptions
from crawler.frontier.base import Batch, BlockedHost, Receipt
from crawler.obs.events import Event
from tests.support.engine import AT_ONCE, POLITE, Harness, seed
from tests.support.log_lines import COMMON, problems
from tests.support.quick_frontier import QuickFrontier
from tests.support.scripted_web import NO_CONNECTIONS, page, response
from tests.support.trap_site import TrapSite
from tests.support.virtual_time import EPOCH, LoopClock, elapse, run, virtual_loop

DAEMON = EngineOptions(workers=8, linger_s=None, min_free=0, drain_s=5.0)
ROOT = "https://a.test/"


def site(pages: int, *seeds: str, politeness: PolitenessOptions = POLITE) -> Harness:
    """A page that links to so many others of its host, in a crawl that does not end by itself."""
    web = {ROOT: response(200, page(*(f"/{n}" for n in range(pages))))}
    engine = Harness(ROOT, *seeds, engine=DAEMON, web=web, politeness=politeness)
    engine.web.other = lambda origin, task: response(404 if task.kind is TaskKind.ROBOTS else 200, page())
    return engine


async def sampled(monitor: Monitor) -> None:
    while True:
        await monitor.sample()
        await asyncio.sleep(SAMPLE_S)


async def watched(engine: Harness, monitor: Monitor, *after_s: float) -> list[Status]:
    """The status after so many seconds each, of a crawl that is then stopped."""
    await engine.open()
    crawling = asyncio.ensure_future(engine.crawl.run())
    sampling = asyncio.ensure_future(sampled(monitor))
    seen = []
    for seconds in after_s:
        await elapse(seconds - engine.clock.mono())
        seen.append(monitor.status())
    engine.crawl.drain(StoppedBy.SIGNAL)
    await crawling
    sampling.cancel()
    with suppress(asyncio.CancelledError):
        await sampling
    return seen


def metrics_of(status: Status) -> dict[str, float]:
    text = exposition(
        status, LatencyMeters(), [], version="1", log_dropped=0, last_reload_succeeded=True, progress_at=0.0,
        free_bytes=None, min_free_bytes=0,
    )  # fmt: skip
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_the_key_that_makes_the_delay_is_named() -> None:
    """politeness.adaptive while a host responds slowly, not politeness.delay, which is shorter."""

    async def main() -> None:
        engine = site(20, politeness=PolitenessOptions(delay_s=1.0))
        engine.web.other = lambda origin, task: (
            response(404) if task.kind is TaskKind.ROBOTS else response(200, page(), took_s=0.4)
        )
        sentences = {status.sentence for status in await watched(engine, engine.monitor, *range(10, 20))}
        assert (
            "politeness: 1 host with work, limited by politeness.adaptive (2 s: slow responses make the delay longer)"
            in sentences
        )

    run(main())


@pytest.mark.parametrize(
    ("address_delay_s", "addresses", "named"),
    [
        (0.5, 1, "limited by politeness.address_delay (1"),
        (0.0, 60, "engine.active_hosts (20 hosts in memory, others are ready)"),
    ],
)
def test_what_many_hosts_wait_for_is_named(address_delay_s: float, addresses: int, named: str) -> None:
    """An IP address that they share, or the bound of hosts in memory if others are ready in the store."""

    async def main() -> None:
        politeness = PolitenessOptions(delay_s=1.0, address_delay_s=address_delay_s, adaptive=False)
        engine = Harness(
            *(f"https://h{n}.test/" for n in range(60)),
            politeness=politeness,
            engine=replace(DAEMON, active_hosts=20),
            frontier=QuickFrontier(),
        )
        engine.web.addresses = {f"h{n}.test": f"192.0.2.{n % addresses}" for n in range(60)}
        sentences = {status.sentence for status in await watched(engine, engine.monitor, *range(3, 9))}
        assert any(named in sentence for sentence in sentences), sentences

    run(main())


def test_all_views_of_one_instant_agree() -> None:
    """Terminal view, progress event, `status` and its JSON, the service manager's line and the metrics show one state,
    bottleneck, queue, number of requests in flight, counts and rates; what is queued adds up.
    """

    async def main() -> None:
        engine = site(200, *(f"https://b.test/{n}" for n in range(5)))
        engine.web.takes_s = lambda origin, task: 0.5
        await engine.frontier.block(BlockedHost("b.test", "host", 0.0, ""))
        (status,) = await watched(engine, engine.monitor, 60.9)
        told: dict[str, Any] = orjson.loads(orjson.dumps(status.as_json()))
        progress, metrics = status.as_progress(), metrics_of(status)
        console = Console(file=io.StringIO(), width=200, color_system=None)
        console.print(panel(status))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        about = {
            "crawl": "c",
            "pid": 1,
            "output": "/o",
            "memory": [],
            "log_dropped": 0,
            "warnings": [],
            "attention": [],
        }
        screen = "\n".join(lines(told | about))

        assert (told["state"], told["bottleneck"]) == ("crawling", progress["bottleneck"])
        assert told["bottleneck"] == "politeness"
        assert shown.startswith("● crawling")
        assert f"c is crawling: {told['sentence']}" in screen
        assert told["sentence"] in status.as_line()

        queued = told["urls"]["queued"]
        assert queued == progress["queued"] == metrics['crawler_frontier_urls{state="queued"}'] > 100
        assert told["held_back_by"] == {"blocked": told["held_back"], "limit": 0}
        queue = f"{queued:,} queued (5 held back by a block), 0 due later"
        assert f"{queue} · 1 in flight" in shown
        assert f"fetched, {queue}" in screen
        assert "  attention    nothing: the crawl does what it should" in screen
        assert f"{queued:,} queued" in status.as_line()

        in_flight = len(told["in_flight"])
        assert metrics[f'crawler_state{{state="{status.state}"}}'] == 1
        assert metrics[f'crawler_bottleneck{{bottleneck="{status.bottleneck}"}}'] == 1
        assert in_flight == progress["in_flight"] == metrics["crawler_inflight"] == 1

        counts, rates = told["counts"], told["rates"]
        assert counts["responses"] == progress["responses"] > 20
        assert counts["bytes"] == progress["bytes"] == metrics["crawler_response_bytes_total"]
        assert f"attempts     {sum(counts['outcomes'].values())}: " in shown
        responses = f"{counts['responses']} (1 to robots.txt, sitemaps, feeds and probes)"
        assert f"responses    {responses}, {rates['responses_per_s']:.1f}/s" in screen
        for name in ("responses_per_s", "pages_per_s", "bytes_per_s"):
            assert rates[name] == progress[name] > 0
        assert 0.5 < rates["pages_per_s"] <= 1.0
        assert f"{rates['pages_per_s']:.1f}/s now" in shown
        assert told["hosts"]["total"] == progress["hosts"] == 2
        assert sum(n for word, n in told["hosts"].items() if word not in ("total", "with_work")) == 2
        assert "2, 1 with work, 1 blocked" in shown
        assert "2, 1 with work, 1 blocked" in screen
        line = dict.fromkeys(COMMON, "") | {"event": Event.PROGRESS} | json.loads(orjson.dumps(progress))
        assert problems(line) == []

    run(main())


def test_the_state_follows_the_crawl() -> None:
    """A pause, a full disk, a block, and nothing to do, each in the status of the same instant."""

    async def main() -> None:
        engine = site(30)
        monitor = engine.monitor
        await engine.open()
        crawling = asyncio.ensure_future(engine.crawl.run())

        def now() -> tuple[str, str]:
            status = monitor.status()
            return status.state, status.bottleneck

        await elapse(5.5)
        assert now() == ("crawling", "politeness")
        engine.crawl.disk("no space left")
        assert now() == ("paused", "disk")
        engine.crawl.hold(True)
        assert now() == ("paused", "operator")
        engine.crawl.disk(None)
        assert now() == ("paused", "operator")
        engine.crawl.hold(False)
        assert now() == ("crawling", "politeness")
        engine.host_table.blocklist.add(BlockedHost("a.test", "host", 0.0, ""))
        engine.scheduler.blocklist_changed()
        await elapse(2.0)
        assert now() == ("idle", "empty")
        await monitor.sample()
        await elapse(1.0)
        status = monitor.status()
        assert status.sentence.startswith(
            f"nothing to do: {status.held_back} URLs of {ROOT[:-1]} blocked by the operator"
        )
        assert status.held_back == status.urls["queued"]
        assert status.held_back_by == {"blocked": status.held_back, "limit": 0}
        assert status.hosts == {"new": 0, "ready": 0, "backoff": 0, "held": 0, "blocked": 1, "total": 1, "with_work": 0}
        engine.host_table.blocklist.remove("a.test")
        engine.scheduler.blocklist_changed()
        await elapse(100.0)
        assert now() == ("idle", "empty")
        assert monitor.status().sentence == "nothing to do: no URL is queued"
        engine.crawl.drain(StoppedBy.SIGNAL)
        assert now()[0] == "draining"
        await crawling
        assert now()[0] == "draining"

    run(main())


class SlowStore(QuickFrontier):
    """Takes its time for a commit."""

    async def settle(self, batch: Batch) -> Receipt:
        await asyncio.sleep(0.15)
        return await super().settle(batch)


def test_a_crawl_that_tries_suspects_is_not_idle() -> None:
    """Each of them is fetched only when the one before is stored: between two there is nothing in flight."""

    async def main() -> None:
        trap = TrapSite()
        engine = Harness(
            ROOT, politeness=AT_ONCE, scope=ScopeOptions(max_depth=None), engine=DAEMON, frontier=SlowStore()
        )

        def respond(origin: Origin, task: Task) -> FetchResult:
            return response(404) if task.kind is TaskKind.ROBOTS else trap.respond(task.url.removeprefix(ROOT[:-1]))

        engine.web.other = respond
        monitor = engine.monitor
        await engine.open()
        crawling = asyncio.ensure_future(engine.crawl.run())
        seen: list[tuple[float, CrawlState, bool]] = []
        while engine.clock.mono() < 600.0:
            await elapse(0.1)
            host = engine.host("a.test")
            seen.append((engine.clock.mono(), monitor.status().state, host.has_suspects))
        engine.crawl.drain(StoppedBy.SIGNAL)
        await crawling
        last = engine.web.requests[-1].end
        assert any(has_suspects for at, _, has_suspects in seen if at < last)
        assert {state for at, state, _ in seen if at < last} == {"crawling"}
        assert seen[-1][1] == "idle"

    run(main())


def test_what_is_in_flight_is_told_with_its_stage_and_age() -> None:
    """The oldest first; a request that no connection carries yet is connecting."""

    async def main() -> None:
        engine = Harness(ROOT, "https://b.test/", politeness=AT_ONCE, engine=DAEMON)
        engine.web.takes_s = lambda origin, task: 9.0 if origin.host == "a.test" else 4.0
        (status,) = await watched(engine, engine.monitor, 5.0)
        assert [(one.url, one.kind, one.stage) for one in status.in_flight] == [
            (f"{ROOT}robots.txt", "robots", "connect"), ("https://b.test/", "page", "connect"),
        ]  # fmt: skip
        assert [round(one.age_s) for one in status.in_flight] == [5, 1]
        assert status.bottleneck == "network"
        assert status.sentence == "the network: 2 requests in flight, the oldest for 5 s"

    run(main())


def test_the_busiest_hosts_come_with_what_keeps_them() -> None:
    """Those with requests in flight first; until when one backs off, and after what."""

    async def main() -> None:
        engine = Harness(*(f"https://h{n}.test/{m}" for n in range(3) for m in range(n + 1)), engine=DAEMON)

        def respond(origin: Origin, task: Task) -> FetchResult:
            if task.kind is TaskKind.ROBOTS:
                return response(404)
            return response(503, retry_after="600") if origin.host == "h1.test" else response(200, page())

        engine.web.other = respond
        engine.web.takes_s = lambda origin, task: 60.0 if origin.host == "h2.test" else 0.1
        monitor = engine.monitor
        found: list[dict[str, Any]] = []

        async def look() -> None:
            await elapse(20.0)
            searched = await monitor.find_hosts(text="", state="", sort="busy", limit=2)
            assert (searched["total"], searched["matching"]) == (3, 3)
            found.extend(searched["hosts"])
            broken = await monitor.find_hosts(text="H", state="broken", sort="broken", limit=9)
            assert [host["host"] for host in broken["hosts"]] == ["https://h1.test"]
            for text, number in (("s://h1.TEST", 1), ("https", 0), ("h1.test:", 0), ("h1.test:80", 0)):
                assert (await monitor.find_hosts(text=text, state="", sort="busy", limit=9))["matching"] == number

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            await watched(engine, monitor, 30.0)
        first, second = found
        assert (first["host"], first["in_flight"], first["why"]) == ("https://h2.test", 1, "")
        assert (second["host"], second["state"], second["why"]) == ("https://h1.test", "backoff", "503 Retry-After 600")
        assert 1_700_000_600 < second["until_at"] < 1_700_000_605

    run(main())


def test_rates_are_means_of_the_last_seconds() -> None:
    """And how late the loop was is the worst of them."""

    async def main() -> None:
        counters = CrawlCounters()
        rates = RateMeter(counters, LatencyMeters(), LoopClock(virtual_loop()))
        assert rates.rates().pages_per_s == 0.0
        for second in range(20):
            await elapse(SAMPLE_S if second != 17 else SAMPLE_S + 0.25)
            counters.pages += 10 if second < 10 else 20
            counters.bytes += 1_000
            assert rates.sample(NO_CONNECTIONS, 0) < 0.001 or second == 17
        found = rates.rates()
        assert found.pages_per_s == round(80 / 4.25, 2)
        assert found.bytes_per_s == round(4_000 / 4.25)
        assert found.loop_lag_s == 0.25
        assert found.responses_per_s == 0.0

    run(main())


def test_a_plot_has_a_point_every_ten_seconds_of_the_last_hour() -> None:
    """All series are of one length, and what happened between two points is a rate."""

    async def main() -> None:
        counters, meters = CrawlCounters(), LatencyMeters()
        rates = RateMeter(counters, meters, LoopClock(virtual_loop()))
        for _ in range(3_700):
            await elapse(SAMPLE_S)
            counters.outcomes["ok"] += 2
            counters.bytes += 100
            meters.duration.add(0.2)
            rates.sample(NO_CONNECTIONS, 7)
        columns: Mapping[str, Any] = json.loads(orjson.dumps(rates.history()))
        series = [values for name, values in columns.items() if name != "outcomes"] + list(columns["outcomes"].values())
        assert {len(values) for values in series} == {360}
        assert round(columns["at"][-1] - columns["at"][0]) == 359 * POINT_S
        assert set(columns["outcomes"]["ok"]) == {2.0}
        assert set(columns["outcomes"]["error"]) == {0.0}
        assert set(columns["bytes_per_s"]) == {100}
        assert set(columns["queued"]) == {7}
        assert set(columns["reuse"]) == {None}
        assert all(0.1 < p50 <= p95 <= 0.25 for p50, p95 in zip(columns["p50_s"], columns["p95_s"], strict=True))

    run(main())


def test_a_search_looks_through_hosts_in_memory_and_in_the_store() -> None:
    """Each once, by the same states and orders, and it says how many hosts it looked through."""

    async def main() -> None:
        engine = Harness("https://h0.test/", engine=replace(DAEMON, active_hosts=2), politeness=POLITE)
        engine.web.other = lambda origin, task: response(404 if task.kind is TaskKind.ROBOTS else 200, page())
        await engine.open()
        urls = [f"https://h{n}.test/{m}" for n in range(9) for m in range(n + 1)]
        engine.scheduler.discoveries_stored(await engine.frontier.add([seed(url) for url in urls], now=0.0))
        await engine.scheduler.workbench.exchange()
        find = engine.monitor.find_hosts
        in_memory = len(engine.host_table.hosts)
        assert 0 < in_memory < 9

        async def shown(state: str = "", sort: str = "queued", text: str = "", limit: int = 3) -> tuple[Any, list[str]]:
            found: dict[str, Any] = await find(text=text, state=state, sort=sort, limit=limit)
            assert (found["total"], found["searched"]) == (9, 9)
            return found["matching"], [host["host"].removeprefix("https://")[:2] for host in found["hosts"]]

        assert await shown() == (9, ["h8", "h7", "h6"])
        assert await shown("new", "host") == (9, ["h0", "h1", "h2"])
        assert await shown(text="7.t") == (1, ["h7"])
        assert await shown("broken") == (0, [])
        engine.engine.blocklist.add(BlockedHost("h5.test", "host", EPOCH, ""))
        engine.scheduler.blocklist_changed()
        assert await shown("blocked") == (1, ["h5"])
        assert (await shown(limit=9))[0] == 9
        await engine.close()

    run(main())
