"""The pool as a state machine: whatever callers, servers, clocks and cancellations do, in any order, a
connection is idle, lent or closed, and a response belongs to its request.

Pool, connections, reader and deadlines are the real ones. The network and the clock are not: what a server does, and
when a dial ends, are rules.
"""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from crawler.core.enums import CloseReason, ErrorType, Stage
from crawler.core.models import Origin, Timings
from crawler.fetch.connection import ConnectionState
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.net.dial import Dialled
from crawler.fetch.net.errors import DialError, ExchangeError
from crawler.fetch.options import FetchOptions
from crawler.fetch.pool import Pool
from crawler.fetch.spool import BodySink
from tests.support.fetching import FakeClock

ORIGINS = tuple(Origin("https", f"{name}.test", 443) for name in "abc")
ADDRESSES = ("192.0.2.1", "192.0.2.2")
HINTS = (b"", b"", b"", b"Keep-Alive: timeout=5\r\n", b"Keep-Alive: timeout=1, max=0\r\n", b"Keep-Alive: max=7\r\n")
FAULTS = {
    "close": CloseReason.SERVER_CLOSE,
    "tainted": CloseReason.PROTOCOL_ERROR,
    "extra": CloseReason.UNSOLICITED,
    "twice": CloseReason.UNSOLICITED,
    "garbage": CloseReason.PROTOCOL_ERROR,
}
MOST = 6  # borrowers at once that come for more than a visit
TURNS = 10  # of the loop, after each rule: more than any chain of callbacks here is long


class Wire(asyncio.Transport):
    """A transport whose peer is the test. It is gone once; `written` are the requests."""

    def __init__(self, loop, connection):
        super().__init__()
        self.loop = loop
        self.connection = connection
        self.written = []
        self.gone = False

    def write(self, data):
        assert not self.gone, "written to a transport that is gone"
        self.written.append(data)

    def lose(self, error=None):
        if not self.gone:
            self.gone = True
            self.loop.call_soon(self.connection.connection_lost, error)

    def abort(self):
        self.lose()

    def close(self):
        self.lose()

    def pause_reading(self):
        raise AssertionError("there is no budget here")


class Dials:
    """A dialer whose dials end when a rule says so."""

    def __init__(self, loop):
        self.loop = loop
        self.pending = []  # (origin, future of what comes of it)
        self.opened = []

    async def dial(self, origin, factory):
        ends = self.loop.create_future()
        self.pending.append((origin, ends))
        try:
            how, address = await ends
        finally:
            self.pending = [entry for entry in self.pending if entry[1] is not ends]
        if how == "refused":
            raise DialError(Stage.CONNECT, ErrorType.CONNECT_REFUSED, "refused")
        if how == "no descriptors":
            raise DialError(Stage.CONNECT, ErrorType.NO_FILE_DESCRIPTORS, "too many open files")
        connection = factory()
        connection.connection_made(Wire(self.loop, connection))
        self.opened.append(connection)
        if how == "ends at once":
            connection._transport.gone = True
            connection.connection_lost(None)
        return connection, Dialled(address, origin.port, Timings(), "1.3", False, None)

    def keep_session(self, origin, ssl_object):
        raise AssertionError("there is no TLS here")


