"""The meaning of one tag: references, title, base, directives to robots; and the references in style sheets.

Each tag is read by itself. Most tags of a site are the same on all its pages, so their meanings are cached. Invariant:
the meaning depends on the text of the tag alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from html import unescape
from typing import Final

from crawler.content.html.links import (
    CANONICAL,
    LINK,
    NOFOLLOW,
    REQUISITE,
    Link,
    LinkSet,
    ReferenceResolver,
    clean,
    encode_query,
    relation_kind,
)
from crawler.content.html.tags import FOREIGN, Scanner, foreign_finder, read_tag

MAX_TITLE: Final = 512  # characters; search engines show about 60
MAX_LANGUAGE: Final = 35  # RFC 5646 §4.4.1: enough for a language tag
MAX_DIRECTIVE_CHARS: Final = 1_024

# Kinds of meaning. Plain integers, compared for every tag.
REFERENCE: Final = 0  # `text`: a reference as `resolution.clean` returns it; `detail`: its kind (`links`)
TITLE: Final = 1
LANGUAGE: Final = 2
BASE: Final = 3
REFRESH: Final = 4
ROBOTS: Final = 5  # `text`: the directives; `detail`: the agent that they name, lower case (None: all)
CANONICAL_URL: Final = 6
SRCDOC: Final = 7  # `text`: a page that is shown within this one

# Which requisites are looked for: none; those that browsers request; also those that scripts load later.
NONE: Final = 0
SHOWN: Final = 1
LAZY_TOO: Final = 2

TagMeaning = tuple[int, str, int | str | None]  # kind of meaning, text, detail

_REFRESH: Final = re.compile(
    r"[\t\n\f\r ]*(?:[0-9]+(?:\.[0-9.]*)?|\.[0-9.]*)(?:[\t\n\f\r ]*[;,]|[\t\n\f\r ])[\t\n\f\r ]*"
    r"(?:[uU][rR][lL][\t\n\f\r ]*=[\t\n\f\r ]*)?(?:\"([^\"]*)|'([^']*)|([\s\S]*))"
)
_CANDIDATE: Final = re.compile(r"[\t\n\f\r ,]*([^\t\n\f\r ,][^\t\n\f\r ]*)([^,]*)")
_SHARED_IMAGE: Final = re.compile(r"(?:og|twitter):image(?::(?:url|secure_url|src))?")
_DIRECTIVE: Final = re.compile(r"no(?:index|follow|archive|ne)\b")

# Element → attributes with the URL of a requisite.
_SOURCES: Final = {
    "img": ("src",),
    "image": ("src",),  # an alias of img (HTML standard §13.2.6.4.7), but in SVG
    "source": ("src",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "script": ("src",),
    "embed": ("src",),
    "object": ("data",),
    **dict.fromkeys(("body", "table", "thead", "tbody", "tfoot", "tr", "td", "th"), ("background",)),
}
# Attributes with the URL, or the srcset, of lazily loaded images and the like. Libraries: lazysizes, lazyload, Jetpack,
# WP Rocket, slick, echo, Flickity.
_LAZY: Final = (
    "data-src", "data-original", "data-original-src", "data-lazy", "data-lazy-src", "data-lazyload", "data-echo",
    "data-flickity-lazyload", "data-poster", "data-bg", "data-background", "data-background-image",
)  # fmt: skip
_LAZY_SETS: Final = (
    "data-srcset",
    "data-lazy-srcset",
    "data-original-set",
    "data-flickity-lazyload-srcset",
    "data-bgset",
)
_LAZY_NAMES: Final = frozenset((*_LAZY, *_LAZY_SETS))
_NO_LAZY_URL: Final = re.compile(r"[\s{}\[\]<>]|^[^./]*$")  # a template, a sentence, a number, a flag
_FOREIGN_SOURCES: Final = frozenset(("image", "feimage", "use", "script"))
_FOREIGN_LINKS: Final = foreign_finder(("a",))
_FOREIGN_REQUIRED: Final = foreign_finder(("a", "style", *_FOREIGN_SOURCES))
_FOREIGN_TAGS: Final = foreign_finder(None)

# Tags that differ from page to page: caching them would push out others.
_PAGE_SPECIFIC: Final = ("<title", "<TITLE", "<meta property=")
_MAX_CACHED: Final = 512  # characters
_MAX_DRAWING: Final = 8_192  # characters of SVG, which takes longer to read


def meanings(piece: str, *, requisites: int) -> Iterable[TagMeaning]:
    """The meanings of a tag that `TagFinder.pieces` found. `requisites`: NONE, SHOWN or LAZY_TOO."""
    if piece.startswith("<title>"):
        return (_title(piece[7:]),)
    if len(piece) > _MAX_CACHED and piece[:4] == "<svg" and len(piece) <= _MAX_DRAWING:
        return _cached_drawing(piece, requisites)
    if len(piece) > _MAX_CACHED or piece.startswith(_PAGE_SPECIFIC):
        return _meanings(piece, requisites)
    return _cached(piece, requisites)


@lru_cache(2_048)
def _cached(piece: str, requisites: int) -> tuple[TagMeaning, ...]:
    return tuple(_meanings(piece, requisites))


@lru_cache(256)
def _cached_drawing(piece: str, requisites: int) -> tuple[TagMeaning, ...]:
    return tuple(_meanings(piece, requisites))


def _meanings(piece: str, requisites: int) -> Iterator[TagMeaning]:
    if piece[1:5].lower() == "meta" and piece[5:6] in "\t\n\f\r />" and not _may_matter(piece, requisites):
        return
    name, attributes, content = read_tag(piece)
    if name == "title":
        yield _title(content)
        return
    yield from element_meanings(name, attributes, content, requisites=requisites)
    if content and name in FOREIGN:
        yield from _foreign_content(content, requisites)


def element_meanings(
    name: str, attributes: Mapping[str, str], content: str, *, requisites: int
) -> Iterator[TagMeaning]:
    """The meanings of an HTML element. `content`: the text in it, needed of a style only."""
    match name:
        case "a" | "area":
            yield from _anchor(attributes.get("href"), attributes)
        case "link":
            yield from _link(attributes, requisites)
        case "iframe" | "frame":
            yield from _reference(attributes.get("src", ""), LINK)
            if "srcdoc" in attributes:
                yield SRCDOC, attributes["srcdoc"], None
            if requisites == LAZY_TOO:
                yield from _lazy(attributes.get("data-src", ""), LINK)
        case "meta":
            yield from _meta(attributes, requisites)
        case "base":
            if "href" in attributes:
                yield BASE, attributes["href"], None
        case "html":
            yield LANGUAGE, attributes.get("lang", "").strip()[:MAX_LANGUAGE], None
        case _:
            pass
    if requisites:
        yield from _required(name, attributes, content)
    if requisites == LAZY_TOO and not _LAZY_NAMES.isdisjoint(attributes) and name not in ("iframe", "frame"):
        for attribute in _LAZY:
            yield from _lazy(attributes.get(attribute, ""), REQUISITE)
        for attribute in _LAZY_SETS:
            yield from _candidates(attributes.get(attribute, ""))


def _lazy(written: str, kind: int) -> Iterator[TagMeaning]:
    """A reference in an attribute for scripts, if it looks like one."""
    written = written.strip()
    if written and _NO_LAZY_URL.search(written) is None:
        yield from _reference(written, kind)


def svg_meanings(name: str, attributes: Mapping[str, str], content: str, *, requisites: int) -> Iterator[TagMeaning]:
    """The meanings of an element of SVG: links and requisites. `href` goes before `xlink:href` (SVG 2 §16.1.6)."""
    href = attributes.get("href", attributes.get("xlink:href"))
    if name == "a":
        yield from _anchor(href, attributes)
    elif requisites and href is not None and name in _FOREIGN_SOURCES:
        yield from _reference(href, REQUISITE)
    if requisites:
        yield from _styled(name, attributes, content)


def _foreign_content(content: str, requisites: int) -> Iterator[TagMeaning]:
    """The meanings of the tags within SVG or MathML."""
    if not requisites:
        finder = _FOREIGN_LINKS
    else:
        finder = _FOREIGN_TAGS if "url(" in content or "URL(" in content else _FOREIGN_REQUIRED
    for piece in dict.fromkeys(finder.pieces(content.encode("utf-8", "replace"))):
        yield from svg_meanings(*read_tag(piece), requisites=requisites)


def _anchor(href: str | None, attributes: Mapping[str, str]) -> Iterator[TagMeaning]:
    if href is not None:
        yield from _reference(href, NOFOLLOW if "nofollow" in attributes.get("rel", "").lower().split() else LINK)


def _title(content: str) -> TagMeaning:
    text = content[: MAX_TITLE * 8]
    if "&" in text:
        # Most titles with references have "&amp;" alone, which needs no table.
        simple = text.count("&") == text.count("&amp;")
        text = text.replace("&amp;", "&") if simple else unescape(text)
    return title_meaning(text)


def title_meaning(text: str) -> TagMeaning:
    """The meaning of a title whose character references are replaced."""
    return TITLE, " ".join(text.split())[:MAX_TITLE], None


def _may_matter(tag: str, requisites: int) -> bool:
    """Whether a meta element can have a meaning: a refresh, directives to robots, an image. Most are descriptions."""
    lower = tag.lower()
    if requisites == LAZY_TOO and _SHARED_IMAGE.search(lower) is not None:
        return True
    return "robots" in lower or "refresh" in lower or "&" in lower or _DIRECTIVE.search(lower) is not None


def style_sheet_meaning(href: str) -> Iterator[TagMeaning]:
    """The meaning of a reference to a style sheet."""
    return _reference(href, REQUISITE)


def _reference(written: str, kind: int) -> Iterator[TagMeaning]:
    reference = clean(written)
    if reference:
        yield REFERENCE, reference, kind


def _link(attributes: Mapping[str, str], requisites: int) -> Iterator[TagMeaning]:
    href = attributes.get("href")
    relations = attributes.get("rel", "").lower().split()
    if requisites and "imagesrcset" in attributes and "preload" in relations:
        yield from _candidates(attributes["imagesrcset"])
    if href is None:
        return
    kind = relation_kind(relations, attributes.get("as", ""), attributes.get("type", ""))
    if kind is None or (kind == REQUISITE and not requisites):
        return
    if kind == CANONICAL:
        yield CANONICAL_URL, href, None
    yield from _reference(href, kind)


def refresh_target(content: str) -> str:
    """The reference in a refresh, as written: "/x" of "5; url=/x"; "" without one."""
    match = _REFRESH.match(content)
    return (match[1] or match[2] or match[3] or "") if match is not None else ""


def _meta(attributes: Mapping[str, str], requisites: int) -> Iterator[TagMeaning]:
    content = attributes.get("content", "")
    if requisites == LAZY_TOO:
        shared = attributes.get("property", attributes.get("name", "")).strip().lower()
        if _SHARED_IMAGE.fullmatch(shared) is not None:
            yield from _reference(content, REQUISITE)
            return
    if attributes.get("http-equiv", "").strip().lower() == "refresh":
        target = refresh_target(content)
        if target.strip():
            yield REFRESH, target, None
    agent = attributes.get("name", "").strip().lower()
    if agent and len(content) <= MAX_DIRECTIVE_CHARS:
        if agent == "robots":
            yield ROBOTS, content, None
        elif len(agent) <= 64 and _DIRECTIVE.search(content.lower()) is not None:
            yield ROBOTS, content, agent


def _required(name: str, attributes: Mapping[str, str], content: str) -> Iterator[TagMeaning]:
    for attribute in _SOURCES.get(name, ()):
        yield from _reference(attributes.get(attribute, ""), REQUISITE)
    if name == "input" and attributes.get("type", "").strip().lower() == "image":
        yield from _reference(attributes.get("src", ""), REQUISITE)
    elif name in ("img", "image", "source") and "srcset" in attributes:
        yield from _candidates(attributes["srcset"])
    yield from _styled(name, attributes, content)


def _styled(name: str, attributes: Mapping[str, str], content: str) -> Iterator[TagMeaning]:
    """The references of a style element or attribute. Their queries are UTF-8 on every page (CSS Values §4.5.4)."""
    for text in (content if name == "style" else "", attributes.get("style", "")):
        for written in css_references(text):
            yield from _reference(encode_query("utf-8", written), REQUISITE)


def _candidates(srcset: str) -> Iterator[TagMeaning]:
    """The URLs of a srcset: "a.png 1x, b.png 2x" (HTML standard §4.8.4.2.3)."""
    position = 0
    while (match := _CANDIDATE.match(srcset, position)) is not None:
        written = match[1]
        yield from _reference(written.rstrip(","), REQUISITE)
        # After a URL that ends in a comma there is no descriptor but the next candidate.
        position = match.end(1) if written.endswith(",") else match.end()


# -- style sheets

MAX_REFERENCES: Final = 10_000  # of one style sheet, as many as a page may have links

# A string ends at its quote, before a newline, or with the text (CSS Syntax §4.3.5). It always ends somewhere, so that
# the end of an unclosed string is not searched again from every quote after it.
_STRINGS = (
    r"""\"((?:[^\"\\\n\r\f]++|\\[\s\S])*+)(?:\"|(?=[\n\r\f])|\\?+\z)""",
    r"""'((?:[^'\\\n\r\f]++|\\[\s\S])*+)(?:'|(?=[\n\r\f])|\\?+\z)""",
)
_BARE = r"""((?:[^"'()\\\x00-\x20\x7f]++|\\(?:[0-9a-fA-F]{1,6}+(?:\r\n|[\t\n\f\r ])?+|[^\n\r\f]))*+)"""
_SPACE = r"[\t\n\f\r ]*+"
_NAMED = r"[\w\x80-\xff-]"  # characters of a name, with all beyond ASCII (§4.2)
_PASSED_OVER = "|".join((
    r"[^/@uU\"']++",
    r"/\*[^*]*+(?:\*(?!/)[^*]*+)*+",  # a comment
    rf"@[nN][aA][mM][eE][sS][pP][aA][cC][eE](?!{_NAMED})[^;{{]*+",  # names a vocabulary, not a file
    *(string.replace("((", "(?:(", 1) for string in _STRINGS),
))  # fmt: skip
_WANTED = "|".join((
    *(rf"@[iI][mM][pP][oO][rR][tT]{_SPACE}{string}" for string in _STRINGS),
    *(rf"(?<!{_NAMED}|\\)[uU][rR][lL]\({_SPACE}{value}{_SPACE}(?:\)|\z)" for value in (*_STRINGS, _BARE)),
))  # fmt: skip
_REFERENCES: Final = Scanner(rf"(?:{_PASSED_OVER})*+(?|{_WANTED}|[/@uU]|\z)()")
# The content of image-set(), with functions nested once. Each string in it is a URL, as in url() (CSS Images 4 §3.3),
# except in type().
_IMAGE_SET = re.compile(
    r"""image-set\(((?:[^()"']|"[^"\n]*"|'[^'\n]*'|\((?:[^()"']|"[^"\n]*"|'[^'\n]*')*\))*)""", re.IGNORECASE
)
_OPTION = re.compile(r"""([\w-]+\([^)]*\))|("[^"\n]*"|'[^'\n]*')""")
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[\t\n\f\r ])?|(\r\n|[\n\r\f])|([\s\S]))")


