"""Looks on while a connection is opened: what a name resolved to, which addresses were tried, what TLS agreed on.

The parts looked at are the crawl's own; here they only leave notes. Nothing is decided and nothing is changed, but that
a handshake which failed over the certificate is followed by another to look at it, in which no request is sent.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from crawler.core.clock import Clock
from crawler.core.enums import Stage
from crawler.core.models import Origin
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.fetch.net.dial import Dialled, NetworkDialer
from crawler.fetch.net.errors import DialError, ResolveError, describe
from crawler.fetch.net.resolver import CachingResolver
from crawler.fetch.net.tls import server_name
from crawler.trace.certificate import Certificate, read_certificate

LOOK_S: Final = 5.0  # for the handshake that only looks at a certificate

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Answer:
    """One address, and what the address check says of it: `refused` is why it is not dialled, "" if it may be;
    `excepted`: it may only because of network.allow_private; `of_proxy`: it is the proxy's, which is not checked.
    """

    address: str
    refused: str = ""
    excepted: bool = False
    of_proxy: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """A name and its addresses. `source` is literal, network.resolve or dns; `failed` says why there are none."""

    name: str
    source: str
    took_s: float
    answers: tuple[Answer, ...] = ()
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One TCP connection. `failed` is "" if it came about."""

    address: str
    port: int
    took_s: float
    failed: str = ""


@dataclass(slots=True)
class Dial:
    """The opening of one connection: `dialled` if it came about, else `failed`."""

    origin: Origin
    resolutions: list[Resolution] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    dialled: Dialled | None = None
    failed: DialError | None = None
    certificate: Certificate | None = None
    certificate_problem: str = ""  # why there is none to show, or it could not be read


class Tap:
    """Notes of every dial, in order. `proxied`: the names that are resolved are the proxy's."""

    def __init__(self, policy: AddressPolicy, clock: Clock, *, proxied: bool = False) -> None:
        self.dials: list[Dial] = []
        self._proxied = proxied
        self._policy = policy
        self._public = AddressPolicy()
        self._clock = clock

    def answer(self, address: str) -> Answer:
        if self._proxied:
            return Answer(address, of_proxy=True)
        try:
            self._policy.check(address)
        except AddressDenied as denied:
            return Answer(address, refused=str(denied))
        try:
            self._public.check(address)
        except AddressDenied:
            return Answer(address, excepted=True)
        return Answer(address)

    def resolved(self, resolution: Resolution) -> None:
        if self.dials:
            self.dials[-1].resolutions.append(resolution)

    def attempted(self, attempt: Attempt) -> None:
        if self.dials:
            self.dials[-1].attempts.append(attempt)


class TappedResolver:
    """A resolver that leaves notes of what it is asked."""

    def __init__(self, resolver: CachingResolver, tap: Tap, clock: Clock) -> None:
        self._resolver = resolver
        self._tap = tap
        self._clock = clock

    async def resolve(self, host: str) -> tuple[str, ...]:
        """As the resolver behind it."""
        begun = self._clock.mono()
        source = "dns"
        if (configured := self._resolver.configured(host)) is not None:
            source = "literal" if configured == (host.strip("[]").rstrip("."),) else "network.resolve"
        try:
            addresses = await self._resolver.resolve(host)
        except ResolveError as error:
            took_s = self._clock.mono() - begun
            self._tap.resolved(Resolution(host, source, took_s, failed=f"{error.error_type.value}: {error.detail}"))
            raise
        answers = tuple(self._tap.answer(address) for address in addresses)
        self._tap.resolved(Resolution(host, source, self._clock.mono() - begun, answers))
        return addresses


class TappedDialer(NetworkDialer):
    """A dialer that leaves notes of each dial."""

    def __init__(self, *, tap: Tap, clock: Clock, **more: Any) -> None:
        super().__init__(clock=clock, **more)
        self._tap = tap
        self._mono = clock.mono

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """As the dialer."""
        dial = Dial(origin)
        self._tap.dials.append(dial)
        try:
            protocol, dial.dialled = await super().dial(origin, factory)
        except DialError as error:
            dial.failed = error
            if error.stage is Stage.TLS and error.peer is not None and error.error_type.startswith("tls_"):
                await self._look(dial, origin, error.peer)
            raise
        if dial.dialled.ssl_object is not None:
            _read(dial, dial.dialled.ssl_object.getpeercert(binary_form=True))
        return protocol, dial.dialled

    async def connect_socket(self, address: str, port: int) -> socket.socket:
        """As the dialer."""
        begun = self._mono()
        try:
            sock = await super().connect_socket(address, port)
        except asyncio.CancelledError:
            self._tap.attempted(
                Attempt(address, port, self._mono() - begun, "given up: another was first, or too late")
            )
            raise
        except OSError as error:
            self._tap.attempted(Attempt(address, port, self._mono() - begun, describe(error)))
            raise
        self._tap.attempted(Attempt(address, port, self._mono() - begun))
        return sock

    async def _look(self, dial: Dial, origin: Origin, peer: tuple[str, int]) -> None:
        """Shake hands once more with a server that failed, to see its certificate; nothing is sent over it."""
        if self._proxy is not None:
            dial.certificate_problem = "not looked at: it is behind a proxy"
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # only its certificate is looked at
        try:
            async with asyncio.timeout(LOOK_S):
                sock = await super().connect_socket(*peer)
                loop = asyncio.get_running_loop()
                transport, _ = await loop.create_connection(
                    asyncio.Protocol, sock=sock, ssl=context, server_hostname=server_name(origin.host)
                )
        except (OSError, TimeoutError) as error:
            dial.certificate_problem = f"none was shown: {describe(error) or 'no handshake'}"
            return
        try:
            ssl_object: ssl.SSLObject = transport.get_extra_info("ssl_object")
            _read(dial, ssl_object.getpeercert(binary_form=True))
        finally:
            transport.abort()


def _read(dial: Dial, der: bytes | None) -> None:
    if not der:
        dial.certificate_problem = "none was shown"
        return
    try:
        dial.certificate = read_certificate(der)
    except ValueError as error:
        dial.certificate_problem = f"cannot be read: {error}"