class Borrower:
    """A user of a connection that follows commands: request, replace, release, fail."""

    def __init__(self, machine, origin):
        self.machine = machine
        self.origin = origin
        self.orders = asyncio.Queue()
        self.connection = None
        self.nonce = None  # of the request under way
        self.task = machine.loop.create_task(self.run())

    @property
    def waits(self):
        return self.connection is None and not self.task.done()

    @property
    def is_free(self):
        return self.connection is not None and self.nonce is None and self.orders.empty()

    async def run(self):
        pool = self.machine.pool
        try:
            self.take(await pool.acquire(self.origin))
            while (order := await self.orders.get()) != "leave":
                match order:
                    case "ask":
                        await self.ask()
                    case "fail":
                        self.fail()
                    case "replace":
                        stale, self.connection = self.connection, None
                        self.take(await pool.replace(stale))
        except (DialError, LookupError):
            pass
        finally:
            connection, self.connection = self.connection, None
            if connection is not None:
                pool.release(connection)

    def fail(self):
        raise LookupError("what the borrower did with it went wrong")

    def take(self, connection):
        machine = self.machine
        self.connection = connection
        assert connection.origin == self.origin
        assert connection.state is not ConnectionState.IDLE
        others = [b for b in machine.borrowers if b is not self and b.connection is connection]
        assert not others, "lent to two"
        if connection.requests:  # a used one: it must be sound at the moment it is lent
            assert connection.is_open
            assert connection.expires_mono()[0] > machine.clock.mono()

    async def ask(self):
        self.nonce = nonce = b"%08d" % next(self.machine.nonces)
        sink = BodySink(1 << 20)
        reader = ResponseReader(FetchOptions(), sink)
        try:
            await self.connection.exchange(nonce, reader)
        except ExchangeError:
            return
        finally:
            self.nonce = None
        body = sink.finish()[1].prefix(100)
        if self.connection.spoke_first:
            assert nonce not in self.connection._transport.written, "a request that would be answered unasked"
            assert not self.connection.is_open
            return
        if reader.head.status_code == 200 and reader.truncated is None:
            assert body == nonce, "an answer to someone else's request"
            self.machine.answered += 1
        assert self.connection.is_open == reader.reusable


