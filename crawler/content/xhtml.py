"""Pages in XML (application/xhtml+xml): what their elements say, by XML's rules.

Any element may be closed at once, prefixes stand for namespaces, CDATA sections are text, and what is not well-formed
ends the page: what came before that counts. `said` knows what elements mean. It does not know the page.
"""

from contextlib import suppress
from typing import Final

from crawler.content import said
from crawler.content.said import Statement
from crawler.content.tags import attributes_of
from crawler.content.xmlstream import Enough, Refused, read_document

_XHTML: Final = "http://www.w3.org/1999/xhtml"
_SVG: Final = "http://www.w3.org/2000/svg"
_PREFIXED: Final = (
    ("http://www.w3.org/1999/xlink href", "xlink:href"),
    ("http://www.w3.org/XML/1998/namespace lang", "lang"),  # it counts for more than "lang" (HTML standard §3.2.6.2)
)
_WITH_TEXT: Final = frozenset(("title", "style"))
_MAX_TEXT: Final = 512 * 1024  # characters of a title or style sheet that are looked at
_MAX_STATEMENTS: Final = 50_000  # five times as many as a page may have links


def statements(data: bytes, *, requisites: int) -> list[Statement]:
    """What a page says, UTF-8 bytes, in order. `requisites` as in `said.statements`."""
    reader = _Reader(requisites)
    with suppress(Refused):
        read_document(data.decode("utf-8", "replace"), reader)
    return reader.statements


class _Reader:
    """Is told of the elements. Those of no namespace count as HTML: their author left it out."""

    def __init__(self, requisites: int) -> None:
        self.statements: list[Statement] = []
        self._requisites = requisites
        self._reading = ""  # the title or style whose text is read, with its namespace
        self._attributes: dict[str, str] = {}
        self._text: list[str] = []
        self._room = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if namespace not in ("", _XHTML, _SVG):
            return
        if local in _WITH_TEXT and not self._reading:
            self._reading, self._attributes, self._text, self._room = name, attributes, [], _MAX_TEXT
        elif attributes:
            self._say(namespace, local, attributes, "")

    def text(self, data: str) -> None:
        if self._reading and self._room > 0:
            self._text.append(data)
            self._room -= len(data)

    def end(self, name: str) -> None:
        if name == self._reading:
            self._reading = ""
            namespace, _, local = name.rpartition(" ")
            self._say(namespace, local, self._attributes, "".join(self._text))

    def instruction(self, target: str, data: str) -> None:
        """Source: Associating Style Sheets with XML documents 1.0."""
        if target == "xml-stylesheet" and self._requisites:
            self.statements += said.style_sheet(attributes_of(data).get("href", ""))

    def _say(self, namespace: str, local: str, attributes: dict[str, str], text: str) -> None:
        found = dict(attributes)
        for name, known_as in _PREFIXED:
            if name in found:
                found[known_as] = found.pop(name)
        if namespace == _SVG:
            self.statements += said.svg_element(local.lower(), found, text, requisites=self._requisites)
        elif local == "title":
            self.statements.append(said.titled(text))
        else:
            self.statements += said.element(local, found, text, requisites=self._requisites)
        if len(self.statements) > _MAX_STATEMENTS:
            raise Enough
