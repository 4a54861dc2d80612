"""Sitemaps and feeds: their entries, and bounds for hostile files."""

import gzip
import re
import time
import zlib
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import quote

import pytest

from crawler.content.url_lists import url_list, xml_stream
from crawler.content.url_lists.formats import read_url_list
from crawler.content.url_lists.url_list import UrlList, UrlListKind, date_at
from crawler.core.body import BytesBody
from tests.support.peak_memory import peak_growth
from tests.support.vectors import vectors

SITE = "https://www.example.com/sitemap.xml"


def read(data: bytes, *, url: str = SITE, codings: tuple[str, ...] = (), text_too: bool = True, **more: str) -> UrlList:
    content_type = more.get("content_type")
    return read_url_list(
        BytesBody(data), codings, url=url, content_type=content_type, max_expansion=100, text_too=text_too
    )


def urls(listing: UrlList) -> list[str]:
    return [entry.url for entry in listing.entries]


def urlset(*entries: str, head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> bytes:
    body = "".join(f"<url>{entry}</url>" for entry in entries)
    return f'{head}<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{body}</urlset>'.encode()


def entries(listing: UrlList) -> list[tuple[str, float | None, float | None]]:
    return [(entry.url.rpartition("/")[2], entry.modified_at, entry.priority) for entry in listing.entries]


HOST = "https://www.example.com"
Values = tuple[str, float | None, float | None]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (f"<loc>{HOST}/a</loc><loc>{HOST}/b</loc><priority>0.5</priority>", [("a", None, 0.5), ("b", None, 0.5)]),
        (f"<loc>{HOST}/a</loc><image:loc>{HOST}/i</image:loc>", [("a", None, None)]),
        (f"<image:loc>{HOST}/i</image:loc><loc>{HOST}/a</loc>", [("a", None, None)]),
        (f"<loc>{HOST}/a</loc><x:priority>0.1</x:priority><priority>0.5</priority>", [("a", None, 0.5)]),
        (f"<priority>0.5</priority><priority>0.7</priority><loc>{HOST}/a</loc>", [("a", None, 0.5)]),
        (f"<lastmod>1970-01-02</lastmod><loc>{HOST}/a</loc><lastmod>1970-01-03</lastmod>", [("a", 86400.0, None)]),
        (f"<loc> </loc><loc>{HOST}/a</loc><loc/>", [("a", None, None)]),
        (f"{HOST}/a<changefreq>daily</changefreq>", [("a", None, None)]),
        (f"<changefreq>daily</changefreq>{HOST}/a<x/>", [("a", None, None)]),
        (f"<loc>{HOST}/a<!-- x -->b&amp;c</loc>", [("ab&c", None, None)]),
    ],
)
def test_repeated_elements_are_separate(entry: str, expected: list[Values]) -> None:
    """Each loc is a URL; of other values the first counts, and none of an extension."""
    assert entries(read(urlset(entry))) == expected
    prefixed = re.sub(r"<(/?)([a-z]+)(?=[>/ ])", r"<\1s:\2", urlset(entry).decode()).replace("xmlns=", "xmlns:s=")
    if "<x" not in entry:
        assert entries(read(prefixed.encode())) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1_000_000])
@pytest.mark.parametrize(
    ("label", "name", "expected"),
    [
        ("gbk", b"\xd6\xd0\x80\x81\x30\x84\x36", "%E4%B8%AD%E2%82%AC%C2%A5"),
        ("euc-jp", b"\xad\xa1\xf9\xa1", "%E2%91%A0%E7%BA%8A"),
        ("shift_jis", b"\x95\x5c\x87\x40", "%E8%A1%A8%E2%91%A0"),
        ("iso-2022-jp", b"\x1b$B<>\x1b(B", "%E6%B9%BF"),
        ("windows-1251", b"\xef\xf0", "%D0%BF%D1%80"),
    ],
)
def test_legacy_encodings_of_lists(label: str, name: bytes, expected: str, size: int) -> None:
    """They are decoded like pages, wherever a piece of the stream ends."""
    text = urlset(f"<loc>{HOST}/@@</loc>", head=f'<?xml version="1.0" encoding="{label}"?>').replace(b"@@", name)
    found: list[str] = []

    class Noted:
        def start(self, name: str, attributes: dict[str, str]) -> None:
            pass

        def end(self, name: str) -> None:
            pass

        def text(self, data: str) -> None:
            found.append(data)

    # the first piece tells the encoding
    pieces = [text[:60], *(text[at : at + size] for at in range(60, len(text), size))]
    assert xml_stream.read_xml(iter(pieces), Noted(), content_type=None) is None
    assert quote("".join(found), safe=":/") == f"{HOST}/{expected}"


