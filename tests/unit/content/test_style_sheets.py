"""References in style sheets."""

from typing import Any

import pytest
import tinycss2
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.html.tag_meaning import MAX_REFERENCES, css_references, style_sheet_links
from crawler.core.enums import Source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("p { color: red }", []),
        ("p { background: url(a.png) }", ["a.png"]),
        ("p{background:URL( 'a b.png' ),url(\"c\")}", ["a b.png", "c"]),
        ("@import 'a'; @IMPORT \"b\" screen; @import url(c); @import url('d')", ["a", "b", "c", "d"]),
        ("@font-face { src: url(a.woff2) format('woff2'), url(b.woff) }", ["a.woff2", "b.woff"]),
        ("/* url(a) */ p { x: url(b) } /* @import 'c'", ["b"]),
        ("p { content: 'url(a)' ; x: \"url(b)\" }", []),
        ("p { x: my-url(a); y: -url(b); z: xurl(c) }", []),
        ("@namespace svg url(http://www.w3.org/2000/svg); p { x: url(a) }", ["a"]),
        ("url(a\\)b) url('a\\'b') url(\\61 b) url(\\000061b)", ["a)b", "a'b", "ab", "ab"]),
        ("url('a\\\nb')", ["ab"]),
        ("url(a b) url(c)", ["c"]),
        ("url() url('') url(a", ["a"]),
        ("p { x: image-set('a' 1x, url(b) 2x, \"c\" type('image/avif') 3x) 'd' }", ["a", "b", "c"]),
        (
            "x: -webkit-image-set( 'a' 1x ,'b' 2x), 'c', IMAGE-SET('d') /* image-set('e') */ 'image-set(f)'",
            ["a", "b", "d"],
        ),
        ("x: image-set(linear-gradient(red, blue) 1x, 'a' 2x", ["a"]),
        ("x: set('a') image-sets('b')", []),
        ("url(\\0) url(\\110000 )", ["\ufffd", "\ufffd"]),
    ],
)
def test_references_as_written(text: str, expected: list[str]) -> None:
    """url() and @import are found outside comments and strings, escapes replaced."""
    assert expected == list(css_references(text))


def test_references_are_links() -> None:
    """They are resolved against the style sheet, each once, data: and the like left out."""
    found = style_sheet_links(
        b"@import 'a'; p { x: url(../b#c) url(data:x) url(a) }", "https://example.org/css/main.css"
    )
    assert [(link.url, link.source) for link in found] == [
        ("https://example.org/css/a", Source.REQUISITE),
        ("https://example.org/b", Source.REQUISITE),
    ]


def test_references_are_counted_up_to_a_limit() -> None:
    """Beyond the limit references are dropped."""
    text = "".join(f"url({n})" for n in range(MAX_REFERENCES + 5))
    assert len(style_sheet_links(text, "https://example.org/")) == MAX_REFERENCES


def oracle(tokens: list[Any]) -> list[str]:
    """The references that tinycss2 finds."""
    found = []
    for index, token in enumerate(tokens):
        match token.type:
            case "url":
                found.append(token.value)
            case "function":
                arguments = [item for item in token.arguments if item.type != "whitespace"]
                if token.lower_name == "url":
                    found.extend(item.value for item in arguments[:1] if item.type == "string")
                elif token.lower_name in ("image-set", "-webkit-image-set"):
                    for item in arguments:
                        found.extend([item.value] if item.type == "string" else oracle([item]))
                else:
                    found.extend(oracle(token.arguments))
            case "() block" | "[] block" | "{} block":
                found.extend(oracle(token.content))
            case "at-keyword":
                behind = [item for item in tokens[index + 1 : index + 3] if item.type != "whitespace"]
                if token.lower_value == "import" and behind and behind[0].type == "string":
                    found.append(behind[0].value)
            case _:
                pass
    return [url for url in found if url]


_PARTS = st.sampled_from(
    ["url(a)", "url( 'b' )", 'URL("c")', "@import 'd';", "@import url(e);", "p { ", " }", "/* x */", "/* url(f) */",
     "'g'",
     '"url(h)"', " ", ";", "x: ", "1px", "format('woff')", "url(\\69 )", "calc(1 + 2)", "[x='y']", "#id", ", ",
     "image-set('i' 1x)", "-webkit-image-set(url(j) 1x, \"k\" 2x)", "image-set('l' type('image/png'), 'm')"]
)  # fmt: skip


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(_PARTS, max_size=12).map(" ".join))
def test_references_are_those_a_parser_finds(text: str) -> None:
    """For well-formed pieces in any order the references are those of tinycss2."""
    assert oracle(tinycss2.parse_component_value_list(text)) == list(css_references(text))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=80))
def test_any_bytes_are_read(data: bytes) -> None:
    """There is a list for any bytes."""
    for wrapped in (data, b"url(" + data, b"@import '" + data + b"'"):
        assert all("#" not in link.url for link in style_sheet_links(wrapped, "https://example.org/"))


@pytest.mark.parametrize(
    "text", ["image-set(" * 60_000, "image-set((" * 50_000, "image-set('a' (" * 30_000, 'image-set("' * 50_000,
             '@"' + '\\"' * 125_000, "url('" + "\\'" * 125_000, 'url("' * 60_000, '@import "' * 30_000]
)  # fmt: skip
def test_unclosed_quotes_take_linear_time(text: str) -> None:
    """Searching the end of each string would take quadratic time."""
    assert len(list(css_references(text))) <= 30_000
