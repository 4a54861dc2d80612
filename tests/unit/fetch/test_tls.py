"""Which servers are trusted, the error type of a failed handshake, and resumed sessions."""

import asyncio
import contextlib
import datetime
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from crawler.core.enums import ErrorType
from crawler.core.models import Failed, Fetched, Origin
from crawler.fetch.net.tls import TlsProfile, server_name, stream_error, tls_error
from crawler.fetch.options import FetchOptions, NetworkOptions, TlsOptions
from tests.support.fetching import client
from tests.support.scripted_server import Certificates, ok, serve, table
from tests.support.tls_records import tls_script


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


HELLO = table({"/": ok(b"hello")})


def self_signed():
    """A leaf that signs itself: a CA's own certificate, served."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca = trustme.CA()
    with ca.cert_pem.tempfile() as cert, ca.private_key_pem.tempfile() as key:
        context.load_cert_chain(cert, key)
    return context


def incomplete_chain(certificates):
    """A leaf of an intermediate CA, without the intermediate's certificate."""
    leaf = certificates.ca.create_child_ca().issue_cert("a.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with leaf.cert_chain_pems[0].tempfile() as cert, leaf.private_key_pem.tempfile() as key:
        context.load_cert_chain(cert, key)
    return context


def stranger():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("a.test").configure_cert(context)
    return context


BAD = {
    "expired": (lambda c: c.server("a.test", since_days=-20, until_days=-10), ErrorType.TLS_CERT_EXPIRED),
    "not yet valid": (lambda c: c.server("a.test", since_days=10, until_days=20), ErrorType.TLS_CERT_NOT_YET_VALID),
    "other name": (lambda c: c.server("b.test"), ErrorType.TLS_HOST_MISMATCH),
    "other address": (lambda c: c.server("a.test", "127.0.0.2"), ErrorType.TLS_HOST_MISMATCH),
    "self-signed": (lambda c: self_signed(), ErrorType.TLS_SELF_SIGNED),
    "unknown issuer": (lambda c: stranger(), ErrorType.TLS_UNKNOWN_ISSUER),
    "incomplete chain": (incomplete_chain, ErrorType.TLS_UNKNOWN_ISSUER),
}


@pytest.mark.parametrize("case", BAD)
async def test_an_untrusted_server_has_its_own_error_type(certificates, case):
    """Each fault of a certificate or handshake has a type of its own, and no request is sent."""
    make, word = BAD[case]
    host = "127.0.0.1" if case == "other address" else "a.test"
    async with serve(HELLO, tls=make(certificates)) as server, client(ca_file=certificates.ca_file) as c:
        result = await c.get(f"https://{host}:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is word, result.detail
        assert not result.retryable
        assert result.timings.tls_s > 0
        assert server.requests == []
        assert c.address_limiter.log == []
        assert c.events == [("conn_fail", c.events[0][1])]
        assert (c.events[0][1]["stage"], c.events[0][1]["error_type"]) == ("tls", word)
        assert c.pool.stats().failed == 1
        assert c.pool._slots == {}


def alert(code):
    """A server that answers the ClientHello with a fatal alert (RFC 8446 §6), as OpenSSL's do; uvloop's send none."""

    async def script(a):
        await a.reader.read(1)
        await a.send(bytes((21, 3, 3, 0, 2, 2, code)))
        await a.client_closed()

    return script


def garbage(data):
    """A server that speaks something other than TLS."""

    async def script(c):
        await c.send(data)
        await c.client_closed()

    return script


async def hang_up(c):
    await c.reader.read(1)
    await c.cut()


async def hang_up_hard(c):
    await c.reader.read(1)
    await c.reset()


async def stall(c):
    await c.client_closed()


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (alert(40), ErrorType.TLS_NO_SHARED_PROTOCOL),  # handshake_failure
        (alert(70), ErrorType.TLS_NO_SHARED_PROTOCOL),  # protocol_version
        (alert(120), ErrorType.TLS_NO_SHARED_PROTOCOL),  # no_application_protocol: a server that knows HTTP/2 alone
        (alert(80), ErrorType.TLS_FAILED),  # internal_error
        (garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ErrorType.TLS_PROTOCOL_ERROR),
        (garbage(b"SSH-2.0-OpenSSH_9.2p1\r\n"), ErrorType.TLS_PROTOCOL_ERROR),
        (garbage(b"220 mail.test ESMTP\r\n"), ErrorType.TLS_PROTOCOL_ERROR),
        (garbage(bytes(range(256))), ErrorType.TLS_PROTOCOL_ERROR),
        (garbage(b"\x16\x03\x03\xff\xff" + bytes(70_000)), ErrorType.TLS_PROTOCOL_ERROR),  # a record too long
        (garbage(b"\x17\x03\x03\x00\x05hello"), ErrorType.TLS_PROTOCOL_ERROR),  # data before a handshake
        (hang_up, ErrorType.TLS_FAILED),
        (hang_up_hard, ErrorType.TLS_FAILED),
        (stall, ErrorType.TLS_TIMEOUT),
    ],
)
async def test_a_handshake_that_fails_or_stalls_ends(script, word):
    """Garbage instead of TLS, a close and a stall each end in time, with nothing left open."""
    timeout_s = 0.05 if script is stall else 5.0
    async with serve(script) as server, client(fetch=FetchOptions(tls_timeout_s=timeout_s)) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is word, result.detail
        assert result.detail
        assert result.retryable is (word is not ErrorType.TLS_NO_SHARED_PROTOCOL)
        await asyncio.wait_for(server.accepted[0].ended.wait(), 5)
        assert c.pool.stats().opening == 0


