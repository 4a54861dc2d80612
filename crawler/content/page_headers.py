"""Response header fields about pages: Location, Refresh, Link (RFC 8288), and directives to robots."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from crawler.content.html.links import (
    CANONICAL,
    REQUISITE,
    Link,
    LinkSet,
    ReferenceResolver,
    clean,
    from_field,
    relation_kind,
)
from crawler.content.html.tag_meaning import refresh_target
from crawler.core.enums import DenyReason
from crawler.core.models import Head, dataclass
from crawler.core.url import UrlError, parse

MAX_LOCATION: Final = 8 * 1024  # characters; servers mostly have this limit for a header line


def location(head: Head, url: str) -> str:
    """The absolute http(s) URL in the Location field of a response to `url`, without fragment.

    If there are several fields, the first counts. Raises UrlError if there is none, or if it is empty, is longer than
    MAX_LOCATION, has CR, LF or NUL in it, or is no URL that can be fetched. Source: RFC 9110 §10.2.2; resolved by the
    URL standard, as in browsers.
    """
    value = head.get("location")
    if value is None or not value.strip():
        raise UrlError(DenyReason.URL_INVALID, "redirect without a Location")
    if len(value) > MAX_LOCATION:
        raise UrlError(DenyReason.URL_TOO_LONG, f"Location longer than {MAX_LOCATION} bytes")
    if "\r" in value or "\n" in value or "\0" in value:
        raise UrlError(DenyReason.URL_INVALID, "Location with a line break or NUL in it")
    return parse(from_field(value), url)[0]


def refresh(head: Head, url: str) -> str | None:
    """The absolute http(s) URL in the Refresh field of a response to `url`; None without one.

    Source: HTML standard §7.4.2.4, "shared declarative refresh steps", as for a meta element.
    """
    value = head.get("refresh")
    if value is None or len(value) > MAX_LOCATION:
        return None
    return ReferenceResolver(url).absolute(from_field(refresh_target(value)))


MAX_CHARS: Final = 64 * 1024  # of all Link fields of a response; Chromium accepts heads of 256 KiB
_SPACE: Final = " \t"


class LinkValue(NamedTuple):
    """One link of a Link field."""

    target: str  # as written, but with bytes beyond ASCII escaped
    parameters: dict[str, str]  # by lower-case name; the first of several with one name

    @property
    def relations(self) -> list[str]:
        """Relation types, lower case. Extension types are URLs."""
        return self.parameters.get("rel", "").lower().split()


def link_values(fields: Sequence[str]) -> Iterator[LinkValue]:
    """The links in the values of all Link fields, in order. Source: RFC 8288 §B.1 to B.3."""
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
    """The parameters from `position` to the comma that ends the link, and the position of the comma."""
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
    """The token or quoted string after white space at `position`, and the position of its end."""
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
    """The links to follow in the Link fields of a response to `url`, and its canonical URL.

    A link with another `anchor` is about another page and is ignored (§3.2). `requisites`: include requisites of the
    page. At most `max_links` are returned.
    """
    base = ReferenceResolver(url)
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


def _resolved(written: str, base: ReferenceResolver) -> str | None:
    return base.absolute(written) if clean(written) else base.url  # a fragment alone is the page itself


@dataclass(frozen=True, slots=True)
class Directives:
    """Directives to robots about a page."""

    noindex: bool = False
    nofollow: bool = False  # for all its links


_NO_DIRECTIVES: Final = Directives()
_DIRECTIVE: Final = re.compile(r"[^\s,]+")
# An agent may stand before the directives ("googlebot: nofollow"). The colon of unavailable_after and of the max-*
# directives stands before their value instead.
_AGENT: Final = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*:\s*(.*)", re.DOTALL)
_VALUED: Final = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))


def page_directives(meta: Sequence[tuple[str | None, str]], x_robots: Sequence[str], token: str) -> Directives:
    """The directives to all robots and to our product `token` (any case).

    `meta`: agents (None: all) and contents, as in `ParsedPage.robots`. `x_robots`: the values of the X-Robots-Tag
    fields, each of which may begin with an agent. Directives to other agents and unknown directives are ignored.
    """
    if not meta and not x_robots:
        return _NO_DIRECTIVES
    token = token.lower()
    found: set[str] = set()
    for agent, content in meta:
        if agent is None or agent.lower() == token:
            found.update(_directives(content))
    for field in x_robots:
        found.update(_field_directives(field, token))
    if not found:
        return _NO_DIRECTIVES
    none = "none" in found
    return Directives(noindex=none or "noindex" in found, nofollow=none or "nofollow" in found)


def _directives(content: str) -> Iterable[str]:
    return _DIRECTIVE.findall(content.lower())


def _field_directives(field: str, token: str) -> Iterable[str]:
    """The directives to us in one field. An agent applies up to the next agent: "a: noindex, b: nofollow"."""
    for_us = True
    found: list[str] = []
    for part in field.split(","):
        match = _AGENT.match(part)
        if match is not None and match[1].lower() not in _VALUED:
            for_us = match[1].lower() == token
            part = match[2]
        elif match is not None:
            continue
        if for_us:
            found.extend(_directives(part))
    return found
