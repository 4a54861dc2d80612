"""TLS: how servers are verified and sessions resumed, the stream over a TCP transport, and the types of errors.

There is one SSLContext (making one takes 15-20 ms, a handshake 1.3), with the sessions made in it. The stream is a
protocol for the socket, and a transport for the connection above it. It replaces the TLS of asyncio and uvloop. They
cannot say that half a record has come, and they drop decrypted bytes if an alert or a damaged record follows in the
same read. OpenSSL does the cryptography, in memory.

Invariants:
- A session is offered only to the origin that issued it, so a resumed connection is for a name that was verified when
  the session was made.
- Decrypted bytes are delivered before the end, or the error, that followed them.
- `is_mid_record` is true exactly while the beginning of a record has come and its end has not.
- `connection_made` of the protocol above is called when the handshake is done, and `connection_lost` exactly once
  after it.
"""

import asyncio
import contextlib
import ssl
import sys
from typing import Any, Final, cast

import certifi

from crawler.core.enums import ErrorType
from crawler.core.models import Origin
from crawler.fetch.options import NetworkOptions, TlsOptions

_MAX_PLAIN: Final = 16 * 1024  # RFC 8446 §5.1: the most that a record carries, so one read takes all of it
_HEADER_BYTES: Final = 5  # content type, version, length: RFC 8446 §5.1


class ReadBuffer:
    """The buffer that sockets are read into. All streams of a loop share one: it is emptied before the next read."""

    __slots__ = ("view",)

    def __init__(self, size: int = 256 * 1024) -> None:
        self.view = memoryview(bytearray(size))


class _NoTransport(asyncio.Transport):
    """The transport of a stream before it has a socket."""

    def abort(self) -> None: ...


class TlsStream(asyncio.Transport, asyncio.BufferedProtocol):
    """The client's end of a TLS connection. `opened` is done when the handshake is, or raises ssl.SSLError or OSError
    (without a message if the peer just closed).

    `data_received` of the protocol above gets the bytes of one read of the socket in one piece. An orderly end calls
    `eof_received` and then `connection_lost(None)`; an end without close_notify calls `connection_lost(None)` alone; a
    fatal alert or a damaged record calls `connection_lost` with the ssl.SSLError.
    """

    __slots__ = ("_closing", "_header", "_incoming", "_is_open", "_is_reported", "_outgoing", "_protocol",
                 "_record_left", "_tcp", "_tls", "_unsent", "_view", "opened")  # fmt: skip

    def __init__(
        self,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        protocol: asyncio.Protocol,
        buffer: ReadBuffer,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._protocol = protocol
        self._view = buffer.view
        self._tcp: asyncio.Transport = _NoTransport()
        self._is_open = False  # the handshake is done
        self._is_reported = False  # the protocol above was told that the connection is lost
        self._closing = False
        self._unsent = b""  # bytes that cannot be encrypted yet: the server renegotiates (TLS 1.2)
        self._record_left = 0  # bytes still to come of a record whose header has come
        self._header = b""  # the beginning of a record header
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())  # the dialer may be gone

    @property
    def is_mid_record(self) -> bool:
        """Whether the beginning of a record has come and its end has not."""
        return self._record_left > 0 or bool(self._header)

    # -- called by the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)  # uvloop's do not derive from asyncio's
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._view[:nbytes])
        self._track_records(nbytes)
        if self._is_open:
            self._read()
        else:
            self._handshake()

    def eof_received(self) -> None:
        """The end of the TCP stream: the transport closes itself, `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._report_lost(exc)
        self._protocol = asyncio.Protocol()  # drop the reference; nothing more is reported

    def _track_records(self, size: int) -> None:
        """Find where records begin and end in the `size` bytes that were read into the buffer."""
        at = self._record_left
        if self._header:
            header = self._header + bytes(self._view[: min(size, _HEADER_BYTES - len(self._header))])
            if len(header) < _HEADER_BYTES:
                self._header = header
                return
            at = _HEADER_BYTES - len(self._header) + (header[3] << 8 | header[4])
            self._header = b""
        view = self._view
        while at + _HEADER_BYTES <= size:
            at += _HEADER_BYTES + (view[at + 3] << 8 | view[at + 4])
        if at < size:
            self._header = bytes(view[at:size])
            self._record_left = 0
        else:
            self._record_left = at - size

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert with the reason
            self._report_lost(error)
            return
        self._flush()
        self._is_open = True
        if not self.opened.done():
            self.opened.set_result(None)
        self._protocol.connection_made(self)
        self._read()

    def _read(self) -> None:
        pieces: list[bytes] = []
        fault: ssl.SSLError | None = None
        ended = False
        incoming = self._incoming
        try:
            while incoming.pending:  # an SSLWantReadError is slow: it is raised only if a record is not whole
                piece = self._tls.read(_MAX_PLAIN)
                if not piece:
                    ended = True  # close_notify
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True  # close_notify, in answer to ours
        except ssl.SSLError as error:
            fault = error
        if self._unsent and fault is None:
            self._encrypt(b"")
        if self._outgoing.pending:
            self._flush()
        if pieces and not self._closing:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if fault is not None:
            self._report_lost(fault)
        elif ended:
            if not self._closing:
                self._protocol.eof_received()
            self._end()

    def _flush(self) -> None:
        if not self._tcp.is_closing():
            self._tcp.write(self._outgoing.read())

    def _report_lost(self, error: Exception | None) -> None:
        """Report the end of the connection at once: what the protocol above would still send could not be read."""
        self._tcp.close()  # after the alert with the reason is written
        if not self._is_open:
            if not self.opened.done():
                self.opened.set_exception(error if error is not None else ConnectionResetError())
        elif not self._is_reported:
            self._is_reported = True
            self._protocol.connection_lost(error)

    def _end(self) -> None:
        """Send close_notify, unless that was done, and close the socket when everything is written."""
        if not self._closing:
            self.close()
        self._tcp.close()

    # -- called by the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._encrypt(bytes(data))
        except ssl.SSLError as error:
            self._report_lost(error)
            return
        self._flush()

    def _encrypt(self, data: bytes) -> None:
        data = self._unsent + data if self._unsent else data
        try:
            while data:
                data = data[self._tls.write(data) :]
        except ssl.SSLWantReadError:
            pass
        self._unsent = data

    def close(self) -> None:
        """Send close_notify. The socket is closed when the peer has answered it; `abort` ends the waiting."""
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # the peer has not answered yet
            self._tls.unwrap()
        self._flush()

    def abort(self) -> None:
        """Close the socket at once; nothing more is read or written."""
        self._closing = True
        self._tcp.abort()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._tcp.get_extra_info(name, default)


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
