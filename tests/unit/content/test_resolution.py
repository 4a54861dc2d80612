"""The fast resolver gives the same results as ada."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.html.links import KnownLinks, ReferenceResolver, clean, encode_query
from crawler.content.html.parsing import parse_page
from crawler.core.models import Origin
from crawler.core.url import UrlError, parse
from tests.support.vectors import vectors

BASES = [
    "https://example.org/",
    "https://example.org:8443/a/b/c.html?q=1",
    "http://example.org/a//b/",
    "http://[::1]/x/y",
    "https://127.0.0.1/" + "d/" * 40 + "f",
    "https://example.org/%2e%41/b;c=d/e,f?x/../y",
]


def outcome(resolve: object, *arguments: str) -> tuple[str, Origin] | str:
    try:
        return resolve(*arguments)  # type: ignore[operator, no-any-return]
    except UrlError as error:
        return error.reason


def agrees(reference: str, base: str) -> None:
    """Assert that the fast resolver and the parser agree about a reference."""
    cleaned = clean(reference)
    expected = outcome(parse, reference, base)
    if cleaned:
        assert expected == outcome(ReferenceResolver(base).resolve, cleaned), (base, reference)
    else:
        # Dropped: another scheme, or the page itself.
        stripped = reference.strip("".join(map(chr, range(0x21))))
        assert isinstance(expected, str) or stripped[:1] in ("", "#"), (base, reference)


REFERENCES = """
a a/b ../a ../../a ../../../../a ./a ../ .. . ./ /a /../a /./a //h/a //h a//b .a ..a ...a a/../b a/./b a/.. a/. /..
/. a/... .../a ?q a?q a?q=../x /?q /a?b?c a;b a:b ./a:b /a:b a/b:c 1:2 a%2eb %2e%2e/a a/%2E./b a%20b a%zz é a|b a^b
a'b ?' a`b a{b} a"b a<b a\\b \\a \\\\h\\a http:a https:a https:/a https:///a http://H/a HTTPS://h/a https://h
https://h?q https://h/ https://h/a/../b https://h/a//b https://h:443/a https://h:444 https://h:25/ https://u@h/
https://u:p@h/a https://1.2.3/ https://1.2.3.4/a https://0x7f.1/ https://a.1/ https://xn--bcher-kva.example/
https://xn--a/ https://a_b.c/x https://-a.b/ https://a-.b/ https://a..b/ https://a./b https://.a/ https://h%41/
https://h/? https://h?a#b https://A.B/ http://h/%2e%2e/a http://h/a?%2e mailto:x javascript:void(0) data:,x tel:1
ftp://h/ #a a#b a#b#c a?b#c ?#x /#x
"""


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "reference",
    REFERENCES.split(),
)
def test_forms_of_references(base: str, reference: str) -> None:
    """Each form a reference takes resolves as ada resolves it."""
    agrees(reference, base)


@pytest.mark.parametrize(
    "reference", [" a ", "\ta\n", "a\nb", "ja\nvascript:x", " java script:x", "a #b", "a\t#b", "\x01a", "a\0b", "", " "]
)
def test_white_space_in_references(reference: str) -> None:
    """White space is removed as in the URL standard."""
    agrees(reference, BASES[1])


def test_the_length_of_a_url_is_limited() -> None:
    """The limit on length holds for the resolved URL."""
    for length in range(1950, 2060):
        agrees("x" * length, BASES[1])
        agrees("/" + "x" * length, BASES[1])
        agrees("https://h/" + "x" * length, BASES[1])
        agrees("https://h?" + "x" * length, BASES[1])
        agrees("https://" + "h." * ((length - 1700) // 2) + "x/", BASES[1])


_PARTS = st.sampled_from(
    ["a", "B", "0", ".", "..", "/", "//", "?", "#", ":", "%2e", "%41", "%", "-", "_", "~", "@", "&", "=", ";", "+", "é",
     " ", "\t", "\\", "'", '"', "http", "https", "http://", "https://", "h.example", "xn--", "[", "]", "|", "^", "*"]
)  # fmt: skip


@settings(deadline=None, max_examples=400, derandomize=True)
@given(st.lists(_PARTS, max_size=9).map("".join), st.sampled_from(BASES))
def test_any_reference_resolves_as_ada_does(reference: str, base: str) -> None:
    """Pieces of references in any order resolve as ada resolves them."""
    agrees(reference, base)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.text(max_size=12), st.sampled_from(BASES))
def test_any_text_resolves_as_ada_does(reference: str, base: str) -> None:
    """So does any text."""
    agrees(reference, base)


def test_the_cases_of_the_url_standard() -> None:
    """The cases of web-platform-tests with an http(s) base resolve as ada resolves them, which passes them all."""
    cases = json.loads((vectors("url") / "urltestdata.json").read_text(encoding="utf-8", errors="surrogatepass"))
    judged = 0
    for case in cases:
        if not isinstance(case, dict):
            continue
        base = outcome(parse, case["base"]) if case.get("base") else (BASES[0], None)
        if isinstance(base, str) or any("\ud800" <= char <= "\udfff" for char in case["input"]):
            continue
        agrees(case["input"], base[0])
        judged += 1
    assert judged > 400


# -- queries are sent in the encoding of the page that their link stands on, as browsers do


PAGE = "https://a.test/dir/page"
ENCODINGS = [
    "ibm866", "iso-8859-2", "iso-8859-3", "iso-8859-4", "iso-8859-5", "iso-8859-6", "iso-8859-7", "iso-8859-8",
    "iso-8859-8-i", "iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16", "koi8-r", "koi8-u",
    "macintosh", "windows-874", "windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254",
    "windows-1255", "windows-1256", "windows-1257", "windows-1258", "x-mac-cyrillic", "gbk", "gb18030", "big5",
    "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "x-user-defined", "utf-8", "utf-16le", "utf-16be", "replacement",
]  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "query", "expected"),
    [
        ("windows-1251", "q=привет", "q=%EF%F0%E8%E2%E5%F2"),
        ("windows-1252", "q=é€", "q=%E9%80"),
        ("windows-1252", "q=☃é&r='<a b>", "q=%26%239731%3B%E9&r=%27%3Ca%20b%3E"),  # not in it: the escapes of "&#9731;"
        ("koi8-u", "ў", "%AE"),
        ("macintosh", "€", "%DB"),
        ("x-user-defined", "\uf780é", "%80%26%23233%3B"),
        ("shift_jis", "表～①", "%95\\%81`%87@"),  # bytes in ASCII are as they are
        ("euc-jp", "～①é", "%A1%C1%AD%A1%26%23233%3B"),
        ("iso-2022-jp", "aあéΓ", "a%1B$B$%22%1B(B%26%23233%3B%1B$B&%23%1B(B"),  # what looks like an escape is one
        ("gbk", "€中", "%80%D6%D0"),
        ("gb18030", "€한", "%A2%E3%836%843"),
        ("big5", "中é", "%A4%A4%26%23233%3B"),
        ("euc-kr", "한", "%C7%D1"),
        ("utf-8", "é", "%C3%A9"),
        ("utf-16le", "é", "%C3%A9"),
        ("utf-16be", "é", "%C3%A9"),
        ("replacement", "é", "%C3%A9"),
    ],
)
def test_a_query_is_in_the_encoding_of_its_page(encoding: str, query: str, expected: str) -> None:
    """URL standard, query state; values of encoding_rs and the Web Platform Tests. The path is UTF-8."""
    resolver = ReferenceResolver(PAGE, encoding)
    for written, url in ((f"?{query}", PAGE), (f"s?{query}", "https://a.test/dir/s"), (f"/é?{query}", "https://a.test/%C3%A9"),
                         (f"HTTPS://B.test?{query}", "https://b.test/")):  # fmt: skip
        assert resolver.resolve(clean(written))[0] == f"{url}?{expected}"


