"""Fetches one URL: builds the request, sends it over a pooled connection, at most twice, and returns a value.

Redirects and statuses are left to the engine.

Invariants:
- `fetch` returns a value after any error of the network.
- A request is written only after the rate limit of its address was entered, and each entry is left again.
- A request is sent a second time only over a new connection, and only if the first connection had been used before and
  was closed before the request reached the server: no byte was received, or a 408 that closes the connection.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from crawler.core.clock import Clock
from crawler.core.enums import CloseReason, ErrorType, TaskKind, TruncatedReason
from crawler.core.media_types import ContentTypes
from crawler.core.models import Failed, Fetched, FetchResult, Head, Origin, Task
from crawler.core.options import patterns_of
from crawler.core.outcomes import is_permanent, is_throttled
from crawler.core.url import target_of
from crawler.fetch.connection import Connection
from crawler.fetch.credentials import OriginCredentials
from crawler.fetch.http1.message import LocalProtocolError, build_request
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.limits import ByteBudget
from crawler.fetch.net.errors import DialError, ExchangeError, describe
from crawler.fetch.options import FetchOptions, HostOptions, IdentityOptions
from crawler.fetch.pool import Pool
from crawler.fetch.spool import BodySink

_ACCEPT: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
# How a request fails if the server closes its idle connection at the same moment.
_STALE: Final = frozenset(
    {
        ErrorType.SERVER_CLOSED,
        ErrorType.RESET,
        ErrorType.TLS_ALERT,
        ErrorType.TLS_BAD_RECORD,
        ErrorType.TLS_CLIENT_CERTIFICATE,
    }
)
_REQUEST_TIMEOUT: Final = 408
_LATE: Final = frozenset({ErrorType.READ_TIMEOUT, ErrorType.TOTAL_TIMEOUT, ErrorType.TOO_SLOW})


class AddressRateLimit(Protocol):
    """Limits the requests to one IP address."""

    def enter(self, address: str) -> float | None:
        """Start a request to the address: None if it may start, else the monotonic time to try again."""

    def leave(self, address: str) -> None:
        """End a request to the address. Called once for each `enter` that returned None."""


class AddressNotReady(Exception):
    """No request may be sent to the address before `until_mono`. The connection is back in the pool."""

    def __init__(self, address: str, until_mono: float) -> None:
        super().__init__(f"{address} is not ready")
        self.address = address
        self.until_mono = until_mono


class SendingPaused(Exception):
    """No request may be sent to any origin now. Nothing was sent; a connection is back in the pool."""


class OriginBlocked(Exception):
    """The origin is blocked. Nothing was sent, and no connection to it is open."""


def blocked(origin: Origin) -> Failed:
    """The result of a request to a blocked origin, for callers that need a result."""
    return Failed(ErrorType.ADDRESS_DENIED, f"{origin} is blocked", retryable=False)


@dataclass(slots=True)
class _Attempt:
    """The state of one fetch. `address`: where the rate limit was entered. `connection` is lent to the fetch."""

    request: bytes
    limits: FetchOptions
    wants: Callable[[Head], bool] | None = None
    connection: Connection | None = None
    address: str | None = None
    resends: int = 0
    started_at: float = 0.0
    sink: BodySink | None = field(default=None, repr=False)


class Fetcher:
    """Fetches URLs over the pool's connections. Bodies too large for memory are written to `spool_directory`.
    `credentials` adds the fields that are for one origin only. `permits` tells whether an origin is blocked, and raises
    SendingPaused.

    Raises LocalProtocolError at once if the configured fields cannot be sent.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        options: FetchOptions,
        identity: IdentityOptions,
        address_limiter: AddressRateLimit,
        clock: Clock,
        budget: ByteBudget | None = None,
        spool_directory: str | None = None,
        credentials: OriginCredentials | None = None,
        permits: Callable[[Origin], bool] = lambda origin: True,
    ) -> None:
        self._credentials = credentials
        self._permits = permits
        self._pool = pool
        self._options = options
        self._address_limiter = address_limiter
        self._clock = clock
        self._budget = budget
        self._spool_directory = spool_directory
        self._options_of_hosts = HostOptions(options)
        self._content_types: dict[tuple[str, ...], ContentTypes] = {}
        self._fields = _constant_fields(options, identity, options.headers)
        self._fields_by_pattern = {
            pattern: _constant_fields(options, identity, _replaced(options.headers, headers))
            for pattern, headers in options.host_headers
        }
        for fields in (self._fields, *self._fields_by_pattern.values()):
            build_request("GET", "/", fields)

    async def fetch(self, origin: Origin, task: Task) -> FetchResult:
        """Get one URL of `origin`. Raises AddressNotReady, OriginBlocked, SendingPaused; other errors are results."""
        if not self._permits(origin):
            raise OriginBlocked
        limits, wants = self._options_of_hosts.of(origin.host), None
        if task.kind is TaskKind.ROBOTS:
            limits = replace(limits, max_body=min(limits.max_body, limits.max_robots))
        elif task.kind is TaskKind.PAGE and (types := limits.content_types):
            if types not in self._content_types:
                self._content_types[types] = ContentTypes(types)
            wants = self._content_types[types].wants
        attempt = _Attempt(self.request_for(origin, task), limits, wants, started_at=self._clock.now())
        result: FetchResult
        try:
            attempt.connection = await self._pool.acquire(origin)
            result = await self._fetch_over(attempt.connection, attempt)
        except DialError as error:
            result = Failed(
                error.error_type,
                error.detail,
                retryable=not is_permanent(error.error_type),
                timings=error.timings,
                resend_count=attempt.resends,
            )
        finally:
            if attempt.connection is not None:
                self._pool.release(attempt.connection)
            if attempt.address is not None:
                self._address_limiter.leave(attempt.address)
            if attempt.sink is not None:
                attempt.sink.discard()
        return result if self._credentials is None else self._credentials.received(origin, task, result)

    async def close(self) -> None:
        """Close the pool and every connection in it."""
        await self._pool.close()

    async def _fetch_over(self, connection: Connection, attempt: _Attempt) -> Fetched | Failed:
        """Send the request. If the connection was stale, send it once more over a new one."""
        while True:
            self._enter_address(connection, attempt)
            was_used = connection.requests > 0
            attempt.sink = sink = BodySink(self._options.spool_over, self._spool_directory, self._budget)
            reader = ResponseReader(attempt.limits, sink, attempt.wants)
            attempt.started_at = self._clock.now()
            error: ExchangeError | None = None
            try:
                await connection.exchange(attempt.request, reader)
            except ExchangeError as raised:
                error = raised
            except OSError as raised:  # an error of the spool file, because errors of the network are ExchangeErrors
                if raised.errno not in (errno.EMFILE, errno.ENFILE):
                    return self._failed(connection, attempt, ErrorType.LOCAL_IO, describe(raised))
                self._pool.close_idle()
                return self._failed(connection, attempt, ErrorType.NO_FILE_DESCRIPTORS, describe(raised))
            if attempt.resends or not _is_stale(connection, reader, error, was_used=was_used):
                break
            attempt.resends = 1
            sink.discard()
            attempt.connection = None  # no connection is lent if no new one can be opened
            attempt.connection = connection = await self._pool.replace(connection)
        result = self._result(connection, reader, sink, attempt, error)
        if connection.spoke_first and isinstance(result, Fetched) and not is_throttled(result):
            detail = f"the server sent status {result.head.status_code} before any request"
            return self._failed(connection, attempt, ErrorType.CONNECT_FAILED, detail)
        return result

    def _enter_address(self, connection: Connection, attempt: _Attempt) -> None:
        """Enter the rate limit of the connection's address, after leaving that of a former one. Raises AddressNotReady,
        OriginBlocked, SendingPaused.
        """
        if not self._permits(connection.origin):  # it may have been blocked while the connection was opened
            connection.abort(CloseReason.BLOCKED)
            raise OriginBlocked
        address = connection.dialled.peer_address
        if attempt.address == address:
            return
        if attempt.address is not None:
            self._address_limiter.leave(attempt.address)
            attempt.address = None
        until_mono = self._address_limiter.enter(address)
        if until_mono is not None:
            raise AddressNotReady(address, until_mono)
        attempt.address = address

    def _result(
        self,
        connection: Connection,
        reader: ResponseReader,
        sink: BodySink,
        attempt: _Attempt,
        error: ExchangeError | None,
    ) -> Fetched | Failed:
        """Make the result of an exchange. An incomplete response is kept and marked if its framing was correct so far;
        otherwise the result is Failed.
        """
        truncated, error_type = reader.truncated, reader.error_type
        if reader.unwanted:
            truncated, error_type = TruncatedReason.CONTENT_TYPE, None
        elif error is not None:
            if reader.head is None or error.error_type is ErrorType.PROTOCOL_ERROR:
                return self._failed(connection, attempt, error.error_type, error.detail)
            truncated = TruncatedReason.TIME if error.error_type in _LATE else TruncatedReason.DISCONNECT
            error_type = error.error_type
        assert reader.head is not None
        raw_body, payload = sink.finish()
        return Fetched(
            head=reader.head,
            request_bytes=attempt.request,
            raw_head=reader.raw_head,
            raw_body=raw_body,
            payload=payload,
            timings=connection.timings,
            connection=connection.info,
            started_at=attempt.started_at,
            resend_count=attempt.resends,
            tainted=reader.tainted,
            truncated=truncated,
            error_type=error_type,
        )

    def _failed(self, connection: Connection, attempt: _Attempt, error_type: ErrorType, detail: str) -> Failed:
        return Failed(
            error_type,
            detail,
            retryable=not is_permanent(error_type),
            timings=connection.timings,
            connection=connection.info,
            started_at=attempt.started_at,
            resend_count=attempt.resends,
        )

    def _fields_of(self, origin: Origin) -> tuple[tuple[str, str], ...]:
        """The constant fields of a host: those of the most specific pattern that has its own."""
        if not self._fields_by_pattern:
            return self._fields
        found = (self._fields_by_pattern.get(pattern) for pattern in patterns_of(origin.host))
        return next((fields for fields in found if fields is not None), self._fields)

    def request_for(self, origin: Origin, task: Task) -> bytes:
        """The bytes of the request. Validators that HTTP does not allow are left out."""
        target = target_of(task.url)
        default_port = 443 if origin.scheme == "https" else 80
        host = origin.host if origin.port == default_port else f"{origin.host}:{origin.port}"
        fields = [("Host", host), *self._fields_of(origin)]
        if self._credentials is not None:
            target, fields = self._credentials.request(origin, target, fields)
        conditions = []
        if task.etag is not None:
            conditions.append(("If-None-Match", task.etag))
        if task.last_modified is not None:
            conditions.append(("If-Modified-Since", task.last_modified))
        if conditions:
            with suppress(LocalProtocolError):
                return build_request("GET", target, [*fields, *conditions])
        return build_request("GET", target, fields)


