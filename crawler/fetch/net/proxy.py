"""Requests through an HTTP proxy: CONNECT tunnels for https, absolute-form requests for http.

The proxy resolves names, so the proxy decides which addresses may be reached through it.

Invariant: the first byte read through a tunnel is the origin's. A proxy that sends more than the head of its response
to CONNECT has failed.
"""

import asyncio
import re
import socket
from typing import Final

from crawler.core.enums import ErrorType
from crawler.core.models import Head, Origin
from crawler.fetch.http1.message import build_request
from crawler.fetch.net.errors import ProxyError
from crawler.fetch.options import KIB, ProxyOptions

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
