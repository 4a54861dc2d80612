"""Finds the start tags of an HTML text, in one linear pass and without a tree.

It follows the tokenizer of the HTML standard (§13.2.5) as far as links need it: quoted attribute values, comments,
elements whose content is text (script, style, title …), and SVG and MathML, in which that content is markup
(§13.2.6.5). It ignores all other nesting, so no page makes it slow or large: its time and memory are proportional to
the text. A tree builder has to copy every unclosed formatting element into every paragraph; for 25 KB of
`<b a=1><p><b a=2><p>…` lexbor took 1.8 s and 733 MB.

A pattern scans a whole text in one call of PCRE2, which returns what the groups captured. Compiled to machine code this
takes a quarter of the time of `re`, since no Python object is made for a match. If memory may not be made executable (a
unit with MemoryDenyWriteExecute), PCRE2 interprets the same pattern. Invariant: the result does not depend on how the
pattern is run; no other engine is used.

Every repetition in the patterns for PCRE2 is possessive: none is tried twice. The patterns for `re` are written so that
only the first try can match, because possessive repetition in `re` of CPython 3.11.2 is wrong.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from html.entities import html5
from string import ascii_letters
from typing import Final, cast

# The layer below `pcre2.Pattern`, which costs 6 µs more a page, half of them to combine flags of an enumeration.
from pcre2 import LibraryError, _cy

# -- patterns for PCRE2

_NUL: Final = b"\0"
_REPLACEMENT: Final = "\ufffd".encode()
_PIECE: Final = re.compile(r"[^\0]+")
_AT_ONCE: Final = 256 * 1024
_GROUPS: Final = b"\0${1:-}${2:-}"  # the replacement of each match: its groups alone
_EVERY_MATCH: Final = int(_cy.SubstituteOption.GLOBAL | _cy.SubstituteOption.UNSET_EMPTY)
_NO_CONTEXT: Final = _cy.create_match_context()


class ScanLimitError(Exception):
    """PCRE2 gave up on a text: a match took more steps (ten million, if it interprets) or stack than it allows."""


class _Pattern:
    """A pattern for PCRE2, compiled when it is first needed."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    @cached_property
    def _compiled(self) -> "_cy.PCRE2Code":
        code = _cy.compile(self._pattern.encode("ascii"))
        with suppress(LibraryError):  # no executable memory: it is interpreted
            _cy.jit_compile(code)
        return code


class Occurrence(_Pattern):
    """A short pattern that occurs in a text or not. PCRE2 compares many bytes at a time, in 1 µs a page."""

    def is_in(self, data: bytes) -> bool:
        """Whether it occurs in these bytes."""
        return _cy.match(self._compiled, data, len(data), 0, _NO_CONTEXT, 0)[0] is not None


class Scanner(_Pattern):
    """Applies a pattern to a whole UTF-8 text, match after match. The pattern has to match any text up to its end.

    It matches bytes. Its result is what groups 1 and 2 capture; no match captures both.
    """

    def captured(self, data: bytes) -> bytes:
        """The captures in order, each after a NUL, empty for a match without captures. A NUL in the text counts as
        U+FFFD (HTML standard §13.2.5). Raises ScanLimitError.
        """
        if _NUL in data:
            data = data.replace(_NUL, _REPLACEMENT)
        try:
            return cast(bytes, _cy.substitute(self._compiled, _GROUPS, data, 0, _EVERY_MATCH)[0])
        except LibraryError as error:
            raise ScanLimitError(str(error)) from error

    def pieces(self, data: bytes) -> Iterable[str]:
        """The captures as text, with U+FFFD for bytes that are no UTF-8. Of a large text they are made one at a time: a
        list could take thirty times its size. Raises ScanLimitError, before it returns.
        """
        captured = str(self.captured(data), "utf-8", "replace")
        if len(captured) <= _AT_ONCE:
            return captured.split("\0")
        return (match[0] for match in _PIECE.finditer(captured))


# -- tags

MAX_ATTRIBUTES: Final = 256  # of one element; pages use a dozen, data-* frameworks a few tens