async def test_an_older_version_than_ours_is_no_shared_protocol(certificates):
    """A server that answers with a TLS version below tls.min_version."""

    async def old(a):
        server = certificates.server("a.test", max_version=ssl.TLSVersion.TLSv1_2)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(await a.reader.read(65_536))
        with contextlib.suppress(ssl.SSLError):
            tls.do_handshake()
        await a.send(outgoing.read())
        await a.client_closed()

    async with serve(old) as server, client(ca_file=certificates.ca_file, tls=TlsOptions(min_version="1.3")) as c:
        result = await c.get(f"https://a.test:{server.port}/")
        assert isinstance(result, Failed)
        assert result.error_type is ErrorType.TLS_NO_SHARED_PROTOCOL, result.detail


OLD = ["ECDHE-RSA-AES128-SHA", "AES128-SHA", "AES256-GCM-SHA384"]


@pytest.mark.parametrize("suite", OLD)
async def test_older_suites_are_reached_with_a_key_that_the_message_names(certificates, suite):
    """CBC with SHA-1, RSA key exchange: the message names what was offered; tls.ciphers = "DEFAULT" adds them."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert("a.test", key_type=trustme.KeyType.RSA).configure_cert(tls)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers(f"{suite}:@SECLEVEL=0")

    async def script(s):
        await s.request()
        await s.send(s.encrypt(ok(b"hello")))

    async with serve(tls_script(tls, script)) as server:  # uvloop's own TLS would not say why it refuses
        url = f"https://a.test:{server.port}/"
        async with client(ca_file=certificates.ca_file, tls=TlsOptions(ciphers="ECDHE+AESGCM")) as c:
            refused = await c.get(url)
            assert isinstance(refused, Failed)
            assert refused.error_type is ErrorType.TLS_NO_SHARED_PROTOCOL
            assert "offered were TLS 1.2 and 1.3, http/1.1, tls.ciphers ECDHE+AESGCM" in refused.detail
        async with client(ca_file=certificates.ca_file, tls=TlsOptions(ciphers="DEFAULT")) as c:
            assert isinstance(await c.get(url), Fetched)


def test_the_offer_is_described():
    """Without tls.ciphers it names the key that offers more."""
    offered = TlsProfile(TlsOptions(min_version="1.3"), NetworkOptions()).offered
    assert offered.startswith("TLS 1.3, http/1.1, ")
    assert 'tls.ciphers = "DEFAULT"' in offered


def test_errors_without_a_name_in_python_are_read_from_their_text():
    """Python has names for one version of OpenSSL."""

    def unnamed(text):
        error = ssl.SSLError(1, f"[SSL] {text} (_ssl.c:2580)")
        error.reason = None
        return error

    assert stream_error(unnamed("tlsv13 alert certificate required")) is ErrorType.TLS_CLIENT_CERTIFICATE
    assert stream_error(unnamed("tlsv1 alert user cancelled")) is ErrorType.TLS_ALERT
    assert stream_error(unnamed("decryption failed or bad record mac")) is ErrorType.TLS_BAD_RECORD
    assert tls_error(unnamed("tlsv1 alert no application protocol")) is ErrorType.TLS_NO_SHARED_PROTOCOL


async def test_a_common_name_alone_is_not_enough(certificates):
    """RFC 9110 §4.3.4: only the alternative names count, and there are none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = made.public_bytes(Encoding.PEM)
    with trustme.Blob(pem).tempfile() as cert_file, trustme.Blob(private).tempfile() as key_file:
        tls.load_cert_chain(cert_file, key_file)
        async with serve(HELLO, tls=tls) as server, client(ca_file=cert_file) as c:
            result = await c.get(f"https://a.test:{server.port}/")
            assert isinstance(result, Failed)
            assert result.error_type is ErrorType.TLS_HOST_MISMATCH, result.detail
            assert server.requests == []


async def test_a_trusted_server_is_verified_by_name_or_address(certificates):
    """ca_file is trusted; for an address in the URL the certificate must name the address."""
    async with (
        serve(HELLO, tls=certificates.server("a.test", "127.0.0.1")) as server,
        client(ca_file=certificates.ca_file) as c,
    ):
        for host in ("a.test", "127.0.0.1"):
            result = await c.get(f"https://{host}:{server.port}/")
            assert isinstance(result, Fetched), result
            assert result.payload.prefix(10) == b"hello"
            assert result.connection.tls_version == "1.3"
            assert result.timings.tls_s > 0


