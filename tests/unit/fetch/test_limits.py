"""Limits of the client: open connections, bytes a second, bytes of bodies in memory."""

import asyncio
import random
import resource
import threading

import pytest

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.options import Override
from crawler.fetch.limits import (
    RESERVED_DESCRIPTORS,
    Bandwidth,
    ByteBudget,
    TokenBucket,
    connections_within,
    descriptor_limit,
    raise_descriptor_limit,
    share_of_limit,
)
from crawler.fetch.options import FetchOptions, HostOptions
from tests.support.fetching import client
from tests.support.scripted_server import ok, serve, table

KIB = 1024


# -- open connections


@pytest.mark.parametrize(
    ("limit", "connections"),
    [
        (resource.RLIM_INFINITY, 512),
        (1_024, 512),
        (512 + RESERVED_DESCRIPTORS, 512),
        (511 + RESERVED_DESCRIPTORS, 511),
        (RESERVED_DESCRIPTORS + 100, 100),
        (60, 20),
        (1, 1),
    ],
)
def test_descriptors_are_reserved_for_the_crawler_itself(limit: int, connections: int) -> None:
    """The reserve, or two thirds of a limit that is too low for it."""
    assert connections_within(limit, 512) == connections


@pytest.mark.parametrize(
    ("limit", "shares"),
    [
        (resource.RLIM_INFINITY, (512, 1_024)),
        (1_536 + RESERVED_DESCRIPTORS, (512, 1_024)),
        (1_100 + RESERVED_DESCRIPTORS, (512, 588)),
        (800 + RESERVED_DESCRIPTORS, (400, 400)),
        (60, (10, 10)),
        (1, (1, 0)),
    ],
)
def test_first_contacts_take_no_more_than_half_of_few_descriptors(limit: int, shares: tuple[int, int]) -> None:
    """The connections of hosts that responded have what is left, and at least half."""
    assert share_of_limit(limit, 512, 1_024) == shares
    assert share_of_limit(limit, 1_024, 512) == (shares[::-1] if shares[0] != 1 else shares)


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1_024, 4_096, None),
        (256, 4_096, 512 + RESERVED_DESCRIPTORS),
        (256, 300, 300),
        (256, resource.RLIM_INFINITY, 512 + RESERVED_DESCRIPTORS),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_soft_limit_is_raised_to_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None
) -> None:
    """It does not pass the hard limit, and is never lowered."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: made.append(limits))
    raise_descriptor_limit(512)
    assert made == ([] if raised is None else [(raised, hard)])


def test_a_limit_that_may_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may filter the system call: one refused try is no error."""
    tried: list[tuple[int, int]] = []

    def refuse(what: int, limits: tuple[int, int]) -> None:
        tried.append(limits)
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptor_limit(512)
    assert tried == [(512 + RESERVED_DESCRIPTORS, 4_096)]
    assert connections_within(descriptor_limit(), 512) == 160


# -- bytes a second: the token bucket


def test_a_full_bucket_gives_its_burst_at_once() -> None:
    """What is taken beyond the burst is debt, which is paid at the rate."""
    bucket = TokenBucket(rate=100, burst=50)
    assert bucket.spend(50, now_mono=10.0) == 10.0
    assert bucket.spend(100, now_mono=10.0) == 11.0
    assert bucket.clear_mono == 11.0


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    """After an hour without traffic one burst may come, not more."""
    bucket = TokenBucket(rate=100, burst=50)
    bucket.spend(10, now_mono=0.0)
    assert bucket.is_full(3_600.0)
    assert bucket.spend(150, now_mono=3_600.0) == 3_601.0
    assert not bucket.is_full(3_601.0)


def test_a_reader_that_waits_until_it_is_clear_keeps_the_rate() -> None:
    """For pieces of any size, at most rate × time + burst + one piece is read."""
    rng = random.Random(1)
    bucket = TokenBucket(rate=1_000, burst=500)
    now = spent = 0.0
    for _ in range(10_000):
        size = rng.randrange(1, 5_000)
        assert spent <= 1_000 * now + 500 + 1e-6
        spent += size
        now = max(now + rng.random() / 100, bucket.spend(size, now))
    assert spent > 0.95 * 1_000 * now


# -- bytes a second: all hosts and one host


def test_without_limits_no_reader_waits() -> None:
    """No bucket is made."""
    bandwidth = Bandwidth()
    assert not bandwidth.is_limited
    assert bandwidth.spend("a.test", 10**9, 5.0) <= 5.0
    assert bandwidth.opens_mono == bandwidth.host_opens_mono("a.test") == 0.0


