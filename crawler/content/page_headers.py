"""What a response says beside its text: Link fields (RFC 8288), redirects and refreshes, and directives to robots."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from crawler.content.html.links import CANONICAL, REQUISITE, Link, LinkSet, relation_kind
from crawler.content.html.resolution import ReferenceResolver, clean, from_field
from crawler.content.html.tag_meaning import refresh_target
from crawler.core.enums import DenyReason
from crawler.core.frozen import dataclass
from crawler.core.models import Head
from crawler.core.url import UrlError, parse

MAX_LOCATION: Final = 8 * 1024  # characters; servers' own limit for a header line is mostly the same


def location(head: Head, url: str) -> str:
    """Return the absolute http(s) URL that a response to `url` names in its Location field, without fragment.

    Where there are several fields the first counts. Raises UrlError if there is none or it is empty, longer than
    MAX_LOCATION, holds CR or LF, or is no URL worth fetching. Source: RFC 9110 §10.2.2, resolved by the URL standard,
    as browsers do.
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
    """The absolute http(s) URL that a response to `url` names in its Refresh field; None if there is none.

    Source: HTML standard §7.4.2.4, "shared declarative refresh steps", as for a meta element.
    """
    value = head.get("refresh")
    if value is None or len(value) > MAX_LOCATION:
        return None
    reference = clean(from_field(refresh_target(value)))
    if not reference:
        return None
    try:
        return parse(reference, url)[0]
    except UrlError:
        return None


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
    reference = clean(written)
    if not reference:  # a fragment alone is the page itself
        return base.url
    try:
        return base.resolve(reference)[0]
    except UrlError:
        return None


@dataclass(frozen=True, slots=True)
class Directives:
    """What is asked not to be done with a page. `nofollow` covers all its links."""

    noindex: bool = False
    nofollow: bool = False


_NONE_ASKED: Final = Directives()
_WORD: Final = re.compile(r"[^\s,]+")
# "googlebot: nofollow": an agent's name before the directives. unavailable_after and the max-* directives also have a
# colon, with a value behind it.
_AGENT: Final = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*:\s*(.*)", re.DOTALL)
_VALUED: Final = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))


def page_directives(meta: Sequence[tuple[str | None, str]], x_robots: Sequence[str], token: str) -> Directives:
    """Join what is asked of all robots and of our product `token` (any case).

    `meta`: agent (None: all) and content, as in `html.Html.robots`; `x_robots`: the values of the X-Robots-Tag fields,
    each of which may begin with an agent. What is asked of others is ignored, and so are words that are not known.
    """
    if not meta and not x_robots:
        return _NONE_ASKED
    token = token.lower()
    words: set[str] = set()
    for agent, content in meta:
        if agent is None or agent.lower() == token:
            words.update(_words(content))
    for field in x_robots:
        words.update(_field_words(field, token))
    if not words:
        return _NONE_ASKED
    none = "none" in words
    return Directives(noindex=none or "noindex" in words, nofollow=none or "nofollow" in words)


def _words(content: str) -> Iterable[str]:
    return _WORD.findall(content.lower())


def _field_words(field: str, token: str) -> Iterable[str]:
    """The words of one field that are meant for us. An agent holds up to the next one: "a: noindex, b: nofollow"."""
    for_us = True
    words: list[str] = []
    for part in field.split(","):
        match = _AGENT.match(part)
        if match is not None and match[1].lower() not in _VALUED:
            for_us = match[1].lower() == token
            part = match[2]
        elif match is not None:
            continue
        if for_us:
            words.extend(_words(part))
    return words