_TEXT = st.text(alphabet="ab0%26?&=#;' \"<>\\~é€～①привет中한ݣ\uf780\U0001f600\x1b\x7f", max_size=12)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_TEXT, st.sampled_from(ENCODINGS))
def test_any_query_in_any_encoding_resolves(text: str, encoding: str) -> None:
    """The result is ASCII and a fixed point, and for a UTF-8 page that of ada."""
    reference = clean(f"/p?{text}")
    url = ReferenceResolver(PAGE, encoding).resolve(reference)[0]
    assert url.isascii()
    assert parse(url)[0] == url
    if text.isascii() or encoding in ("utf-8", "utf-16le", "utf-16be", "replacement"):
        assert url == parse(reference, PAGE)[0]
    assert encode_query(encoding, encode_query(encoding, reference)) == encode_query(encoding, reference)


HTML = """<base href="/dir/?b=привет"><link rel=canonical href="?c=привет">
<meta http-equiv=refresh content="0;url=?m=привет">
<a href="?a=привет">x</a><a href='/путь?a=&#1087;&eacute;'>x</a><img src="i?i=привет" srcset="s?s=привет 2x">
<iframe src="?f=привет"></iframe><form action="?no=привет"></form><video poster="v?v=привет"></video>
<style>a{background:url(st?st=привет)}</style><p style="background:url('p?p=привет')">"""
IN_1251, IN_UTF8 = "%EF%F0%E8%E2%E5%F2", "%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82"


