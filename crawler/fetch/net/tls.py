"""How servers are verified and TLS sessions resumed, and the error type of a failed handshake.

There is one SSLContext (making one takes 15-20 ms, a handshake 1.3), with the sessions made in it.

Invariant: a session is offered only to the origin that issued it, so a resumed connection is for a name that was
verified when the session was made.
"""

import asyncio
import ssl
import sys
from typing import Final

import certifi

from crawler.core.enums import ErrorType
from crawler.core.models import Origin
from crawler.fetch.net.tls_stream import ReadBuffer, TlsStream
from crawler.fetch.options import NetworkOptions, TlsOptions

_SESSIONS: Final = 4_096  # origins; a session is 2-6 KiB with its certificate chain
# Before 3.12.8 and 3.13.1 CPython loses the memory of a session, 6.5 KiB, each time one is read from a connection
# (gh-116810): so many are read, and after them no session is kept.
_LOSES_SESSIONS: Final = sys.version_info < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)
_READ_AT_MOST: Final = 4_096 if _LOSES_SESSIONS else sys.maxsize

_PROTOCOL: Final = "http/1.1"  # RFC 7301; a server that knows HTTP/2 alone refuses it
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# X509_V_ERR_* of <openssl/x509_vfy.h>
_VERIFY_ERRORS: Final = {
    2: ErrorType.TLS_UNKNOWN_ISSUER,  # UNABLE_TO_GET_ISSUER_CERT
    9: ErrorType.TLS_CERT_NOT_YET_VALID,
    10: ErrorType.TLS_CERT_EXPIRED,
    18: ErrorType.TLS_SELF_SIGNED,  # DEPTH_ZERO_SELF_SIGNED_CERT: the leaf itself
    19: ErrorType.TLS_UNKNOWN_ISSUER,  # SELF_SIGNED_CERT_IN_CHAIN: a root that is not ours
    20: ErrorType.TLS_UNKNOWN_ISSUER,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: ErrorType.TLS_UNKNOWN_ISSUER,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
    27: ErrorType.TLS_UNKNOWN_ISSUER,  # CERT_UNTRUSTED
    62: ErrorType.TLS_HOST_MISMATCH,
    64: ErrorType.TLS_HOST_MISMATCH,  # IP_ADDRESS_MISMATCH
}
_NO_SHARED_PROTOCOL: Final = frozenset(
    {
        "UNSUPPORTED_PROTOCOL",
        "NO_PROTOCOLS_AVAILABLE",
        "NO_SHARED_CIPHER",
        "NO_APPLICATION_PROTOCOL",
        # alerts
        "PROTOCOL_VERSION",
        "HANDSHAKE_FAILURE",  # sent by a server that shares no cipher with us
        "INSUFFICIENT_SECURITY",
    }
)
_ALERT: Final = "ALERT_"
_CERTIFICATE_REQUIRED: Final = "CERTIFICATE_REQUIRED"  # an alert of TLS 1.3
# OpenSSL's errors for bytes that are no TLS, or not the next step of a handshake: most often plain HTTP.
_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_TOO_SMALL",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "UNEXPECTED_MESSAGE",
        "UNEXPECTED_RECORD",
        "BAD_RECORD_TYPE",
    }
)


class TlsProfile:
    """The client's TLS configuration, and its session cache: of `sessions` origins.

    It trusts certifi's bundle and, if given, `network.ca_file`. Raises OSError or ssl.SSLError if that file cannot be
    read, KeyError for an unknown `min_version`. `offered` describes the versions and ciphers offered, for a person.
    """

    def __init__(
        self, options: TlsOptions, network: NetworkOptions, *, sessions: int = _SESSIONS, reads: int = _READ_AT_MOST
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _VERSIONS[options.min_version]
        context.set_alpn_protocols([_PROTOCOL])
        context.hostname_checks_common_name = False  # RFC 9110 §4.3.4: only the alternative names speak for a host
        if options.ciphers is not None:
            context.set_ciphers(options.ciphers)
        if options.verify:
            context.load_verify_locations(certifi.where())
            if network.ca_file is not None:
                context.load_verify_locations(network.ca_file)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.offered = _offered(options, context)
        self._context = context
        self._buffer = ReadBuffer()
        self._limit = sessions
        self._reads_left = reads
        self._sessions: dict[Origin, ssl.SSLSession] = {}

    def stream(self, origin: Origin, above: asyncio.Protocol) -> TlsStream:
        """Make the client's end of a TLS connection to the origin. It offers to resume the last session, if any."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name, session = server_name(origin.host), self._sessions.get(origin)
        tls = self._context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
        return TlsStream(tls, incoming, outgoing, above, self._buffer)

    def keep(self, origin: Origin, ssl_object: ssl.SSLObject) -> None:
        """Remember the session of a connection that has had a response: TLS 1.3 tickets come after the handshake.
        After `reads` sessions none is remembered.
        """
        if self._reads_left == 0:
            self.forget(origin)
            return
        self._reads_left -= 1
        session = ssl_object.session
        if session is None or not (session.has_ticket or (session.id and ssl_object.version() == "TLSv1.2")):
            return
        sessions = self._sessions
        sessions.pop(origin, None)
        while len(sessions) >= self._limit:
            del sessions[next(iter(sessions))]
        sessions[origin] = session

    def forget(self, origin: Origin) -> None:
        """Forget the session: a handshake that offered it has failed."""
        self._sessions.pop(origin, None)


def _offered(options: TlsOptions, context: ssl.SSLContext) -> str:
    versions = "TLS 1.3" if options.min_version == "1.3" else "TLS 1.2 and 1.3"
    if options.ciphers is None:
        count = len(context.get_ciphers())
        return f'{versions}, {_PROTOCOL}, {count} ciphers; tls.ciphers = "DEFAULT" offers older ones'
    return f"{versions}, {_PROTOCOL}, tls.ciphers {options.ciphers}"


def server_name(host: str) -> str:
    """The name for SNI (unless it is an IP address) and the certificate: without brackets and root dot."""
    return host[1:-1] if host.startswith("[") else host.rstrip(".")


def tls_error(error: Exception) -> ErrorType:
    """The error type of a failed handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_ERRORS.get(error.verify_code, ErrorType.TLS_CERT_INVALID)
    if not isinstance(error, ssl.SSLError):
        return ErrorType.TLS_FAILED
    reason = _reason(error).rpartition(_ALERT)[2]
    if reason in _NO_SHARED_PROTOCOL:
        return ErrorType.TLS_NO_SHARED_PROTOCOL
    return ErrorType.TLS_PROTOCOL_ERROR if reason in _NOT_TLS else ErrorType.TLS_FAILED


def stream_error(error: Exception) -> ErrorType:
    """The error type of an error on an open connection. A TLS 1.3 server may refuse us this late (RFC 8446 §6.2)."""
    if not isinstance(error, ssl.SSLError):
        return ErrorType.RESET
    _, is_alert, alert = _reason(error).rpartition(_ALERT)
    if alert == _CERTIFICATE_REQUIRED:
        return ErrorType.TLS_CLIENT_CERTIFICATE
    return ErrorType.TLS_ALERT if is_alert else ErrorType.TLS_BAD_RECORD


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name of an error. Each Python knows the names of one version of OpenSSL; with another version the name
    is made from the message.
    """
    if error.reason:
        return error.reason
    text = str(error).partition("] ")[2].partition(" (_ssl")[0]
    return text.upper().replace(" ", "_")
