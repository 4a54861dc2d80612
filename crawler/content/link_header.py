"""Link fields of a response (RFC 8288): the links that a page states in its head.

Parsed as the standard's own algorithm does (appendix B), which takes what it can from a malformed field. It does not
know whether a link is followed. Invariant: never raises, and its work is proportional to the length of the fields.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from crawler.content.links import CANONICAL, REQUISITE, Link, LinkSet, relation_kind
from crawler.content.resolve import Resolver, clean, from_field
from crawler.core.url import UrlError

MAX_CHARS: Final = 64 * 1024  # of all fields of a response that are looked at; Chromium keeps 256 KiB of a whole head
_SPACE: Final = " \t"


class LinkValue(NamedTuple):
    """One link: its target as written but for bytes beyond ASCII, which are escaped, and its parameters, names in lower
    case; of several of a name the first.
    """

    target: str
    parameters: dict[str, str]

    @property
    def relations(self) -> list[str]:
        """Relation types, lower case; extension types are URLs."""
        return self.parameters.get("rel", "").lower().split()


def link_values(fields: Sequence[str]) -> Iterator[LinkValue]:
    """The links of the values of all Link fields, in order, as written. Source: RFC 8288 §B.1 to B.3."""
    room = MAX_CHARS
    for field in fields:
        yield from _parse(field[:room])
        room = max(0, room - len(field))


def _parse(text: str) -> Iterator[LinkValue]:
    position = 0
    while (start := text.find("<", position)) >= 0:
        end = text.find(">", start)
        if end < 0:
            return
        target = from_field(text[start + 1 : end])
        parameters, position = _parameters(text, end + 1)
        yield LinkValue(target, parameters)


def _parameters(text: str, position: int) -> tuple[dict[str, str], int]:
    """The parameters from `position` to the comma that ends the link, and where that is."""
    parameters: dict[str, str] = {}
    end = len(text)
    while position < end and text[position] != ",":
        if text[position] in " \t;":
            position += 1
            continue
        start = position
        while position < end and text[position] not in " \t=;,":
            position += 1
        name = text[start:position].lower()
        while position < end and text[position] in _SPACE:
            position += 1
        value = ""
        if position < end and text[position] == "=":
            value, position = _value(text, position + 1)
        parameters.setdefault(name, value)
    return parameters, position


def _value(text: str, position: int) -> tuple[str, int]:
    """A token or quoted string that begins at `position`, white space before it skipped, and where it ends."""
    end = len(text)
    while position < end and text[position] in _SPACE:
        position += 1
    if position == end or text[position] != '"':
        start = position
        while position < end and text[position] not in ";,":
            position += 1
        return text[start:position].rstrip(_SPACE), position
    parts: list[str] = []
    position += 1
    while position < end and text[position] != '"':
        if text[position] == "\\" and position + 1 < end:
            position += 1
        parts.append(text[position])
        position += 1
    return "".join(parts), position + 1


def header_links(fields: Sequence[str], url: str, *, requisites: bool, max_links: int) -> tuple[list[Link], str | None]:
    """The links worth following that a response to `url` states, and the canonical address it gives itself.

    What has an `anchor` elsewhere is about another page and left out (§3.2). `requisites`: also what is needed to show
    the page. At most `max_links` are kept.
    """
    base = Resolver(url)
    found = LinkSet(max_links)
    canonical: str | None = None
    for value in link_values(fields):
        if "anchor" in value.parameters and _resolved(from_field(value.parameters["anchor"]), base) != url:
            continue
        kind = relation_kind(value.relations, value.parameters.get("as", ""), value.parameters.get("type", ""))
        if kind is None or (kind == REQUISITE and not requisites):
            continue
        if kind == CANONICAL and canonical is None:
            canonical = _resolved(value.target, base)
        found.add(value.target, kind)
        if found.capped:
            break
    return list(found.resolve(base).links), canonical


def _resolved(written: str, base: Resolver) -> str | None:
    reference = clean(written)
    if not reference:  # a fragment alone is the page itself
        return base.url
    try:
        return base.resolve(reference)[0]
    except UrlError:
        return None
