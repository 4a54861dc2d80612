"""Unwanted content types: the head is kept, the body is not, and the connection stays open if that is cheap."""

import pytest

from crawler.core.enums import TaskKind, TruncatedReason
from crawler.core.media_types import ContentTypes
from crawler.core.models import Fetched, Head
from crawler.fetch.options import FetchOptions
from tests.support.fetching import client
from tests.support.scripted_server import chunked, ok, serve, table

HTML = FetchOptions(content_types=("text/*", "application/*+xml"))
PNG = "Content-Type: image/png"


def head(content_type: str | None, status: int = 200) -> Head:
    return Head(status, "", "1.1", () if content_type is None else (("content-type", content_type),))


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        (" text/plain ;x", True),
        ("text/html, text/html", True),
        ("application/atom+xml", True),
        ("application/xml", False),
        ("application/json; profile=x+xml", False),
        ("image/png", False),
        ("application/pdf", False),
        ("x-text/html", False),
        ("text", True),  # no type: it says as much as nothing
        ("*/*", True),
        ("image/png, text/html", True),
        ("text/html, image/png", False),
        (None, True),
        ("", True),
    ],
)
def test_globs_are_compared_with_type_and_subtype(content_type: str | None, wanted: bool) -> None:
    """Parameters and case do not count; a response without a type is read."""
    types = ContentTypes(HTML.content_types)
    assert types.wants(head(content_type)) is wanted
    assert types.wants(head(content_type)) is wanted  # remembered


def test_only_responses_with_content_are_judged() -> None:
    """A redirect or an error page of another type is read."""
    types = ContentTypes(("text/html",))
    assert [types.wants(head("image/png", status)) for status in (200, 206, 301, 404, 503)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def unread(result) -> bool:
    return (
        isinstance(result, Fetched)
        and result.truncated is TruncatedReason.CONTENT_TYPE
        and result.error_type is None
        and result.payload.size == result.raw_body.size == 0
        and b"image/png" in result.raw_head
    )


@pytest.mark.parametrize(
    ("answer", "lives"),
    [
        (ok(bytes(1_000), PNG), True),
        (ok(bytes(16 * 1024), PNG), True),
        (ok(bytes(16 * 1024 + 1), PNG), False),
        (ok(bytes(5_000_000), PNG), False),
        (chunked(bytes(1_000)).replace(b"Transfer", b"Content-Type: image/png\r\nTransfer"), True),
        (chunked(*[bytes(4_000)] * 9).replace(b"Transfer", b"Content-Type: image/png\r\nTransfer"), False),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nxyz", False),
        (ok(bytes(100), PNG, "Connection: close"), False),
    ],
)  # fmt: skip
async def test_an_unwanted_body_is_not_kept(answer: bytes, lives: bool) -> None:
    """A short one is read and dropped, so that the connection can be used again; a long one closes it."""
    pages = {"/": answer, "/next": ok(b"hello", "Content-Type: text/html")}
    async with serve(table(pages)) as server, client(fetch=HTML) as c:
        assert unread(await c.get(f"http://a.test:{server.port}/"))
        after = await c.get(f"http://a.test:{server.port}/next")
        assert (after.payload.prefix(9), after.truncated) == (b"hello", None)
        assert len(server.accepted) == (1 if lives else 2)
    if not lives:
        assert c.closings()[0] == ("server_close" if b"Connection: close" in answer else "unread")


async def test_an_unwanted_body_that_ends_early_is_no_error() -> None:
    """Another request would bring the same type."""

    async def script(c):
        await c.request()
        await c.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\n", bytes(100))

    async with serve(script) as server, client(fetch=HTML) as c:
        assert unread(await c.get(f"http://a.test:{server.port}/"))


async def test_robots_txt_of_any_type_is_read() -> None:
    """Servers send it with any type."""
    async with serve(table({"/robots.txt": ok(b"Disallow:", PNG)})) as server, client(fetch=HTML) as c:
        result = await c.get(f"http://a.test:{server.port}/robots.txt", kind=TaskKind.ROBOTS)
        assert result.payload.prefix(99) == b"Disallow:"


async def test_an_empty_response_of_an_unwanted_type_is_complete() -> None:
    """It has no body to refuse."""
    async with serve(table({"/": ok(b"", PNG)})) as server, client(fetch=HTML) as c:
        assert (await c.get(f"http://a.test:{server.port}/")).truncated is None