class PoolMachine(RuleBasedStateMachine):
    """See the file's head."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.SelectorEventLoop()
        self.nonces = itertools.count(1)
        self.borrowers = []
        self.cut_short = {}  # connection → what is left of an answer that was begun
        self.answered = 0

    @initialize(
        connections=st.integers(1, 4),
        per_host=st.integers(1, 3),
        per_address=st.sampled_from([None, 1, 2]),
        max_requests=st.sampled_from([None, 1, 3]),
        max_age_s=st.sampled_from([None, 50.0]),
        first_contacts=st.sampled_from([0, 0, 1, 3]),
    )
    def begin(self, connections, per_host, per_address, max_requests, max_age_s, first_contacts):
        self.options = FetchOptions(
            connections=connections,
            max_requests_per_connection=max_requests,
            max_connection_age_s=max_age_s,
            idle_timeout_s=60.0,
        )
        self.per_host, self.per_address = per_host, per_address
        self.clock = FakeClock()
        self.dials = Dials(self.loop)
        self.events = []
        self.pool = Pool(
            dialer=self.dials,
            options=self.options,
            clock=self.clock,
            connections_per_host=per_host,
            connections_per_address=per_address,
            on_event=lambda name, fields: self.events.append((name, fields)),
            first_contacts=first_contacts,
        )
        self.first_contacts = first_contacts

    def settle(self):
        async def turns():
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for borrower in self.borrowers:
            if borrower.task.done() and not borrower.task.cancelled():
                borrower.task.result()  # an assertion of its own
        self.borrowers = [b for b in self.borrowers if not b.task.done()]

    def act(self, what, *arguments):
        """Call something that needs a running loop, then let things settle."""

        async def main():
            what(*arguments)

        self.loop.run_until_complete(main())
        self.settle()

    @property
    def holders(self):
        return [b for b in self.borrowers if b.is_free]

    @property
    def askers(self):
        """Borrowers whose request has been written."""
        return [b for b in self.borrowers if b.nonce is not None and b.connection._transport.written[-1:] == [b.nonce]]

    @property
    def open_connections(self):
        return [c for c in self.dials.opened if c.is_open and not c._transport.gone]

    # -- what can happen

    @rule(data=st.data())
    def something_happens(self, data):
        """One of what is possible now. A choice among rules with preconditions would seldom get as far as an answer."""
        possible = []
        if self.askers:
            possible += [self.server_answers] * 6 + [self.a_deadline_passes]
        if self.holders:
            possible += [self.ask] * 4 + [self.give_back, self.give_back, self.fail, self.replace]
        if self.dials.pending:
            possible += [self.dial_ends] * 6
        possible += [self.visit, self.time_passes, self.idle_ones_are_closed]
        if len(self.borrowers) < MOST:
            possible += [self.lend] * 4
        if self.borrowers:
            possible.append(self.cancel)
        if self.holders and any(b.waits for b in self.borrowers):
            possible += [self.give_back_and_cancel_in_one_turn] * 2
        if self.open_connections:
            possible.append(self.server_closes)
        if any(c._reader is None for c in self.open_connections):
            possible.append(self.server_pushes)
        data.draw(st.sampled_from(possible))(data)

    # -- borrowers

    def lend(self, data):
        origin = data.draw(st.sampled_from(ORIGINS))
        self.act(lambda: self.borrowers.append(Borrower(self, origin)))

    def ask(self, data):
        self.act(data.draw(st.sampled_from(self.holders)).orders.put_nowait, "ask")

    def give_back(self, data):
        self.act(data.draw(st.sampled_from(self.holders)).orders.put_nowait, "leave")

    def fail(self, data):
        self.act(data.draw(st.sampled_from(self.holders)).orders.put_nowait, "fail")

    def replace(self, data):
        self.act(data.draw(st.sampled_from(self.holders)).orders.put_nowait, "replace")

    def cancel(self, data):
        borrower = data.draw(st.sampled_from(self.borrowers))
        held = borrower.connection if borrower.nonce is not None else None
        self.act(borrower.task.cancel)
        assert held is None or not held.is_open, "a cancelled request's connection may be used again"

    def give_back_and_cancel_in_one_turn(self, data):
        """One gives back just as another, who may be granted it in this very turn, is cancelled."""
        leaver = data.draw(st.sampled_from(self.holders))
        cancelled = data.draw(st.sampled_from([b for b in self.borrowers if b.waits]))
        turns = data.draw(st.integers(0, 3))

        async def main():
            leaver.orders.put_nowait("leave")
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled.task.cancel()

        self.loop.run_until_complete(main())
        self.settle()

    def visit(self, data):
        """Time passes; then somebody lends, asks, is answered and leaves, unless they have to wait."""
        self.clock.time += data.draw(st.sampled_from([0.0, 0.0, 3.0, 61.0]))
        origin = data.draw(st.sampled_from(ORIGINS))
        dialling = [ends for _, ends in self.dials.pending]
        self.act(lambda: self.borrowers.append(Borrower(self, origin)))
        visitor = self.borrowers[-1]
        for ends in [ends for _, ends in self.dials.pending if ends not in dialling]:
            self.act(ends.set_result, ("opens", data.draw(st.sampled_from(ADDRESSES))))
        if visitor.connection is None:
            return
        self.act(visitor.orders.put_nowait, "ask")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + visitor.nonce
        self.act(visitor.connection.data_received, answer)
        self.act(visitor.orders.put_nowait, "leave")

    # -- dials

    def dial_ends(self, data):
        _, ends = data.draw(st.sampled_from(self.dials.pending))
        how = data.draw(st.sampled_from(["opens"] * 6 + ["refused", "no descriptors", "ends at once"]))
        self.act(ends.set_result, (how, data.draw(st.sampled_from(ADDRESSES))))

    # -- the server

    def server_answers(self, data):
        connection = data.draw(st.sampled_from(self.askers)).connection
        rest = self.cut_short.pop(connection, None)
        if rest is not None:
            self.act(connection.data_received, rest)
            return
        nonce = connection._transport.written[-1]
        hint = data.draw(st.sampled_from(HINTS))
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n" + hint + b"\r\n" + nonce
        how = data.draw(st.sampled_from(["whole", "whole", "whole", "begun", *FAULTS]))
        match how:
            case "begun":
                cut = data.draw(st.integers(1, len(answer) - 1))
                self.cut_short[connection] = answer[cut:]
                answer = answer[:cut]
            case "close":
                answer = answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            case "tainted":
                answer = answer.replace(b"\r\n", b"\n")
            case "extra":
                answer += b"x"
            case "twice":
                answer += answer.replace(nonce, b"EVILEVIL")
            case "garbage":
                answer = b"SSH-2.0-x\r\n" + answer
        self.act(connection.data_received, answer)
        assert connection.close_reason is FAULTS.get(how)

    def server_closes(self, data):
        connection = data.draw(st.sampled_from(self.open_connections))
        how = data.draw(st.sampled_from(["orderly", "cut", "reset"]))

        def end():
            if how == "orderly":
                connection.eof_received()
            connection._transport.lose(ConnectionResetError() if how == "reset" else None)

        self.act(end)
        assert not connection.is_open

    def server_pushes(self, data):
        """Bytes that nobody asked for, on an idle connection or one whose borrower has not asked yet. Before its first
        request they are kept: the server may be saying that it is overloaded.
        """
        connection = data.draw(st.sampled_from([c for c in self.open_connections if c._reader is None]))
        is_new = connection.state is ConnectionState.LENT and not connection.requests
        self.act(connection.data_received, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nEVILEVIL")
        assert connection.close_reason is (None if is_new else CloseReason.UNSOLICITED)

    # -- time

    def time_passes(self, data):
        self.clock.time += data.draw(st.sampled_from([0.4, 3.9, 4.1, 29.0, 61.0]))
        if data.draw(st.booleans()):
            self.act(self.pool.sweep)
            now = self.clock.mono()
            assert all(c.expires_mono()[0] > now for c in self.dials.opened if c.is_idle)

    def a_deadline_passes(self, data):
        connection = data.draw(st.sampled_from(self.askers)).connection
        self.clock.time += 700.0
        self.cut_short.pop(connection, None)
        self.act(connection._on_timer)
        assert connection.close_reason is CloseReason.TIMEOUT

    def idle_ones_are_closed(self, data):
        self.act(self.pool.close_idle)

    # -- what holds always

    @invariant()
    def idle_lent_or_closed_and_never_two(self):
        """By the connection itself, by the pool's lists, by who holds it and by its transport."""
        if not hasattr(self, "pool"):
            return
        idle = [c for slots in self.pool._slots.values() for c in slots.idle]
        assert len(idle) == len(set(idle))
        assert set(idle) == set(self.pool._idle)
        held = [b.connection for b in self.borrowers if b.connection is not None]
        assert len(held) == len(set(held))
        for connection in self.dials.opened:
            is_held = connection in held
            match connection.state:
                case ConnectionState.IDLE:
                    assert connection in self.pool._idle
                    assert not is_held
                    assert connection.close_reason is None
                    assert not connection._transport.gone
                    assert connection._reader is None
                    assert connection.origin in self.pool._slots
                case ConnectionState.LENT:
                    assert is_held, "lent to nobody"
                    assert connection not in self.pool._idle
                    assert connection.close_reason is None
                case ConnectionState.CLOSED:
                    assert connection not in self.pool._idle
                    assert connection.close_reason is not None
                    assert connection._transport.gone

    @invariant()
    def no_cap_is_passed(self):
        if not hasattr(self, "pool"):
            return
        taken = {origin: slots.taken for origin, slots in self.pool._slots.items()}
        assert all(0 <= count <= self.per_host for count in taken.values())
        held = [b.connection for b in self.borrowers if b.connection is not None]
        new = sum(c.is_new for c in held)
        assert new <= self.pool._new <= new + len(self.dials.pending)
        assert not any(c.is_new for c in self.pool._idle)
        counted = sum(taken.values()) - min(self.pool._new, self.first_contacts)
        assert (sum(taken.values()), counted) == (self.pool._taken, self.pool._counted)
        # above it only while all are lent: that of a host that responded for the first time was needed at once
        assert counted <= self.options.connections or not self.pool._idle
        assert sum(taken.values()) <= self.options.connections + self.first_contacts
        for origin in ORIGINS:
            mine = [c for c in held if c.origin == origin] + [c for c in self.pool._idle if c.origin == origin]
            opening = sum(of == origin for of, _ in self.dials.pending)
            assert taken.get(origin, 0) == len(mine) + opening
        for address in ADDRESSES:
            there = [c for c in self.dials.opened if c.is_open and c.dialled.peer_address == address]
            assert self.pool._at_address.get(address, 0) == len(there)
            if self.per_address is not None:
                assert len(there) <= self.per_address or not any(c.is_idle for c in there)

    @invariant()
    def nobody_waits_for_what_is_there(self):
        """Who waits is kept by a cap, and by nothing else."""
        if not hasattr(self, "pool"):
            return
        dialling = [of for of, _ in self.dials.pending]
        for origin in ORIGINS:
            waiting = sum(b.waits and b.origin == origin for b in self.borrowers) - dialling.count(origin)
            if waiting > 0:
                slots = self.pool._slots.get(origin)
                assert slots is None or not slots.idle
                is_full = slots is not None and slots.taken >= self.per_host
                counted, most = self.pool._counted, self.options.connections
                has_room = counted < most or (counted == most and self.pool._new < self.first_contacts)
                assert is_full or not (has_room or self.pool._idle)

    @invariant()
    def the_statistics_agree(self):
        if not hasattr(self, "pool"):
            return
        stats = self.pool.stats()
        opened = [fields["conn_id"] for name, fields in self.events if name == "conn_open"]
        closed = [fields["conn_id"] for name, fields in self.events if name == "conn_close"]
        assert len(closed) == len(set(closed))
        assert set(closed) == {c.id for c in self.dials.opened if not c.is_open}
        assert stats.opened == len(opened) == len(self.dials.opened)
        assert stats.open == len([c for c in self.dials.opened if c.is_open])
        assert {c for c in self.pool._connections if c.is_open} == {c for c in self.dials.opened if c.is_open}
        assert stats.idle == len(self.pool._idle)
        assert stats.opening == len(self.dials.pending)
        held = [b.connection for b in self.borrowers if b.connection is not None]
        assert stats.requests == sum(c.requests_counted for c in self.dials.opened)
        assert all(c.requests_counted == c.requests for c in self.dials.opened if c not in held)
        assert stats.reused == stats.requests - sum(c.requests_counted > 0 for c in self.dials.opened)

    histories = 0  # that came to their end with everything in order

    def teardown(self):
        if hasattr(self, "pool"):
            for borrower in self.borrowers:
                borrower.task.cancel()
            self.settle()
            assert not self.borrowers
            self.loop.run_until_complete(self.pool.close())
            stats = self.pool.stats()
            assert (stats.open, stats.idle, stats.opening, stats.waiting) == (0, 0, 0, 0)
            assert self.pool._slots == {}
            assert all(c.state is ConnectionState.CLOSED for c in self.dials.opened)
            PoolMachine.histories += 1
        self.loop.close()


def run(examples: int, steps: int) -> int:
    """The number of histories that were completed. Raises the error of the first rule or invariant that fails."""
    PoolMachine.histories = 0
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=examples < 1_000,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return PoolMachine.histories


def test_a_connection_is_idle_lent_or_closed_and_never_two() -> None:
    """Sixty histories of fifty events, the same each time. It fails with the shortest history after which a rule
    or an invariant of the machine does not hold: one connection in two hands, a cap passed, who waits for nothing.
    """
    assert run(60, 50) >= 60


@pytest.mark.prove
def test_no_history_breaks_the_pool() -> None:
    """Thousands of longer random histories; it fails as the test above does."""
    assert run(5_000, 80) >= 5_000
