"""The pool: which connection is lent, who waits, and what is closed, with a fake dialer and a fake clock."""

import asyncio
import random
from functools import partial

import pytest

from crawler.core.enums import CloseReason, ErrorType, Stage
from crawler.core.models import Origin
from crawler.fetch.connection import ConnectionState
from crawler.fetch.net.errors import DialError
from crawler.fetch.options import FetchOptions
from crawler.fetch.pool import Pool, PoolClosed
from crawler.fetch.pool_statistics import ConnectionStatistics
from tests.support.fetching import FakeClock, FakeDialer
from tests.support.log_lines import COMMON, problems

A, B, C, D = (Origin("https", f"{name}.test", 443) for name in "abcd")


class Rig:
    def __init__(self, *, per_host=1, per_address=None, first_contacts=0, wanted=(), **options):
        self.clock = FakeClock()
        self.dialing = FakeDialer()
        self.events = []
        self.pool = Pool(
            dialer=self.dialing,
            options=FetchOptions(**options),
            clock=self.clock,
            connections_per_host=per_host,
            connections_per_address=per_address,
            on_event=lambda name, fields: self.events.append({"event": name} | fields),
            first_contacts=first_contacts,
            is_wanted=lambda origin: origin in wanted,
        )

    async def use(self, origin, requests=1):
        """Acquire and release a connection; its counters are set as exchanges would set them."""
        connection = await self.pool.acquire(origin)
        connection.requests += requests
        connection.idle_since_mono = self.clock.mono()
        self.pool.release(connection)
        return connection

    def slots(self, origin):
        """The origin's slots taken, and its idle connections."""
        slots = self.pool._slots[origin]
        return slots.taken, len(slots.idle)

    def host(self, origin):
        """What is counted for an origin."""
        return dict(self.pool.most_opened(9)).get(origin)

    def waiting(self, origin):
        return asyncio.ensure_future(self.pool.acquire(origin))

    def check(self):
        """The statistics agree with the slots."""
        stats = self.pool.stats()
        assert stats.idle == sum(len(slots.idle) for slots in self.pool._slots.values())
        assert stats.opened - sum(stats.closed.values()) == stats.open
        assert sum(slots.taken for slots in self.pool._slots.values()) == stats.open + stats.opening
        for event in self.events:
            assert problems(event | dict.fromkeys(COMMON - {"event"}, "")) == []


@pytest.fixture
async def rig(request):
    made = []

    def make(**options):
        made.append(Rig(**options))
        return made[-1]

    yield make
    for one in made:
        one.check()
        await one.pool.close()
        stats = one.pool.stats()
        assert (stats.open, stats.idle, stats.opening, stats.waiting) == (0, 0, 0, 0)


async def test_the_most_recently_used_connection_is_lent(rig):
    """So the others can expire and be closed."""
    r = rig(per_host=3)
    three = [await r.pool.acquire(A) for _ in range(3)]
    for connection in three:
        r.pool.release(connection)
    assert [repr(connection) for connection in three[:1]] == ["<Connection 1 https://a.test idle, requests: 0>"]
    assert await r.use(A) is three[2]
    assert await r.use(A) is three[2]


async def test_a_second_borrower_waits_for_the_first(rig):
    """At connections_per_host the first who waits gets the connection that is given back."""
    r = rig()
    held = await r.pool.acquire(A)
    waiting = [r.waiting(A) for _ in range(3)]
    await asyncio.sleep(0)
    assert r.pool.stats().waiting == 3
    for task in waiting:
        r.pool.release(held)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.done()
        assert task.result() is held
        assert held.state is ConnectionState.LENT
    r.pool.release(held)
    assert held.state is ConnectionState.IDLE
    assert len(r.dialing.dialled) == 1


async def test_a_closed_connection_leaves_its_slot_to_the_next_who_waits(rig):
    """If the connection given back is closed, the next who waits opens another."""
    r = rig()
    held = await r.pool.acquire(A)
    task = r.waiting(A)
    await asyncio.sleep(0)
    held.abort(CloseReason.TIMEOUT)
    r.pool.release(held)
    connection = await task
    assert connection is not held
    assert r.slots(A) == (1, 0)
    r.pool.release(connection)


