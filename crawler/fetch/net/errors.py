"""Errors between a host name and the last byte of a response.

Invariant: the fetcher turns each of them into a result; none leaves `crawler.fetch`. A bug of ours is not among them:
it propagates as the exception that Python raised.
"""

import errno
import os
import re
import ssl
from typing import Final

from crawler.core.enums import ErrorType, Stage
from crawler.core.models import Timings


class FetchError(Exception):
    """Base of the errors below. `error_type` goes to the log, `detail` says why for a person."""

    def __init__(self, error_type: ErrorType, detail: str) -> None:
        super().__init__(detail)
        self.error_type = error_type
        self.detail = detail


class ResolveError(FetchError):
    """The name has no addresses. `error_type` is a dns_* type."""


class ProxyError(FetchError):
    """The proxy opened no tunnel. `error_type` is a proxy_* type."""


class ExchangeError(FetchError):
    """An open connection gave no whole response. The response reader has what came of it."""


class DialError(FetchError):
    """No connection could be opened. `peer` is the address that was tried last, if any was."""

    def __init__(
        self,
        stage: Stage,
        error_type: ErrorType,
        detail: str,
        *,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        peer: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(error_type, detail)
        self.stage = stage
        self.timings = timings
        self.peer = peer


_SSL_MARKS: Final = re.compile(r"^\[[^]]*\] |\.? ?\(_ssl\.c:\d+\)$")

_CONNECT_ERRORS: Final = {
    errno.ECONNREFUSED: ErrorType.CONNECT_REFUSED,
    errno.ETIMEDOUT: ErrorType.CONNECT_TIMEOUT,
    errno.ENETUNREACH: ErrorType.CONNECT_UNREACHABLE,
    errno.EHOSTUNREACH: ErrorType.CONNECT_UNREACHABLE,
    errno.ENETDOWN: ErrorType.CONNECT_UNREACHABLE,
    errno.EHOSTDOWN: ErrorType.CONNECT_UNREACHABLE,
    errno.EADDRNOTAVAIL: ErrorType.CONNECT_UNREACHABLE,  # Linux: no source address of that family
    errno.EMFILE: ErrorType.NO_FILE_DESCRIPTORS,
    errno.ENFILE: ErrorType.NO_FILE_DESCRIPTORS,
}


def connect_error(error: OSError) -> ErrorType:
    """The error type for an error of socket(2), bind(2) or connect(2)."""
    return _CONNECT_ERRORS.get(error.errno or 0, ErrorType.CONNECT_FAILED)


def describe(error: BaseException) -> str:
    """The reason of an error in plain words, without Python's and OpenSSL's own marks; never empty."""
    if isinstance(error, ssl.SSLError):  # "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
        return _SSL_MARKS.sub("", str(error)) or "TLS error"
    if isinstance(error, OSError):
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason or "the connection was lost"
    return str(error) or type(error).__name__