def test_all_hosts_share_one_limit() -> None:
    """Bytes of one host delay the other. The bytes of one second may come at once."""
    bandwidth = Bandwidth(whole=1_000)
    assert bandwidth.spend("a.test", 1_000, 10.0) == 10.0
    assert bandwidth.spend("b.test", 500, 10.0) == 10.5
    assert bandwidth.opens_mono == 10.5
    assert bandwidth.host_opens_mono("a.test") == 0.0


def test_each_host_has_its_own_limit() -> None:
    """A host over its limit delays no other host. Of two limits the longer wait counts."""
    bandwidth = Bandwidth(whole=10_000, per_host=1_000)
    assert bandwidth.spend("a.test", 3_000, 10.0) == 12.0
    assert bandwidth.spend("b.test", 1_000, 10.0) == 10.0
    assert bandwidth.host_opens_mono("a.test") == 12.0
    assert bandwidth.opens_mono < 10.0
    assert bandwidth.spend("b.test", 60_000, 10.0) == 70.0


def test_other_limits_come_into_force_at_once() -> None:
    """After a reload, debts under the old limits are forgotten."""
    bandwidth = Bandwidth(whole=1, per_host=1)
    bandwidth.spend("a.test", 1_000, 10.0)
    bandwidth.limit(1_000, None)
    assert bandwidth.opens_mono <= 0.0
    assert bandwidth.host_opens_mono("a.test") == 0.0
    bandwidth.limit(None, None)
    assert not bandwidth.is_limited


def test_hosts_without_debt_are_forgotten() -> None:
    """A crawl of a million hosts does not hold a million buckets."""
    bandwidth = Bandwidth(per_host=1_000)
    for n in range(20_000):
        bandwidth.spend(f"h{n}.test", 10, n / 10)
    assert len(bandwidth._hosts) <= 4_097
    assert bandwidth.host_opens_mono("h19999.test") > 0.0


def test_some_hosts_have_another_limit_or_none() -> None:
    """Others have that of all, if there is one."""
    overrides = (Override(("a.test",), bandwidth_per_host=100), Override(("*.b.test",), bandwidth_per_host=0))
    for per_host, of_others in ((1_000, 12.0), (None, 0.0)):
        bandwidth = Bandwidth.of(FetchOptions(bandwidth_per_host=per_host, overrides=overrides))
        assert bandwidth.is_limited
        assert bandwidth.spend("a.test", 300, 10.0) == 12.0
        assert bandwidth.spend("x.b.test", 10**9, 10.0) == 0.0
        assert bandwidth.spend("c.test", 3_000, 10.0) == of_others
    assert not Bandwidth.of(FetchOptions(overrides=(Override(("a.test",), max_body=5),))).is_limited


def test_each_limit_of_a_host_is_that_of_its_most_specific_pattern() -> None:
    """0 is no limit; an empty list of types is all types."""
    options = FetchOptions(
        min_rate=500,
        content_types=("text/html",),
        overrides=(
            Override(("*.a.test",), max_body=100, min_rate=0, total_timeout_s=9.0),
            Override(("www.a.test",), max_body=200, content_types=()),
        ),
    )
    www, other = HostOptions(options).of("www.a.test"), HostOptions(options).of("b.a.test")
    assert (www.max_body, www.min_rate, www.total_timeout_s, www.content_types) == (200, None, 9.0, ())
    assert (other.max_body, other.min_rate, other.content_types) == (100, None, ("text/html",))
    assert HostOptions(options).of("a.test") is options
    assert www.read_timeout_s == options.read_timeout_s


async def test_exchanges_with_some_hosts_have_other_limits():
    """Of the size and the types of bodies, and of time; other hosts keep theirs."""

    async def script(c):
        if "/slow" not in await c.request():
            await c.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 500\r\n\r\n", bytes(500))
        await c.client_closed()

    overrides = (
        Override(("small.test",), max_body=100),
        Override(("text.test",), content_types=("text/html",)),
        Override(("hasty.test",), first_byte_timeout_s=0.05),
    )
    async with serve(script) as server, client(fetch=FetchOptions(overrides=overrides)) as c:
        found = {
            name: await c.get(f"http://{name}.test:{server.port}/{path}")
            for name, path in (("small", ""), ("text", ""), ("other", ""), ("hasty", "slow"))
        }
    assert (found["small"].truncated, found["small"].payload.size) == (TruncatedReason.LENGTH, 100)
    assert (found["text"].truncated, found["text"].payload.size) == (TruncatedReason.CONTENT_TYPE, 0)
    assert (found["other"].truncated, found["other"].payload.size) == (None, 500)
    assert found["hasty"].error_type is ErrorType.FIRST_BYTE_TIMEOUT