_SPACE = r"[\t\n\f\r ]"
# Everything between the name of a tag and its ">". A quote opens a value only right after "=". An unclosed value takes
# the rest of the text, as in a browser.
_ATTRIBUTES = (
    rf"(?:[^>=]*+(?:={_SPACE}*+(?:\"[^\"]*+(?:\"|\z)|'[^']*+(?:'|\z)|[^\t\n\f\r >\"'][^\t\n\f\r >]*+)?+[^>=]*+)*+)"
)
_NAME: Final = r"[a-zA-Z][^\t\n\f\r />]*+"  # a "=" or a quote in it opens nothing
_ATTRIBUTE = re.compile(
    rf"([^\t\n\f\r />=][^\t\n\f\r />=]*)(?:{_SPACE}*={_SPACE}*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r >]*)))?"
)
# A comment from "!--" on. It may end at once; without an end it takes the rest of the text.
_COMMENT = r"!--(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+(?:--!?>)?+)"
_REFERENCE = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*[;=]?)")


# A section from "![CDATA[" on, which is text in SVG and MathML only.
_CDATA = r"!\[CDATA\[[^\]]*+(?:\](?!\]>)[^\]]*+)*+(?:\]\]>)?+"

# Elements whose content is text up to an end tag of the same name (§13.2.5.2, .3, .4).
TEXT_ELEMENTS: Final = ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes")

FOREIGN: Final = ("svg", "math")
_WITH_CONTENT: Final = frozenset((*TEXT_ELEMENTS, *FOREIGN))  # elements that are captured with their content
# Start tags that end SVG and MathML around them (§13.2.6.5).
_BREAKOUTS: Final = (
    "b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt", "em", "embed", "h1", "h2", "h3",
    "h4", "h5", "h6", "head", "hr", "i", "img", "li", "listing", "menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s",
    "small", "span", "strong", "strike", "sub", "sup", "table", "tt", "u", "ul", "var",
)  # fmt: skip
# End tags that very likely do so as well: an open element of these names is around the SVG or MathML.
_SURROUNDING: Final = (
    *_BREAKOUTS, "article", "aside", "button", "caption", "details", "dialog", "fieldset", "figcaption", "figure",
    "footer", "form", "header", "html", "label", "legend", "main", "nav", "noscript", "object", "option", "picture",
    "section", "select", "summary", "tbody", "td", "template", "tfoot", "th", "thead", "tr",
)  # fmt: skip
_HTML_WITHIN: Final = "foreignobject"  # its content is HTML
_MAX_WITHIN: Final = 2  # nested svg elements whose ends are distinguished

# A start tag: its lower-case name, its attributes, and its content if that is text.
Tag = tuple[str, Mapping[str, str], str]


def _any_case(name: str) -> str:
    """A pattern for `name` in any case: character classes are far faster than ignoring case."""
    return "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in name)


def _any_of(names: Iterable[str]) -> str:
    """A pattern for one of `names` in any case, as a whole name."""
    # Grouped by first letter, so that one character rules out most tags.
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name[0], []).append(_any_case(name[1:]))
    branches = (f"{_any_case(first)}(?:{'|'.join(rests)})" for first, rests in groups.items())
    return rf"(?:{'|'.join(branches)})(?=[\t\n\f\r />])"


def _text_elements(names: Iterable[str]) -> str:
    """A pattern for the start tag of one of these elements, from its name on, with its content."""
    tags = (rf"{_any_of([name])}{_ATTRIBUTES}>[^<]*+(?:<(?!/{_any_of([name])})[^<]*+)*+" for name in sorted(names))
    return "|".join(tags) or "(?!)"


# The attributes of a tag up to its ">", if a "/" before that closes the element; one in a bare value does not.
_SELF_CLOSED: Final = (
    rf"[^>=]*+(?:={_SPACE}*+(?:\"[^\"]*+\"|'[^']*+'|[^\t\n\f\r >\"'][^\t\n\f\r >]*+(?!>)|(?=>))[^>=]*+)*+(?<=/)>"
)