def test_a_list_in_a_list_is_read() -> None:
    """Programs that join sitemaps write such files."""
    inner = urlset(f"<loc>{HOST}/b</loc>", head="").decode()
    deeper = f"<urlset>{inner.replace('/b', '/c')}</urlset>"
    text = f"<urlset><url><loc>{HOST}/a</loc></url>{inner}{deeper}<url><loc>{HOST}/d</loc></url></urlset>"
    assert [url for url, _, _ in entries(read(text.encode()))] == ["a", "b", "c", "d"]
    index = f"<sitemapindex><sitemapindex><sitemap><loc>{HOST}/a</loc></sitemap></sitemapindex></sitemapindex>"
    assert [entry.nested for entry in read(index.encode()).entries] == [True]


def test_links_of_a_feed_item_are_separate() -> None:
    """Each link of an item is a URL."""
    links = f"<link>{HOST}/a</link><link>{HOST}/b</link>"
    dates = "<pubDate>x</pubDate><pubDate>Fri, 02 Jan 1970 00:00:00 GMT</pubDate>"
    found = read(f"<rss><channel><item>{links}{dates}</item></channel></rss>".encode())
    assert entries(found) == [("a", 86400.0, None), ("b", 86400.0, None)]


# -- the vectors


@pytest.mark.parametrize(
    ("name", "kind", "count", "some"),
    [
        ("sitemaps/sitemap.ns.xml", "urls", 2, "http://www.example.com/1"),
        ("sitemaps/sitemap.badns.xml", "urls", 2, "http://www.example.com/2"),
        ("sitemaps/sitemap.index.xml", "index", None, "https://example.com/sitemap.jss?portalCode=10260&lang=en"),
        ("sitemaps/sitemap.txt", "urls", 2, "http://www.domain.com/page2.html"),
        ("sitemaps/sitemap-with-bom.txt", "urls", 2, "http://www.domain.com/page1.html"),
        ("sitemaps/do-not-visit.txt", "urls", 1, "http://www.example.com/do-not-visit-here"),
        ("sitemaps/sitemap.txt.gz", "urls", 5, "http://www.example.com/catalog?item=12&desc=vacation_hawaii"),
        ("sitemaps/xmlSitemap.gz", "urls", 5, "http://www.example.com/catalog?item=12&desc=vacation_hawaii"),
        ("sitemaps/sitemap-links.xml", "urls", 3, "http://www.example.com/schweiz-deutsch/"),
        ("sitemaps/sitemap-images.xml", "urls", None, "http://www.example.com/images/some_image_landing_page.html"),
        ("sitemaps/sitemap-mobile.xml", "urls", 3, "http://www.example.com/no-mobile/"),
        ("sitemaps/sitemap-news.xml", "urls", None, "http://www.example.org/business/article55.html"),
        ("sitemaps/sitemap-videos.xml", "urls", None, "http://www.example.com/videos/some_video_landing_page.html"),
        ("sitemaps/sitemap-videos-tvshow.xml", "urls", 1, "https://example.org/my-tv-show/23/13/"),
        ("sitemaps/pagemaps-sitemap.xml", "urls", None, "http://www.example.com/foo"),
        ("sitemaps/shinpaideshou-news-sitemap.xml", "urls", None, None),
        ("sitemaps/hebdenbridgetimes-articles-sitemap.xml", "urls", None, None),
        ("sitemaps/atom.xml", "feed", None, "http://example.org/2003/12/13/atom03.html"),
        ("feeds/feed.rss", "feed", 5, "https://www.example.com/foo?q=a&l=fr"),
        ("feeds/xmlRss_pubDate.xml", "feed", None, "http://www.example.com/article_2"),
    ],
)
def test_unusual_files_of_other_projects(name: str, kind: str, count: int | None, some: str | None) -> None:
    """Each is recognised by its content, complete and without an error."""
    folder, _, file = name.partition("/")
    data = (vectors(folder) / file).read_bytes()
    found = read(data)
    assert (found.kind, found.error, found.capped) == (kind, None, False)
    if count is not None:
        assert len(found.entries) == count
    if some is not None:
        assert some in urls(found)
    assert found.entries
    assert {entry.nested for entry in found.entries} <= {kind == "index"}
    # the same, cut anywhere
    for size in (1, 7, 64):
        again = read_url_list(
            _Pieces(data, size), (), url=SITE, content_type=None, max_expansion=100, text_too=True
        )  # fmt: skip
        assert again == found


