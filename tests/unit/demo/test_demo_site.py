"""The demo site, page by page, without a server."""

import re
import zlib
from urllib.parse import urljoin, urlsplit

import pytest

from crawler.demo.site import BARE, DOCS, WWW, DemoFraming, DemoRequest, DemoResponse, DemoSite, png

PORT = 4443
SITE = DemoSite(PORT)


def get(host: str, target: str, **fields: str) -> DemoResponse:
    return SITE.respond(
        DemoRequest("GET", target, host, {name.replace("_", "-"): value for name, value in fields.items()})
    )


def follow(url: str) -> DemoResponse:
    parts = urlsplit(url)
    assert parts.port == PORT
    assert parts.hostname is not None
    return get(parts.hostname, parts.path + (f"?{parts.query}" if parts.query else ""))


def crawl() -> dict[str, DemoResponse]:
    """Everything that can be reached by links, sources and redirects, as a crawler without manners would."""
    queue = [f"https://{BARE}:{PORT}/"]
    seen: dict[str, DemoResponse] = {}
    while queue:
        url = queue.pop()
        if url in seen:
            continue
        answer = seen[url] = follow(url)
        if answer.content_type is not None and answer.content_type.startswith(("text/html", "text/css")):
            text = answer.body.decode("latin-1")
            links = re.findall(r'(?:href|src)="([^"]+)"|url=(/\w+)|@import "([^"]+)"|url\("([^"]+)"\)', text)
            queue += [urljoin(url, link).partition("#")[0] for found in links for link in found if link]
        queue += [urljoin(url, value) for name, value in answer.fields if name == "Location"]
        queue = [link for link in queue if not link.startswith("mailto:")]
    return seen


def test_everything_is_linked_and_nothing_else_is_missing() -> None:
    """Every page is reachable but robots.txt and sitemaps; the only broken link is the one meant to be."""
    seen = crawl()
    broken = [url for url, answer in seen.items() if answer.status == 404]
    assert broken == [f"https://{WWW}:{PORT}/gone"]
    reached = {(urlsplit(url).hostname, url.split(str(PORT), 1)[1]) for url in seen}
    unreached = set(SITE.responses) - reached
    assert {target for _, target in unreached if not target.startswith("/img/")} == {"/robots.txt", "/sitemap.xml"}
    pages = [answer for answer in seen.values() if answer.status == 200 and b"<html" in answer.body]
    assert len(pages) == 62


def test_the_sitemap_lists_pages_that_exist() -> None:
    """Each <loc> is answered with 200."""
    urls = re.findall(r"<loc>([^<]+)</loc>", get(WWW, "/sitemap.xml").body.decode())
    assert len(urls) == 36
    assert {follow(url).status for url in urls} == {200}


def test_the_bare_name_redirects_everything() -> None:
    """robots.txt too, as such servers do."""
    answer = get(BARE, "/robots.txt")
    assert (answer.status, answer.fields) == (301, (("Location", f"https://{WWW}:{PORT}/robots.txt"),))


def test_a_conditional_request_gets_304() -> None:
    """An ETag that still holds saves the body."""
    ((_, etag),) = [field for field in get(WWW, "/about").fields if field[0] == "ETag"]
    answer = get(WWW, "/about", if_none_match=etag)
    assert (answer.status, answer.body) == (304, b"")
    assert get(WWW, "/about", if_none_match='"other"').status == 200


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (DemoResponse(b"hello"), b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"),
        (
            DemoResponse(b"hello", framing=DemoFraming.CHUNKED),
            b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            DemoResponse(b"x" * 1_001, framing=DemoFraming.CHUNKED),
            b"3e8\r\n" + b"x" * 1_000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
        ),
        (DemoResponse(b"hello", framing=DemoFraming.CLOSE), b"charset=utf-8\r\nConnection: keep-alive\r\n\r\nhello"),
        (DemoResponse(b"hello", status=304, content_type=None), b"crawler-demo\r\nConnection: keep-alive\r\n\r\n"),
    ],
)
def test_framing(answer: DemoResponse, end: bytes) -> None:
    """Each answer ends the way its framing says."""
    assert answer.encode(close=False).endswith(end)


def test_no_coding_for_who_does_not_take_it() -> None:
    """A content coding is used only where it was asked for."""
    answer = DemoResponse(b"hello", coding="br")
    plain = answer.coded_for(DemoRequest("GET", "/", WWW, {"accept-encoding": "gzip, deflate"}))
    coded = answer.coded_for(DemoRequest("GET", "/", WWW, {"accept-encoding": "gzip;q=0.5, br"}))
    assert plain.body == b"hello"
    assert ("Content-Encoding", "br") in coded.fields


def test_a_picture_is_a_whole_png() -> None:
    """Signature, and chunks whose sums are right."""
    data = png(2, 1, (1, 2, 3))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at = 8
    kinds = []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        assert zlib.crc32(body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        kinds.append(body[:4])
        if body[:4] == b"IDAT":
            assert zlib.decompress(body[4:]) == b"\0\1\2\3\1\2\3"
        at += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_the_glossary_is_latin_1() -> None:
    """One page is coded as many old ones are."""
    answer = get(DOCS, "/glossaire")
    assert "l'été" in answer.body.decode("latin-1")
    assert answer.content_type == "text/html; charset=iso-8859-1"
