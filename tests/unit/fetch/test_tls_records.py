"""Bytes of a TLS server cut inside records and headers, and before alerts and damaged records."""

import asyncio
import contextlib
import random
import ssl

import pytest

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.models import Failed, Fetched
from crawler.fetch.net.tls import ReadBuffer, TlsStream
from tests.support.fetching import client, until
from tests.support.scripted_server import Certificates, ok, serve
from tests.support.tls_records import DAMAGED, RecordConnection, tls_script

pytestmark = pytest.mark.both_loops


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module", params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def tls(request, certificates):
    return certificates.server("a.test", max_version=request.param)


@pytest.fixture(scope="module")
def tls_1_3(certificates):
    return certificates.server("a.test")


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 20, -1])
@pytest.mark.parametrize("when", ["later", "at once"])
async def test_half_a_record_on_an_idle_connection_closes_it(certificates, tls, cut, when):
    """Its other half, which comes after the next request, is never the response."""
    begun = asyncio.Event()

    async def script(s):
        while path := await s.request():
            answer = s.encrypt(ok(path.encode()))
            if path != "/one":
                await s.send(answer)
                continue
            evil = s.encrypt(ok(b"EVIL"))
            await s.send(answer + evil[:cut]) if when == "at once" else await s.send(answer, evil[:cut])
            begun.set()
            await s.request()
            await s.send(evil[cut:])

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        first = await c.get(url + "/one")
        assert first.payload.prefix(9) == b"/one"
        await begun.wait()
        second = await c.get(url + "/two")
        assert isinstance(second, Fetched)
        assert (second.payload.prefix(9), second.tainted) == (b"/two", False)
        assert (second.connection.id, second.resend_count) == (2, 1)
        assert c.closings() == ["unsolicited"]
        assert c.address_limiter.is_balanced


@pytest.mark.parametrize("size", [1, 30])
async def test_half_a_record_before_the_first_request_closes_the_connection(certificates, tls, size):
    """A response in it would be taken for that of the first request."""
    begun = asyncio.Event()

    async def script(s):
        if len(server.accepted) == 1:
            evil = s.encrypt(ok(b"EVIL"))
            await s.send(evil[:size])
            begun.set()
            await s.request()
            await s.send(evil[size:])
        while path := await s.request():
            await s.send(s.encrypt(ok(path.encode())))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        dial = c.pool._dialer.dial

        async def dial_slowly(origin, factory):
            dialled = await dial(origin, factory)
            await begun.wait()
            return dialled

        c.pool._dialer.dial = dial_slowly
        result = await c.get(f"https://a.test:{server.port}/one")
        assert isinstance(result, Fetched), result
        assert (result.payload.prefix(9), result.connection.id, result.resend_count) == (b"/one", 2, 1)


