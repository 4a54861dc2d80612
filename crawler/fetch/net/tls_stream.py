"""TLS over a TCP transport: a protocol for the socket, and a transport for the connection above it.

It replaces the TLS of asyncio and uvloop. They cannot say that half a record has come, and they drop decrypted bytes
if an alert or a damaged record follows in the same read. OpenSSL does the cryptography, in memory.

Invariants:
- Decrypted bytes are delivered before the end, or the error, that followed them.
- `is_mid_record` is true exactly while the beginning of a record has come and its end has not.
- `connection_made` of the protocol above is called when the handshake is done, and `connection_lost` exactly once
  after it.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

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
