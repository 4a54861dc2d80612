"""From an origin to an open transport: resolve the host, check every address, connect to one of them, do TLS.

With a proxy, the proxy is resolved and dialled: for https it opens a CONNECT tunnel, for http it gets absolute-form
requests. It resolves the names of origins, so it decides which addresses may be reached through it. Its own addresses
are not checked, since the operator named it; of the origin only an address in the URL itself can be checked.

Invariants: no packet is sent to an address that the policy refuses. Every socket opened here is either returned or
closed, also after an error or a cancellation. The first byte read through a tunnel is the origin's: a proxy that sends
more than the head of its response to CONNECT has failed.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType, Stage
from crawler.core.models import Head, Origin, Timings
from crawler.core.url import is_ipv4
from crawler.fetch.http1.message import build_request
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.fetch.net.errors import DialError, ProxyError, ResolveError, connect_error, describe
from crawler.fetch.net.happy_eyeballs import MAX_ADDRESSES, Connect, HappyEyeballs
from crawler.fetch.net.resolver import Resolver
from crawler.fetch.net.tls import TlsProfile, tls_error
from crawler.fetch.options import KIB, FetchOptions, NetworkOptions, ProxyOptions

MAX_HEAD: Final = 32 * KIB  # of the response to CONNECT; Squid's own error pages have heads of 400 bytes
PROXY_AUTHENTICATION_REQUIRED: Final = 407
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_ERROR: Final = re.compile(r";\s*error=")  # of the field Proxy-Status
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class Proxy:
    """One proxy, for every origin. `authorization` are the request fields that it needs, if any."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self.host = options.host
        self.port = options.port
        self.authorization: tuple[tuple[str, str], ...] = ()
        if options.authorization is not None:
            self.authorization = (("Proxy-Authorization", options.authorization),)

    def __str__(self) -> str:
        return f"proxy {self._options}"

    async def tunnel(self, sock: socket.socket, origin: Origin) -> None:
        """Open a tunnel to the origin on a socket that is connected to the proxy. Raises ProxyError, OSError.

        Afterwards an error or a cancellation leaves the socket unusable; the caller closes it. Source: RFC 9110 §9.3.6.
        """
        authority = f"{origin.host}:{origin.port}"
        request = build_request("CONNECT", authority, [("Host", authority), *self.authorization])
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request)
        head, came = await self._head(sock, b"")
        match = _STATUS.match(head)
        while match is not None and match[1].startswith(b"1"):  # interim; connect_timeout bounds how many
            head, came = await self._head(sock, came)
            match = _STATUS.match(head)
        if match is None:
            raise ProxyError(ErrorType.PROXY_FAILED, f"{self} sent no HTTP/1.1 response to CONNECT")
        self._check(match, came)

    async def _head(self, sock: socket.socket, came: bytes) -> tuple[bytes, bytes]:
        """Read one head of the proxy's response. Returns it and the bytes behind it. `came`: the bytes read before."""
        loop = asyncio.get_running_loop()
        while (ends := _HEAD_END.search(came)) is None:
            if len(came) > MAX_HEAD:
                raise ProxyError(ErrorType.PROXY_FAILED, f"{self}: the head of its response is over {MAX_HEAD} bytes")
            data = await loop.sock_recv(sock, 4 * KIB)
            if not data:
                raise ProxyError(ErrorType.PROXY_FAILED, f"{self} closed the connection instead of opening a tunnel")
            came += data
        return came[: ends.end()], came[ends.end() :]

    def _check(self, match: re.Match[bytes], rest: bytes) -> None:
        status = int(match[1])
        reason = _UNPRINTABLE.sub("?", (match[2] or b"").decode("latin-1"))[:80]
        line = f"{status} {reason}".rstrip()
        if status == PROXY_AUTHENTICATION_REQUIRED:
            raise ProxyError(ErrorType.PROXY_AUTH, f"{self} wants {self._missing()} credentials ({line})")
        if not 200 <= status < 300:
            raise ProxyError(ErrorType.PROXY_REFUSED, f"{self} opened no tunnel: {line}")
        if rest:
            raise ProxyError(ErrorType.PROXY_FAILED, f"{self} sent {len(rest)} bytes before the tunnel was used")

    def _missing(self) -> str:
        return "other" if self.authorization else "its"

    def failure(self, head: Head) -> tuple[ErrorType, str] | None:
        """The error type and the message if a response to a plain request comes from the proxy itself: it wants
        credentials, or a field of its own reports a failure. None: the response is the origin's.

        Sources: RFC 9110 §15.5.8, RFC 9209 §2.1.1, Squid's X-Squid-Error.
        """
        status = head.status_code
        if status == PROXY_AUTHENTICATION_REQUIRED:
            return ErrorType.PROXY_AUTH, f"{self} wants {self._missing()} credentials ({status})"
        if status < 400:
            return None
        for name, value in head.fields:
            if name == "x-squid-error" or (name == "proxy-status" and _STATUS_ERROR.search(value)):
                reason = _UNPRINTABLE.sub("?", value)[:80]
                return ErrorType.PROXY_REFUSED, f"{self} itself sent status {status}: {reason}"
        return None


