"""From an origin to an open transport: resolve, check every address, connect to the checked literal, shake hands.

It keeps no connection (`pool`) and sends no request. Invariants: no packet leaves for an address the policy refuses;
whatever happens, cancellation included, every socket opened here is either returned or closed. With a proxy it is the
proxy that is resolved and dialled, unchecked since the operator named it; of the origin only a literal can be checked.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from crawler.core.clock import Clock
from crawler.core.enums import ErrorType, Stage
from crawler.core.models import Origin, Timings
from crawler.core.url import is_ipv4
from crawler.fetch.net.address import MAX_ADDRESSES, AddressDenied, AddressOrder, AddressPolicy
from crawler.fetch.net.errors import DialError, ResolveError, connect_error, describe
from crawler.fetch.net.proxy import Proxy, ProxyError
from crawler.fetch.net.resolver import Resolver
from crawler.fetch.net.tls import TlsProfile, tls_error
from crawler.fetch.options import FetchOptions, NetworkOptions

FAMILY_HEAD_START_S: Final = 0.25  # RFC 8305 §5: "Connection Attempt Delay", 250 ms recommended
NEXT_ADDRESS_S: Final = 2.0  # a further address of a host that answers slowly is asked only then: it is no black hole
CLOSE_NOTIFY_S: Final = 1.0  # how long a peer may take to answer our close_notify

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)
Connect = Callable[[str, int], Awaitable[socket.socket]]


@dataclass(frozen=True, slots=True)
class Dialled:
    """An open connection: what it took and what was agreed. `tls_version` is "1.3", or None for plain HTTP."""

    peer_address: str
    peer_port: int
    timings: Timings
    tls_version: str | None
    tls_resumed: bool
    ssl_object: ssl.SSLObject | None


class Dialer(Protocol):
    """What the pool needs of this file."""

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """Open a connection whose bytes go to the protocol made by `factory`. Raises DialError."""

    def keep_session(self, origin: Origin, ssl_object: ssl.SSLObject) -> None:
        """Remember the TLS session of a connection that has had its first answer."""


class NetworkDialer:
    """Dials over TCP, with TLS for https. Belongs to one event loop.

    Where a host has addresses of both families, the first address's family has a head start; the family that won is
    tried first next time, and addresses that did not answer are tried last (`addressorder`). `connect` replaces
    `connect_socket` in tests.
    """

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
        self._order = AddressOrder(clock)

    async def dial(self, origin: Origin, factory: Callable[[], _Protocol]) -> tuple[_Protocol, Dialled]:
        """Open a connection whose bytes go to the protocol made by `factory`. Raises DialError."""
        if self._proxy is not None:
            return await self._dial_through(self._proxy, origin, factory)
        mono = self._clock.mono
        begun = mono()
        addresses = await self._resolve(origin.host, origin.port, begun)
        resolved = mono()
        timings = Timings(resolve_s=resolved - begun)
        peer = (addresses[0], origin.port)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                sock, address = await self._race(origin, addresses)
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
        """The same by way of a proxy. Whatever goes wrong before the tunnel stands has a proxy_* word."""
        mono = self._clock.mono
        begun = mono()
        self._check_literal(origin.host)
        resolve_s = 0.0
        peer: tuple[str, int] | None = None
        try:
            answers = await self._resolver.resolve(proxy.place.host)
            resolve_s = mono() - begun
            addresses = self._order.of(proxy.place.host, proxy.place.port, answers)
            peer = (addresses[0], proxy.place.port)
            async with asyncio.timeout(self._options.connect_timeout_s):
                sock, address = await self._race(proxy.place, addresses)
                peer = (address, proxy.place.port)
                if origin.scheme == "https":
                    await _or_close(sock, proxy.tunnel(sock, origin))
        except (ResolveError, ProxyError, OSError) as error:  # TimeoutError is an OSError
            timings = Timings(resolve_s=resolve_s, connect_s=mono() - begun - resolve_s)
            error_type, detail = _proxy_error(proxy, error)
            raise DialError(Stage.PROXY, error_type, detail, timings=timings, peer=peer) from None
        timings = Timings(resolve_s=resolve_s, connect_s=mono() - begun - resolve_s)
        return await self._secure(origin, sock, factory, peer, timings)

    def _check_literal(self, host: str) -> None:
        """Refuse what a proxy should not even be asked for. Raises DialError."""
        if host.startswith("["):
            literal = host[1:-1]
        elif is_ipv4(host.rstrip(".")):
            literal = host.rstrip(".")
        else:
            return  # a name: the proxy resolves it
        try:
            self._policy.check(literal)
        except AddressDenied as error:
            raise DialError(Stage.ADDRESS, ErrorType.ADDRESS_DENIED, f"{host} may not be asked for: {error}") from None

    async def _secure(
        self,
        origin: Origin,
        sock: socket.socket,
        factory: Callable[[], _Protocol],
        peer: tuple[str, int],
        timings: Timings,
    ) -> tuple[_Protocol, Dialled]:
        """A transport on a socket that leads to the origin, with TLS for https. Raises DialError."""
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
            word = tls_error(error)
            if word is ErrorType.TLS_NO_SHARED_PROTOCOL:
                detail += f"; offered were {self._tls.offered}"
            raise DialError(Stage.TLS, word, detail, timings=timings, peer=peer) from error
        ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if ssl_object is None:
            return protocol, Dialled(*peer, timings, None, False, None)
        timings = replace(timings, tls_s=mono() - connected)
        version = (ssl_object.version() or "").removeprefix("TLSv")
        return protocol, Dialled(*peer, timings, version, bool(ssl_object.session_reused), ssl_object)

    def keep_session(self, origin: Origin, ssl_object: ssl.SSLObject) -> None:
        """Remember the TLS session of a connection that has had its first answer."""
        self._tls.keep(origin, ssl_object)

    async def connect_socket(self, address: str, port: int) -> socket.socket:
        """A connected, non-blocking TCP socket. Raises OSError."""
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

    async def _resolve(self, host: str, port: int, begun: float) -> list[str]:
        """The addresses to try, all of them checked, in the order to try them. Raises DialError."""
        try:
            answers = await self._resolver.resolve(host)
        except ResolveError as error:
            timings = Timings(resolve_s=self._clock.mono() - begun)
            raise DialError(Stage.RESOLVE, error.error_type, error.detail, timings=timings) from None
        allowed: list[str] = []
        denied: list[str] = []
        for answer in answers:
            try:
                self._policy.check(answer)
            except AddressDenied as error:
                denied.append(str(error))
            else:
                allowed.append(answer)
        if not allowed:
            timings = Timings(resolve_s=self._clock.mono() - begun)
            why = "; ".join(denied[:MAX_ADDRESSES]).removeprefix(f"{host.strip('[]')}: ")
            detail = f"{host} may not be dialled: {why}"
            raise DialError(Stage.ADDRESS, ErrorType.ADDRESS_DENIED, detail, timings=timings)
        return self._order.of(host, port, allowed)

    async def _race(self, origin: Origin, addresses: Sequence[str]) -> tuple[socket.socket, str]:
        """Connect to the first address that answers. Raises the most telling OSError if none does.

        Source: RFC 8305 §5; a later attempt starts when the one before it failed, or after the head start.
        """
        if len(addresses) == 1:
            return await self._connect(addresses[0], origin.port), addresses[0]
        attempts: dict[asyncio.Task[socket.socket | OSError], str] = {}
        winner: socket.socket | None = None
        try:
            async with asyncio.TaskGroup() as group:
                pending: set[asyncio.Task[socket.socket | OSError]] = set()
                for index, address in enumerate(addresses):
                    attempt = group.create_task(self._attempt(address, origin.port))
                    attempts[attempt] = address
                    pending.add(attempt)
                    following = addresses[index + 1] if index + 1 < len(addresses) else None
                    head_start = None if following is None else _head_start(address, following)
                    winner = await _first_socket(pending, attempt, head_start)
                    if winner is not None:
                        break
                for attempt in pending:
                    attempt.cancel()
        except BaseException:
            winner = None
            raise
        finally:
            for attempt in attempts:  # those that connected too late, or as the race was called off
                if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                    result = attempt.result()
                    if isinstance(result, socket.socket) and result is not winner:
                        result.close()
        if winner is None:
            raise _most_telling([_result(attempt) for attempt in attempts])
        results = [(address, _result(attempt)) for attempt, address in attempts.items()]
        at = next(n for n, (_, result) in enumerate(results) if result is winner)
        address = results[at][0]
        dead = [other for n, (other, result) in enumerate(results) if _is_dead(result, was_first=n < at)]
        self._order.raced(origin.host, origin.port, addresses, address, dead)
        return winner, address

    async def _attempt(self, address: str, port: int) -> socket.socket | OSError:
        """A connection attempt whose failure is a value: one failed address must not end the others."""
        try:
            return await self._connect(address, port)
        except OSError as error:
            return error

    async def _open(
        self, origin: Origin, sock: socket.socket, factory: Callable[[], _Protocol]
    ) -> tuple[asyncio.Transport, _Protocol]:
        """Put a transport, with TLS for https, on a connected socket. The socket is the transport's, or closed."""
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
    """The word and the sentence for what happened before a tunnel stood."""
    match error:
        case ProxyError():
            return error.error_type, error.detail
        case ResolveError():
            return ErrorType.PROXY_FAILED, f"{proxy}: {error.detail}"
        case TimeoutError():
            return ErrorType.PROXY_FAILED, f"{proxy} opened no connection in time"
        case _:
            word = connect_error(error)
            short = word is ErrorType.NO_FILE_DESCRIPTORS
            return word if short else ErrorType.PROXY_FAILED, f"{proxy}: {describe(error)}"


