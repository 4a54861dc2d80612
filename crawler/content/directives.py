"""What a page asks of robots: meta elements and X-Robots-Tag fields, joined to the most restrictive.

It does not know where they were read, nor what is done about them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from crawler.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Directives:
    """What is asked not to be done with a page. `nofollow` covers all its links."""

    noindex: bool = False
    nofollow: bool = False
    noarchive: bool = False


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
    return Directives(
        noindex=none or "noindex" in words, nofollow=none or "nofollow" in words, noarchive="noarchive" in words
    )


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
