"""What one tag of a page says: a link, a title, a base, a directive to robots.

Each tag is read by itself, and most tags of a site are the same from page to page: what those say is remembered. It
does not know the page (`html`) nor how tags are found (`tags`). Invariant: a function of the tag's text alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from html import unescape
from typing import Final

from crawler.content.html.links import CANONICAL, LINK, NOFOLLOW, REQUISITE, Link, LinkSet, relation_kind
from crawler.content.html.resolution import ReferenceResolver, clean, with_query_in
from crawler.content.html.scanner import Scanner
from crawler.content.html.tags import FOREIGN, foreign_finder, read_tag

MAX_REFERENCES: Final = 10_000  # as many as a page may have links

# A string ends at its quote, before a newline, or with the text (CSS Syntax §4.3.5): it always ends somewhere, so that
# the end of one without a partner is not looked for again from every quote behind it.
_STRINGS = (
    r"""\"((?:[^\"\\\n\r\f]++|\\[\s\S])*+)(?:\"|(?=[\n\r\f])|\\?+\z)""",
    r"""'((?:[^'\\\n\r\f]++|\\[\s\S])*+)(?:'|(?=[\n\r\f])|\\?+\z)""",
)
_BARE = r"""((?:[^"'()\\\x00-\x20\x7f]++|\\(?:[0-9a-fA-F]{1,6}+(?:\r\n|[\t\n\f\r ])?+|[^\n\r\f]))*+)"""
_SPACE = r"[\t\n\f\r ]*+"
_NAMED = r"[\w\x80-\xff-]"  # what goes on with a name; all that is no ASCII does (§4.2)
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
# What stands in image-set(), functions in one another once, and each string in it: a URL, as if url() stood around it
# (CSS Images 4 §3.3), but in type().
_IMAGE_SET = re.compile(
    r"""image-set\(((?:[^()"']|"[^"\n]*"|'[^'\n]*'|\((?:[^()"']|"[^"\n]*"|'[^'\n]*')*\))*)""", re.IGNORECASE
)
_OPTION = re.compile(r"""([\w-]+\([^)]*\))|("[^"\n]*"|'[^'\n]*')""")
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[\t\n\f\r ])?|(\r\n|[\n\r\f])|([\s\S]))")


