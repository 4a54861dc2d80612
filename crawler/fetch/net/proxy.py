"""Speaking through an HTTP proxy: CONNECT tunnels for https, absolute-form requests for http.

It opens no socket (`dial` does) and judges no address: the proxy resolves names, so which addresses may be reached
through it is the proxy's to decide. Invariant: what a tunnel's transport reads begins with the origin's first byte; a
proxy that says more than the head of its answer has failed.
"""

import asyncio
import re
import socket
from typing import Final

from crawler.core.enums import ErrorType
from crawler.core.models import Head, Origin
from crawler.fetch.http1.message import build_request
from crawler.fetch.options import KIB, ProxyOptions

MAX_HEAD: Final = 32 * KIB  # of the answer to CONNECT; Squid's own error pages have heads of 400 bytes
PROXY_AUTHENTICATION_REQUIRED: Final = 407
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_ERROR: Final = re.compile(r";\s*error=")  # of the field Proxy-Status
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


class ProxyError(Exception):
    """The proxy opened no tunnel. `error_type` is one of the proxy_* words."""

    def __init__(self, error_type: ErrorType, detail: str) -> None:
        super().__init__(detail)
        self.error_type = error_type
        self.detail = detail


class Proxy:
    """One proxy, for every origin."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._authorization: tuple[tuple[str, str], ...] = ()
        if options.authorization is not None:
            self._authorization = (("Proxy-Authorization", options.authorization),)
        self.place = Origin("http", options.host, options.port)

    def __str__(self) -> str:
        return f"proxy {self._options}"

    def absolute(self, origin: Origin, target: str) -> str:
        """The request target of a plain http request (RFC 9112 §3.2.2)."""
        return f"{origin}{target}"

    def plain_fields(self) -> tuple[tuple[str, str], ...]:
        """What a plain http request says to the proxy besides what it says to the origin."""
        return self._authorization

    async def tunnel(self, sock: socket.socket, origin: Origin) -> None:
        """Have the proxy connect a socket that leads to it to the origin. Raises ProxyError, OSError.

        Cancelling it leaves the socket unusable; it is the caller's to close. Source: RFC 9110 §9.3.6.
        """
        authority = f"{origin.host}:{origin.port}"
        request = build_request("CONNECT", authority, [("Host", authority), *self._authorization])
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, request)
        head, came = await self._head(sock, b"")
        match = _STATUS.match(head)
        while match is not None and match[1].startswith(b"1"):  # interim; connect_timeout bounds how many
            head, came = await self._head(sock, came)
            match = _STATUS.match(head)
        if match is None:
            raise ProxyError(ErrorType.PROXY_FAILED, f"{self} answered CONNECT with what is no HTTP/1.1")
        self._judge(match, came)

    async def _head(self, sock: socket.socket, came: bytes) -> tuple[bytes, bytes]:
        """One head of the proxy's answer, and what came behind it."""
        loop = asyncio.get_running_loop()
        while (ends := _HEAD_END.search(came)) is None:
            if len(came) > MAX_HEAD:
                raise ProxyError(ErrorType.PROXY_FAILED, f"{self}: the head of its answer is over {MAX_HEAD} bytes")
            data = await loop.sock_recv(sock, 4 * KIB)
            if not data:
                raise ProxyError(ErrorType.PROXY_FAILED, f"{self} closed the connection instead of opening a tunnel")
            came += data
        return came[: ends.end()], came[ends.end() :]

    def _judge(self, match: re.Match[bytes], rest: bytes) -> None:
        status = int(match[1])
        reason = _UNPRINTABLE.sub("?", (match[2] or b"").decode("latin-1"))[:80]
        said = f"{status} {reason}".rstrip()
        if status == PROXY_AUTHENTICATION_REQUIRED:
            raise ProxyError(ErrorType.PROXY_AUTH, f"{self} wants {self._wanted()} credentials ({said})")
        if not 200 <= status < 300:
            raise ProxyError(ErrorType.PROXY_REFUSED, f"{self} opened no tunnel: {said}")
        if rest:
            raise ProxyError(ErrorType.PROXY_FAILED, f"{self} sent {len(rest)} bytes before the tunnel was used")

    def _wanted(self) -> str:
        return "other" if self._authorization else "its"

    def failure(self, head: Head) -> tuple[ErrorType, str] | None:
        """The word and the sentence if a plain request was answered by the proxy itself, as far as that can be told:
        it wants credentials, or says in a field of its own that it failed. None: it is the origin's answer.

        Sources: RFC 9110 §15.5.8, RFC 9209 §2.1.1, Squid's X-Squid-Error.
        """
        status = head.status_code
        if status == PROXY_AUTHENTICATION_REQUIRED:
            return ErrorType.PROXY_AUTH, f"{self} wants {self._wanted()} credentials ({status})"
        if status < 400:
            return None
        for name, value in head.fields:
            if name == "x-squid-error" or (name == "proxy-status" and _STATUS_ERROR.search(value)):
                said = _UNPRINTABLE.sub("?", value)[:80]
                return ErrorType.PROXY_REFUSED, f"{self} answered {status} itself: {said}"
        return None