async def test_a_connection_that_closes_on_its_way_to_who_waits_is_replaced(rig):
    """A connection that closes between grant and use is replaced without an error."""
    r = rig()
    held = await r.pool.acquire(A)
    held.requests = 1  # it has carried one: what comes now was not asked for
    task = r.waiting(A)
    await asyncio.sleep(0)
    r.pool.release(held)
    held.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert held.close_reason is CloseReason.UNSOLICITED
    connection = await task
    assert connection.is_open
    assert r.slots(A) == (1, 0)
    r.pool.release(connection)


@pytest.mark.parametrize("granted", ["nothing", "connection", "slot"])
async def test_a_cancelled_wait_loses_nothing(rig, granted):
    """Cancelled while waiting, or just as it was granted something: that goes to the next who waits."""
    r = rig()
    held = await r.pool.acquire(A)
    first, second = r.waiting(A), r.waiting(A)
    await asyncio.sleep(0)
    if granted == "nothing":
        first.cancel()
        await asyncio.sleep(0)
    if granted == "slot":
        held.abort(CloseReason.TIMEOUT)
    r.pool.release(held)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    connection = await asyncio.wait_for(second, 1)
    assert (connection is held) == (granted != "slot")
    r.pool.release(connection)
    assert r.slots(A) == (1, 1)


async def test_a_cancelled_dial_frees_its_slot(rig):
    """Cancelled while the connection is being opened: the next who waits may open one."""
    r = rig()
    r.dialing.gate = asyncio.Event()
    first = r.waiting(A)
    await asyncio.sleep(0)
    second = r.waiting(A)
    await asyncio.sleep(0)
    assert r.pool.stats().opening == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    r.dialing.gate.set()
    r.pool.release(await second)
    assert len(r.dialing.dialled) == 1


async def test_a_dial_that_fails_frees_its_slot_and_reports_why(rig):
    """The error goes to the caller; the next who waits dials for itself."""
    r = rig()
    r.dialing.gate = asyncio.Event()
    r.dialing.failures = [DialError(Stage.TLS, ErrorType.TLS_CERT_EXPIRED, "expired", peer=("192.0.2.1", 443))]
    first, second = r.waiting(A), r.waiting(A)
    await asyncio.sleep(0)
    r.dialing.gate.set()
    with pytest.raises(DialError):
        await first
    r.pool.release(await second)
    assert r.events[0] == {
        "event": "conn_fail",
        "server_address": "a.test",
        "server_port": 443,
        "stage": "tls",
        "error_type": "tls_cert_expired",
        "detail": "expired",
        "dur_ms": 0.0,
        "network_peer_address": "192.0.2.1",
        "network_peer_port": 443,
    }
    assert r.pool.stats().failed == 1


async def test_the_longest_idle_connection_makes_room(rig):
    """At fetch.connections a connection to a new origin replaces the one that is idle longest."""
    r = rig(connections=2)
    a, b = await r.use(A), await r.use(B)
    await r.use(A)
    c = await r.use(C)
    assert b.close_reason is CloseReason.EVICTED
    assert a.is_open
    assert c.is_open
    assert set(r.pool._slots) == {A, C}


@pytest.mark.parametrize(("wanted", "evicted"), [((), A), ((A,), B), ((A, B), C), ((A, B, C), C)])
async def test_a_connection_that_is_wanted_soon_is_kept(rig, wanted, evicted):
    """Of the longest idle the first that is not wanted makes room; the last one if all are, which is needed latest."""
    r = rig(connections=3, wanted=wanted)
    made = {origin: await r.use(origin) for origin in (A, B, C)}
    await r.use(D)
    assert [origin for origin, one in made.items() if one.close_reason is CloseReason.EVICTED] == [evicted]


async def test_a_wanted_connection_far_behind_is_not_looked_for(rig):
    """Closing one looks at few of them."""
    origins = [Origin("https", f"h{number}.test", 443) for number in range(40)]
    r = rig(connections=40, wanted=origins[:20])
    made = {origin: await r.use(origin) for origin in origins}
    await r.use(A)
    assert [origin for origin, one in made.items() if not one.is_open] == [origins[-1]]


