"""Serves a site over TLS on 127.0.0.1, from a thread of its own.

Has the port, the certificate, the connections and the record of every request. Responses come from a function
(by default `site.DemoSite`).
Invariant: a connection stays open after every response with a length, so a client that opens a second one for the
next request shows up in `requests`.
"""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from crawler.demo.site import HOSTS, DemoFraming, DemoRequest, DemoResponse, DemoSite

ADDRESS: Final = "127.0.0.1"
MAX_HEAD: Final = 64 * 1024
IDLE_TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 30.0
_VALID: Final = timedelta(days=1)

Responder = Callable[[DemoRequest], DemoResponse]


@dataclass(frozen=True, slots=True)
class Served:
    """One request and its response. Connections count from 1, and so do the requests on each."""

    connection: int
    request_n: int
    host: str
    method: str
    target: str
    status: int
    tls_resumed: bool
    fields: dict[str, str]

    @property
    def url(self) -> str:
        """Host and target, without scheme and port: "www.demo.test/about"."""
        return self.host + self.target


class DemoServer:
    """`with DemoServer() as server:` serves until the block ends.

    `respond` returns the response to a request, or is a coroutine function, which may sleep first; it runs on the
    server's own loop. `hosts` are the names in the certificate.
    """

    def __init__(
        self,
        respond: Responder | Callable[[DemoRequest], Awaitable[DemoResponse]] | None = None,
        *,
        hosts: Iterable[str] = HOSTS,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        port: int = 0,
    ) -> None:
        self.port = port
        self.ca_file = ""
        self.requests: list[Served] = []
        self.connections = 0
        self._is_listening = False
        self._hosts = tuple(hosts)
        self._respond = respond
        self._idle_timeout_s = idle_timeout_s
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="crawler-demo-")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_ready.wait(START_TIMEOUT_S) or not self._is_listening:
            raise OSError("the demo server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)
        self._directory.cleanup()

    def url(self, host: str, target: str = "/") -> str:
        """The absolute URL of a target on one of the hosts."""
        return f"https://{host}:{self.port}{target}"

    def resolve_table(self) -> dict[str, list[str]]:
        """The hosts and addresses for `network.resolve`."""
        return {host: [ADDRESS] for host in self._hosts}

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._is_ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(
            self._converse, ADDRESS, self.port, ssl=self._tls_context(), limit=MAX_HEAD, ssl_handshake_timeout=10
        )
        self.port = server.sockets[0].getsockname()[1]
        self._is_listening = True
        if self._respond is None:
            self._respond = DemoSite(self.port).respond
        self._is_ready.set()
        async with server:
            await self._stop.wait()
            for task, writer in tuple(self._open.items()):
                writer.transport.abort()
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _tls_context(self) -> ssl.SSLContext:
        certificate, key = _self_signed(self._hosts)
        ca_file, key_file = (Path(self._directory.name) / name for name in ("ca.pem", "key.pem"))
        ca_file.write_bytes(certificate)
        key_file.write_bytes(key)
        self.ca_file = str(ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca_file, key_file)
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to requests until one side closes the connection."""
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self.connections += 1
        connection = self.connections
        request_n = 0
        try:
            while True:
                async with asyncio.timeout(self._idle_timeout_s):
                    head = await reader.readuntil(b"\r\n\r\n")
                request_n += 1
                if not await self._exchange(head, writer, connection, request_n):
                    break
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            writer.transport.abort()  # the client is gone, idle, or speaks another protocol
        except asyncio.CancelledError:
            writer.transport.abort()  # the server stops; abort keeps asyncio's streams from logging an error
        finally:
            del self._open[task]

    async def _exchange(self, head: bytes, writer: asyncio.StreamWriter, connection: int, request_n: int) -> bool:
        """Respond to one request and record it. Returns whether the connection may serve another."""
        request = DemoRequest.parse(head)
        assert self._respond is not None
        response = self._respond(request)
        if not isinstance(response, DemoResponse):
            response = await response
        response = response.coded_for(request)
        close = response.framing is DemoFraming.CLOSE or request.fields.get("connection", "").lower() == "close"
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        self.requests.append(
            Served(
                connection=connection,
                request_n=request_n,
                host=request.host,
                method=request.method,
                target=request.target,
                status=response.status,
                tls_resumed=bool(tls.session_reused),
                fields=request.fields,
            )
        )  # before the response is sent, so that its receiver finds it recorded
        writer.write(response.encode(close=close))
        await writer.drain()
        return not close


def _self_signed(hosts: Iterable[str]) -> tuple[bytes, bytes]:
    """A certificate for `hosts` that is its own authority, valid for a day, and its key; both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "crawler demo")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - _VALID).not_valid_after(now + _VALID)
    extensions = (
        x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private
