"""From an origin to a socket: addresses are checked, families raced, errors distinguished, sockets closed."""

import asyncio
import errno
import os
import socket

import pytest

from crawler.core.enums import ErrorType, Stage, TaskKind
from crawler.core.models import Failed, Fetched, Origin, Task
from crawler.core.url import parse
from crawler.fetch.net.address import AddressPolicy
from crawler.fetch.net.dial import NetworkDialer
from crawler.fetch.net.errors import DialError, ResolveError
from crawler.fetch.net.happy_eyeballs import DEAD_S, HappyEyeballs, interleave
from crawler.fetch.net.resolver import AresLookup, CachingResolver, DnsAnswer
from crawler.fetch.net.tls import TlsProfile
from crawler.fetch.options import FetchOptions, NetworkOptions, TlsOptions
from tests.support.fetching import ScriptedLookup, SkewedClock, client
from tests.support.scripted_server import ok, serve, table

HELLO = table({"/": ok(b"hello")})
PRIVATE = (
    "10.0.0.1",
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",
    "fe80::1",
)


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_packet_is_sent_to_a_denied_address(address):
    """A name that resolves to a special address is denied before anything is dialled."""
    async with serve(HELLO) as server:
        network = NetworkOptions(resolve=(("a.test", (address,)),))
        async with client(network=network) as c:
            result = await c.get(f"http://a.test:{server.port}/")
            assert isinstance(result, Failed)
            assert result.error_type is ErrorType.ADDRESS_DENIED
            assert not result.retryable
            assert server.accepted == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:7f00:1]"])
async def test_an_address_in_a_url_is_checked_too(host):
    """A URL with the address itself is denied."""
    async with serve(HELLO) as server, client(network=NetworkOptions()) as c:
        result = await c.get(f"http://{host}:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.ADDRESS_DENIED
        assert server.accepted == []


# Every way to write 127.0.0.1, 10.0.0.1 or 169.254.169.254 that a URL may hold, and the IPv6 addresses that lead there.
DISGUISED = [
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0x7f000001",
    "0X7F.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.01",
    "2130706433",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "①②⑦.0.0.1",
    "１２７．０．０．１",
    "127。0。0。1",
    "0",
    "10.1",
    "0xa9fea9fe",
    "2852039166",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::10.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:f5ff:fffe]",
    "[fe80::1]",
    "[fd00::1]",
    "100.64.0.1",
]


@pytest.mark.parametrize("host", DISGUISED)
@pytest.mark.parametrize("way", ["asked for", "redirected to"])
async def test_no_spelling_of_an_address_avoids_the_check(host, way):
    """As a seed, a link or a Location: it is denied, and neither DNS nor a server gets a query."""
    lookup = ScriptedLookup()
    async with serve(HELLO) as server, client(network=NetworkOptions(), lookup=lookup) as c:
        there = f"http://{host}:{server.port}/"
        if way == "asked for":
            url, origin = parse(there)
        else:
            url, origin = parse(f"//{host}:{server.port}/", "http://a.test/")
        result = await c.fetcher.fetch(
            origin, Task(1, url, kind=TaskKind.ROBOTS if way == "asked for" else TaskKind.PAGE)
        )
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.ADDRESS_DENIED
        assert server.accepted == []
        assert lookup.asked == []


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "localhost."])
async def test_names_of_this_machine_are_checked(name):
    """RFC 6761 names resolve to loopback, and loopback is denied."""
    lookup = AresLookup(("127.0.0.1:9",))
    try:
        async with serve(HELLO) as server, client(network=NetworkOptions(), lookup=lookup) as c:
            result = await c.get(f"http://{name}:{server.port}/")
            assert isinstance(result, Failed)
            assert result.error_type is ErrorType.ADDRESS_DENIED
            assert server.accepted == []
    finally:
        await lookup.close()