async def test_silent_hosts_take_no_connection_from_the_others(rig):
    """Connections of which none was given back yet come beside fetch.connections, up to first_contacts."""
    r = rig(connections=1, first_contacts=2)
    silent = [await r.pool.acquire(origin) for origin in (A, B)]
    live = await r.use(C)
    assert live.is_open
    assert r.pool.stats().open == 3
    again = await r.pool.acquire(C)
    assert again is live
    fourth = r.waiting(D)
    await asyncio.sleep(0)
    assert r.pool.stats().waiting == 1
    r.pool.release(live)
    assert (await fourth).origin == D
    assert live.close_reason is CloseReason.EVICTED
    for connection in (*silent, await fourth):  # they respond after all: from now on they count
        connection.requests += 1
        r.pool.release(connection)
        assert r.pool._counted == 1
    assert r.pool.stats().open == 1
    r.check()


async def test_with_every_connection_lent_an_origin_waits_for_any_of_them(rig):
    """At the limit of all origins, a connection that is given back is closed for the one who waits."""
    r = rig(connections=2)
    a, b = await r.pool.acquire(A), await r.pool.acquire(B)
    task = r.waiting(C)
    await asyncio.sleep(0)
    assert r.pool.stats().waiting == 1
    r.pool.release(a)
    c = await task
    assert a.close_reason is CloseReason.EVICTED
    assert c.origin == C
    r.pool.release(b)
    r.pool.release(c)


async def test_waiting_is_first_come_first_served_across_caps(rig):
    """Those who wait for a slot of their origin and for any slot are served in order of arrival."""
    r = rig(connections=2)
    a, b = await r.pool.acquire(A), await r.pool.acquire(B)
    stranger = r.waiting(C)
    await asyncio.sleep(0)
    own = r.waiting(A)
    await asyncio.sleep(0)
    r.pool.release(a)
    c = await stranger
    assert not own.done()
    r.pool.release(c)
    again = await own
    assert again.origin == A
    r.pool.release(again)
    r.pool.release(b)


async def test_waiters_of_every_kind_are_all_served(rig):
    """For any mix of origins and limits, all are served and no limit is exceeded."""
    r = rig(connections=3, per_host=2)
    lent, most = [], 0

    async def borrow(origin):
        nonlocal most
        connection = await r.pool.acquire(origin)
        lent.append(connection)
        most = max(most, len(lent))
        assert sum(c.origin == origin for c in lent) <= 2
        await asyncio.sleep(0)
        if connection.id % 3 == 0:
            connection.abort(CloseReason.SERVER_CLOSE)
        lent.remove(connection)
        r.pool.release(connection)

    async with asyncio.timeout(10):
        await asyncio.gather(*(borrow((A, B, C, A, B)[n % 5]) for n in range(100)))
    assert most == 3
    assert r.pool.stats().waiting == 0


@pytest.mark.parametrize("seed", range(20))
async def test_no_slot_is_lost_whatever_is_cancelled_when(rig, seed):
    """Random lending, failing, closing and cancelling under random limits: all that are not cancelled are served."""
    rng = random.Random(seed)
    r = rig(connections=rng.randint(1, 4), per_host=rng.randint(1, 3))

    async def borrow(origin):
        for _ in range(rng.randint(0, 5)):
            await asyncio.sleep(0)
        if rng.random() < 0.1:
            r.dialing.failures.append(DialError(Stage.CONNECT, ErrorType.CONNECT_REFUSED, "refused"))
        connection = None
        try:
            connection = await r.pool.acquire(origin)
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)
            if rng.random() < 0.2:
                connection.abort(CloseReason.SERVER_CLOSE)
            if rng.random() < 0.1:
                stale, connection = connection, None
                connection = await r.pool.replace(stale)
            assert r.slots(origin)[0] <= r.pool._per_host
            assert r.pool._taken <= r.pool._options.connections
        except DialError:
            pass
        finally:
            if connection is not None:
                r.pool.release(connection)

    tasks = [asyncio.ensure_future(borrow(rng.choice((A, B, C)))) for _ in range(60)]
    for task in rng.sample(tasks, 20):
        for _ in range(rng.randint(0, 3)):
            await asyncio.sleep(0)
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=10)
    assert not pending
    assert all(task.cancelled() or task.exception() is None for task in done)
    stats = r.pool.stats()
    assert (stats.waiting, stats.opening) == (0, 0)
    assert stats.open == stats.idle