async def test_a_response_is_read_at_the_limit():
    """3 MiB at 2 MiB/s, of which 2 MiB may come at once: it takes as long as that, and arrives whole."""
    body = bytes(3 * 1024 * KIB)
    bandwidth = Bandwidth(whole=2 * 1024 * KIB)
    loop = asyncio.get_running_loop()
    async with serve(table({"/": ok(body)})) as server, client(bandwidth=bandwidth) as c:
        begun = loop.time()
        result = await c.get(f"http://a.test:{server.port}/")
        took_s = loop.time() - begun
    assert result.payload.size == len(body)
    assert result.truncated is None
    # the bytes of one second come at once, and the last read may pass the limit
    assert took_s >= (len(body) - 2 * 1024 * KIB - 256 * KIB) / (2 * 1024 * KIB)


async def test_deadlines_do_not_run_while_reading_is_paused():
    """Neither 100 ms between two reads, nor 300 ms in all, nor a least rate of 1 MB/s ends a paused response."""
    body = bytes(1024 * KIB)
    fetch = FetchOptions(read_timeout_s=0.1, total_timeout_s=0.3, min_rate=1_000_000, min_rate_after_s=0.1)
    bandwidth = Bandwidth(per_host=512 * KIB)
    async with serve(table({"/": ok(body)})) as server, client(fetch=fetch, bandwidth=bandwidth) as c:
        result = await c.get(f"http://a.test:{server.port}/")
    assert result.error_type is None
    assert result.payload.size == len(body)


async def test_a_server_that_stalls_is_timed_out_under_a_limit():
    """The read timeout runs again when the pause is over."""

    async def script(c):
        await c.request()
        await c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", bytes(50_000))
        await c.client_closed()

    fetch = FetchOptions(read_timeout_s=0.1)
    async with serve(script) as server, client(fetch=fetch, bandwidth=Bandwidth(per_host=200_000)) as c:
        result = await c.get(f"http://a.test:{server.port}/")
    assert result.error_type is ErrorType.READ_TIMEOUT


async def test_a_connection_that_closes_while_paused_is_not_read_on():
    """The timer of the pause finds the connection closed and does nothing."""
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


# -- bytes of bodies in memory


async def test_readers_resume_in_order_when_memory_is_free():
    """The first to wait resumes first."""
    budget = ByteBudget(100)
    budget.take(100)
    assert budget.is_spent()
    resumed = []
    done = asyncio.Event()

    def resume(name):
        resumed.append(name)
        if len(resumed) == 3:
            done.set()

    for name in "abc":
        budget.wait(lambda finishes, name=name: resume(name))
    budget.give(1)
    async with asyncio.timeout(5):
        await done.wait()
    assert resumed == ["a", "b", "c"]
    assert not budget._waiting


def test_changes_are_added_up_without_a_look_at_them():
    """Bodies that come in one piece look at the budget never: what is counted does not pile up."""
    budget = ByteBudget(100)
    for _ in range(10_000):
        budget.take(7)
        budget.give(7)
    budget.take(5)
    assert len(budget._changes) <= 1_025
    assert budget.held == 5


async def test_one_reader_resumes_if_no_memory_is_given_back():
    """When half-read bodies hold all memory, one of them is read on after 250 ms."""
    budget = ByteBudget(100)
    budget.take(500)
    on = asyncio.Event()
    budget.wait(lambda finishes: on.set())
    budget.wait(lambda finishes: None)
    async with asyncio.timeout(5):
        await on.wait()
    assert budget.is_spent()
    assert len(budget._waiting) == 1
    budget.give(500)


async def test_one_reader_at_a_time_is_read_to_its_end():
    """Until it has finished, the others read one piece each."""
    budget = ByteBudget(100)
    budget.take(500)
    resumed = []
    done = asyncio.Event()

    def resume(finishes):
        resumed.append(finishes)
        if len(resumed) == 2:
            budget.finished()
        if len(resumed) == 3:
            budget.give(500)
        if len(resumed) == 4:
            done.set()

    for _ in range(4):
        budget.wait(resume)
    async with asyncio.timeout(10):
        await done.wait()
    assert resumed == [True, False, True, False]


def test_counting_holds_across_threads():
    """Bodies are dropped in any thread: no byte is lost or counted twice."""
    budget = ByteBudget(1)

    def work():
        for _ in range(20_000):
            budget.take(3)
            budget.give(2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert budget.held >= 0
    assert budget.held == 80_000
