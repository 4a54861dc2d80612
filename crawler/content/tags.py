"""Find the start tags of an HTML text, in one linear pass and without a tree.

It knows the tokenizer of the HTML standard (§13.2.5) as far as links need it: quoted attribute values, comments, and
the elements whose content is text (script, style, title …). It does not know nesting, and so nothing in a page can make
it slow or large: a tree builder has to copy every unclosed formatting element into every paragraph, and 25 KB of
`<b a=1><p><b a=2><p>…` cost lexbor 1.8 s and 733 MB. Its time and memory are proportional to the text, whatever it
says.

Every repetition in the patterns is possessive: none is ever tried twice.
"""

import re
from collections.abc import Iterable, Iterator
from html.entities import html5
from string import ascii_letters
from typing import Final

MAX_ATTRIBUTES: Final = 256  # of one element that are read; pages use a dozen, data-* frameworks a few tens

_SPACE = r"[\t\n\f\r ]"
# What stands between a tag's name and its ">": a quote opens a value only right behind "=". One that never closes takes
# the rest of the text, as in a browser.
_ATTRIBUTES = (
    rf"(?:[^>=]*+(?:={_SPACE}*+(?:\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z)|[^\t\n\f\r >\"'][^\t\n\f\r >]*+)?+[^>=]*+)*+)"
)
_ATTRIBUTE = re.compile(
    rf"([^\t\n\f\r />=][^\t\n\f\r />=]*+)(?:{_SPACE}*+={_SPACE}*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\t\n\f\r >]*+)))?+"
)
_COMMENT_END = re.compile(r"--!?>")
_REFERENCE = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*[;=]?)")


# A start tag: its lower-case name, the text of its attributes, and, where its content is text, that. A bare tuple
# because a page has hundreds.
Tag = tuple[str, str, str]


def _any_case(name: str) -> str:
    """A pattern for `name` in any case; sre finds a first character class far faster than it ignores case."""
    return "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in name)


# Elements whose content is text, not markup (§13.2.5.2, .3, .4), and where that ends.
_TEXT_END: Final = {
    name: re.compile(rf"</{_any_case(name)}(?=[\t\n\f\r />])")
    for name in ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes")
}


# Nine anchors of ten: an href first, in which nothing needs replacing or cutting. To find it in the same match saves
# taking the attributes apart, a third of the time a page costs.
_PLAIN_ANCHOR: Final = rf"a{_SPACE}++href=\"([^\"&#:\x00-\x20\x7f-\xa0]*+)(?:#[^\"]*+)?+\"({_ATTRIBUTES})>"
PLAIN_ANCHOR: Final = ""  # in the place of a tag's name


class TagFinder:
    """Finds the start tags of certain names; None: of every name. Build once, use for every page."""

    def __init__(self, names: Iterable[str] | None) -> None:
        plain = "(?!)()()"
        if names is None:
            wanted, others = "[a-zA-Z]", ""
        else:
            if "a" in names:
                plain = _PLAIN_ANCHOR
            # Grouped by first letter, so that most tags are turned away by one look at it.
            groups: dict[str, list[str]] = {}
            for name in sorted({*names, *_TEXT_END, "plaintext"}):
                groups.setdefault(name[0], []).append(_any_case(name[1:]))
            branches = (f"{_any_case(first)}(?:{'|'.join(rests)})" for first, rests in groups.items())
            wanted = f"(?:{'|'.join(branches)})[\\t\\n\\f\\r />]"
            letters = "".join(letter for letter in ascii_letters if letter.lower() not in groups)
            others = f"[{letters}]{_ATTRIBUTES}>|" if letters else ""
        # Text, end tags, and start tags that nobody asked for are passed over inside one match.
        skipped = rf"<(?:/[^>]*+>|{others}(?!{wanted})[a-zA-Z]{_ATTRIBUTES}>|(?![a-zA-Z!/?]))"
        # The alternatives are exhaustive: a match never fails, so the search never starts again one character on.
        self._pattern = re.compile(
            rf"[^<]*+(?:{skipped}[^<]*+)*+"
            rf"(?:<(?:{plain}|([a-zA-Z][^\t\n\f\r />]*+)({_ATTRIBUTES})(>?)|(!--)(?:-?>)?|[/!?][^>]*+>?)|\Z)"
        )

    def find(self, text: str) -> Iterator[Tag]:
        """Yield the tags in order: not what looks like one in a comment or in text, nor one that the end cuts off.

        An anchor whose href can be taken as it stands, up to its fragment, and that has no rel, comes as PLAIN_ANCHOR
        with the href in the place of the attributes (not from a finder of every name).
        """
        position: int | None = 0
        while position is not None:
            restart = None
            for match in self._pattern.finditer(text, position):
                plain, rest, name, attributes, closed, comment = match.groups()
                if plain is not None:
                    if rest and "rel" in rest.lower():
                        yield "a", text[match.start(1) - 6 : match.end(2)], ""  # from href=" on
                    else:
                        yield PLAIN_ANCHOR, plain, ""
                    continue
                if name is not None:
                    if not closed:
                        return
                    name = name.lower()
                    end = _TEXT_END.get(name)
                    if end is None:
                        if name == "plaintext":
                            return
                        yield name, attributes, ""
                        continue
                    start = match.end()
                    found = end.search(text, start)
                    stop = found.start() if found is not None else len(text)
                    yield name, attributes, text[start:stop]
                    restart = stop
                    break
                if comment is not None and text[match.end() - 1] != ">":
                    found = _COMMENT_END.search(text, match.end())
                    if found is None:
                        return
                    restart = found.end()
                    break
            position = restart


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
