"""Requests: exactly the given fields, and nothing that a server could read as more."""

import h11
import pytest

from crawler.fetch.http1.message import LocalProtocolError, build_request


def test_a_request_has_the_given_fields() -> None:
    """Order, spelling and latin-1 values are kept; nothing is added."""
    fields = [("Host", "example.org"), ("User-Agent", "a/1 (b\xe9)"), ("x-empty", "")]
    assert build_request("GET", "/a%20b?c=d", fields) == (
        b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a/1 (b\xe9)\r\nx-empty: \r\n\r\n"
    )
    assert build_request("HEAD", "*", []) == b"HEAD * HTTP/1.1\r\n\r\n"


def test_h11_reads_the_same_request() -> None:
    """A server's parser finds the same method, target and fields."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(build_request("GET", "/a?b", [("Host", "h"), ("Accept", "text/html, */*;q=0.8")]))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"GET", b"/a?b")
    assert list(request.headers) == [(b"host", b"h"), (b"accept", b"text/html, */*;q=0.8")]
    assert isinstance(server.next_event(), h11.EndOfMessage)


@pytest.mark.parametrize(
    ("method", "target", "fields", "message"),
    [
        ("", "/", [], "not a method: ''"),
        ("G T", "/", [], "not a method"),
        ("GET / HTTP/1.1\r\nA: b\r\n\r\nGET", "/", [], "not a method"),
        ("GET\n", "/", [], "not a method"),
        ("G\u00cbT", "/", [], "not a method"),
        ("GET", "", [], "not a request target: ''"),
        ("GET", "/a b", [], "not a request target"),
        ("GET", "/ HTTP/1.1\r\nA: b\r\n\r\nGET /", [], "not a request target"),
        ("GET", "/\r", [], "not a request target"),
        ("GET", "/\n", [], "not a request target"),
        ("GET", "/\x00", [], "not a request target"),
        ("GET", "/\x7f", [], "not a request target"),
        ("GET", "/\xe9", [], "not a request target"),
        ("GET", "/", [("", "b")], "not a field name: ''"),
        ("GET", "/", [("A ", "b")], "not a field name"),
        ("GET", "/", [("A:", "b")], "not a field name"),
        ("GET", "/", [("A: b\r\nC", "d")], "not a field name"),
        ("GET", "/", [("A", "b"), ("A", "b\r\nC: d")], "not a value for the field A: 'b.r.nC: d'"),
        ("GET", "/", [("A", "b\r\n\r\nGET / HTTP/1.1")], "not a value"),
        ("GET", "/", [("A", "b\n")], "not a value"),
        ("GET", "/", [("A", "b\r")], "not a value"),
        ("GET", "/", [("A", "b\x00")], "not a value"),
        ("GET", "/", [("A", "b\x7f")], "not a value"),
        ("GET", "/", [("A", "b\u20ac")], "not a value"),
    ],
)
def test_parts_that_could_be_read_as_more_are_refused(
    method: str, target: str, fields: list[tuple[str, str]], message: str
) -> None:
    """Line breaks, NUL and other invalid characters; the message names the part."""
    with pytest.raises(LocalProtocolError, match=message):
        build_request(method, target, fields)
