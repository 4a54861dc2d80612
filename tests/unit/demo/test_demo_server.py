"""The demo server over real TLS on loopback."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator

import pytest

from crawler.demo.server import DemoServer
from crawler.demo.site import DOCS, WWW, DemoRequest, DemoResponse


class Client(http.client.HTTPSConnection):
    """A connection to 127.0.0.1 under another name, optionally resuming a TLS session."""

    def __init__(self, server: DemoServer, host: str, session: ssl.SSLSession | None = None, **kwargs: object) -> None:
        super().__init__(host, server.port, timeout=10)
        self.tls_context = kwargs.get("context") or ssl.create_default_context(cafile=server.ca_file)
        self.session = session

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.sock = self.tls_context.wrap_socket(plain, server_hostname=self.host, session=self.session)

    def read(self, target: str, method: str = "GET", **fields: str) -> tuple[int, bytes]:
        self.request(method, target, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = self.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


@pytest.fixture(autouse=True)
def forget(server: DemoServer) -> None:
    server.requests.clear()


def test_one_connection_serves_many_requests(server: DemoServer) -> None:
    """Keep-alive over lengths, chunks, codings and empty bodies; each request is recorded in its place."""
    client = Client(server, DOCS)
    targets = ["/", "/tables", "/guide/4", "/robots.txt", "/none", "/"]
    statuses = [client.read(target, accept_encoding="br")[0] for target in targets]
    client.close()
    assert statuses == [200, 200, 200, 200, 404, 200]
    assert [request.target for request in server.requests] == targets
    assert [request.request_n for request in server.requests] == [1, 2, 3, 4, 5, 6]
    assert len({request.connection for request in server.requests}) == 1
    assert server.requests[0].url == f"{DOCS}/"


def test_a_response_without_length_ends_with_its_connection(server: DemoServer) -> None:
    """The body is whole, and the next request is on a new connection."""
    client = Client(server, DOCS)
    status, body = client.read("/notes")
    assert (status, body.endswith(b"</html>")) == (200, True)
    client.read("/")
    client.close()
    assert [request.request_n for request in server.requests] == [1, 1]


def test_the_client_may_end_the_connection(server: DemoServer) -> None:
    """`Connection: close` is honoured."""
    client = Client(server, WWW)
    assert client.read("/about", connection="close")[0] == 200
    assert client.sock is None
    client.close()


def test_methods_other_than_get_are_refused(server: DemoServer) -> None:
    """405, and the connection lives."""
    client = Client(server, WWW)
    assert client.read("/", method="DELETE")[0] == 405
    assert client.read("/")[0] == 200
    client.close()
    assert [request.request_n for request in server.requests] == [1, 2]


def test_a_resumed_session_is_recorded(server: DemoServer) -> None:
    """What the client believes, the server saw as well."""
    context = ssl.create_default_context(cafile=server.ca_file)
    first = Client(server, WWW, context=context)
    first.read("/about")
    session = first.sock.session
    first.close()
    second = Client(server, WWW, session, context=context)
    second.read("/about")
    second.close()
    assert [request.tls_resumed for request in server.requests] == [False, True]


def test_the_certificate_is_for_its_names_only(server: DemoServer) -> None:
    """Another name fails verification."""
    client = Client(server, "elsewhere.test")
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno field\r\n\r\n"]
)
def test_what_is_no_request_ends_the_connection(server: DemoServer, sent: bytes) -> None:
    """Without an answer, and without a record."""
    client = Client(server, WWW)
    client.connect()
    client.sock.sendall(sent)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert client.sock.recv(1) == b""
    client.close()
    assert server.requests == []


def test_stopping_does_not_wait_for_idle_connections() -> None:
    """The server ends while a client holds a connection open, and its port is free again."""
    with DemoServer() as server:
        client = Client(server, WWW)
        client.read("/about")
    client.close()
    assert not server._thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_an_idle_connection_is_closed() -> None:
    """After the idle timeout the server ends it."""
    with DemoServer(idle_timeout_s=0.05) as server:
        client = Client(server, WWW)
        client.connect()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert client.sock.recv(1) == b""
        client.close()


def test_responses_may_come_from_the_test() -> None:
    """A function, or a coroutine function that takes its time, in place of the site."""

    async def respond(request: DemoRequest) -> DemoResponse:
        return DemoResponse(request.host.encode(), content_type="text/plain")

    with DemoServer(respond, hosts=["a.test", "b.test"]) as server:
        bodies = []
        for host in ("a.test", "b.test"):
            client = Client(server, host)
            bodies.append(client.read("/")[1])
            client.close()
        assert bodies == [b"a.test", b"b.test"]
        assert server.resolve_table() == {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}
        assert server.url("a.test", "/x") == f"https://a.test:{server.port}/x"