async def _or_close(sock: socket.socket, step: Awaitable[None]) -> None:
    """Await what is done with a socket; whatever it raises, the socket is closed first."""
    try:
        await step
    except BaseException:
        sock.close()
        raise


def _head_start(address: str, following: str) -> float:
    return FAMILY_HEAD_START_S if (":" in address) != (":" in following) else NEXT_ADDRESS_S


def _result(attempt: asyncio.Task[socket.socket | OSError]) -> socket.socket | OSError | None:
    return None if attempt.cancelled() else attempt.result()


def _is_dead(result: socket.socket | OSError | None, *, was_first: bool) -> bool:
    """Whether an attempt of a race that another won shows that nothing answers there: it failed, but not for want of a
    descriptor, or it began before the winner's and had not ended.
    """
    if isinstance(result, OSError):
        return connect_error(result) is not ErrorType.NO_FILE_DESCRIPTORS
    return result is None and was_first


def _most_telling(results: Sequence[socket.socket | OSError | None]) -> OSError:
    """Of several failures, one that came from the host rather than from a missing route (often: no IPv6 here)."""
    errors = [result for result in results if isinstance(result, OSError)]
    return next((e for e in errors if connect_error(e) is not ErrorType.CONNECT_UNREACHABLE), errors[0])


async def _first_socket(
    pending: set[asyncio.Task[socket.socket | OSError]],
    latest: asyncio.Task[socket.socket | OSError],
    head_start_s: float | None,
) -> socket.socket | None:
    """Wait until an attempt connects, the latest one fails, or its head start is over (None: until all have ended).

    Attempts that ended are taken out of `pending`.
    """
    loop = asyncio.get_running_loop()
    until = None if head_start_s is None else loop.time() + head_start_s
    while pending:
        left = None if until is None else max(0.0, until - loop.time())
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        pending -= done
        for attempt in done:
            result = attempt.result()
            if isinstance(result, socket.socket):
                return result
        if until is not None and (latest in done or not done):
            return None
    return None
