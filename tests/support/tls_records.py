"""A server that runs TLS in memory, so that a test decides where records are cut and which are damaged.

async def script(s: RecordConnection) -> None:        # runs once for each connection, after its handshake
    while path := await s.request():
        records = s.encrypt(ok(b"hello"))      # the bytes of whole TLS records
        await s.send(records[:20])          # each piece has arrived before the next is sent
        await s.send(records[20:])

async with serve(tls_script(certificates.server("a.test"), script)) as server: ...
"""

import _ssl
import contextlib
import ctypes
import ssl
from collections.abc import Awaitable, Callable

from tests.support.scripted_server import Accepted, Script

_MANY = 65_536
# The smallest record that no peer can decrypt: its reader sends the fatal alert bad_record_mac.
DAMAGED = b"\x17\x03\x03\x00\x20" + bytes(32)


# Python's module has no call for these; its own copy of OpenSSL has.
_LIBSSL = ctypes.CDLL(_ssl.__file__)
_SSL_POINTER = 3 * ctypes.sizeof(
    ctypes.c_void_p
)  # where CPython's object holds its SSL *: behind its head and its owner


class RecordConnection:
    """One connection, as the server sees it."""

    def __init__(self, plain: Accepted, context: ssl.SSLContext) -> None:
        self.plain = plain
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=True)
        self.requests: list[bytes] = []

    async def handshake(self) -> None:
        """Raises ssl.SSLError, after the alert was sent."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.plain.send(self._out.read())
                self._in.write(await self._more())
            except ssl.SSLError:
                await self.send(self._out.read())
                raise
            else:
                await self.plain.send(self._out.read())  # tickets
                return

    async def request(self) -> str:
        """Read one request; its path, or "" if the client closed instead."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            try:
                piece = self.tls.read(_MANY)
                if not piece:
                    return ""
                head += piece
            except ssl.SSLWantReadError:
                if self._out.pending:  # a renegotiation
                    await self.send(self._out.read())
                try:
                    self._in.write(await self._more())
                except ConnectionError:
                    return ""
        self.requests.append(head)
        return head.split(b" ", 2)[1].decode()

    async def _more(self) -> bytes:
        data = await self.plain.reader.read(_MANY)
        if not data:
            raise ConnectionResetError
        return data

    def encrypt(self, data: bytes) -> bytes:
        """The records that carry `data`."""
        assert not self._out.pending
        self.tls.write(data)
        return self._out.read()

    def ticket(self) -> bytes:
        """The record of one more session ticket (TLS 1.3)."""
        return self._control("SSL_new_session_ticket")

    def key_update(self) -> bytes:
        """The record of a KeyUpdate that requests one in return (RFC 8446 §4.6.3)."""
        return self._control("SSL_key_update", 1)

    def hello_request(self) -> bytes:
        """The record that requests a client of TLS 1.2 to renegotiate (RFC 5246 §7.4.1.1)."""
        return self._control("SSL_renegotiate")

    def _control(self, name: str, *arguments: int) -> bytes:
        pointer = ctypes.c_void_p.from_address(id(self.tls._sslobj) + _SSL_POINTER)
        assert getattr(_LIBSSL, name)(pointer, *arguments) == 1
        assert _LIBSSL.SSL_do_handshake(pointer) == 1
        return self._out.read()

    def alert(self) -> bytes:
        """The record of a fatal alert (bad_record_mac, 20). Nothing can be encrypted or read afterwards."""
        self._in.write(DAMAGED)
        with contextlib.suppress(ssl.SSLError):
            self.tls.read(_MANY)
        return self._out.read()

    async def send(self, *pieces: bytes) -> None:
        """Write bytes of records, each piece in the client's kernel before the next."""
        for piece in pieces:
            self.plain.writer.write(piece)
            await self.plain.arrived()


def tls_script(context: ssl.SSLContext, script: Callable[[RecordConnection], Awaitable[None]]) -> Script:
    """A script for `serve` without TLS: it does the handshake, then runs `script`."""

    async def run(plain: Accepted) -> None:
        connection = RecordConnection(plain, context)
        with contextlib.suppress(ssl.SSLError):
            await connection.handshake()
            await script(connection)

    return run