async def test_idle_connections_are_closed_when_their_time_is_over(rig):
    """idle_timeout counts from the last response; the connection is closed in order."""
    r = rig(per_host=2, idle_timeout_s=60.0)
    one, two = await r.pool.acquire(A), await r.pool.acquire(A)
    r.pool.release(one)
    r.clock.time += 30
    two.idle_since_mono = r.clock.mono()
    r.pool.release(two)
    r.clock.time += 29.9
    r.pool.sweep()
    assert one.is_open
    r.clock.time += 0.2
    r.pool.sweep()
    assert one.close_reason is CloseReason.IDLE_TIMEOUT
    assert one._transport.calls == ["close"]
    assert two.is_open
    r.clock.time += 30
    r.pool.sweep()
    assert r.pool._slots == {}
    assert [e["reason"] for e in r.events if e["event"] == "conn_close"] == ["idle_timeout"] * 2


async def test_idle_connections_are_swept_by_a_timer():
    """One timer closes expired connections, also one that expires before the timer was due."""
    r = Rig(per_host=2, idle_timeout_s=60.0)
    one, two = await r.pool.acquire(A), await r.pool.acquire(A)
    r.pool.release(one)
    two.keep_alive_timeout_s = 1.2
    r.pool.release(two)
    r.clock.time += 0.7
    async with asyncio.timeout(5):
        await two.gone
    assert two.close_reason is CloseReason.IDLE_TIMEOUT
    assert one.is_open
    await r.pool.close()


@pytest.mark.parametrize(("announced_s", "kept_s"), [(5.0, 4.0), (1.0, 0.5), (0.0, 0.0), (1_000.0, 60.0)])
async def test_the_pool_closes_a_second_before_the_server_would(rig, announced_s, kept_s):
    """Keep-Alive: timeout=N is honoured with a margin, and never longer than our own idle_timeout."""
    r = rig(idle_timeout_s=60.0)
    connection = await r.pool.acquire(A)
    connection.keep_alive_timeout_s = announced_s
    assert connection.expires_mono() == (r.clock.mono() + kept_s, CloseReason.IDLE_TIMEOUT)
    r.pool.release(connection)
    r.clock.time += kept_s
    assert await r.use(A) is not connection
    assert connection.close_reason is CloseReason.IDLE_TIMEOUT


async def test_an_expired_connection_is_never_lent(rig):
    """Even if the timer has not fired yet."""
    r = rig(idle_timeout_s=60.0)
    old = await r.use(A)
    r.clock.time += 60
    assert await r.use(A) is not old
    assert old.close_reason is CloseReason.IDLE_TIMEOUT


async def test_limits_of_age_and_requests_end_a_connection(rig):
    """max_connection_age and max_requests_per_connection, each with its reason; also the server's max=0."""
    r = rig(max_connection_age_s=100.0, max_requests_per_connection=3)
    first = await r.use(A)
    assert await r.use(A) is first
    assert await r.use(A) is first
    assert first.close_reason is CloseReason.MAX_REQUESTS
    second = await r.use(A)
    r.clock.time += 50
    assert await r.use(A) is second
    r.clock.time += 51
    assert await r.use(A) is not second
    assert second.close_reason is CloseReason.MAX_AGE
    third = await r.pool.acquire(B)
    third.keep_alive_max = 0
    r.pool.release(third)
    assert third.close_reason is CloseReason.SERVER_CLOSE


@pytest.mark.parametrize(("error", "reason"), [(None, "server_close"), (ConnectionResetError(), "reset")])
async def test_a_server_may_end_an_idle_connection(rig, error, reason):
    """Its slot is free at once, and the reason is counted."""
    r = rig()
    connection = await r.use(A)
    connection.connection_lost(error)
    assert r.pool._slots == {}
    assert r.pool.stats().closed == {CloseReason(reason): 1}
    assert await r.use(A) is not connection


