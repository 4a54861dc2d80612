"""Bytes a second: the books, and readers that stop reading."""

import asyncio

from crawler.core.enums import ErrorType
from crawler.fetch.limits import Bandwidth
from crawler.fetch.options import FetchOptions
from tests.support.fetching import client
from tests.support.hostile import ok, serve, table

KIB = 1024


def test_without_limits_nobody_waits() -> None:
    """And nothing is remembered."""
    bandwidth = Bandwidth()
    assert not bandwidth.is_limited
    assert bandwidth.spend("a.test", 10**9, 5.0) <= 5.0
    assert bandwidth.opens_mono == bandwidth.host_opens_mono("a.test") == 0.0


def test_all_hosts_share_one_limit() -> None:
    """What one spends the other waits for; a second's worth may come at once."""
    bandwidth = Bandwidth(whole=1_000)
    assert bandwidth.spend("a.test", 1_000, 10.0) == 10.0
    assert bandwidth.spend("b.test", 500, 10.0) == 10.5
    assert bandwidth.opens_mono == 10.5
    assert bandwidth.host_opens_mono("a.test") == 0.0


def test_each_host_has_its_own_limit() -> None:
    """A greedy one does not slow its neighbour; of two limits the longer wait counts."""
    bandwidth = Bandwidth(whole=10_000, per_host=1_000)
    assert bandwidth.spend("a.test", 3_000, 10.0) == 12.0
    assert bandwidth.spend("b.test", 1_000, 10.0) == 10.0
    assert bandwidth.host_opens_mono("a.test") == 12.0
    assert bandwidth.opens_mono < 10.0
    assert bandwidth.spend("b.test", 60_000, 10.0) == 70.0


def test_other_limits_come_into_force_at_once() -> None:
    """A reload; what was owed under the old ones is forgotten."""
    bandwidth = Bandwidth(whole=1, per_host=1)
    bandwidth.spend("a.test", 1_000, 10.0)
    bandwidth.limit(1_000, None)
    assert bandwidth.opens_mono <= 0.0
    assert bandwidth.host_opens_mono("a.test") == 0.0
    bandwidth.limit(None, None)
    assert not bandwidth.is_limited


def test_hosts_that_owe_nothing_are_forgotten() -> None:
    """A crawl of a million hosts holds no million buckets."""
    bandwidth = Bandwidth(per_host=1_000)
    for n in range(20_000):
        bandwidth.spend(f"h{n}.test", 10, n / 10)
    assert len(bandwidth._hosts) <= 4_097
    assert bandwidth.host_opens_mono("h19999.test") > 0.0


async def test_a_reader_waits_until_its_bytes_are_paid_for():
    """2 MiB at 4 MiB/s, 4 MiB of burst apart: by the clock no faster, and whole."""
    body = bytes(3 * 1024 * KIB)
    bandwidth = Bandwidth(whole=2 * 1024 * KIB)
    loop = asyncio.get_running_loop()
    async with serve(table({"/": ok(body)})) as server, client(bandwidth=bandwidth) as c:
        begun = loop.time()
        result = await c.get(f"http://a.test:{server.port}/")
        took_s = loop.time() - begun
    assert result.payload.size == len(body)
    assert result.truncated is None
    # a second's worth comes at once; at least what is not in one last read was waited for
    assert took_s >= (len(body) - 2 * 1024 * KIB - 256 * KIB) / (2 * 1024 * KIB)


async def test_time_we_did_not_read_is_not_held_against_the_server():
    """Deadlines of 100 ms between two reads, 300 ms in all and 1 MB/s of rate: none of them runs while we pause."""
    body = bytes(1024 * KIB)
    fetch = FetchOptions(read_timeout_s=0.1, total_timeout_s=0.3, min_rate=1_000_000, min_rate_after_s=0.1)
    bandwidth = Bandwidth(per_host=512 * KIB)
    async with serve(table({"/": ok(body)})) as server, client(fetch=fetch, bandwidth=bandwidth) as c:
        result = await c.get(f"http://a.test:{server.port}/")
    assert result.error_type is None
    assert result.payload.size == len(body)


async def test_a_server_that_stalls_is_timed_out_all_the_same():
    """Being slow ourselves does not make us patient."""

    async def script(c):
        await c.request()
        await c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", bytes(50_000))
        await c.client_closed()

    fetch = FetchOptions(read_timeout_s=0.1)
    async with serve(script) as server, client(fetch=fetch, bandwidth=Bandwidth(per_host=200_000)) as c:
        result = await c.get(f"http://a.test:{server.port}/")
    assert result.error_type is ErrorType.READ_TIMEOUT


async def test_a_connection_that_closes_while_it_waits_is_let_be():
    """The timer that would have read on finds it closed."""
    sent = asyncio.Event()

    async def script(c):
        await c.request()
        await c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", bytes(50_000))
        sent.set()
        await c.client_closed()

    async with serve(script) as server, client(bandwidth=Bandwidth(per_host=500_000)) as c:
        fetch = asyncio.ensure_future(c.get(f"http://a.test:{server.port}/"))
        await sent.wait()
        fetch.cancel()
        await asyncio.gather(fetch, return_exceptions=True)
        assert c.closings() == ["shutdown"]
        await asyncio.sleep(0.15)
