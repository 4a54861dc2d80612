"""Find the start tags of an HTML text, in one linear pass and without a tree.

It knows the tokenizer of the HTML standard (§13.2.5) as far as links need it: quoted attribute values, comments, the
elements whose content is text (script, style, title …), and SVG and MathML, where their content is none (§13.2.6.5). It
does not know nesting otherwise, and so nothing in a page can make it slow or large: a tree builder has to copy every
unclosed formatting element into every paragraph, and 25 KB of `<b a=1><p><b a=2><p>…` cost lexbor 1.8 s and 733 MB. Its
time and memory are proportional to the text, whatever it says.

Every repetition in the patterns for PCRE2 is possessive: none is ever tried twice. Those for `re` are written so that
nothing else could match where the first try does, for `re` of CPython 3.11.2 gets possessive repetition wrong.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from html.entities import html5
from string import ascii_letters
from typing import Final

from crawler.content.html.scanner import Scanner

MAX_ATTRIBUTES: Final = 256  # of one element that are read; pages use a dozen, data-* frameworks a few tens

_SPACE = r"[\t\n\f\r ]"
# What stands between a tag's name and its ">": a quote opens a value only right behind "=". One that never closes takes
# the rest of the text, as in a browser.
_ATTRIBUTES = (
    rf"(?:[^>=]*+(?:={_SPACE}*+(?:\"[^\"]*+(?:\"|\z)|'[^']*+(?:'|\z)|[^\t\n\f\r >\"'][^\t\n\f\r >]*+)?+[^>=]*+)*+)"
)
_NAME: Final = r"[a-zA-Z][^\t\n\f\r />]*+"  # a "=" or a quote in it opens nothing
_ATTRIBUTE = re.compile(
    rf"([^\t\n\f\r />=][^\t\n\f\r />=]*)(?:{_SPACE}*={_SPACE}*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r >]*)))?"
)
# From "!--" on; it may be over at once, and lasts to the end of the text if nothing ends it.
_COMMENT = r"!--(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+(?:--!?>)?+)"
_REFERENCE = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*[;=]?)")


# From "![CDATA[" on, which is text in SVG and MathML alone.
_CDATA = r"!\[CDATA\[[^\]]*+(?:\](?!\]>)[^\]]*+)*+(?:\]\]>)?+"

# Elements whose content is text, not markup (§13.2.5.2, .3, .4): until an end tag of the same name.
TEXT_ELEMENTS: Final = ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes")

FOREIGN: Final = ("svg", "math")
_WITH_CONTENT: Final = frozenset((*TEXT_ELEMENTS, *FOREIGN))  # elements that come with their content
# Start tags that end SVG and MathML where they stand in them (§13.2.6.5).
_BREAKOUTS: Final = (
    "b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt", "em", "embed", "h1", "h2", "h3",
    "h4", "h5", "h6", "head", "hr", "i", "img", "li", "listing", "menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s",
    "small", "span", "strong", "strike", "sub", "sup", "table", "tt", "u", "ul", "var",
)  # fmt: skip
# End tags that do so as well, in all likelihood: if one of these elements is open, SVG or MathML stands in it.
_SURROUNDING: Final = (
    *_BREAKOUTS, "article", "aside", "button", "caption", "details", "dialog", "fieldset", "figcaption", "figure",
    "footer", "form", "header", "html", "label", "legend", "main", "nav", "noscript", "object", "option", "picture",
    "section", "select", "summary", "tbody", "td", "template", "tfoot", "th", "thead", "tr",
)  # fmt: skip
_HTML_WITHIN: Final = "foreignobject"  # its content is HTML
_MAX_WITHIN: Final = 2  # svg elements in one another whose ends are told apart

# A start tag: its name in lower case, its attributes, and the content if that is text.
Tag = tuple[str, Mapping[str, str], str]


def _any_case(name: str) -> str:
    """A pattern for `name` in any case; a first character class is found far faster than case is ignored."""
    return "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in name)


def _any_of(names: Iterable[str]) -> str:
    """A pattern for one of `names` in any case, if it is a whole name."""
    # Grouped by first letter, so that most tags are turned away by one look at it.
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name[0], []).append(_any_case(name[1:]))
    branches = (f"{_any_case(first)}(?:{'|'.join(rests)})" for first, rests in groups.items())
    return rf"(?:{'|'.join(branches)})(?=[\t\n\f\r />])"


def _text_elements(names: Iterable[str]) -> str:
    """A pattern for the start tag of one of these elements, from its name on, and its content."""
    tags = (rf"{_any_of([name])}{_ATTRIBUTES}>[^<]*+(?:<(?!/{_any_of([name])})[^<]*+)*+" for name in sorted(names))
    return "|".join(tags) or "(?!)"


# A tag's attributes up to its ">" if a "/" before it closes the element; one in a bare value does not.
_SELF_CLOSED: Final = (
    rf"[^>=]*+(?:={_SPACE}*+(?:\"[^\"]*+\"|'[^']*+'|[^\t\n\f\r >\"'][^\t\n\f\r >]*+(?!>)|(?=>))[^>=]*+)*+(?<=/)>"
)


def _foreign_element(within: int) -> str:
    """A pattern for the start tag of svg or math, from its name on, what is in it, and its end tag, if it does not end
    before that. `within`: how many more may be nested in it.
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
    """A pattern for nine anchors of ten: an href first, in which nothing needs replacing, nor cutting but the fragment,
    and which has no other scheme; then attributes of these names. Only the href is wanted, which spares taking the
    attributes apart.
    """
    return (
        rf"<a{_SPACE}++href=\"((?:https?+://)?+[^\"&#:<\x00-\x20\x7f\xc2]*+)(?:#[^\"]*+)?+\""
        rf"(?:{_SPACE}++{attribute}=\"[^\"]*+\")*+{_SPACE}*+>"
    )