class _Pieces(BytesBody):
    """A body that comes in pieces of `size` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._whole = data
        self._size_of_pieces = size

    def chunks(self) -> Iterator[bytes]:
        for at in range(0, len(self._whole), self._size_of_pieces):
            yield self._whole[at : at + self._size_of_pieces]


def test_two_real_news_sitemaps() -> None:
    """An entry of each, with its date."""
    folder = vectors("sitemaps")
    found = read((folder / "hebdenbridgetimes-articles-sitemap.xml").read_bytes())
    first = found.entries[0]
    assert first.url.endswith("/news/local/video-tour-de-yorkshire-in-calderdale-1-7242580")
    assert first.modified_at == date_at("2015-05-03T17:51:50Z")


def test_dates_of_feeds() -> None:
    """Dates as in e-mails, with years of two digits."""
    found = read((vectors("feeds") / "xmlRss_pubDate.xml").read_bytes())
    dates = {entry.url: entry.modified_at for entry in found.entries}
    assert dates["http://www.example.com/article_1"] == date_at("2017-01-05T12:34:51Z")
    assert dates["http://www.example.com/article_2"] == date_at("2017-01-05T12:34:52Z")


# -- values


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01", 0.0),
        ("1970", 0.0),
        ("1970-01", 0.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:01", 60.0),
        ("1970-01-01 00:01:00", 60.0),
        ("Thu, 01 Jan 1970 00:00:00 +0000", 0.0),
        ("Thu, 01 Jan 70 00:00:00 GMT", 0.0),
        ("1 Jan 1970 01:00:00 +0100", 0.0),
        ("", None),
        ("yesterday", None),
        ("2026-13-45", None),
        ("20261", None),
        ("9" * 5_000, None),
        ("0000-01-01", None),
    ],
)
def test_dates(text: str, at: float | None) -> None:
    """Dates of W3C and RFC 5322; None for others."""
    assert date_at(text) == at


def test_entries_have_date_and_priority() -> None:
    """An invalid priority is ignored."""
    found = read(
        urlset(
            "<loc>/a</loc><lastmod>1970-01-02</lastmod><priority>0.8</priority>",
            "<loc>/b</loc><priority>high</priority>",
            "<loc>/c</loc><priority>7</priority>",
            "<loc>/d</loc><priority>nan</priority>",
        )
    )
    assert [(e.url[-2:], e.modified_at, e.priority) for e in found.entries] == [
        ("/a", 86_400.0, 0.8),
        ("/b", None, None),
        ("/c", None, None),
        ("/d", None, None),
    ]


def test_images_are_no_pages() -> None:
    """The loc of an extension is not that of the entry."""
    found = read(urlset("<loc>/a</loc><image:image><image:loc>/b.png</image:loc></image:image>"))
    assert urls(found) == ["https://www.example.com/a"]


def test_invalid_urls_are_dropped() -> None:
    """The other entries stay."""
    found = read(urlset("<loc>mailto:a@b.test</loc>", "<loc>http://[bad/</loc>", "<loc> </loc>", "<loc>/a</loc>"))
    assert urls(found) == ["https://www.example.com/a"]


def test_a_url_is_returned_once() -> None:
    """With its first values."""
    found = read(urlset("<loc>/a</loc><priority>1</priority>", "<loc>/a#x</loc><priority>0</priority>"))
    assert [(e.url, e.priority) for e in found.entries] == [("https://www.example.com/a", 1.0)]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("/?a=1&b=2", "/?a=1&b=2"),  # authors forget to escape
        ("/?a=1&amp;b=2", "/?a=1&b=2"),
        ("<![CDATA[/?a=1&b=2&amp;c]]>", "/?a=1&b=2&amp;c"),
        ("/?a=&eacute;", "/?a=%C3%A9"),  # an entity of HTML
        ("/?a=&#233;", "/?a=%C3%A9"),
        ("/?a=&#0;b&#xD800;", "/?a=&"),  # no characters; what follows "#" is a fragment
        ("/?a=&nosuch;", "/?a=&nosuch;"),
        ("/a\x01b", "/a%20b"),
        ("/a]]&gt;b", "/a]]%3Eb"),
        ("/a]]>b", "/a]]%3Eb"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1_000_000])
def test_common_mistakes_are_tolerated(written: str, url: str, size: int) -> None:
    """A strict parser would refuse the whole file."""
    data = urlset(f"<loc>{written}</loc>", "<loc>/last</loc>")
    found = read_url_list(_Pieces(data, size), (), url=SITE, content_type=None, max_expansion=100, text_too=True)
    assert (urls(found), found.error) == ([f"https://www.example.com{url}", "https://www.example.com/last"], None)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (urlset("<loc>/caf\u00e9</loc>"), None),
        (urlset("<loc>/caf\u00e9</loc>").decode().encode("utf-16"), None),
        (b"\xef\xbb\xbf" + urlset("<loc>/caf\u00e9</loc>"), None),
        (urlset("<loc>/caf\u00e9</loc>", head="").decode().encode("latin-1"), "text/xml; charset=iso-8859-1"),
        (
            urlset("<loc>/caf\u00e9</loc>", head='<?xml version="1.0" encoding="windows-1252"?>')
            .decode()
            .encode("cp1252"),
            None,
        ),
        (b"\n\n " + urlset("<loc>/caf\u00e9</loc>"), None),
    ],
)
def test_encodings(data: bytes, content_type: str | None) -> None:
    """By mark, header or declaration; white space before the declaration is tolerated."""
    found = read_url_list(BytesBody(data), (), url=SITE, content_type=content_type, max_expansion=100, text_too=True)
    assert (urls(found), found.error) == (["https://www.example.com/caf%C3%A9"], None)


def test_japanese() -> None:
    """An encoding that expat does not know."""
    text = '<?xml version="1.0" encoding="Shift_JIS"?><urlset><url><loc>/\u65e5</loc></url></urlset>'
    assert urls(read(text.encode("shift_jis"))) == ["https://www.example.com/%E6%97%A5"]


def test_atom_with_relative_links() -> None:
    """xml:base counts; "self" and "edit" are no pages; "next" is more of the feed."""
    data = b"""<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://a.test/x/">
    <link rel="self" href="feed"/><link rel="next" href="feed?2"/><link href="."/>
    <entry xml:base="y/"><link href="1"/><link rel="edit" href="e"/><updated>1970-01-02T00:00:00Z</updated>
      <published>1970-01-01T00:00:00Z</published><source><link href="elsewhere"/></source></entry>
    <entry><link rel="alternate" href="2"/><published>1970-01-03T00:00:00Z</published></entry></feed>"""
    found = read(data)
    assert found.kind is UrlListKind.FEED
    assert [(e.url, e.nested, e.modified_at) for e in found.entries] == [
        ("https://a.test/x/feed?2", True, None),
        ("https://a.test/x/", False, None),
        ("https://a.test/x/y/1", False, 86_400.0),
        ("https://a.test/x/2", False, 172_800.0),
    ]


def test_rdf() -> None:
    """RSS 1.0 has its items beside the channel."""
    data = b"""<rdf:RDF xmlns:rdf="r" xmlns="x" xmlns:dc="d"><channel rdf:about="x"><link>https://a.test/</link></channel>
    <item rdf:about="y"><link>https://a.test/1</link><dc:date>1970-01-02</dc:date></item></rdf:RDF>"""
    found = read(data)
    assert [(e.url, e.modified_at) for e in found.entries] == [
        ("https://a.test/", None),
        ("https://a.test/1", 86_400.0),
    ]