def dialer(lookup, *, connect=None, allow=(), clock=None, **options):
    network = NetworkOptions(allow_private=allow)
    clock = clock or SkewedClock()
    return NetworkDialer(
        resolver=CachingResolver(lookup, network, clock),
        policy=AddressPolicy(allow),
        tls=TlsProfile(TlsOptions(verify=False), network),
        options=FetchOptions(**options),
        network=network,
        clock=clock,
        connect=connect,
    )


class Sockets:
    """Scripted connecting: each address succeeds, fails or hangs. `made`: the sockets returned."""

    def __init__(self, **outcomes):
        self.outcomes = {address.replace("_", ".").replace("x", ":"): outcome for address, outcome in outcomes.items()}
        self.tried = []
        self.made = []
        self.others = []

    async def __call__(self, address, port):
        self.tried.append(address)
        outcome = self.outcomes[address]
        if isinstance(outcome, OSError):
            raise outcome
        if outcome == "hang":
            await asyncio.get_running_loop().create_future()
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.made.append(ours)
        self.others.append(theirs)
        return ours

    def close(self):
        for sock in self.made + self.others:
            sock.close()


V4, V4B, V6 = "198.41.0.4", "199.9.14.201", "2001:503:ba3e::2:30"
ORIGIN = Origin("http", "a.test", 80)


def sockets(**outcomes):
    made = Sockets()
    made.outcomes = outcomes
    return made