def _foreign_element(within: int) -> str:
    """A pattern for an svg or math element from its name on: its start tag, its content, and its end tag, unless
    another tag ends it first. `within`: the number of levels that may be nested in it.
    """
    nested = rf"{_any_of((*FOREIGN, _HTML_WITHIN))}{_SELF_CLOSED}"
    if within:
        nested += rf"|{_foreign_element(within - 1)}"
    font = rf"font(?={_SPACE}[^>]*(?:color|face|size))"  # ends it only with one of these attributes
    token = (
        rf"(?!{_any_of((*_BREAKOUTS, *FOREIGN, _HTML_WITHIN))}|{font}){_NAME}{_ATTRIBUTES}>"
        rf"|/(?!{_any_of((*_SURROUNDING, *FOREIGN))})[^>]*+>?+|(?![a-zA-Z!/?])|{_COMMENT}|{_CDATA}|[!?][^>]*+>?+"
        rf"|{nested}"
    )
    content = rf"[^<]*+(?:<(?:{token})[^<]*+)*+(?:</{_any_of(FOREIGN)}[^>]*+>?+)?+"
    return rf"{_any_of(FOREIGN)}(?:{_SELF_CLOSED}|{_ATTRIBUTES}>{content})"


def _plain_anchor(attribute: str) -> str:
    """A pattern for nine anchors of ten: first an http(s) or relative href in which only the fragment has to be
    removed, then attributes of these names. It captures the href, so that the attributes need not be parsed.
    """
    return (
        rf"<a{_SPACE}++href=\"((?:https?+://)?+[^\"&#:<\x00-\x20\x7f\xc2]*+)(?:#[^\"]*+)?+\""
        rf"(?:{_SPACE}++{attribute}=\"[^\"]*+\")*+{_SPACE}*+>"
    )


_NO_REL: Final = r"[a-qs-zA-QS-Z][a-zA-Z0-9-]*+"
_NO_REFERENCE: Final = r"(?:class|id|name|target|title)"  # where any attribute may have one


# Nine meta elements of ten, which have no meaning for a crawler.
_DESCRIPTION: Final = (
    rf"meta{_SPACE}++name=\"(?:description|keywords|viewport|generator|author|theme-color)\""
    rf"{_SPACE}++content=\"[^\"]*+\"{_SPACE}*+/?+>"
)


class TagFinder:
    """Finds the start tags of certain names (None: of every name), without descriptions. Make it once: it compiles.

    An svg or math element is one tag, with all in it as its content (see `foreign_finder`).
    """

    def __init__(self, names: Collection[str] | None) -> None:
        text_elements = frozenset(TEXT_ELEMENTS)
        if names is None:
            wanted, passed_over, anchor = text_elements, "", _plain_anchor(_NO_REFERENCE)
        else:
            wanted = text_elements & frozenset(names)
            special = {*names, *text_elements, *FOREIGN, "plaintext"}
            firsts = {name[0] for name in special}
            others = "".join(letter for letter in ascii_letters if letter.lower() not in firsts)
            passed_over = "|".join((
                _DESCRIPTION,
                rf"[{others}]{_ATTRIBUTES}>?+" if others else "(?!)",
                rf"(?!{_any_of(special)})[a-zA-Z]{_ATTRIBUTES}>?+",
                _text_elements(text_elements - wanted),
                "",
            ))  # fmt: skip
            anchor = _plain_anchor(_NO_REL) if "a" in names else "(?!)()"
        # Skipped within one match: text, end tags, comments, declarations, start tags of other names. Without an end
        # they take the rest of the text.
        skipped = rf"<(?:/[^>]*+>?+|{passed_over}(?![a-zA-Z!/?])|{_COMMENT}|[!?][^>]*+>?+)"
        with_content = (*text_elements, *FOREIGN)
        # The alternatives are exhaustive: a match never fails, so the search never restarts one character later.
        self._scanner = Scanner(
            rf"[^<]*+(?:{skipped}[^<]*+)*+"
            rf"(?:{anchor}|<{_any_of(['plaintext'])}[\s\S]*+"
            rf"|(<(?:(?!{_any_of(with_content)}){_NAME}{_ATTRIBUTES}>"
            rf"|{_text_elements(wanted)}|{_foreign_element(_MAX_WITHIN)}))"
            rf"|<{_NAME}{_ATTRIBUTES}|\z)"
        )

    def pieces(self, data: bytes) -> Iterable[str]:
        """The tags of a UTF-8 text in order, without those in comments or text and one that the end cuts off. Raises
        ScanLimitError.

        A piece that does not begin with "<" is the href of a plain anchor without its fragment. Such an anchor has no
        `rel` (and, from a finder of every name, no attribute that may have a reference). Any other piece is a tag as
        written, with its content if that is text, for `read_tag`. "" is no tag.
        """
        return self._scanner.pieces(data)