# -- what is no list


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"<!DOCTYPE html><html><body>not found</body></html>", "a document type declaration (html)"),
        (b"<html><body>not found</body></html>", "neither sitemap nor feed: html"),
        (b"not found", "neither XML nor a list of URLs"),
        (b"", "empty"),
        (b"<", "not well-formed: unclosed token, line 1"),
        (b"\x00\x01\x02", "neither XML nor a list of URLs"),
    ],
)
def test_a_file_that_is_no_list_is_an_error(data: bytes, error: str) -> None:
    """The message says why."""
    found = read(data)
    assert (found.kind, found.entries, found.error) == (None, (), error)


def test_a_page_that_begins_with_a_url_is_no_sitemap() -> None:
    """Plain text counts only if a sitemap was requested."""
    assert read(b"https://a.test/\n", text_too=False) == UrlList(None, size=16)


def test_entries_before_a_fault_count() -> None:
    """A damaged list has the entries before the fault."""
    data = urlset("<loc>/a</loc>", "<loc>/b</loc>")
    found = read(data[:-30])
    assert urls(found)[0] == "https://www.example.com/a"
    assert found.error is not None
    assert found.error.startswith("not well-formed")


def test_half_a_gzip() -> None:
    """A truncated gzip file has the entries before its end."""
    whole = gzip.compress(urlset(*(f"<loc>/{n * 7919}</loc>" for n in range(1_000))))
    found = read(whole[: len(whole) // 2])
    assert found.entries
    assert found.error is not None
    assert "gzip" in found.error


# -- harm

LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
BILLION = b'<!DOCTYPE x [<!ENTITY l0 "lol">' + LAUGHS + b"]><urlset><url><loc>&l9;</loc></url></urlset>"
LONG = b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 100_000 + b'">]>'
QUADRATIC = LONG + b"<urlset><url><loc>" + b"&a;" * 100_000 + b"</loc></url></urlset>"
EXTERNAL = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>/&a;</loc></url></urlset>'
OUTSIDE = b'<!DOCTYPE urlset SYSTEM "http://attacker.test/x.dtd"><urlset><url><loc>/a</loc></url></urlset>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BILLION, "document type"),
        (QUADRATIC, "document type"),
        (EXTERNAL, "document type"),
        (OUTSIDE, "document type"),
        (b"<urlset>" + b"<a>" * 1_000_000, "nested deeper"),
        (b"<urlset><url a='" + b"x" * 10_000_000, "longer than"),
        (b"<urlset><!--" + b"x" * 10_000_000, "longer than"),
        (b"<urlset><?x " + b"x" * 10_000_000, "longer than"),
        (b"<urlset>" + b"<a/>" * 100_001, "elements"),
    ],
    ids=["billion", "quadratic", "external", "dtd", "depth", "attribute", "comment", "instruction", "elements"],
)
def test_bombs_are_refused(data: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused early, without entries."""
    monkeypatch.setattr(xml_stream, "MAX_ELEMENTS", 100_000)  # a second's worth is the real bound
    began = time.thread_time()
    found = read(data)
    assert found.error is not None
    assert words in found.error
    assert found.entries == ()
    assert time.thread_time() - began < 2  # it takes some 0.05 s


def test_many_entries_are_capped() -> None:
    """50,000 entries, the limit of the protocol."""
    data = urlset(*(f"<loc>/{n}</loc>" for n in range(url_list.MAX_ENTRIES + 10)))
    found = read(data)
    assert (len(found.entries), found.capped, found.error) == (url_list.MAX_ENTRIES, True, None)
    text = b"".join(b"https://a.test/%d\n" % n for n in range(url_list.MAX_ENTRIES + 10))
    assert (len(read(text).entries), read(text).capped) == (url_list.MAX_ENTRIES, True)


def test_a_gzip_bomb_ends_at_its_limit() -> None:
    """The ratio is checked, and memory does not grow with the decoded size."""
    packer = zlib.compressobj(9, wbits=31)  # gzip; piece by piece, so that the test does not hold 300 MB itself
    bomb = packer.compress(b"<urlset><url><loc>/a</loc></url>")
    bomb += b"".join(packer.compress(b" " * 1_000_000) for _ in range(300)) + packer.flush()
    with peak_growth() as growth:
        found = read(bomb)
    assert urls(found) == ["https://www.example.com/a"]
    assert found.capped
    assert found.error is not None
    assert "decoded" in found.error
    assert growth.in_bytes < 16 * 1024 * 1024


def test_a_byte_that_is_no_utf8_is_kept() -> None:
    """In a line of text; file names of a server may have another encoding."""
    assert urls(read(b"/caf\xe9\n/caf\xc3\xa9\n".replace(b"/", b"https://a.test/"))) == [
        "https://a.test/caf%E9", "https://a.test/caf%C3%A9",
    ]  # fmt: skip


def test_a_text_without_line_ends() -> None:
    """Memory stays bounded, and there is no entry."""
    found = read(b"https://a.test/" + b"x" * 5_000_000)
    assert found.entries == ()


def test_time_grows_with_the_bytes() -> None:
    """A file eight times as long takes about eight times as long."""
    took = []
    for size in (5_000, 40_000):
        data = urlset(*(f"<loc>/{n}</loc><lastmod>2026-01-01</lastmod>" for n in range(size)))
        began = time.thread_time()
        assert len(read(data).entries) == size
        took.append(time.thread_time() - began)
    assert all(later < 8 * 4 * earlier for earlier, later in pairwise(took))