class Silent(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport


async def dialled(d, origin=ORIGIN):
    protocol, info = await d.dial(origin, Silent)
    protocol.transport.abort()
    return info


async def test_only_the_allowed_addresses_of_a_name_are_dialled():
    """One private address among public ones is left out, not the whole name."""
    connect = sockets(**{V4: "ok"})
    info = await dialled(dialer(ScriptedLookup({"a.test": DnsAnswer(("10.0.0.1", V4, "::1"), 60)}), connect=connect))
    assert info.peer_address == V4
    assert connect.tried == [V4]
    connect.close()


async def test_ipv4_is_tried_250_ms_after_a_silent_ipv6():
    """A silent IPv6 address costs 250 ms once; then the host's IPv4 goes first."""
    connect = sockets(**{V6: "hang", V4: "ok"})
    d = dialer(ScriptedLookup({"a.test": DnsAnswer((V6, V4), 60)}), connect=connect)
    first = await dialled(d)
    assert first.peer_address == V4
    assert 0.24 < first.timings.connect_s < 2
    second = await dialled(d)
    assert second.peer_address == V4
    assert second.timings.connect_s < 0.24
    assert connect.tried == [V6, V4, V4]
    connect.close()


async def test_a_dead_address_costs_time_once():
    """Of two addresses of one family the first is silent: the next connection begins with the other. After ten
    minutes it gets another chance; answering then, it is first again.
    """
    clock = SkewedClock()
    connect = sockets(**{V4: "hang", V4B: "ok"})
    d = dialer(ScriptedLookup({"a.test": DnsAnswer((V4, V4B), 86_400)}), connect=connect, clock=clock)
    assert (await dialled(d)).peer_address == V4B
    assert (await dialled(d)).timings.connect_s < 0.5
    assert connect.tried == [V4, V4B, V4B]
    clock.offset += DEAD_S
    connect.outcomes[V4] = "ok"
    assert (await dialled(d)).peer_address == V4
    assert (await dialled(d)).peer_address == V4
    connect.close()


async def test_a_refusing_address_is_tried_last():
    """It is used if no other address answers, and it is dead at this port only."""
    connect = sockets(**{V4: OSError(errno.ECONNREFUSED, "refused"), V4B: "ok"})
    d = dialer(ScriptedLookup({"a.test": DnsAnswer((V4, V4B), 86_400)}), connect=connect)
    for _ in range(2):
        await dialled(d)
    assert connect.tried == [V4, V4B, V4B]
    connect.outcomes.update({V4: "ok", V4B: OSError(errno.ECONNREFUSED, "refused")})
    assert (await dialled(d)).peer_address == V4
    assert connect.tried[3:] == [V4B, V4]
    assert (await dialled(d, Origin("http", "a.test", 81))).peer_address == V4
    assert connect.tried[5:] == [V4]
    connect.close()


async def test_an_attempt_without_a_descriptor_does_not_make_an_address_dead():
    """Neither does an attempt that began after the winner's."""
    connect = sockets(**{V4: OSError(errno.EMFILE, "too many"), V4B: "ok"})
    d = dialer(ScriptedLookup({"a.test": DnsAnswer((V4, V4B), 86_400)}), connect=connect)
    await dialled(d)
    await dialled(d)
    assert connect.tried == [V4, V4B] * 2
    connect.close()


def test_dead_addresses_are_not_among_the_few_that_are_tried():
    """Of many addresses those not known as dead are tried; the cache is bounded."""
    order = HappyEyeballs(SkewedClock())
    many = [f"198.41.0.{n}" for n in range(8)]
    order.finished("a.test", 80, many, many[7], many[:6])
    assert order.order("a.test", 80, many) == [many[6], many[7], *many[:4]]
    assert order.order("a.test", 443, many) == many[:6]
    for n in range(20_000):
        order.finished("a.test", n, many, many[7], many[:1])
    assert len(order._dead_until) == 16_384


async def test_a_refusal_does_not_wait_for_the_head_start():
    """The next address is tried as soon as one has failed."""
    connect = sockets(**{V6: OSError(errno.ENETUNREACH, "no route"), V4: "ok"})
    info = await dialled(dialer(ScriptedLookup({"a.test": DnsAnswer((V6, V4), 60)}), connect=connect))
    assert info.peer_address == V4
    assert info.timings.connect_s < 0.2
    connect.close()


async def test_the_loser_of_the_race_is_closed():
    """If both families connect, one socket is used and the other is closed."""
    gate = asyncio.Event()
    connect = sockets(**{V6: gate, V4: gate})
    d = dialer(ScriptedLookup({"a.test": DnsAnswer((V6, V4), 60)}), connect=connect)
    race = asyncio.ensure_future(d.dial(ORIGIN, Silent))
    while len(connect.tried) < 2:
        await asyncio.sleep(0.01)
    gate.set()
    protocol, _ = await race
    closed_before = [sock for sock in connect.made if sock.fileno() == -1]
    protocol.transport.abort()
    assert len(connect.made) == 2
    assert len(closed_before) == 1
    connect.close()


@pytest.mark.parametrize(
    ("errors", "word"),
    [
        ({V4: OSError(errno.ECONNREFUSED, "refused")}, ErrorType.CONNECT_REFUSED),
        ({V4: OSError(errno.EHOSTUNREACH, "no host")}, ErrorType.CONNECT_UNREACHABLE),
        ({V4: OSError(errno.ENETUNREACH, "no net")}, ErrorType.CONNECT_UNREACHABLE),
        ({V4: OSError(errno.ETIMEDOUT, "late")}, ErrorType.CONNECT_TIMEOUT),
        ({V4: OSError(errno.EMFILE, "too many")}, ErrorType.NO_FILE_DESCRIPTORS),
        ({V4: OSError(errno.ENFILE, "too many")}, ErrorType.NO_FILE_DESCRIPTORS),
        ({V4: OSError(errno.EACCES, "firewall")}, ErrorType.CONNECT_FAILED),
        (
            {V6: OSError(errno.ENETUNREACH, "no IPv6"), V4: OSError(errno.ECONNREFUSED, "refused")},
            ErrorType.CONNECT_REFUSED,
        ),
    ],
)
async def test_connect_errors_have_error_types_of_their_own(errors, word):
    """Each errno has its type; of several errors, the host's own counts."""
    connect = sockets(**errors)
    with pytest.raises(DialError) as caught:
        await dialled(dialer(ScriptedLookup({"a.test": DnsAnswer(tuple(errors), 60)}), connect=connect))
    assert (caught.value.stage, caught.value.error_type) == (Stage.CONNECT, word)


@pytest.mark.parametrize("addresses", [(V4,), (V6, V4), (V4, V4B)])
async def test_silence_is_a_connect_timeout(addresses):
    """connect_timeout bounds all addresses together."""
    connect = sockets(**dict.fromkeys(addresses, "hang"))
    with pytest.raises(DialError) as caught:
        await dialled(
            dialer(ScriptedLookup({"a.test": DnsAnswer(addresses, 60)}), connect=connect, connect_timeout_s=0.05)
        )
    assert caught.value.error_type is ErrorType.CONNECT_TIMEOUT
    assert caught.value.peer == (addresses[0], 80)
    assert caught.value.timings.connect_s > 0.04


async def test_a_name_that_does_not_resolve_fails_as_dns():
    """The error type is the resolver's."""
    lookup = ScriptedLookup({"a.test": ResolveError(ErrorType.DNS_NOT_FOUND, "NXDOMAIN")})
    with pytest.raises(DialError) as caught:
        await dialled(dialer(lookup, connect=sockets()))
    assert (caught.value.stage, caught.value.error_type) == (Stage.RESOLVE, ErrorType.DNS_NOT_FOUND)


@pytest.mark.parametrize("hanging", [(V4,), (V6, V4)])
async def test_a_cancelled_dial_closes_what_it_opened(hanging):
    """Cancelled while it races, connects or has just connected: no socket stays open."""
    gate = asyncio.Event()
    connect = sockets(**dict.fromkeys(hanging, gate))
    d = dialer(ScriptedLookup({"a.test": DnsAnswer(hanging, 60)}), connect=connect)
    task = asyncio.ensure_future(dialled(d))
    while len(connect.tried) < len(hanging):
        await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0)  # one attempt may have connected, unseen
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(sock.fileno() == -1 for sock in connect.made)
    connect.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counting, not walking


