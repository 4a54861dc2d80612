"""What can go wrong between a name and the last byte of an answer, as exceptions that carry the log's word.

These never leave `fetch`: the fetcher turns each into a value. Each says at which step it happened and, in words for a
person, why. What is a bug of ours is not here: it propagates as whatever Python raised.
"""

import errno
import os
import re
import ssl
from typing import Final

from crawler.core.enums import ErrorType, Stage
from crawler.core.models import Timings


class ResolveError(Exception):
    """A name gave no addresses. `error_type` is one of the dns_* words."""

    def __init__(self, error_type: ErrorType, detail: str) -> None:
        super().__init__(detail)
        self.error_type = error_type
        self.detail = detail


class DialError(Exception):
    """No connection came about. `peer` is the address that was tried last, if any was."""

    def __init__(
        self,
        stage: Stage,
        error_type: ErrorType,
        detail: str,
        *,
        timings: Timings = Timings(),  # noqa: B008 - frozen
        peer: tuple[str, int] | None = None,
    ) -> None:
        super().__init__(detail)
        self.stage = stage
        self.error_type = error_type
        self.detail = detail
        self.timings = timings
        self.peer = peer


class ExchangeError(Exception):
    """An open connection gave no whole answer. How much came is known to the response reader."""

    def __init__(self, error_type: ErrorType, detail: str) -> None:
        super().__init__(detail)
        self.error_type = error_type
        self.detail = detail


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
    """The word for an error of socket(2), bind(2) or connect(2)."""
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
