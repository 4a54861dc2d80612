"""What a TLS server sends, cut where no plaintext ends: inside records and headers, and before what breaks them."""

import asyncio
import random
import ssl

import pytest

from crawler.core.values import Failed, Fetched
from crawler.core.vocabulary import ErrorType, TruncatedReason
from tests.support.fetching import client, until
from tests.support.hostile import Certificates, ok, serve
from tests.support.sealed import DAMAGED, Sealed, sealed

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


def closed_by_now(c):
    return until(lambda: c.pool.stats().open == 0)


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 20, -1])
@pytest.mark.parametrize("when", ["later", "at once"])
async def test_a_record_begun_on_an_idle_connection_retires_it(certificates, tls, cut, when):
    """The rest of it, which comes after the next request, is never the answer."""
    begun = asyncio.Event()

    async def script(s):
        while path := await s.request():
            answer = s.seal(ok(path.encode()))
            if path != "/one":
                await s.send(answer)
                continue
            evil = s.seal(ok(b"EVIL"))
            await s.send(answer + evil[:cut]) if when == "at once" else await s.send(answer, evil[:cut])
            begun.set()
            await s.request()
            await s.send(evil[cut:])

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        first = await c.get(url + "/one")
        assert first.payload.prefix(9) == b"/one"
        await begun.wait()
        second = await c.get(url + "/two")
        assert isinstance(second, Fetched)
        assert (second.payload.prefix(9), second.tainted) == (b"/two", False)
        assert (second.connection.id, second.resend_count) == (2, 1)
        assert c.closings() == ["unsolicited"]
        assert c.gate.is_balanced


@pytest.mark.parametrize("size", [1, 30])
async def test_a_record_begun_before_the_first_request_retires_the_connection(certificates, tls, size):
    """A response hidden in it would be taken for the first answer."""
    begun = asyncio.Event()

    async def script(s):
        if len(server.accepted) == 1:
            evil = s.seal(ok(b"EVIL"))
            await s.send(evil[:size])
            begun.set()
            await s.request()
            await s.send(evil[size:])
        while path := await s.request():
            await s.send(s.seal(ok(path.encode())))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
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
async def test_whole_records_that_carry_nothing_leave_a_connection_alone(certificates, tls_1_3, kind, cut, when):
    """Session tickets and key updates come when the server likes, in pieces too; what matters is whether the last one
    is whole when the next request is about to leave.
    """
    sent = asyncio.Event()

    async def script(s):
        while path := await s.request():
            answer = s.seal(ok(path.encode()))
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

    async with serve(sealed(tls_1_3, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        await c.get(url + "/one")
        await sent.wait()
        for _ in range(2):  # after a key update, both sides' keys are others
            result = await c.get(url + "/two")
            assert isinstance(result, Fetched), result
            assert (result.payload.prefix(9), result.connection.id, result.resend_count) == (b"/two", 1, 0)


async def test_half_a_ticket_retires_a_connection_only_when_it_is_wanted(certificates, tls_1_3):
    """Nothing is closed while it may still be completed; the next request does not wait for that."""
    begun = asyncio.Event()

    async def script(s):
        while path := await s.request():
            await s.send(s.seal(ok(path.encode())))
            if path == "/one":
                await s.send(s.ticket()[:50])
                begun.set()

    async with serve(sealed(tls_1_3, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}"
        await c.get(url + "/one")
        await begun.wait()
        await until(lambda: next(iter(c.pool._alive))._transport.is_mid_record)
        assert c.pool.stats().idle == 1
        assert (await c.get(url + "/two")).connection.id == 2


@pytest.mark.parametrize("size", [1, 5_000, 16_384, 100_000])
async def test_bodies_are_read_whole_wherever_their_records_are_cut(certificates, tls, size):
    """Between any two bytes of the stream, and the connection lives."""
    rng = random.Random(size)
    body = rng.randbytes(size)

    async def script(s):
        while await s.request():
            records = s.seal(ok(body))
            cuts = sorted(rng.sample(range(1, len(records)), 20))
            await s.send(*(records[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        for _ in range(3):
            result = await c.get(f"https://a.test:{server.port}/")
            assert result.payload.prefix(size + 1) == body
            assert result.connection.id == 1


BREAKS = {"alert": ErrorType.TLS_ALERT, "damaged": ErrorType.TLS_BAD_RECORD}


def breaking(s, how):
    return s.alert() if how == "alert" else DAMAGED


@pytest.mark.parametrize("how", BREAKS)
async def test_a_whole_response_stands_whatever_breaks_behind_it(certificates, tls, how):
    """A fatal alert or a damaged record in the same segment closes the connection, and takes nothing away."""

    async def script(s):
        await s.request()
        answer = s.seal(ok(b"hello"))
        await s.send(answer + breaking(s, how))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Fetched), result
        assert (result.payload.prefix(9), result.truncated, result.error_type) == (b"hello", None, None)
        assert c.closings() == ["reset"]
        assert c.pool.origins() == {}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("at_once", [True, False])
async def test_half_a_response_is_kept_and_marked_when_something_breaks(certificates, tls, how, at_once):
    """What came before the alert or the damaged record, with a word that tells them apart."""

    async def script(s):
        await s.request()
        answer = s.seal(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        broken = breaking(s, how)
        await (s.send(answer + broken) if at_once else s.send(answer, broken))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
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
        await s.send(s.seal(ok(b"hello")))
        await s.request()
        if first:
            await s.send(breaking(s, how))
        else:
            await s.send(s.seal(ok(b"again")))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        url = f"https://a.test:{server.port}/"
        await c.get(url)
        second = await c.get(url)
        assert isinstance(second, Fetched)
        assert (second.payload.prefix(9), second.connection.id, second.resend_count) == (b"hello", 2, 1)


@pytest.mark.parametrize("how", BREAKS)
async def test_what_breaks_before_the_answer_fails_with_its_word(certificates, tls, how):
    """On a fresh connection nothing is sent again."""

    async def script(s):
        await s.request()
        await s.send(breaking(s, how))

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.retryable, result.resend_count) == (BREAKS[how], True, 0)


async def test_a_server_that_wants_a_certificate_of_ours_has_its_own_word(certificates):
    """Under TLS 1.3 it says so once our handshake is over, and after the request may have been written."""
    tls = certificates.server("a.test")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificates.ca_file)

    async def script(s):
        raise AssertionError("there is no handshake")

    async with serve(sealed(tls, script)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert (result.error_type, result.retryable) == (ErrorType.TLS_CLIENT_CERTIFICATE, False)
        assert "certificate required" in result.detail


async def test_a_handshake_that_fails_is_told_to_the_server(certificates):
    """With an alert, in the server's log: bad certificate."""
    said = []

    async def script(plain):
        with pytest.raises(ssl.SSLError) as caught:
            await Sealed(plain, certificates.server("b.test")).handshake()
        said.append(caught.value.reason)

    async with serve(script) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert result.error_type is ErrorType.TLS_HOST_MISMATCH
        await server.accepted[0].ended.wait()
        assert said == ["SSLV3_ALERT_BAD_CERTIFICATE"]