@pytest.mark.parametrize(("encoding", "sent"), [("windows-1251", IN_1251), ("utf-8", IN_UTF8), ("utf-16le", IN_UTF8)])
def test_queries_in_all_kinds_of_references(encoding: str, sent: str) -> None:
    """Attributes, srcset, base, canonical, refresh; the URLs of style sheets are UTF-8 on any page."""
    page = parse_page(HTML.encode(), PAGE, requisites=True, max_links=99, encoding=encoding)
    folder = "https://a.test/dir/"
    assert (page.canonical, page.refresh) == (f"{folder}?c={sent}", f"{folder}?m={sent}")
    path = "https://a.test/%D0%BF%D1%83%D1%82%D1%8C?a="
    assert {link.url for link in page.links} == {
        f"{folder}?c={sent}", f"{folder}?a={sent}", f"{folder}i?i={sent}", f"{folder}s?s={sent}", f"{folder}?f={sent}",
        f"{folder}v?v={sent}", f"{folder}st?st={IN_UTF8}", f"{folder}p?p={IN_UTF8}",
        path + ("%EF%26%23233%3B" if sent == IN_1251 else "%D0%BF%C3%A9"),
    }  # fmt: skip
    assert {link.legacy_url for link in page.links if link.url.endswith(f"?a={sent}")} == {
        f"{folder}?a={IN_UTF8}" if sent == IN_1251 else None
    }
    with_base = parse_page(
        '<base href="?b=привет"><a href="">'.encode(), PAGE, requisites=False, max_links=9, encoding=encoding
    )
    assert with_base.links == ()


def test_pages_of_a_folder_in_different_encodings_do_not_share_their_links() -> None:
    """Resolved links are cached by folder and encoding."""
    known = KnownLinks()
    data = '<a href="s?q=привет">'.encode()
    for _ in range(3):
        for encoding, sent in (("utf-8", IN_UTF8), ("windows-1251", IN_1251), ("koi8-r", "%D0%D2%C9%D7%C5%D4")):
            page = parse_page(data, PAGE, requisites=False, max_links=9, known=known, encoding=encoding)
            assert [link.url for link in page.links] == [f"https://a.test/dir/s?q={sent}"]


def test_a_long_query_is_refused() -> None:
    with pytest.raises(UrlError):
        ReferenceResolver(PAGE, "windows-1251").resolve("?q=" + "п" * 700)
    assert ReferenceResolver(PAGE, "windows-1251").resolve("?q=" + "п" * 600)[0].endswith("%EF")