_NO_REL: Final = r"[a-qs-zA-QS-Z][a-zA-Z0-9-]*+"
_NO_REFERENCE: Final = r"(?:class|id|name|target|title)"  # where any attribute may hold one


# Nine meta elements of ten, which say nothing to a crawler.
_DESCRIPTION: Final = (
    rf"meta{_SPACE}++name=\"(?:description|keywords|viewport|generator|author|theme-color)\""
    rf"{_SPACE}++content=\"[^\"]*+\"{_SPACE}*+/?+>"
)


class TagFinder:
    """Finds the start tags of certain names, but no descriptions; None: of every name. Build it once.

    SVG and MathML come as one tag each, with what they hold as its content (see `foreign_finder`).
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
        # Passed over inside one match: text, end tags, comments, declarations, start tags that nobody asked for. What
        # has no end takes the rest of the text.
        skipped = rf"<(?:/[^>]*+>?+|{passed_over}(?![a-zA-Z!/?])|{_COMMENT}|[!?][^>]*+>?+)"
        with_content = (*text_elements, *FOREIGN)
        # The alternatives are exhaustive: a match never fails, so the search never starts again one character on.
        self._scanner = Scanner(
            rf"[^<]*+(?:{skipped}[^<]*+)*+"
            rf"(?:{anchor}|<{_any_of(['plaintext'])}[\s\S]*+"
            rf"|(<(?:(?!{_any_of(with_content)}){_NAME}{_ATTRIBUTES}>"
            rf"|{_text_elements(wanted)}|{_foreign_element(_MAX_WITHIN)}))"
            rf"|<{_NAME}{_ATTRIBUTES}|\z)"
        )

    def pieces(self, data: bytes) -> Iterable[str]:
        """The tags of a UTF-8 text in order: not what looks like one in a comment or in text, nor one that the end cuts
        off. Raises ScanLimitError.

        An anchor whose href can be taken as it stands, up to its fragment, comes as that href. It has no `rel` (nor,
        from a finder of every name, any attribute that may refer), and does not begin with "<". Any other tag comes as
        it is written, for `read_tag`; if its content is text, with that. "" means nothing.
        """
        return self._scanner.pieces(data)


def foreign_finder(names: Collection[str] | None) -> Scanner:
    """What finds the start tags of certain names, None: of every name, in the content of a piece that is SVG or MathML.

    There no element's content is text, and CDATA sections are. A style comes with its content.
    """
    passed_over = "" if names is None else rf"(?!{_any_of(names)})[a-zA-Z]{_ATTRIBUTES}>?+|"
    no_tag = rf"{_COMMENT}|{_CDATA}|[!?][^>]*+>?+"
    style = rf"{_any_of(['style'])}{_ATTRIBUTES}>[^<]*+(?:<(?:{no_tag})[^<]*+)*+"
    return Scanner(
        rf"[^<]*+(?:<(?:/[^>]*+>?+|{passed_over}(?![a-zA-Z!/?])|{no_tag})[^<]*+)*+"
        rf"(?:(<(?:{style}|{_NAME}{_ATTRIBUTES}>))()|<{_NAME}{_ATTRIBUTES}|\z)"
    )


_BEGINNING: Final = re.compile(r"<([a-zA-Z][^\t\n\f\r />]*)")
# Behind a tag's name: a value, in which a ">" may stand, or the end of the tag.
_VALUE_OR_END: Final = re.compile(rf"={_SPACE}*(?:\"[^\"]*\"?|'[^']*'?|[^\t\n\f\r >\"'][^\t\n\f\r >]*)?|>")


def read_tag(piece: str) -> Tag:
    """Take a tag apart that `TagFinder.pieces` found."""
    match = _BEGINNING.match(piece)
    if match is None:  # no page may raise, whatever it says
        return "", {}, ""
    name = match[1].lower()
    end = len(piece) - 1
    if name in _WITH_CONTENT:  # its content follows
        end = next((found.start() for found in _VALUE_OR_END.finditer(piece, match.end()) if found[0] == ">"), end)
    return name, attributes_of(piece[match.end() : end]), piece[end + 1 :]


def attributes_of(text: str) -> dict[str, str]:
    """The attributes in a tag's text: lower-case names, values with character references replaced, "" where none.

    Of two with one name the first counts (§13.2.5.33). At most MAX_ATTRIBUTES are read.
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
    """Replace character references as inside an attribute value (§13.2.5.72-80).

    There `&copy=1` stays as it is: a name without ";" counts only if neither "=" nor a letter or digit follows. That is
    what keeps the query strings of links alive.
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
    if 0x80 <= code <= 0x9F:  # what such pages meant is windows-1252
        return bytes((code,)).decode("cp1252", "replace")
    return chr(code)
