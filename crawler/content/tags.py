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
from typing import Final, cast

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
# From "!--" on; it may be over at once, and lasts to the end of the text if nothing ends it.
_COMMENT = r"!--(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+(?:--!?>)?+)"
_REFERENCE = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[A-Za-z][A-Za-z0-9]*[;=]?)")


# A start tag: its lower-case name, the text of its attributes, and, where its content is text, that. A bare tuple
# because a page has hundreds.
Tag = tuple[str, str, str]


def _any_case(name: str) -> str:
    """A pattern for `name` in any case; sre finds a first character class far faster than it ignores case."""
    return "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in name)


# Elements whose content is text, not markup (§13.2.5.2, .3, .4): until an end tag of the same name.
TEXT_ELEMENTS: Final = ("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes")
_TEXT_NAME: Final = rf"({'|'.join(_any_case(name) for name in TEXT_ELEMENTS)})(?=[\t\n\f\r />])"  # the third group
_TEXT: Final = r"([^<]*+(?:<(?!/(?i:\3)[\t\n\f\r />])[^<]*+)*+)"

# A text up to this long is taken apart in one call: a fifth faster than a match at a time, and the list of tags costs a
# few megabytes at the very worst. `plaintext` makes the rest of the page text.
_AT_ONCE_CHARS: Final = 256 * 1024

# What one match brings: an anchor's href and the rest of it, or the name of a text element, or another name, then
# attributes and content.
Groups = tuple[str, str, str, str, str, str]


# Nine anchors of ten: an href first, in which nothing needs replacing or cutting. To find it in the same match saves
# taking the attributes apart, a third of the time a page costs.
_PLAIN_ANCHOR: Final = rf"a{_SPACE}++href=\"([^\"&#:\x00-\x20\x7f-\xa0]*+)(?:#[^\"]*+)?+\"({_ATTRIBUTES})>"


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
            for name in sorted({*names, *TEXT_ELEMENTS, "plaintext"}):
                groups.setdefault(name[0], []).append(_any_case(name[1:]))
            branches = (f"{_any_case(first)}(?:{'|'.join(rests)})" for first, rests in groups.items())
            wanted = f"(?:{'|'.join(branches)})[\\t\\n\\f\\r />]"
            letters = "".join(letter for letter in ascii_letters if letter.lower() not in groups)
            others = f"[{letters}]{_ATTRIBUTES}>?+|" if letters else ""
        # Passed over inside one match: text, end tags, comments, declarations, start tags that nobody asked for. What
        # has no end takes the rest of the text.
        skipped = (
            rf"<(?:/[^>]*+>?+|{others}(?!{wanted})[a-zA-Z]{_ATTRIBUTES}>?+|(?![a-zA-Z!/?])|{_COMMENT}|[!?][^>]*+>?+)"
        )
        # The alternatives are exhaustive: a match never fails, so the search never starts again one character on.
        self._pattern = re.compile(
            rf"[^<]*+(?:{skipped}[^<]*+)*+"
            rf"(?:<(?:{plain}|{_any_case('plaintext')}(?=[\t\n\f\r />])[\s\S]*+"
            rf"|(?:{_TEXT_NAME}|([a-zA-Z][^\t\n\f\r />]*+))({_ATTRIBUTES})>(?(3){_TEXT}|)"
            rf"|[a-zA-Z]{_ATTRIBUTES})|\Z)"
        )

    def groups(self, text: str) -> Iterable[Groups]:
        """The tags in order: not what looks like one in a comment or in text, nor one that the end cuts off.

        An anchor whose href can be taken as it stands, up to its fragment, comes as that href and what follows it in
        the tag (not from a finder of every name). Groups that are empty throughout mean nothing.
        """
        if len(text) <= _AT_ONCE_CHARS:
            return cast(list[Groups], self._pattern.findall(text))
        return (cast(Groups, match.groups("")) for match in self._pattern.finditer(text))

    def find(self, text: str) -> Iterator[Tag]:
        """The same as tags: names in lower case, anchors like any other tag."""
        for plain, rest, text_name, name, attributes, content in self.groups(text):
            if text_name or name:
                yield (text_name or name).lower(), attributes, content
            elif plain or rest:
                yield "a", anchor_attributes(plain, rest), ""


def anchor_attributes(plain: str, rest: str) -> str:
    """The text of the attributes of an anchor that came as its href and the rest."""
    return f'href="{plain}"{rest}'


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