async def test_verification_can_be_turned_off(certificates):
    """tls.verify = false accepts even an expired certificate of an unknown issuer."""
    async with (
        serve(HELLO, tls=certificates.server("x.test", since_days=-20, until_days=-10)) as server,
        client(tls=TlsOptions(verify=False)) as c,
    ):
        assert isinstance(await c.get(f"https://a.test:{server.port}/"), Fetched)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_next_connection_resumes_the_session(certificates, version):
    """The second connection to the origin is resumed, for the server and in our log."""

    async def one_answer(a):
        await a.request()
        await a.send(ok(b"hello", "Connection: close"))

    tls = certificates.server("a.test", "b.test", max_version=version)
    async with serve(one_answer, tls=tls) as server, client(ca_file=certificates.ca_file) as c:
        results = [await c.get(f"https://{host}:{server.port}/") for host in ("a.test", "a.test", "b.test", "a.test")]
        assert [a.session_reused for a in server.accepted] == [False, True, False, True]
        assert [r.connection.tls_resumed for r in results] == [False, True, False, True]
        assert [r.connection.tls_version for r in results] == [
            "1.2" if version is ssl.TLSVersion.TLSv1_2 else "1.3"
        ] * 4
        stats = c.pool.stats()
        assert (stats.tls_handshakes, stats.tls_resumed) == (4, 2)
        assert [f["tls_resumed"] for name, f in c.events if name == "conn_open"] == [False, True, False, True]


async def test_a_session_unknown_to_the_server_costs_a_full_handshake(certificates):
    """A server that restarted with new ticket keys gets a full handshake."""

    async def one_answer(a):
        await a.request()
        await a.send(ok(b"hello", "Connection: close"))

    async with client(ca_file=certificates.ca_file) as c:
        async with serve(one_answer, tls=certificates.server("a.test")) as server:
            port = server.port
            assert isinstance(await c.get(f"https://a.test:{port}/"), Fetched)
        async with serve(one_answer, tls=certificates.server("a.test"), port=port) as server:
            result = await c.get(f"https://a.test:{port}/")
            assert isinstance(result, Fetched)
            assert [a.session_reused for a in server.accepted] == [False]


async def test_the_session_cache_is_bounded(certificates):
    """Only the newest origins' sessions are kept."""
    profile = TlsProfile(TlsOptions(verify=False), NetworkOptions(), sessions=2)

    class Ticketed:
        class session:
            has_ticket = True

    kept = [Origin("https", f"{n}.test", 443) for n in range(3)]
    for origin in kept:
        profile.keep(origin, Ticketed)
    assert list(profile._sessions) == kept[1:]


async def test_connections_leave_nothing_behind_once_no_session_is_read_any_more(certificates):
    """CPython before 3.12.8 and 3.13.1 loses the memory of each session that is read, and broad crawls make millions of
    connections: after so many sessions none is read, and none of an origin is kept.
    """
    profile = TlsProfile(TlsOptions(verify=False), NetworkOptions(), reads=2)
    reads = []

    class Ticketed:
        @property
        def session(self):
            reads.append(self)
            return self

        has_ticket = True

    a, b = Origin("https", "a.test", 443), Origin("https", "b.test", 443)
    for origin in (a, b, a, b):
        profile.keep(origin, Ticketed())
    assert len(reads) == 2
    assert list(profile._sessions) == []


async def test_a_session_that_cannot_be_resumed_is_not_kept():
    """There is none before the handshake, or the server gave no ticket."""
    profile = TlsProfile(TlsOptions(verify=False), NetworkOptions())

    class Unticketed:
        class session:
            has_ticket, id = False, b""

    class Young:
        session = None

    for one in (Unticketed, Young):
        profile.keep(Origin("https", "a.test", 443), one)
    assert list(profile._sessions) == []


@pytest.mark.parametrize(
    ("host", "name"), [("a.test", "a.test"), ("a.test.", "a.test"), ("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")]
)
def test_the_name_a_certificate_must_carry(host, name):
    """No root dot and no brackets."""
    assert server_name(host) == name


def test_options_that_cannot_work_are_refused_at_the_start(tmp_path):
    """A CA file that is not there, or holds no certificate."""
    with pytest.raises(OSError):
        TlsProfile(TlsOptions(), NetworkOptions(ca_file=str(tmp_path / "none.pem")))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ssl.SSLError):
        TlsProfile(TlsOptions(), NetworkOptions(ca_file=str(tmp_path / "empty.pem")))
    with contextlib.suppress(KeyError):
        TlsProfile(TlsOptions(min_version="0.9"), NetworkOptions())
        raise AssertionError("1.1 and older are no choice")
