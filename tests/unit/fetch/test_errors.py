"""Failures as text for people: OSErrors, OpenSSL's errors, and bytes that a server sent."""

import errno
import ssl

import pytest

from crawler.core.enums import ErrorType
from crawler.core.outcomes import failure_text
from crawler.fetch.http1.message import shown
from crawler.fetch.net.errors import describe


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (OSError(errno.ENOSPC, "No space", "/var/spool/x"), "/var/spool/x: No space left on device"),
        (ConnectionResetError(), "the connection was lost"),
        (OSError("too late"), "too late"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
            "wrong version number",
        ),
        (
            ssl.SSLCertVerificationError(1, "[SSL: X] Hostname mismatch, not valid for 'a.test'. (_ssl.c:992)"),
            "Hostname mismatch, not valid for 'a.test'",
        ),
        (ValueError("odd"), "odd"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_described_in_plain_words(error: Exception, words: str) -> None:
    """Without errno in brackets, tuples and source lines of OpenSSL."""
    assert describe(error) == words


def test_what_a_server_sent_is_quoted_and_escaped() -> None:
    """Bytes and text, one line at most."""
    assert shown(b"SSH-2.0-x\r\n\xff") == r'"SSH-2.0-x\r\n\xff"'
    assert shown("5, 6") == '"5, 6"'
    assert len(shown("x" * 1_000)) == 82


def test_a_failure_names_the_key_that_helps() -> None:
    """Without a detail the error type is the text."""
    assert failure_text(ErrorType.TLS_UNKNOWN_ISSUER, "no issuer") == (
        "no issuer; network.ca_file can name a CA of your own"
    )
    assert failure_text(ErrorType.CONNECT_REFUSED, "") == "connect refused"
