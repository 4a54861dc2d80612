"""The fast resolver says what ada says, about everything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.html.resolution import ReferenceResolver, clean
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
    """Assert that cleaning and resolving fast is what parsing says, for what is a link at all."""
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
    """White space is cut as the URL standard cuts it."""
    agrees(reference, BASES[1])


def test_a_url_is_as_long_as_it_may_be() -> None:
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