@pytest.mark.parametrize("kind", ["ticket", "key_update"])
@pytest.mark.parametrize("cut", [None, 1, 5, -1])
@pytest.mark.parametrize("when", ["later", "at once"])
async def test_whole_records_without_data_do_not_close_a_connection(certificates, tls_1_3, kind, cut, when):
    """Session tickets and key updates may come at any time, in pieces too; what counts is whether the last one
    is whole when the next request is about to leave.
    """
    sent = asyncio.Event()

    async def script(s):
        while path := await s.request():
            answer = s.encrypt(ok(path.encode()))
            if path != "/one":
                await s.send(answer)
                continue
            record = getattr(s, kind)()
            pieces = [record] if cut is None else [record[:cut], record[cut:]]
            if when == "at once":
                pieces[0] = answer + pieces[0]
            else:
                await s.send(answer)
            await s.send(*pieces)
            sent.set()

    async with serve(tls_script(tls_1_3, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        await c.get(url + "/one")
        await sent.wait()
        for _ in range(2):  # after a key update, both sides' keys are others
            result = await c.get(url + "/two")
            assert isinstance(result, Fetched), result
            assert (result.payload.prefix(9), result.connection.id, result.resend_count) == (b"/two", 1, 0)


async def test_half_a_ticket_closes_a_connection_only_before_a_request(certificates, tls_1_3):
    """The other half may still come, but the next request does not wait for it."""
    begun = asyncio.Event()

    async def script(s):
        while path := await s.request():
            await s.send(s.encrypt(ok(path.encode())))
            if path == "/one":
                await s.send(s.ticket()[:50])
                begun.set()

    async with serve(tls_script(tls_1_3, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        await c.get(url + "/one")
        await begun.wait()
        await until(lambda: next(iter(c.pool._connections))._transport.is_mid_record)
        assert c.pool.stats().idle == 1
        assert (await c.get(url + "/two")).connection.id == 2


@pytest.mark.parametrize("size", [1, 5_000, 16_384, 100_000])
async def test_bodies_are_read_whole_wherever_their_records_are_cut(certificates, tls, size):
    """Cut between any two bytes of the stream; the connection stays open."""
    rng = random.Random(size)
    body = rng.randbytes(size)

    async def script(s):
        while await s.request():
            records = s.encrypt(ok(body))
            cuts = sorted(rng.sample(range(1, len(records)), 20))
            await s.send(*(records[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        for _ in range(3):
            result = await c.get(f"https://a.test:{server.port}/")
            assert result.payload.prefix(size + 1) == body
            assert result.connection.id == 1


BREAKS = {"alert": ErrorType.TLS_ALERT, "damaged": ErrorType.TLS_BAD_RECORD}


def breaking(s, how):
    return s.alert() if how == "alert" else DAMAGED


@pytest.mark.parametrize("how", BREAKS)
async def test_a_whole_response_counts_whatever_follows_it(certificates, tls, how):
    """A fatal alert or a damaged record in the same segment closes the connection; the response stays."""

    async def script(s):
        await s.request()
        answer = s.encrypt(ok(b"hello"))
        await s.send(answer + breaking(s, how))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Fetched), result
        assert (result.payload.prefix(9), result.truncated, result.error_type) == (b"hello", None, None)
        assert c.closings() == ["reset"]
        assert c.pool._slots == {}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("at_once", [True, False])
async def test_half_a_response_before_an_error_is_kept_and_marked(certificates, tls, how, at_once):
    """What came before an alert or a damaged record is kept, with an error type for each."""

    async def script(s):
        await s.request()
        answer = s.encrypt(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        broken = breaking(s, how)
        await (s.send(answer + broken) if at_once else s.send(answer, broken))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Fetched), result
        assert result.payload.prefix(99) == b"half"
        assert (result.truncated, result.error_type) == (TruncatedReason.DISCONNECT, BREAKS[how])


@pytest.mark.parametrize("how", BREAKS)
async def test_a_used_connection_that_breaks_before_a_byte_costs_a_resend(certificates, tls, how):
    """Servers end idle connections with alerts too."""

    async def script(s):
        first = len(server.accepted) == 1
        await s.request()
        await s.send(s.encrypt(ok(b"hello")))
        await s.request()
        if first:
            await s.send(breaking(s, how))
        else:
            await s.send(s.encrypt(ok(b"again")))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Fetched)
        assert (second.payload.prefix(9), second.connection.id, second.resend_count) == (b"hello", 2, 1)


@pytest.mark.parametrize("how", BREAKS)
async def test_an_error_before_the_response_has_its_error_type(certificates, tls, how):
    """On a fresh connection nothing is sent again."""

    async def script(s):
        await s.request()
        await s.send(breaking(s, how))

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.retryable, result.resend_count) == (BREAKS[how], True, 0)


async def test_a_server_that_requires_a_client_certificate_has_its_own_error_type(certificates):
    """Under TLS 1.3 its alert comes after our handshake, and perhaps after the request was written."""
    tls = certificates.server("a.test")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificates.ca_file)

    async def script(s):
        raise AssertionError("there is no handshake")

    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.retryable) == (ErrorType.TLS_CLIENT_CERTIFICATE, False)
        assert "certificate required" in result.detail


async def test_the_server_gets_an_alert_if_the_handshake_fails(certificates):
    """The server's log has the alert: bad certificate."""
    said = []

    async def script(plain):
        with pytest.raises(ssl.SSLError) as caught:
            await RecordConnection(plain, certificates.server("b.test")).handshake()
        said.append(caught.value.reason)

    async with serve(script) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert result.error_type is ErrorType.TLS_HOST_MISMATCH
        await server.accepted[0].ended.wait()
        assert said == ["SSLV3_ALERT_BAD_CERTIFICATE"]


async def test_a_server_of_tls_1_2_may_renegotiate(certificates):
    """The request waits for the renegotiation and is sent over the same connection."""
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def script(s):
        while path := await s.request():
            await s.send(s.encrypt(ok(path.encode())))
            if path == "/one":
                await s.send(s.hello_request())
                asked.set()
                await goes_on.wait()

    tls = certificates.server("a.test", max_version=ssl.TLSVersion.TLSv1_2)
    async with serve(tls_script(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        await c.get(url + "/one")
        await asked.wait()
        second = asyncio.ensure_future(c.get(url + "/two"))
        await until(c.pool.exchanges)
        goes_on.set()
        for path, result in (("/two", await second), ("/three", await c.get(url + "/three"))):
            assert isinstance(result, Fetched), result
            assert (result.payload.prefix(9), result.connection.id) == (path.encode(), 1)


class Raw(asyncio.Transport):
    """A transport of a socket that keeps what is written, and ends when the test says so."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.ended = ""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return bool(self.ended)

    def close(self):
        self.ended = "closed"

    def abort(self):
        self.ended = "aborted"


class Above(asyncio.Protocol):
    def __init__(self):
        self.told = []

    def connection_made(self, transport):
        self.told.append("made")

    def data_received(self, data):
        self.told.append(data)

    def eof_received(self):
        self.told.append("eof")

    def connection_lost(self, exc):
        self.told.append(exc)


class Rig:
    """A TlsStream and a server's end of the connection, in memory."""

    def __init__(self, server, client=None):
        context = client or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.above, self.raw = Above(), Raw()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
        self.stream = TlsStream(tls, incoming, outgoing, self.above, ReadBuffer())
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def comes(self, data):
        self.stream.get_buffer(-1)[: len(data)] = data
        self.stream.buffer_updated(len(data))

    def turn(self):
        """What one side has written reaches the other."""
        self.incoming.write(self.raw.written)
        self.raw.written = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.server.do_handshake()
        if self.outgoing.pending:
            self.comes(self.outgoing.read())

    def shake_hands(self):
        self.stream.connection_made(self.raw)
        for _ in range(3):
            self.turn()


async def test_a_handshake_without_a_waiting_dialer_ends_without_an_error(certificates):
    """The dialer was cancelled just as the handshake ended, with success or not."""
    done = Rig(certificates.server("a.test"))
    done.stream.opened.cancel()
    done.shake_hands()
    assert done.above.told[0] == "made"
    failed = Rig(certificates.server("a.test"))
    failed.stream.opened.cancel()
    failed.stream.connection_made(failed.raw)
    failed.comes(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert (failed.above.told, failed.raw.ended) == ([], "closed")
    aborted = Rig(certificates.server("a.test"))
    aborted.stream.abort()  # before it was on a socket
    aborted.stream.opened.cancel()


async def test_a_failed_encryption_ends_the_connection(certificates):
    """OpenSSL refuses to write: the protocol above gets the reason once."""
    rig = Rig(certificates.server("a.test"))
    rig.shake_hands()

    class Refusing:
        def write(self, data):
            raise ssl.SSLError(1, "[SSL] protocol is shutdown")

    rig.stream._tls = Refusing()
    rig.stream.write(b"GET")
    rig.stream._flush()  # nothing is written to what is closed
    rig.stream.connection_lost(None)
    assert rig.above.told[0] == "made"
    assert [type(told) for told in rig.above.told[1:]] == [ssl.SSLError]


async def test_bytes_that_come_during_a_close_are_dropped(certificates):
    """Each close_notify is answered by the other side's; the socket is closed after that."""
    ours = Rig(certificates.server("a.test"))
    ours.shake_hands()
    ours.stream.close()
    assert ours.raw.ended == ""
    ours.server.write(b"late")
    ours.comes(ours.outgoing.read())
    ours.incoming.write(ours.raw.written)
    ours.server.unwrap()
    ours.comes(ours.outgoing.read())
    assert (ours.above.told, ours.raw.ended) == (["made"], "closed")
    theirs = Rig(certificates.server("a.test"))
    theirs.shake_hands()
    theirs.server.write(b"all")
    with pytest.raises(ssl.SSLWantReadError):
        theirs.server.unwrap()
    theirs.comes(theirs.outgoing.read())
    assert (theirs.above.told, theirs.raw.ended) == (["made", b"all", "eof"], "closed")
    theirs.incoming.write(theirs.raw.written)
    theirs.server.unwrap()


async def test_records_are_tracked_across_reads(certificates):
    """Headers in five reads, several records in one: the stream knows when it is between two records."""
    rig = Rig(certificates.server("a.test"))
    rig.shake_hands()
    rig.server.write(b"x" * 40_000)
    records = rig.outgoing.read()
    for n in range(8):
        rig.comes(records[n : n + 1])
        assert rig.stream.is_mid_record
    rig.comes(records[8:-1])
    assert rig.stream.is_mid_record
    rig.comes(records[-1:])
    assert not rig.stream.is_mid_record
    assert b"".join(rig.above.told[1:]) == b"x" * 40_000