async def test_a_connection_that_ends_while_it_is_opened_is_counted_once(rig):
    """Closed between the handshake and the first request: opened and closed, in that order."""
    r = rig()
    r.dialing.ends_at_once = True
    connection = await r.pool.acquire(A)
    assert not connection.is_open
    r.pool.release(connection)
    assert [e["event"] for e in r.events] == ["conn_open", "conn_close"]
    assert r.pool._slots == {}


async def test_a_replacement_takes_the_same_slot(rig):
    """A fresh connection replaces a stale one although the origin is at its limit and others wait."""
    r = rig()
    stale = await r.pool.acquire(A)
    other = r.waiting(A)
    await asyncio.sleep(0)
    fresh = await r.pool.replace(stale)
    assert fresh is not stale
    assert stale.close_reason is CloseReason.SERVER_CLOSE
    assert not other.done()
    r.pool.release(fresh)
    assert await other is fresh
    r.pool.release(fresh)


async def test_a_replacement_that_fails_frees_the_slot(rig):
    """The error is raised, and nothing is lent."""
    r = rig()
    stale = await r.pool.acquire(A)
    r.dialing.failures = [DialError(Stage.CONNECT, ErrorType.CONNECT_REFUSED, "refused")]
    with pytest.raises(DialError):
        await r.pool.replace(stale)
    assert r.pool._slots == {}


async def test_without_descriptors_the_longest_idle_is_closed(rig):
    """EMFILE closes an idle connection, so that the next attempt has a descriptor."""
    r = rig()
    idle = await r.use(A)
    r.dialing.failures = [DialError(Stage.CONNECT, ErrorType.NO_FILE_DESCRIPTORS, "too many open files")]
    with pytest.raises(DialError):
        await r.use(B)
    assert idle.close_reason is CloseReason.EVICTED


async def test_closing_the_pool_closes_everything(rig):
    """Idle and lent connections are closed, waiting callers get PoolClosed, and no peer delays the close for long."""
    r = rig(per_host=2)
    r.dialing.closes_politely = False
    lent, idle = await r.pool.acquire(A), await r.pool.acquire(A)
    r.pool.release(idle)
    r.pool._per_host = 1
    task = r.waiting(A)
    other = await r.pool.acquire(B)
    waiting = r.waiting(B)
    await asyncio.sleep(0)
    assert await task is idle
    await r.pool.close()
    with pytest.raises(PoolClosed):
        await waiting
    with pytest.raises(PoolClosed):
        await r.pool.acquire(C)
    for connection in (lent, idle, other):
        assert connection.close_reason is CloseReason.SHUTDOWN
        assert connection._transport.calls == ["close", "abort"]
        r.pool.release(connection)
    assert r.pool._slots == {}


async def test_a_close_that_is_cancelled_can_be_made_again(rig):
    """As at the end of a crawl that was just reloaded. The connections still get their time to say good-bye."""
    r = rig()
    r.dialing.closes_politely = False
    connection = await r.pool.acquire(A)
    r.pool.release(connection)
    first = asyncio.ensure_future(r.pool.close())
    await asyncio.sleep(0)
    first.cancel()
    await r.pool.close()
    assert first.cancelled()
    assert connection._transport.calls == ["close", "abort"]


@pytest.mark.parametrize("granted", ["connection", "nothing"])
async def test_a_pool_that_is_closed_lends_no_open_connection(rig, granted):
    """A request that was just granted a connection gets a closed one, any other gets PoolClosed."""
    r = rig()
    held = await r.pool.acquire(A)
    task = r.waiting(A)
    await asyncio.sleep(0)
    if granted == "connection":
        r.pool.release(held)
    await r.pool.close()
    if granted == "connection":
        held = await task
        assert held.close_reason is CloseReason.SHUTDOWN
    else:
        with pytest.raises(PoolClosed):
            await task
    r.pool.release(held)
    assert r.pool._slots == {}


async def test_the_events_have_the_fields_of_the_catalogue(rig):
    """conn_open and conn_close with all their fields."""
    r = rig()
    connection = await r.use(A, requests=7)
    r.clock.time += 12.5
    connection.connection_lost(None)
    common = {"server_address": "a.test", "server_port": 443, "conn_id": 1, "network_peer_address": "192.0.2.1"}
    common |= {"tls_protocol_version": "1.3", "tls_resumed": False}
    opened = {"dns_ms": 0.0, "connect_ms": 0.0, "tls_ms": 0.0}
    closed = {"requests": 7, "age_ms": 12_500.0, "bytes": 0, "reason": "server_close"}
    closed |= {"host_connections": 1, "host_requests": 7, "host_reuse_ratio": 0.8571}
    assert r.events == [
        {"event": "conn_open", "network_peer_port": 443} | common | opened,
        {"event": "conn_close"} | common | closed,
    ]
    assert r.pool.stats().requests == 7