def foreign_finder(names: Collection[str] | None) -> Scanner:
    """A scanner for the start tags of certain names (None: of every name) in the content of an svg or math element.

    There CDATA sections are text, and the content of no element is. A style is captured with its content.
    """
    passed_over = "" if names is None else rf"(?!{_any_of(names)})[a-zA-Z]{_ATTRIBUTES}>?+|"
    no_tag = rf"{_COMMENT}|{_CDATA}|[!?][^>]*+>?+"
    style = rf"{_any_of(['style'])}{_ATTRIBUTES}>[^<]*+(?:<(?:{no_tag})[^<]*+)*+"
    return Scanner(
        rf"[^<]*+(?:<(?:/[^>]*+>?+|{passed_over}(?![a-zA-Z!/?])|{no_tag})[^<]*+)*+"
        rf"(?:(<(?:{style}|{_NAME}{_ATTRIBUTES}>))()|<{_NAME}{_ATTRIBUTES}|\z)"
    )


_BEGINNING: Final = re.compile(r"<([a-zA-Z][^\t\n\f\r />]*)")
# After the name of a tag: a value, which may contain ">", or the end of the tag.
_VALUE_OR_END: Final = re.compile(rf"={_SPACE}*(?:\"[^\"]*\"?|'[^']*'?|[^\t\n\f\r >\"'][^\t\n\f\r >]*)?|>")


def read_tag(piece: str) -> Tag:
    """Split a tag that `TagFinder.pieces` found."""
    match = _BEGINNING.match(piece)
    if match is None:  # no page may make it raise
        return "", {}, ""
    name = match[1].lower()
    end = len(piece) - 1
    if name in _WITH_CONTENT:  # its content follows
        end = next((found.start() for found in _VALUE_OR_END.finditer(piece, match.end()) if found[0] == ">"), end)
    return name, attributes_of(piece[match.end() : end]), piece[end + 1 :]


def attributes_of(text: str) -> dict[str, str]:
    """The attributes in the text of a tag: lower-case names; values with character references replaced, "" without one.

    Of two with the same name the first counts (§13.2.5.33). At most MAX_ATTRIBUTES are read.
    """
    found: dict[str, str] = {}
    if len(text) > MAX_ATTRIBUTES:
        for count, match in enumerate(_ATTRIBUTE.finditer(text)):
            if count == MAX_ATTRIBUTES:
                break
            found.setdefault(match[1].lower(), unescape_attribute(match[2] or match[3] or match[4] or ""))
        return found
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), unescape_attribute(double or single or bare))
    return found


def unescape_attribute(value: str) -> str:
    """Replace character references as in an attribute value (§13.2.5.72-80).

    There `&copy=1` stays as it is: a name without ";" counts only if neither "=" nor a letter or digit follows. So the
    queries of links are not changed.
    """
    return _REFERENCE.sub(_character, value) if "&" in value else value


def _character(match: re.Match[str]) -> str:
    text = match[0]
    if text[1] == "#":
        return _numbered(text[2:].rstrip(";"))
    return html5.get(text[1:], text)


def _numbered(digits: str) -> str:
    """The character of a numeric reference: "38", "x26". Source: HTML standard §13.2.5.80."""
    base = 16 if digits[0] in "xX" else 10
    digits = digits.lstrip("xX0")
    code = int(digits, base) if 0 < len(digits) < 9 else 0
    if code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if 0x80 <= code <= 0x9F:  # such pages mean windows-1252
        return bytes((code,)).decode("cp1252", "replace")
    return chr(code)
