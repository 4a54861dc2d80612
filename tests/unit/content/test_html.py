"""Pages: links of every kind, and the information in the head."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from crawler.content.html.parsing import ParsedPage, parse_page
from crawler.core.enums import Source

URL = "https://example.org/dir/page.html"
L, R, C, A = Source.LINK, Source.REQUISITE, Source.CANONICAL, Source.ALTERNATE


def read(text: str, *, requisites: bool = False, max_links: int = 100, url: str = URL) -> ParsedPage:
    return parse_page(text.encode(), url, requisites=requisites, max_links=max_links)


def links(text: str, *, requisites: bool = False) -> list[tuple[str, Source]]:
    """The links of a page at URL, without the folder of URL."""
    return [
        (link.url.removeprefix("https://example.org/dir/"), link.source)
        for link in read(text, requisites=requisites).links
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a href=x>", [("x", L)]),
        ('<a class=y href="x">', [("x", L)]),
        ('<a href="x#f">', [("x", L)]),
        ('<a href="x?a=1&amp;b=2">', [("x?a=1&b=2", L)]),
        ('<a href=" x\n">', [("x", L)]),
        ('<a href="x y">', [("x%20y", L)]),
        ('<a href="é">', [("%C3%A9", L)]),
        ('<a href="http://other.example/">', [("http://other.example/", L)]),
        ('<a href="//other.example/x">', [("https://other.example/x", L)]),
        ('<a href="../x">', [("https://example.org/x", L)]),
        ("<area href=x><iframe src=y></iframe><frame src=z>", [("x", L), ("y", L), ("z", L)]),
        ("<link rel=next href=x><link rel=prev href=y>", [("x", L), ("y", L)]),
        ("<link rel='Previous' href=x>", [("x", L)]),
        ("<link rel=alternate href=x><link rel='canonical' href=y>", [("x", A), ("y", C)]),
        ("<link rel='alternate stylesheet' href=x><link rel=dns-prefetch href=y><link href=z>", []),
        ("<a href=''><a href=#x><a href='javascript:x'><a href='JavaScript: x'><a href=mailto:a@b><a href=tel:1>", []),
        ("<a href='data:text/html,x'><a href='ftp://h/'><a href='java\nscript:x'><a name=x><a>", []),
        ("<a href=x><a href=x#y><a href=./x><a href='x?'>", [("x", L), ("x?", L)]),
        ("<link rel=canonical href=x><a href=x>", [("x", L)]),
        ("<!-- <a href=x> --><script>'<a href=y>'</script><a href=z>", [("z", L)]),
        ("<noscript><a href=x></noscript><template><a href=y></template>", [("x", L), ("y", L)]),
        ("<img src=x><script src=y></script><link rel=stylesheet href=z><div style='background:url(w)'>", []),
        ("<a href='http://'><a href='https://h:25/'><a href='http://[/'>", []),
    ],
)
def test_links(text: str, expected: list[tuple[str, Source]]) -> None:
    """Each of these pages has these links."""
    assert expected == links(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x>", ["x"]),
        ("<img src=x srcset='a 1x, b 2x,c'>", ["x", "a", "b", "c"]),
        ("<img srcset=' a,b 100w , c, , d 2x,'>", ["a,b", "c", "d"]),
        ("<img srcset='data:image/png;base64,AAAA 1x, y 2x'>", ["y"]),
        ("<picture><source srcset='a 2x'><img src=b></picture>", ["a", "b"]),
        ("<video src=a poster=b><source src=c><track src=d></video><audio src=e>", ["a", "b", "c", "d", "e"]),
        ("<script src=a></script><embed src=b><object data=c></object>", ["a", "b", "c"]),
        (
            "<link rel=stylesheet href=a><link rel='shortcut icon' href=b><link rel=apple-touch-icon href=c>",
            ["a", "b", "c"],
        ),
        (
            "<link rel=preload as=style href=a><link rel=preload as=fetch href=b><link rel=modulepreload href=c>",
            ["a", "c"],
        ),
        ("<link rel=preload as=image imagesrcset='a 1x, b 2x'><link rel=manifest href=c>", ["a", "b", "c"]),
        ("<input type=IMAGE src=a><input type=text src=b>", ["a"]),
        ("<svg><image href=a /><use xlink:href='b#i'/><use href='#i'/></svg>", ["a", "b"]),
        ("<style>@import 'a'; p { background: url(b) } /* url(c) */</style>", ["a", "b"]),
        ("<p style=\"background: url('a')\"><i STYLE='x:URL(b)'>", ["a", "b"]),
        ("<a href='x' style='background:url(a)'>", ["x", "a"]),
        ("<body background=a>", ["a"]),
        (
            "<table background=a><thead background=b><tr BACKGROUND='c'><th background=d><td background=e>",
            list("abcde"),
        ),
        ("<div background=no><tbody background=a><tfoot background = b>", ["a", "b"]),
        (
            "<p style='background:image-set(\"a\" 1x, url(b) 2x)'><i style='x:-webkit-image-set(\"c\" 1x)'>",
            ["a", "b", "c"],
        ),
        ("<iframe srcdoc='<img src=a><title>t</title><style>p{x:url(b)}</style>'></iframe>", ["a", "b"]),
        ("<iframe srcdoc='<p>&lt;img src=&quot;a&amp;amp;b&quot;&gt;'>", ["a&b"]),
        ("<img data-src=a data-srcset='b 1x'><meta property=og:image content=c>", []),
        ("<img src='data:image/png;base64,AA'><img src=''><img>", []),
    ],
)
def test_requisites(text: str, expected: list[str]) -> None:
    """Requisites are found in all elements that may have them, if requested."""
    assert expected == [url for url, source in links(text, requisites=True) if source is not A]
    assert not [source for _, source in links(text) if source is R]


def test_links_of_a_page_in_a_frame() -> None:
    """They are resolved as others; title, base and directives of the framed page do not count for the page."""
    page = read(
        "<iframe srcdoc=\"<a href=x></a><a href='y?a=1&amp;amp;b'><title>no</title><base href=/no/>"
        "<meta name=robots content=nofollow><iframe srcdoc='<a href=no>'></iframe>\"></iframe><title>t</title>"
    )
    assert [link.url for link in page.links] == [f"https://example.org/dir/{name}" for name in ("x", "y?a=1&b")]
    assert (page.title, page.robots) == ("t", ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x data-src=a.b data-srcset='b 1x, c 2x'>", ["x", "a.b", "b", "c"]),
        ("<img DATA-ORIGINAL='a.png' data-lazy-src=b.png data-lazy-srcset='c.png 1x'>", ["a.png", "b.png", "c.png"]),
        ("<source data-srcset='a 1x'><video data-poster=b.png><audio data-src=c.ogg>", ["a", "b.png", "c.ogg"]),
        (
            "<div data-bg='a.png'><b data-background=\"b.png\"><i data-background-image=c.png>",
            ["a.png", "b.png", "c.png"],
        ),
        ("<p data-src=a.png>", []),  # only where something is shown
        ("<img data-src='{{ a.png }}' data-lazy=true data-original='3' data-echo='no. 1 of'>", []),
        ("<img data-src='data:image/png;base64,AA'>", []),
        ("<meta property='og:image' content=a><meta name=twitter:image content='b'>", ["a", "b"]),
        ("<meta property=og:image:secure_url content=a><meta content=b.png name='Twitter:Image:Src'>", ["a", "b.png"]),
        ("<meta property=og:image:width content=4><meta property=og:image:alt content='og:image'>", []),
    ],
)
def test_lazily_loaded_images_are_found(text: str, expected: list[str]) -> None:
    """Their URLs are in attributes that only scripts read."""
    page = parse_page(text.encode(), URL, requisites=True, lazy=True, max_links=100)
    assert [link.url.removeprefix("https://example.org/dir/") for link in page.links] == expected
    assert {link.source for link in page.links} <= {R}
    assert not read(text).links


def test_a_lazy_frame_is_a_link() -> None:
    """Like a frame that is not lazy."""
    page = parse_page(b"<iframe data-src=/f>", URL, requisites=True, lazy=True, max_links=9)
    assert [(link.url, link.source) for link in page.links] == [("https://example.org/f", L)]


def test_a_link_counts_as_the_strongest_mention() -> None:
    """A URL that is both a requisite and a link is returned as a link, then as a requisite; one that is followed
    anywhere is followed.
    """
    page = read("<img src=x><a href=x><a rel='NOFOLLOW x' href=y><a href=y><a rel=nofollow href=z>", requisites=True)
    assert [(link.url.rpartition("/")[2], link.source, link.nofollow) for link in page.links] == [
        ("x", L, False),
        ("y", L, False),
        ("z", L, True),
        ("x", R, False),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<base href=/b/><a href=x>", "https://example.org/b/x"),
        ("<a href=x><base href=/b/>", "https://example.org/b/x"),
        ("<base><base target=x><base href=/b/><base href=/c/><a href=x>", "https://example.org/b/x"),
        ("<base href=//other.example/c/><base href='http://['><a href=x>", "https://other.example/c/x"),
        ("<base href='http://['><base href=//other.example/c/><a href=x>", "https://example.org/dir/x"),
        ("<base href=data:x><base href=/c/><a href=x>", "https://example.org/dir/x"),
        ("<base href=''><base href=/c/><a href=x>", "https://example.org/dir/x"),
        ("<base href=ftp://h/><a href=x>", "https://example.org/dir/x"),
    ],
)
def test_the_first_base_decides(text: str, expected: str) -> None:
    """References are relative to the first base with an href, wherever it is; to the page if that is unusable."""
    assert [expected] == [link.url for link in read(text).links]


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("0;url=x", "x"),
        ("5; URL = 'x y'", "x%20y"),
        ('0; url="x"junk', "x"),
        ("0;x", "x"),
        ("0, url=x", "x"),
        ("0 url=x", "x"),
        (" 1.5 ; url=x ", "x"),
        (".5;url=x", "x"),
        ("0;url=", None),
        ("5", None),
        ("", None),
        ("url=x", None),
        ("-1;url=x", None),
        ("0;url=javascript:x", None),
        ("0;url=http://[", None),
    ],
)
def test_refresh(content: str, target: str | None) -> None:
    """A meta refresh is parsed as in the HTML standard; without a URL there is no target."""
    found = read(f"<meta http-equiv=Refresh content='{content}'>" if "'" not in content else
                 f'<meta http-equiv="refresh" content="{content}">')  # fmt: skip
    expected = None if target is None else f"https://example.org/dir/{target}"
    assert (expected, ()) == (found.refresh, found.links)


def test_the_information_in_the_head() -> None:
    """Title, language, canonical URL and directives are read, the first of each."""
    page = read(
        "<html LANG=' de-AT '><title>\n A &amp;\tB </title><title>no</title>"
        "<link rel=canonical href=/c#x><link rel=canonical href=/d>"
        "<meta name=Robots content='noindex, nofollow'><meta name=GoogleBot content=none>"
        "<meta name=description content='it allows all'><meta name=robots content=all>"
    )
    assert (page.title, page.language, page.canonical) == ("A & B", "de-AT", "https://example.org/c")
    assert page.robots == ((None, "noindex, nofollow"), ("googlebot", "none"), (None, "all"))
    assert not page.capped


def test_a_page_without_anything() -> None:
    """An empty page has no information."""
    assert ParsedPage(None, None, None, (), 0, None, (), False, False) == read("")
    assert read("<title> </title><html lang=''>").title is None


def test_links_are_counted_up_to_a_limit() -> None:
    """More links than the limit are cut and reported; exactly the limit is not."""
    text = "".join(f"<a href={n}><a href={n}#x>" for n in range(5))
    assert (len(read(text, max_links=5).links), read(text, max_links=5).capped) == (5, False)
    assert (len(read(text, max_links=4).links), read(text, max_links=4).capped) == (4, True)


def test_invalid_urls_are_dropped() -> None:
    """References that look like http(s) but cannot be fetched are dropped; the others stay."""
    page = read("<a href='http://['><a href='https://h:22/'><a href=/a><a href='https://" + "x" * 3000 + "/'>")
    assert ([link.url for link in page.links], page.links_count) == (["https://example.org/a"], 1)


def test_a_title_is_kept_to_a_length() -> None:
    """A title of a megabyte is cut."""
    assert len(read(f"<title>{'x' * 1_000_000}</title>").title or "") == 512


_HOSTILE = """
import sys, time
from crawler.content.html.parsing import parse_page
M = 512 * 1024
def full(text): return (text * (M // len(text) + 1))[:M]
pages = {
    "nesting": full(b"<div>"),
    "nesting of links": full(b"<a href=x><div>"),
    "lists": full(b"<ul><li>"),
    "unclosed formatting": b"".join(b"<b a=%d><p>" % n for n in range(150_000))[:M],
    "links": b"".join(b"<a href=/%d>x</a>" % n for n in range(100_000)),
    "attributes": b"<a " + b" ".join(b"a%d" % n for n in range(250_000)) + b" href=x>",
    "many attributes, often": full(b"<a " + b" ".join(b"a%d" % n for n in range(1000)) + b" href=x>"),
    "long attribute": b"<a href='" + b"x" * M + b"'><a href=y>",
    "open quotes": full(b"<a href='"), "open tags": full(b"<a "),
    "other open tags": full(b"<q "), "<": full(b"<"),
    "equals": b"<a " + full(b"="),
    "quotes": b"<a " + full(b"='"), "open comments": full(b"<!--"), "comments": full(b"<!--->"),
    "scripts": full(b"<script>"),
    "scripts ends": full(b"<script></script "), "script pairs": full(b"<script></script>"),
    "text": full(b"text "),
    "references": full(b"<a href='&amp;&lt&copy;&#x41;'>"), "spaces": b"<a" + full(b" ") + b"href=x>",
    "styles": full(b"<p style='url('>"),
    "css": b"<style>" + full(b"url('") , "css comments": b"<style>" + full(b"/*url("),
    "css names": b"<style>" + full(b"@import "),
    "css escapes": b"<style>url(" + full(b"\\\\61 "),
    "srcset": b"<img srcset='" + full(b"a 1x,") + b"'>",
    "srcset commas": b"<img srcset='" + full(b", ") + b"'>",
    "metas": full(b"<meta name=robots content=noindex>"),
    "refresh": b"<meta http-equiv=refresh content='" + full(b"1") + b"'>",
    "dots": b"<a href='" + full(b"../") + b"'>", "bases": full(b"<base href='http://['>"),
    "astral": full("\\U0001f600<a href=x>".encode()),
    "binary": bytes(range(256)) * (M // 256),
    "drawings": full(b"<svg>"), "open drawings": full(b"<svg "), "drawings in one": b"<svg>" + full(b"<g><title/>"),
    "many drawings": b"".join(b"<svg a=%d><a href=%d>" % (n, n) for n in range(20_000)), "fonts": full(b"<svg><font "),
    "cdata": full(b"<svg><![CDATA[]"), "one drawing": b"<svg>" + b"".join(b"<a href=%d>" % n for n in range(40_000)),
    "drawn styles": full(b"<svg><style>url("), "closed": full(b"<svg =/>"),
    "frames": full(b"<iframe srcdoc='<iframe srcdoc=a>'>"),
    "framed": full(b"<iframe/srcdoc=<iframe/srcdoc=a&gt;&amp;gt;>"),
    "lazy": full(b"<img data-srcset='a 1x' data-bg=b>"), "tables": full(b"<td background=a%d>"),
    "nul": bytes(M), "dots many": full(b"<a href='../../../../a..b/%41'>"),
}
for name, page in pages.items():
    for requisites in (False, True):
        start = time.process_time()
        found = parse_page(page, "https://example.org/a/b", requisites=requisites, lazy=True, max_links=10_000)
        spent = time.process_time() - start
        assert spent < 2, (name, requisites, spent)
        if name in ("links",):
            assert found.capped and len(found.links) == 10_000
        if len(sys.argv) > 1:
            print(name, requisites, round(spent, 3))
# Not ru_maxrss: that remembers the test runner this process was forked from.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
assert int(peak.split()[1]) < 120 * 1024, peak
"""


def test_hostile_pages_cost_no_more_than_their_length() -> None:
    """Half a MiB of nesting, attributes, open quotes and the like takes little time and memory, in its own process."""
    done = subprocess.run([sys.executable, "-c", _HOSTILE], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


_PARTS = st.sampled_from(
    ["<a href=", "<img srcset=", "<meta http-equiv=refresh content=", "<base href=", "<link rel=canonical href=",
     "<style>",
     "</style>", "url(", "'", '"', ">", "0;url=", "http://", "//", "x", "&#x0;", "\0", "\U0001f600", "\\",
     ")"]
)  # fmt: skip


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.one_of(st.binary(max_size=60), st.lists(_PARTS, max_size=12).map(lambda parts: "".join(parts).encode())),
    st.booleans(),
)
def test_any_bytes_are_read(data: bytes, requisites: bool) -> None:
    """For any bytes, links have no fragment and are returned once."""
    page = parse_page(data, URL, requisites=requisites, max_links=10)
    urls = [link.url for link in page.links]
    assert len(urls) == len(set(urls))
    assert all(url.startswith(("http://", "https://")) and "#" not in url for url in urls)


def test_an_iframe_with_content_is_a_link() -> None:
    """Its content is for browsers without frames."""
    found = parse_page(b'<iframe src="/f">no frames</iframe>', "https://e.test/", requisites=False, max_links=10)
    assert [link.url for link in found.links] == ["https://e.test/f"]


@pytest.mark.parametrize(
    "text",
    [
        b'<b="x y=\'">url(',
        b'<svg\xc2\xa0as="background:url(bg.png)\n<img ="x>',
        b'<noembed\x0bhref="x><p>url(',
        b"<a=\"><a='>url(",
    ],
)
@pytest.mark.parametrize("requisites", [True, False])
def test_quotes_in_a_name_are_no_error(text: bytes, requisites: bool) -> None:
    """A name ends only at white space, "/" or ">", also if every tag is read."""
    parse_page(text, "https://e.test/", requisites=requisites, max_links=9)
    found = parse_page(text + b"'\"><a href=y>", "https://e.test/", requisites=True, max_links=9)
    assert [link.url for link in found.links] in ([], ["https://e.test/y"])


def test_a_quote_in_a_name_hides_nothing() -> None:
    """The tags after it are found if every tag is read."""
    text = b'<x="a><title>t</title><a href="d">url('
    found = parse_page(text, "https://e.test/", requisites=True, max_links=9)
    assert (found.title, [link.url for link in found.links]) == ("t", ["https://e.test/d"])


@pytest.mark.parametrize(
    ("attributes", "more"),
    [
        ("", []),
        (' class="c" title="a > b" target="t"', []),
        (' style="background:url(b.png)"', ["https://e.test/b.png"]),
        (' data-bg="b.png"', ["https://e.test/b.png"]),
        (' class="c" style="background:url(b.png)"', ["https://e.test/b.png"]),
    ],
)
def test_an_anchor_may_refer_to_more_than_its_page(attributes: str, more: list[str]) -> None:
    text = f'<p style="background:url(p.png)"><a href="/a"{attributes}>'.encode()
    found = parse_page(text, "https://e.test/", requisites=True, lazy=True, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/p.png", "https://e.test/a", *more]


def test_only_meta_is_meta() -> None:
    """An element whose name begins with "meta" is read like any other."""
    found = parse_page(b'<metadata style="background:url(x.png)">', "https://e.test/", requisites=True, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/x.png"]


_SHOWN = st.sampled_from(
    ["<table background=#><thead background='#'><tr><th background=\"#\">x</table>", "<div background=#></div>",
     "<table><tfoot background=#><tr BACKGROUND = #><td background=#>x</td></tr></table>", "<img src=# data-src=/#>",
     "<video poster=#><source src=# data-srcset='# 1x'></video>", "<p>", "<input type=image src=#>", "<b data-bg='/#'>",
     "<iframe src=# srcdoc='<p><img src=#><img data-src=/#><a href=#>x</a>'></iframe>", "<image data-original=./#>",
     "<iframe srcdoc=\"&lt;img src=#&gt;<table><tr><td background='#'></table>\"></iframe>", "<!-- <img src=#> -->",
     "<textarea><img src=#></textarea>", "<svg><image href=# data-src=/# /></svg>", "<img alt='<td background=#>'>"]
)  # fmt: skip
_BY_ELEMENT = {
    "img": ("src", "data-src", "data-original"), "video": ("poster",), "source": ("src", "data-srcset"),
    "input": ("src",), "b": ("data-bg",), "iframe": ("src",), "a": ("href",), "image": ("href",),
    **dict.fromkeys(("table", "thead", "tbody", "tfoot", "tr", "th", "td"), ("background",)),
}  # fmt: skip


def _by_lexbor(text: str) -> set[str]:
    found: set[str] = set()
    for node in LexborHTMLParser(text.encode()).css("*"):
        for attribute in _BY_ELEMENT.get(node.tag or "", ()):
            found.add((node.attributes.get(attribute) or "").split(" ")[0])
        if node.tag == "iframe":
            found |= _by_lexbor(node.attributes.get("srcdoc") or "")
    return found - {""}


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(_SHOWN, max_size=8).map("".join))
def test_requisites_are_those_a_tree_builder_finds(text: str) -> None:
    """For well-formed pieces in any order, framed pages included."""
    start, *parts = text.split("#")
    text = start + "".join(f"{number}{part}" for number, part in enumerate(parts))
    page = parse_page(text.encode(), "https://e.test/", requisites=True, lazy=True, max_links=100)
    expected = {"https://e.test/" + reference.lstrip("./") for reference in _by_lexbor(text)}
    assert {link.url for link in page.links} == expected, text