def _is_stale(connection: Connection, reader: ResponseReader, error: ExchangeError | None, *, was_used: bool) -> bool:
    """Whether the connection was closed before the request reached the server, so that the request may be sent again:
    the connection ended without a byte, or with a 408 from before the request (RFC 9110 §15.5.9, RFC 9112 §9.3.1).
    """
    if reader.head is not None:
        is_late = reader.head.status_code == _REQUEST_TIMEOUT and not connection.is_open
        return is_late and (was_used or connection.spoke_first)
    if error is None or error.error_type not in _STALE or not connection.got_no_byte:
        return False
    return was_used or connection.close_reason is CloseReason.UNSOLICITED  # closed before the request was written


def _replaced(headers: tuple[tuple[str, str], ...], others: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Header fields with others, each of which replaces those of its name."""
    replaced = {name.lower() for name, _ in others}
    return (*(one for one in headers if one[0].lower() not in replaced), *others)


def _constant_fields(
    options: FetchOptions, identity: IdentityOptions, headers: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    """The fields of every request after Host. A configured field replaces the default one, except for Host."""
    defaults = [("User-Agent", identity.user_agent), ("Accept", _ACCEPT)]
    if options.encodings:
        defaults.append(("Accept-Encoding", ", ".join(options.encodings)))
    if identity.from_address is not None:
        defaults.append(("From", identity.from_address))
    configured = [(name, value) for name, value in headers if name.lower() != "host"]
    replaced = {name.lower() for name, _ in configured}
    return (*(one for one in defaults if one[0].lower() not in replaced), *configured)