CLOSE_NOTIFY_S: Final = 1.0  # time for the peer to respond to our close_notify

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Dialled:
    """How a connection was opened. `tls_version` is "1.3", or None for plain HTTP."""

    peer_address: str
    peer_port: int
    timings: Timings
    tls_version: str | None
    tls_resumed: bool
    ssl_object: ssl.SSLObject | None


class Dialer(Protocol):
    """Opens connections, for the pool."""

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """Open a connection whose bytes go to the protocol made by `factory`. Raises DialError."""

    def keep_session(self, origin: Origin, ssl_object: ssl.SSLObject) -> None:
        """Remember the TLS session of a connection that has had its first response."""


class NetworkDialer:
    """Dials over TCP, with TLS for https. Belongs to one event loop. `connect` replaces `connect_socket`."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        policy: AddressPolicy,
        tls: TlsProfile,
        options: FetchOptions,
        network: NetworkOptions,
        clock: Clock,
        connect: Connect | None = None,
    ) -> None:
        self._proxy = None if network.proxy is None else Proxy(network.proxy)
        self._resolver = resolver
        self._policy = policy
        self._tls = tls
        self._options = options
        self._clock = clock
        self._bind = network.bind_address
        self._connect = connect if connect is not None else self.connect_socket
        self._eyeballs = HappyEyeballs(clock)

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """Open a connection whose bytes go to the protocol made by `factory`. Raises DialError."""
        if self._proxy is not None:
            return await self._dial_through(self._proxy, origin, factory)
        mono = self._clock.mono
        started_mono = mono()
        addresses = await self._resolve(origin.host, origin.port, started_mono)
        resolved = mono()
        timings = Timings(resolve_s=resolved - started_mono)
        peer = (addresses[0], origin.port)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                sock, address = await self._eyeballs.race(origin.host, origin.port, addresses, self._connect)
        except TimeoutError:
            timings = replace(timings, connect_s=mono() - resolved)
            limit_s = self._options.connect_timeout_s
            detail = f"no connection to {', '.join(addresses)} port {origin.port} within {limit_s:g} s"
            raise DialError(Stage.CONNECT, ErrorType.CONNECT_TIMEOUT, detail, timings=timings, peer=peer) from None
        except OSError as error:
            timings = replace(timings, connect_s=mono() - resolved)
            detail = f"no connection to {', '.join(addresses)} port {origin.port}: {describe(error)}"
            raise DialError(Stage.CONNECT, connect_error(error), detail, timings=timings, peer=peer) from error
        timings = replace(timings, connect_s=mono() - resolved)
        return await self._secure(origin, sock, factory, (address, origin.port), timings)

    async def _dial_through(
        self, proxy: Proxy, origin: Origin, factory: Callable[[], _Protocol]
    ) -> tuple[_Protocol, Dialled]:
        """Dial through a proxy. An error before the tunnel is open has a proxy_* type."""
        mono = self._clock.mono
        started_mono = mono()
        host, port = proxy.host, proxy.port
        self._check_literal(origin.host)
        resolve_s = 0.0
        peer: tuple[str, int] | None = None
        try:
            addresses = self._eyeballs.order(host, port, await self._resolver.resolve(host))
            resolve_s = mono() - started_mono
            peer = (addresses[0], port)
            async with asyncio.timeout(self._options.connect_timeout_s):
                sock, address = await self._eyeballs.race(host, port, addresses, self._connect)
                peer = (address, port)
                if origin.scheme == "https":
                    await _or_close(sock, proxy.tunnel(sock, origin))
        except (ResolveError, ProxyError, OSError) as error:  # TimeoutError is an OSError
            timings = Timings(resolve_s=resolve_s, connect_s=mono() - started_mono - resolve_s)
            error_type, detail = _proxy_error(proxy, error)
            raise DialError(Stage.PROXY, error_type, detail, timings=timings, peer=peer) from None
        timings = Timings(resolve_s=resolve_s, connect_s=mono() - started_mono - resolve_s)
        return await self._secure(origin, sock, factory, peer, timings)

    def _check_literal(self, host: str) -> None:
        """Check a host that is an address. Raises DialError if the policy refuses it."""
        if host.startswith("["):
            literal = host[1:-1]
        elif is_ipv4(host.rstrip(".")):
            literal = host.rstrip(".")
        else:
            return  # a name: the proxy resolves it
        try:
            self._policy.check(literal)
        except AddressDenied as error:
            raise DialError(Stage.ADDRESS, ErrorType.ADDRESS_DENIED, f"{host} may not be requested: {error}") from None

    async def _secure(
        self,
        origin: Origin,
        sock: socket.socket,
        factory: Callable[[], _Protocol],
        peer: tuple[str, int],
        timings: Timings,
    ) -> tuple[_Protocol, Dialled]:
        """Make a transport of a socket that is connected to the origin, with TLS for https. Raises DialError."""
        mono = self._clock.mono
        connected = mono()
        try:
            transport, protocol = await self._open(origin, sock, factory)
        except TimeoutError:
            timings = replace(timings, tls_s=mono() - connected)
            detail = f"no TLS handshake within {self._options.tls_timeout_s:g} s"
            raise DialError(Stage.TLS, ErrorType.TLS_TIMEOUT, detail, timings=timings, peer=peer) from None
        except (OSError, ssl.CertificateError) as error:  # ssl.SSLError is an OSError; so is a reset
            self._tls.forget(origin)
            timings = replace(timings, tls_s=mono() - connected)
            detail = describe(error) if str(error) else "the peer closed the connection during the TLS handshake"
            error_type = tls_error(error)
            if error_type is ErrorType.TLS_NO_SHARED_PROTOCOL:
                detail += f"; offered were {self._tls.offered}"
            raise DialError(Stage.TLS, error_type, detail, timings=timings, peer=peer) from error
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if ssl_object is None:
            return protocol, Dialled(*peer, timings, None, False, None)
        timings = replace(timings, tls_s=mono() - connected)
        version = (ssl_object.version() or "").removeprefix("TLSv")
        return protocol, Dialled(*peer, timings, version, bool(ssl_object.session_reused), ssl_object)

    def keep_session(self, origin: Origin, ssl_object: ssl.SSLObject) -> None:
        """Remember the TLS session of a connection that has had its first response."""
        self._tls.keep(origin, ssl_object)

    def first_of(self, origin: Origin, addresses: tuple[str, ...]) -> str:
        """The address of these that would be tried first for the origin."""
        return self._eyeballs.order(origin.host, origin.port, addresses)[0]

    async def connect_socket(self, address: str, port: int) -> socket.socket:
        """Return a connected, non-blocking TCP socket. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # before connecting: the window is agreed upon in the handshake
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._options.receive_buffer)
            if self._bind is not None and (":" in self._bind) == (family == socket.AF_INET6):
                sock.bind((self._bind, 0))
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _resolve(self, host: str, port: int, started_mono: float) -> list[str]:
        """Return the addresses to try, in order, after checking each. Raises DialError."""
        try:
            addresses = await self._resolver.resolve(host)
        except ResolveError as error:
            timings = Timings(resolve_s=self._clock.mono() - started_mono)
            raise DialError(Stage.RESOLVE, error.error_type, error.detail, timings=timings) from None
        allowed: list[str] = []
        denied: list[str] = []
        for address in addresses:
            try:
                self._policy.check(address)
            except AddressDenied as error:
                denied.append(str(error))
            else:
                allowed.append(address)
        if not allowed:
            timings = Timings(resolve_s=self._clock.mono() - started_mono)
            why = "; ".join(denied[:MAX_ADDRESSES]).removeprefix(f"{host.strip('[]')}: ")
            detail = f"{host} may not be dialled: {why}"
            raise DialError(Stage.ADDRESS, ErrorType.ADDRESS_DENIED, detail, timings=timings)
        return self._eyeballs.order(host, port, allowed)

    async def _open(
        self, origin: Origin, sock: socket.socket, factory: Callable[[], _Protocol]
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Make a transport of a connected socket, with TLS for https. On any error the socket is closed."""
        loop = asyncio.get_running_loop()
        if origin.scheme != "https":
            try:
                return await loop.create_connection(factory, sock=sock)
            except BaseException:
                sock.close()
                raise
        protocol = factory()
        stream = self._tls.stream(origin, protocol)
        try:
            async with asyncio.timeout(self._options.tls_timeout_s):
                await loop.create_connection(lambda: stream, sock=sock)
                await stream.opened
        except BaseException:
            stream.abort()
            sock.close()
            raise
        return stream, protocol


def _proxy_error(proxy: Proxy, error: ResolveError | ProxyError | OSError) -> tuple[ErrorType, str]:
    """The error type and the message of an error before the tunnel was open."""
    match error:
        case ProxyError():
            return error.error_type, error.detail
        case ResolveError():
            return ErrorType.PROXY_FAILED, f"{proxy}: {error.detail}"
        case TimeoutError():
            return ErrorType.PROXY_FAILED, f"{proxy} opened no connection in time"
        case _:
            is_short = connect_error(error) is ErrorType.NO_FILE_DESCRIPTORS
            return ErrorType.NO_FILE_DESCRIPTORS if is_short else ErrorType.PROXY_FAILED, f"{proxy}: {describe(error)}"


async def _or_close(sock: socket.socket, step: Awaitable[None]) -> None:
    """Await a step that uses a socket; if it raises, close the socket."""
    try:
        await step
    except BaseException:
        sock.close()
        raise