async def test_reuse_is_counted_by_host(rig):
    """Requests over a used connection, in all and for each host; the host with the most connections first."""
    r = rig(per_host=2)
    assert (r.pool.stats().reuse_ratio, r.host(A)) == (0.0, None)
    await r.use(A, requests=4)
    await r.use(A, requests=2)
    for _ in range(2):
        (await r.use(B)).abort(CloseReason.SERVER_CLOSE)
    await r.use(C, requests=0)
    a, b, c = (r.host(origin) for origin in (A, B, C))
    assert (a.opened, a.requests, a.reused, a.tls_handshakes, a.tls_resumed) == (1, 6, 5, 1, 0)
    assert [round(host.reuse_ratio, 3) for host in (a, b, c)] == [0.833, 0.0, 0.0]
    stats = r.pool.stats()
    assert (stats.requests, stats.reused, stats.reuse_ratio) == (8, 5, 0.625)
    assert [origin for origin, _ in r.pool.most_opened(2)] == [B, A]


async def test_the_host_known_longest_is_forgotten_first(rig, monkeypatch):
    """Counts by host are bounded; totals stay exact, and a connection of a forgotten host still has its event."""
    monkeypatch.setattr("crawler.fetch.pool.ConnectionStatistics", partial(ConnectionStatistics, max_origins=2))
    r = rig()
    first = await r.use(A)
    await r.use(B)
    await r.use(C)
    await r.use(A)
    assert r.host(A) is None
    assert r.host(C).requests == 1
    assert r.pool.stats().requests == 4
    first.abort(CloseReason.SERVER_CLOSE)
    assert "host_requests" not in r.events[-1]


async def test_closed_connections_are_counted_by_their_requests(rig):
    """One count for each bound of a histogram: 1, 2, 5, 10 … and the others."""
    r = rig()
    for requests in (0, 1, 2, 3, 5, 6, 99_999):
        (await r.use(A, requests=requests)).abort(CloseReason.SERVER_CLOSE)
    assert r.pool.stats().requests_at_close == (2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1)


async def test_connections_are_counted_without_events_too():
    """Events are optional; statistics are not."""
    dialing = FakeDialer()
    pool = Pool(dialer=dialing, options=FetchOptions(), clock=FakeClock())
    connection = await pool.acquire(A)
    connection.requests += 1
    pool.release(connection)
    dialing.failures = [DialError(Stage.CONNECT, ErrorType.CONNECT_REFUSED, "refused")]
    with pytest.raises(DialError):
        await pool.acquire(B)
    await pool.close()
    stats = pool.stats()
    assert (stats.opened, stats.requests, stats.failed, stats.closed) == (1, 1, 1, {CloseReason.SHUTDOWN: 1})


async def test_idle_connections_beyond_those_of_an_address_are_closed(rig):
    """At connections_per_address the longest idle connection to it is closed for a newer one."""
    r = rig(per_address=2)
    a, b = await r.use(A), await r.use(B)
    c = await r.use(C)
    assert (a.close_reason, a._transport.calls) == (CloseReason.EVICTED, ["close"])
    assert b.is_idle
    assert c.is_idle
    assert list(r.pool._idle) == [b, c]


async def test_lent_connections_beyond_those_of_an_address_are_closed_on_return(rig):
    """While all are lent none can be closed; the first given back is closed, if nobody waits for it."""
    r = rig(per_address=1)
    a, b = await r.pool.acquire(A), await r.pool.acquire(B)
    r.pool.release(b)
    assert b.close_reason is CloseReason.EVICTED
    assert a.is_open
    r.pool.release(a)
    assert a.is_idle
    r.dialing.address = "192.0.2.2"
    assert (await r.use(C)).is_idle
    assert a.is_idle