def style_sheet_links(text: bytes | str, url: str) -> list[Link]:
    """The http(s) URLs that a style sheet refers to, each once, resolved against its `url`; MAX_REFERENCES at most.

    Bytes are UTF-8 (`charset.to_utf8`). Raises ScanLimitError, and UrlError if `url` is no URL.
    """
    links = LinkSet(MAX_REFERENCES)
    for written in css_references(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        links.add(written, REQUISITE)
    return list(links.resolve(ReferenceResolver(url)).links)


def css_references(text: str) -> Iterator[str]:
    """The references in url(), image-set() and @import of a style sheet or style attribute, with escapes replaced.

    Raises ScanLimitError.
    """
    if "(" not in text and "@" not in text:
        return
    if "-set(" in text or "-SET(" in text:
        text = _IMAGE_SET.sub(lambda match: f"image-set({_OPTION.sub(_as_url, match[1])}", text)
    for found in _REFERENCES.pieces(text.encode("utf-8", "replace")):
        if found:
            yield _ESCAPE.sub(_unescape, found) if "\\" in found else found


def _as_url(match: re.Match[str]) -> str:
    return match[1] or f"url({match[2]})"


def _unescape(match: re.Match[str]) -> str:
    """The character of an escape; "" for an escaped newline (CSS Syntax §4.3.5, §4.3.7)."""
    digits, newline, char = match.groups()
    if digits is not None:
        code = int(digits, 16)
        return "\ufffd" if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)
    return "" if newline is not None else str(char)
