"""TLS over a TCP transport: a protocol towards the socket, a transport towards the connection that uses it.

It replaces the TLS of asyncio and uvloop, which cannot say that half a record has come, and which drop what they have
decrypted when an alert or a damaged record follows it in the same read. OpenSSL does the cryptography, in memory.
It does not know HTTP, nor which servers are believed (`tls`).

Invariants: what was decrypted is handed over before the end, or the fault, that came behind it. `is_mid_record` is true
exactly while the beginning of a record has come and its end has not. `connection_made` of the protocol above is called
once the handshake is done, `connection_lost` exactly once after it.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

_MAX_PLAIN: Final = 16 * 1024  # RFC 8446 §5.1: a record carries no more, so one read takes all of it
_HEADER: Final = 5  # content type, version, length: RFC 8446 §5.1


class ReadBuffer:
    """Where the socket's bytes are read into. One serves every stream of a loop: it is emptied before the next read."""

    __slots__ = ("view",)

    def __init__(self, size: int = 256 * 1024) -> None:
        self.view = memoryview(bytearray(size))


class _NotYet(asyncio.Transport):
    """What a stream is on before it is on a socket."""

    def abort(self) -> None: ...


class TlsStream(asyncio.Transport, asyncio.BufferedProtocol):
    """One client's TLS connection. `opened` is done when the handshake is, or has failed: ssl.SSLError, or OSError
    (without a message where the peer just closed).

    `data_received` gets what one read of the socket brought, in one piece. An end without close_notify calls
    `connection_lost(None)` alone, an orderly one `eof_received` first; a fatal alert or a damaged record calls
    `connection_lost` with the ssl.SSLError.
    """

    __slots__ = ("_above", "_begun", "_closing", "_incoming", "_is_lost", "_is_open", "_outgoing", "_raw", "_skip",
                 "_tls", "_unsent", "_view", "opened")  # fmt: skip

    def __init__(
        self,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        above: asyncio.Protocol,
        buffer: ReadBuffer,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._above = above
        self._view = buffer.view
        self._raw: asyncio.Transport = _NotYet()
        self._is_open = False  # the handshake is done
        self._is_lost = False  # the protocol above knows that it is over
        self._closing = False
        self._unsent = b""  # what could not be encrypted yet: the server renegotiates (TLS 1.2)
        self._skip = 0  # bytes still to come of a record whose header was read
        self._begun = b""  # the beginning of a header
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(lambda done: done.cancelled() or done.exception())  # who dials may be gone

    @property
    def is_mid_record(self) -> bool:
        """Whether the beginning of a record has come, and its end has not."""
        return self._skip > 0 or bool(self._begun)

    # -- towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)  # uvloop's do not derive from asyncio's
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._view[:nbytes])
        self._follow(nbytes)
        if self._is_open:
            self._read()
        else:
            self._shake_hands()

    def eof_received(self) -> None:
        """The end of the TCP stream: the transport closes itself, `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        self._above = asyncio.Protocol()  # nobody is told any more, nor kept

    def _follow(self, size: int) -> None:
        """Keep account of where records begin: `size` more bytes of them lie in the buffer."""
        at = self._skip
        if self._begun:
            begun = self._begun + bytes(self._view[: min(size, _HEADER - len(self._begun))])
            if len(begun) < _HEADER:
                self._begun = begun
                return
            at = _HEADER - len(self._begun) + (begun[3] << 8 | begun[4])
            self._begun = b""
        view = self._view
        while at + _HEADER <= size:
            at += _HEADER + (view[at + 3] << 8 | view[at + 4])
        if at < size:
            self._begun = bytes(view[at:size])
            self._skip = 0
        else:
            self._skip = at - size

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._lose(error)
            return
        self._flush()
        self._is_open = True
        if not self.opened.done():
            self.opened.set_result(None)
        self._above.connection_made(self)
        self._read()

    def _read(self) -> None:
        pieces: list[bytes] = []
        fault: ssl.SSLError | None = None
        ended = False
        incoming = self._incoming
        try:
            while incoming.pending:  # SSLWantReadError is dear: it is met only where a record is not whole yet
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
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if fault is not None:
            self._lose(fault)
        elif ended:
            if not self._closing:
                self._above.eof_received()
            self._end()

    def _flush(self) -> None:
        if not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def _lose(self, error: Exception | None) -> None:
        """It is over. Those above are told at once: what they would still send could not be read any more."""
        self._raw.close()  # once the alert is written that says why
        if not self._is_open:
            if not self.opened.done():
                self.opened.set_exception(error if error is not None else ConnectionResetError())
        elif not self._is_lost:
            self._is_lost = True
            self._above.connection_lost(error)

    def _end(self) -> None:
        """Send close_notify, if that was not done, and close the socket once everything is written."""
        if not self._closing:
            self.close()
        self._raw.close()

    # -- towards the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._encrypt(bytes(data))
        except ssl.SSLError as error:
            self._lose(error)
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
        """Send close_notify. The socket is closed once the peer has answered it; `abort` ends the waiting."""
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # the peer has not answered yet
            self._tls.unwrap()
        self._flush()

    def abort(self) -> None:
        """Close the socket at once; nothing more is read or written."""
        self._closing = True
        self._raw.abort()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._raw.get_extra_info(name, default)
