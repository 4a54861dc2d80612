"""The query of a reference in the encoding of the page that it stands on, as browsers send it.

What a form or a server-made link means by "?q=привет" is the bytes in the page's encoding; a path is always UTF-8. It
does not know how the encoding was found (`charset`), nor what the rest of a reference means (`resolve`).
"""

import re
from contextlib import suppress
from typing import Final

import endec
from endec.exceptions import EncodeError

# What the URL standard escapes in the query of an http(s) URL (special-query percent-encode set), as latin-1 text.
_ESCAPED: Final = re.compile("[\\x00-\\x20\"#<>'\\x7f-\\xff]")
_NOT_ENCODABLE: Final = "%26%23{}%3B"  # "&#N;", escaped
# Pages in these send UTF-8, as the "output encoding" of the Encoding standard says.
_UTF8: Final = frozenset(("utf-8", "utf-16le", "utf-16be", "replacement"))


def output_encoding(encoding: str | None) -> str | None:
    """The encoding in which a page in `encoding` sends its queries; None: UTF-8, as every reference does by itself."""
    return None if encoding in _UTF8 else encoding


def with_query_in(encoding: str, reference: str) -> str:
    """`reference` with a query in ASCII: what stands for its characters in `encoding`, escaped.

    A character that the encoding does not have becomes the escapes of "&#N;". Source: URL standard §4.4, query state,
    and §1.3, "percent-encode after encoding"; Encoding standard, by encoding_rs. Never raises.
    """
    path, mark, query = reference.partition("?")
    if query.isascii():
        return reference
    query, mark_of_fragment, fragment = query.partition("#")
    try:
        data = endec.encode(query, encoding)
    except EncodeError:
        data = endec.encode("".join(_encodable(char, encoding) for char in query), encoding, "xmlcharrefreplace")
    query = _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", data.decode("latin-1"))
    return f"{path}{mark}{query}{mark_of_fragment}{fragment}"


def _encodable(char: str, encoding: str) -> str:
    if char.isascii():
        return char
    with suppress(EncodeError):
        endec.encode(char, encoding)
        return char
    return _NOT_ENCODABLE.format(ord(char))
