"""Servers that cannot be believed, before the whole program: each is told apart, rests, and loses no URL."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme

from tests.support.commands import Crawl
from tests.support.scripted_server import Accepted, Certificates, ok, serve, table

pytestmark = pytest.mark.e2e

PAGE = ok(b"<title>here</title>", "Content-Type: text/html")
SITE = table({"/": PAGE, "/robots.txt": ok(b"", "Content-Type: text/plain")})


def of_authority(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    with authority.cert_pem.tempfile() as cert, authority.private_key_pem.tempfile() as key:
        context.load_cert_chain(cert, key)
    return context


# Host → the certificate it shows, and the word that the log has for it.
UNBELIEVABLE: dict[str, tuple[Callable[[Certificates], ssl.SSLContext], str]] = {
    "expired.test": (lambda c: c.server("expired.test", since_days=-9, until_days=-1), "tls_cert_expired"),
    "early.test": (lambda c: c.server("early.test", since_days=1, until_days=9), "tls_cert_not_yet_valid"),
    "other.test": (lambda c: c.server("good.test"), "tls_host_mismatch"),
    "self.test": (lambda c: self_signed(), "tls_self_signed"),
    "stranger.test": (lambda c: of_authority(trustme.CA(), "stranger.test"), "tls_unknown_issuer"),
}


async def old(c: Accepted) -> None:
    """Too old for tls.min_version: a fatal alert, protocol_version (RFC 8446 §6); uvloop's servers send none."""
    await c.reader.read(1)
    await c.send(bytes((21, 3, 3, 0, 2, 2, 70)))
    await c.client_closed()


async def garbage(c: Accepted) -> None:
    await c.send(b"220 mail.test ESMTP\r\n")
    await c.client_closed()


async def stall(c: Accepted) -> None:
    await c.client_closed()


class Hosts:
    """The servers, and how often each was knocked at."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.knocks: Counter[str] = Counter()

    def counted(self, host: str, context: ssl.SSLContext) -> ssl.SSLContext:
        def knock(*_: object) -> None:
            self.knocks[host] += 1

        context.sni_callback = knock
        return context

    def url(self, host: str) -> str:
        return f"https://{host}:{self.ports[host]}/"


@asynccontextmanager
async def hosts(certificates: Certificates) -> AsyncIterator[Hosts]:
    found = Hosts()
    contexts = {host: make(certificates) for host, (make, _) in UNBELIEVABLE.items()}
    contexts["good.test"] = certificates.server("good.test")
    async with AsyncExitStack() as stack:
        for host, context in contexts.items():
            server = await stack.enter_async_context(serve(SITE, tls=found.counted(host, context)))
            found.ports[host] = server.port
        for host, script in (("old.test", old), ("garbage.test", garbage), ("stall.test", stall)):

            async def counting(c: Accepted, host: str = host, script: Callable = script) -> None:
                found.knocks[host] += 1
                await script(c)

            server = await stack.enter_async_context(serve(counting))
            found.ports[host] = server.port
        yield found


async def test_servers_with_bad_certificates_are_told_apart_and_back_off(tmp_path: Path) -> None:
    """Each has its word in the log and is knocked at once, or three times where it might have been a moment's trouble.
    Told not to verify, the same directory then gets the pages of those whose certificate alone was wrong.
    """
    certificates = Certificates(tmp_path)
    async with hosts(certificates) as servers:
        crawl = Crawl.of(
            tmp_path,
            {
                "crawl": {"seeds": [servers.url(host) for host in servers.ports], "linger": "6s"},
                "politeness": {"delay": 0, "key": "host"},
                "fetch": {"tls_timeout": "300ms"},
                "network": {
                    "allow_private": ["127.0.0.0/8"],
                    "resolve": {"*.test": ["127.0.0.1"]},
                    "ca_file": certificates.ca_file,
                },
                "tls": {"min_version": "1.3"},
            },
        )
        words = {host: word for host, (_, word) in UNBELIEVABLE.items()}
        words |= {
            "old.test": "tls_no_shared_protocol",
            "garbage.test": "tls_protocol_error",
            "stall.test": "tls_timeout",
        }

        ran = await asyncio.to_thread(crawl.run)
        assert (ran.code, ran.summary["pages"]) == (75, 1), ran.stderr
        said: dict[str, set[str]] = {}
        for line in crawl.fetches():
            if "error_type" in line:
                said.setdefault(line["server_address"], set()).add(line["error_type"])
                assert line["next"] != "gave_up"
        assert said == {host: {word} for host, word in words.items()}
        lasting = [*UNBELIEVABLE, "old.test"]
        assert {host: servers.knocks[host] for host in lasting} == dict.fromkeys(lasting, 1)
        assert all(1 <= servers.knocks[host] <= 3 for host in ("garbage.test", "stall.test")), servers.knocks
        rests = {(e["server_address"], e["reason"]) for e in crawl.events() if e["event"] == "host_state"}
        assert rests >= set(words.items())
        assert "tls_verify_off" not in {line["event"] for line in crawl.events()}

        for _ in range(2):  # said at every start
            ran = await asyncio.to_thread(crawl.run, "-o", "tls.verify=false", "-o", "crawl.linger=0")
            assert "tls.verify = false" in ran.stderr
        assert [line["event"] for line in crawl.events()].count("tls_verify_off") == 2
        pages = {line["url"] for line in crawl.page_lines()}
        assert pages == {servers.url(host) for host in ("good.test", *UNBELIEVABLE)}