def references(text: bytes | str, url: str) -> list[Link]:
    """The http(s) URLs a style sheet refers to, each once, resolved against its own `url`; MAX_REFERENCES at most.

    Bytes are read as UTF-8 (`charset.to_utf8`). Raises ScanLimitError, and UrlError where `url` itself is none.
    """
    links = LinkSet(MAX_REFERENCES)
    for written in written_references(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        links.add(written, REQUISITE)
    return list(links.resolve(ReferenceResolver(url)).links)


def written_references(text: str) -> Iterator[str]:
    """What stands in the url(), image-set() and @import of a style sheet or a style attribute, escapes replaced.

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
    """The character an escape stands for; none for an escaped newline (CSS Syntax §4.3.5, §4.3.7)."""
    digits, newline, char = match.groups()
    if digits is not None:
        code = int(digits, 16)
        return "\ufffd" if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF else chr(code)
    return "" if newline is not None else str(char)


MAX_TITLE: Final = 512  # characters that are kept; search engines show some 60
MAX_LANGUAGE: Final = 35  # RFC 5646 §4.4.1: what a tag may need
MAX_DIRECTIVE_CHARS: Final = 1_024

# What is said. Plain integers, compared for every tag.
REFERENCE: Final = 0  # `text` is a reference as `links.clean` returns it, `detail` its kind
TITLE: Final = 1
LANGUAGE: Final = 2
BASE: Final = 3
REFRESH: Final = 4
ROBOTS: Final = 5  # `text` is the directives, `detail` the agent they name, lower case (None: all)
NAMED_CANONICAL: Final = 6
DOCUMENT: Final = 7  # `text` is a page of its own, shown in this one

# Which requisites are looked for: none, what browsers ask for, also what scripts put in place.
NONE: Final = 0
SHOWN: Final = 1
LAZY_TOO: Final = 2

Statement = tuple[int, str, int | str | None]  # what, text, detail

_REFRESH: Final = re.compile(
    r"[\t\n\f\r ]*(?:[0-9]+(?:\.[0-9.]*)?|\.[0-9.]*)(?:[\t\n\f\r ]*[;,]|[\t\n\f\r ])[\t\n\f\r ]*"
    r"(?:[uU][rR][lL][\t\n\f\r ]*=[\t\n\f\r ]*)?(?:\"([^\"]*)|'([^']*)|([\s\S]*))"
)
_CANDIDATE: Final = re.compile(r"[\t\n\f\r ,]*([^\t\n\f\r ,][^\t\n\f\r ]*)([^,]*)")
_SHARED_IMAGE: Final = re.compile(r"(?:og|twitter):image(?::(?:url|secure_url|src))?")
_DIRECTIVE: Final = re.compile(r"no(?:index|follow|archive|ne)\b")

# Attributes that hold one URL of what a page needs to be shown, by element.
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
# Where lazily loaded images and the like are, until a script puts them in place: one URL, or a srcset. Libraries:
# lazysizes, lazyload, Jetpack, WP Rocket, slick, echo, Flickity.
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
# The same in SVG: what hides the other comes first (SVG 2 §16.1.6).
_FOREIGN_SOURCES: Final = frozenset(("image", "feimage", "use", "script"))
_FOREIGN_LINKS: Final = foreign_finder(("a",))
_FOREIGN_REQUIRED: Final = foreign_finder(("a", "style", *_FOREIGN_SOURCES))
_FOREIGN_TAGS: Final = foreign_finder(None)

# These differ from page to page.
_ONE_PAGES_OWN: Final = ("<title", "<TITLE", "<meta property=")
_MAX_REMEMBERED: Final = 512  # characters
_MAX_DRAWING: Final = 8_192  # the same for SVG, which takes longer to read


def statements(piece: str, *, requisites: int) -> Iterable[Statement]:
    """What a tag says that `TagFinder.pieces` found. `requisites`: NONE, SHOWN or LAZY_TOO."""
    if piece.startswith("<title>"):
        return (_title(piece[7:]),)
    if len(piece) > _MAX_REMEMBERED and piece[:4] == "<svg" and len(piece) <= _MAX_DRAWING:
        return _remembered_drawing(piece, requisites)
    if len(piece) > _MAX_REMEMBERED or piece.startswith(_ONE_PAGES_OWN):  # remembered they would push out others
        return _statements(piece, requisites)
    return _remembered(piece, requisites)


@lru_cache(2_048)
def _remembered(piece: str, requisites: int) -> tuple[Statement, ...]:
    return tuple(_statements(piece, requisites))


@lru_cache(256)
def _remembered_drawing(piece: str, requisites: int) -> tuple[Statement, ...]:
    return tuple(_statements(piece, requisites))


def _statements(piece: str, requisites: int) -> Iterator[Statement]:
    if piece[1:5].lower() == "meta" and piece[5:6] in "\t\n\f\r />" and not _may_matter(piece, requisites):
        return
    name, found, content = read_tag(piece)
    if name == "title":
        yield _title(content)
        return
    yield from element(name, found, content, requisites=requisites)
    if content and name in FOREIGN:
        yield from _drawn(content, requisites)


def element(name: str, found: Mapping[str, str], content: str, *, requisites: int) -> Iterator[Statement]:
    """What an HTML element says by its attributes; `content` is the text in it, wanted of a style alone."""
    match name:
        case "a" | "area":
            yield from _anchor(found.get("href"), found)
        case "link":
            yield from _link(found, requisites)
        case "iframe" | "frame":
            yield from _reference(found.get("src", ""), LINK)
            if "srcdoc" in found:
                yield DOCUMENT, found["srcdoc"], None
            if requisites == LAZY_TOO:
                yield from _lazy(found.get("data-src", ""), LINK)
        case "meta":
            yield from _meta(found, requisites)
        case "base":
            if "href" in found:
                yield BASE, found["href"], None
        case "html":
            yield LANGUAGE, found.get("lang", "").strip()[:MAX_LANGUAGE], None
        case _:
            pass
    if requisites:
        yield from _required(name, found, content)
    if requisites == LAZY_TOO and not _LAZY_NAMES.isdisjoint(found) and name not in ("iframe", "frame"):
        for attribute in _LAZY:
            yield from _lazy(found.get(attribute, ""), REQUISITE)
        for attribute in _LAZY_SETS:
            yield from _candidates(found.get(attribute, ""))


def _lazy(written: str, kind: int) -> Iterator[Statement]:
    """A reference for a script, if it looks like one."""
    written = written.strip()
    if written and _NO_LAZY_URL.search(written) is None:
        yield from _reference(written, kind)


def svg_element(name: str, found: Mapping[str, str], content: str, *, requisites: int) -> Iterator[Statement]:
    """What an element of SVG says: there nothing has a meaning but links and what is to be shown."""
    href = found.get("href", found.get("xlink:href"))
    if name == "a":
        yield from _anchor(href, found)
    elif requisites and href is not None and name in _FOREIGN_SOURCES:
        yield from _reference(href, REQUISITE)
    if requisites:
        yield from _styled(name, found, content)


def _drawn(content: str, requisites: int) -> Iterator[Statement]:
    """What the tags within a piece say that is SVG or MathML."""
    if not requisites:
        finder = _FOREIGN_LINKS
    else:
        finder = _FOREIGN_TAGS if "url(" in content or "URL(" in content else _FOREIGN_REQUIRED
    for piece in dict.fromkeys(finder.pieces(content.encode("utf-8", "replace"))):
        yield from svg_element(*read_tag(piece), requisites=requisites)


def _anchor(href: str | None, found: Mapping[str, str]) -> Iterator[Statement]:
    if href is not None:
        yield from _reference(href, NOFOLLOW if "nofollow" in found.get("rel", "").lower().split() else LINK)


def _title(content: str) -> Statement:
    text = content[: MAX_TITLE * 8]
    if "&" in text:
        # "&amp;" alone, as in most titles that have any, need not be looked up.
        simple = text.count("&") == text.count("&amp;")
        text = text.replace("&amp;", "&") if simple else unescape(text)
    return titled(text)


def titled(text: str) -> Statement:
    """That the page has this title, character references replaced."""
    return TITLE, " ".join(text.split())[:MAX_TITLE], None


def _may_matter(tag: str, requisites: int) -> bool:
    """Whether a meta element can be a refresh, speak to robots or name an image; most are descriptions."""
    lower = tag.lower()
    if requisites == LAZY_TOO and _SHARED_IMAGE.search(lower) is not None:
        return True
    return "robots" in lower or "refresh" in lower or "&" in lower or _DIRECTIVE.search(lower) is not None


def style_sheet(href: str) -> Iterator[Statement]:
    """That the page needs this style sheet."""
    return _reference(href, REQUISITE)


def _reference(written: str, kind: int) -> Iterator[Statement]:
    reference = clean(written)
    if reference:
        yield REFERENCE, reference, kind


def _link(found: Mapping[str, str], requisites: int) -> Iterator[Statement]:
    href = found.get("href")
    relations = found.get("rel", "").lower().split()
    if requisites and "imagesrcset" in found and "preload" in relations:
        yield from _candidates(found["imagesrcset"])
    if href is None:
        return
    kind = relation_kind(relations, found.get("as", ""), found.get("type", ""))
    if kind is None or (kind == REQUISITE and not requisites):
        return
    if kind == CANONICAL:
        yield NAMED_CANONICAL, href, None
    yield from _reference(href, kind)


def refresh_target(content: str) -> str:
    """Where a refresh leads, as it is written: "/x" of "5; url=/x"; "" if nowhere else."""
    match = _REFRESH.match(content)
    return (match[1] or match[2] or match[3] or "") if match is not None else ""


def _meta(found: Mapping[str, str], requisites: int) -> Iterator[Statement]:
    content = found.get("content", "")
    if requisites == LAZY_TOO:
        shared = found.get("property", found.get("name", "")).strip().lower()
        if _SHARED_IMAGE.fullmatch(shared) is not None:
            yield from _reference(content, REQUISITE)
            return
    if found.get("http-equiv", "").strip().lower() == "refresh":
        target = refresh_target(content)
        if target.strip():
            yield REFRESH, target, None
    agent = found.get("name", "").strip().lower()
    if agent and len(content) <= MAX_DIRECTIVE_CHARS:
        if agent == "robots":
            yield ROBOTS, content, None
        elif len(agent) <= 64 and _DIRECTIVE.search(content.lower()) is not None:
            yield ROBOTS, content, agent


def _required(name: str, found: Mapping[str, str], content: str) -> Iterator[Statement]:
    for attribute in _SOURCES.get(name, ()):
        yield from _reference(found.get(attribute, ""), REQUISITE)
    if name == "input" and found.get("type", "").strip().lower() == "image":
        yield from _reference(found.get("src", ""), REQUISITE)
    elif name in ("img", "image", "source") and "srcset" in found:
        yield from _candidates(found["srcset"])
    yield from _styled(name, found, content)


def _styled(name: str, found: Mapping[str, str], content: str) -> Iterator[Statement]:
    """What a style element or attribute refers to. Queries are UTF-8 there, on any page (CSS Values §4.5.4)."""
    for text in (content if name == "style" else "", found.get("style", "")):
        for written in written_references(text):
            yield from _reference(with_query_in("utf-8", written), REQUISITE)


def _candidates(srcset: str) -> Iterator[Statement]:
    """The URLs of a srcset: "a.png 1x, b.png 2x" (HTML standard §4.8.4.2.3)."""
    position = 0
    while (match := _CANDIDATE.match(srcset, position)) is not None:
        written = match[1]
        yield from _reference(written.rstrip(","), REQUISITE)
        # A URL that ends in a comma has no descriptor: the next candidate follows.
        position = match.end(1) if written.endswith(",") else match.end()
