"""What operators do to a store: which hosts and URLs a takedown names, and what it says."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.core.enums import ErrorType
from crawler.core.models import FetchResult
from crawler.core.url import UrlError
from crawler.engine.operations import (
    TakedownTarget,
    host_ids,
    hosts_below,
    hosts_covered,
    retry,
    retry_stored,
    takedown_result,
)
from crawler.engine.options import EngineOptions
from crawler.frontier.base import BlockedHost, Forgotten
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import POLITE, Harness, seed
from tests.support.memory_frontier import MemoryFrontier
from tests.support.scripted_web import failed, response
from tests.support.virtual_time import EPOCH, elapse, run


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a.test", TakedownTarget("a.test")),
        (" A.Test ", TakedownTarget("a.test")),
        ("b\u00fccher.test", TakedownTarget("xn--bcher-kva.test")),
        ("[::1]", TakedownTarget("[::1]")),
        ("127.1", TakedownTarget("127.0.0.1")),
        ("a.test/", TakedownTarget("a.test", "https://a.test/")),
        ("http://a.test", TakedownTarget("a.test", "http://a.test/")),
        ("a.test?id=1", TakedownTarget("a.test", "https://a.test/?id=1")),  # not the whole host
        ("a.test#x", TakedownTarget("a.test", "https://a.test/")),
        ("https://a.test:8443/a*", TakedownTarget("a.test", "https://a.test:8443/a*")),
    ],
)
def test_a_takedown_names_one_host_or_one_url(text: str, target: TakedownTarget) -> None:
    """A text with a path, a query or a scheme is a URL; a "*" in a path is a character like others."""
    assert TakedownTarget.of(text) == target


@pytest.mark.parametrize(
    "text",
    ["*.farm.test", "*", "!!", "h*", "https://h*/", "https://*.farm.test/x", "a.test:8443", "mailto:a@b.test", ""],
)
def test_a_takedown_of_anything_else_is_refused(text: str) -> None:
    """A pattern would be stored as a name that no host has; a host with a port would be erased on all ports."""
    with pytest.raises(UrlError):
        TakedownTarget.of(text)


async def test_a_takedown_says_which_hosts_it_leaves() -> None:
    """Hosts below a name are hosts of their own."""
    frontier = MemoryFrontier()
    await frontier.open()
    hosts = ("a.test", "x.a.test", "y.x.a.test", "ba.test")
    await frontier.add([seed(f"https://{host}/") for host in hosts] + [seed("http://x.a.test/")], now=0.0)
    target = TakedownTarget("a.test")
    assert await hosts_below(frontier, target) == 2
    assert await hosts_below(frontier, TakedownTarget.of("a.test/")) == 0
    assert takedown_result(target, Forgotten(3), 2) == {
        "target": "a.test", "urls": 3, "again": False, "hosts_below": 2,
    }  # fmt: skip


async def test_operations_name_hosts_as_people_do() -> None:
    """A name alone is that host on all its ports; "*." in front of it stands for all below it, but not for itself."""
    frontier = MemoryFrontier()
    await frontier.open()
    urls = ("https://a.test/", "http://a.test/", "https://x.a.test/", "https://ba.test/", "https://[::1]/")
    await frontier.add([seed(url) for url in urls], now=0.0)
    assert await host_ids(frontier, ["A.test"]) == (1, 2)
    assert await host_ids(frontier, ["*.a.test", "::1"]) == (3, 5)
    assert await host_ids(frontier, ["unknown.test"]) == ()
    assert await hosts_covered(frontier, BlockedHost("a.test", "host", 0.0, "")) == 2
    assert await hosts_covered(frontier, BlockedHost("a.test", "domain", 0.0, "")) == 3


DAEMON = EngineOptions(workers=4, linger_s=None, min_free=0, drain_s=5.0)
A = "https://a.test/"


Requests = list[tuple[str, float]]  # URLs, and seconds after the command


async def woken(
    broken: FetchResult, *, robots: FetchResult | None = None, active_hosts: int = 10_000, blocked: str = ""
) -> tuple[dict[str, Any], Requests]:
    """Crawl a.test, whose page gives `broken`, for 40 seconds; wake it, and crawl for another 5. Returns the result for
    the operator, and the requests to a.test after the command.
    """
    crawl = Harness(
        A,
        *(f"https://h{n}.test/" for n in range(4)),
        politeness=replace(POLITE, key="host"),
        engine=replace(DAEMON, active_hosts=active_hosts),
        web={A: broken, f"{A}robots.txt": robots or response(404)},
    )
    await crawl.open()
    running = asyncio.ensure_future(crawl.engine.run())
    await elapse(40.0)
    if blocked:
        crawl.engine.blocklist.add(BlockedHost(blocked, "host", 0.0, ""))
        crawl.scheduler.blocklist_changed()
    began = crawl.clock.mono()
    assert began > max(one.begin for one in crawl.web.requests) + 5.0
    result: dict[str, Any] = await retry(
        crawl.scheduler, crawl.frontier, await host_ids(crawl.frontier, ["a.test"]), crawl.web.forget_failure
    )
    assert crawl.web.forgotten == ["a.test"]
    await elapse(5.0)
    crawl.engine.drain()
    await running
    await crawl.close()
    requests = [one for one in crawl.web.requests if one.begin >= began and one.origin.host == "a.test"]
    return result, [(one.url, one.begin - began) for one in requests]


def result_of(effect: str, reason: str = "", until_at: float | None = None, *, urls: int = 0) -> dict[str, Any]:
    host = {"host": "https://a.test", "effect": effect, "reason": reason, "until_at": until_at}
    return {"hosts": [host], "effects": {effect: 1}, "urls": urls}


@pytest.mark.parametrize("active_hosts", [10_000, 1])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (failed(ErrorType.CONNECT_REFUSED), "connect_refused"),
        (response(429), "429"),
        (response(503), "503"),
    ],
)
def test_a_host_that_backs_off_is_woken(broken: FetchResult, reason: str, active_hosts: int) -> None:
    """By its own failures or those of its key, in memory or not: its failed URL is requested at once. If that fails as
    well, it backs off as before.
    """
    result, requests = run(woken(broken, active_hosts=active_hosts))
    assert result == result_of("woken", reason, urls=1)
    assert [url for url, _ in requests] == [A]
    assert requests[0][1] < 0.5


def test_a_host_whose_robots_txt_cannot_be_read_gets_another_request_for_it() -> None:
    """At once; its pages wait for the result."""
    result, requests = run(woken(response(200), robots=response(500)))
    assert result == result_of("robots_requested", "robots.txt cannot be read (status 500)")
    assert [url for url, _ in requests] == [f"{A}robots.txt"]
    assert requests[0][1] < 0.5


@pytest.mark.parametrize("active_hosts", [10_000, 1])
def test_what_a_server_asked_for_is_kept(active_hosts: int) -> None:
    """A Retry-After is no guess of ours: the host waits until then, and the operator reads when that is."""
    result, requests = run(woken(response(503, retry_after="600"), active_hosts=active_hosts))
    (host,) = result["hosts"]
    assert (host["effect"], host["reason"]) == ("kept", "503 Retry-After 600")
    assert EPOCH + 600 < host["until_at"] < EPOCH + 610
    assert requests == []


def test_a_host_that_may_be_requested_is_left_as_it_is() -> None:
    """A block is ended by `unblock` only."""
    assert run(woken(response(404))) == (result_of("ready"), [])
    assert run(woken(failed(ErrorType.CONNECT_REFUSED), blocked="a.test")) == (result_of("blocked"), [])


@pytest.mark.parametrize(
    ("broken", "robots", "effect", "reason"),
    [
        (failed(ErrorType.CONNECT_REFUSED), response(404), "ready", ""),  # the end of a run ends the back-off
        (response(429), response(404), "woken", "429"),
        (response(503, retry_after="600"), response(404), "kept", "503 Retry-After 600"),
        (response(200), response(500), "robots_requested", "robots.txt cannot be read (status 500)"),
    ],
)
def test_hosts_are_woken_while_no_crawl_runs(
    broken: FetchResult, robots: FetchResult, effect: str, reason: str, tmp_path: Path
) -> None:
    """The next run requests them at once, but for what a server asked for."""

    async def main() -> None:
        web: dict[str, Any] = {A: broken, f"{A}robots.txt": robots}
        for turn in range(2):
            frontier = SqliteFrontier(tmp_path / "frontier.db")
            crawl = Harness(A, politeness=replace(POLITE, key="host"), engine=DAEMON, frontier=frontier, web=web)
            await crawl.open()
            running = asyncio.ensure_future(crawl.engine.run())
            await elapse(40.0 if turn == 0 else 3.0)
            crawl.engine.drain()
            await running
            await crawl.close()
            assert bool(crawl.web.requests) is (turn == 0 or effect != "kept")
            if turn == 0:
                await frontier.open()
                result = await retry_stored(frontier, await host_ids(frontier, ["a.test"]), crawl.clock.now())
                await frontier.close(clean=True)
                (host,) = result["hosts"]  # type: ignore[misc]
                assert (host["effect"], host["reason"]) == (effect, reason)

    run(main())