async def test_a_cancelled_handshake_leaves_no_descriptor():
    """The socket is closed if the TLS handshake is cancelled."""

    async def stall(a):
        await a.client_closed()

    async with serve(stall) as server:
        before = descriptors()
        d = dialer(ScriptedLookup(), allow=("127.0.0.0/8",))
        task = asyncio.ensure_future(dialled(d, Origin("https", "127.0.0.1", server.port)))
        while not server.accepted:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.accepted[0].ended.wait()
        await asyncio.sleep(0)
        assert descriptors() <= before


async def test_without_descriptors_a_fetch_fails_and_later_recovers(monkeypatch):
    """EMFILE has an error type of its own, may be retried, and goes away."""
    real = socket.socket
    short = True

    def no_descriptor(*args, **kwargs):
        if short:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **kwargs)

    async with serve(HELLO) as server, client() as c:
        monkeypatch.setattr("crawler.fetch.net.dial.socket.socket", no_descriptor)
        result = await c.get(f"http://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.NO_FILE_DESCRIPTORS
        assert result.retryable
        short = False
        assert isinstance(await c.get(f"http://a.test:{server.port}/"), Fetched)


async def test_a_closed_port_is_refused():
    """The kernel refuses it, over loopback."""
    async with serve(HELLO) as server:
        port = server.port
    async with client() as c:
        result = await c.get(f"http://a.test:{port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.CONNECT_REFUSED


async def test_the_bound_address_is_the_one_the_server_sees():
    """network.bind_address decides where connections come from."""
    network = NetworkOptions(allow_private=("127.0.0.0/8",), bind_address="127.0.0.9")
    async with serve(HELLO) as server, client(network=network) as c:
        assert isinstance(await c.get(f"http://127.0.0.1:{server.port}/"), Fetched)
        assert server.accepted[0].writer.get_extra_info("peername")[0] == "127.0.0.9"


@pytest.mark.parametrize(
    ("addresses", "v6_first", "order"),
    [
        ([V6, V4, V4B], None, [V6, V4, V4B]),
        ([V4, V4B, V6], None, [V4, V6, V4B]),
        ([V6, V4], False, [V4, V6]),
        ([V4, V4B], True, [V4, V4B]),
        ([V4], None, [V4]),
    ],
)
def test_families_alternate(addresses, v6_first, order):
    """The first address of one family, then of the other, and so on."""
    assert interleave(addresses, v6_first=v6_first) == order
