"""What a style sheet refers to: url() and @import.

One linear pass of a possessive pattern (`scan`) over comments, strings and urls (CSS Syntax §4) instead of a parser:
tinycss2 takes many times as long to say the same, and serves as the oracle in tests. It does not know what a reference
is for.
"""

import re
from collections.abc import Iterator
from typing import Final

from crawler.content.links import REQUISITE, Link, LinkSet
from crawler.content.resolve import Resolver
from crawler.content.scan import Scanner

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
    return list(links.resolve(Resolver(url)).links)


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
