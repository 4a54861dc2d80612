"""What a response means: its outcome, the URLs it leads to, and what is recorded of it.

Synchronous and without I/O, so that a large page can be read in a thread. It knows content and core; when, by whom and
whether a request is made is the worker's and scheduler's business.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from crawler.content import charset, css, decode, digest, directives, html, redirect
from crawler.content.options import ContentOptions
from crawler.core.outcome import response_of
from crawler.core.scope import MAX_REDIRECTS, Scope
from crawler.core.url import UrlError, checked, key_of, respelt_key_of
from crawler.core.values import (
    Discovered,
    Failed,
    Fetched,
    FetchResult,
    NotModified,
    Origin,
    Outcome,
    PageInfo,
    Redirected,
    Task,
)
from crawler.core.vocabulary import DenyReason, Source
from crawler.engine.seen import RecentKeys
from crawler.fetch.options import FetchOptions

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HTML: Final = frozenset({"text/html", "application/xhtml+xml"})
_KEPT_HOPS: Final = 64  # letters of hop_path kept


@dataclass(frozen=True, slots=True)
class Skipped:
    """A link that was refused, and the host it leads to ("" if it is no URL)."""

    url: str
    host: str
    reason: DenyReason
    rule: str


@dataclass(slots=True)
class Reading:
    """What was read out of one response."""

    outcome: Outcome
    discovered: list[Discovered] = field(default_factory=list)
    page: PageInfo | None = None
    payload_digest: str | None = None
    links_found: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    index: bool = True  # False: the page asks not to be indexed


class Reader:
    """Reads responses. `seen` spares the store links that it was sent lately; it is only asked and filled on the event
    loop (`judge`), never in a thread.
    """

    def __init__(
        self,
        *,
        content: ContentOptions,
        fetch: FetchOptions,
        token: str,
        obey: bool,
        requisites: bool,
        seen: RecentKeys,
    ) -> None:
        self._content = content
        self._fetch = fetch
        self._token = token
        self._obey = obey
        self._requisites = requisites
        self._seen = seen

    def outcome_of(self, task: Task, result: FetchResult) -> Outcome:
        """Tell a redirect and a 304 from an answer with content."""
        if isinstance(result, Failed):
            return result
        status = result.head.status_code
        if status == 304 and (task.etag or task.last_modified):
            return NotModified(result)
        if status in _REDIRECTS and result.head.get("location") is not None:
            try:
                return Redirected(result, redirect.location(result.head, task.url))
            except UrlError:
                return result
        return result

    def read(self, task: Task, outcome: Outcome) -> tuple[Reading, list[tuple[str, Source, bool]]]:
        """The costly half: hash, decode, parse. Returns the reading and the links found as (url, source, nofollow),
        to be judged. Safe in a thread.
        """
        reading = Reading(outcome)
        response = response_of(outcome)
        if response is None:
            return reading, []
        reading.payload_digest = digest.payload_digest(response.payload)
        if isinstance(outcome, Redirected):
            return reading, [(outcome.target, Source.REDIRECT, False)]
        if isinstance(outcome, NotModified) or not 200 <= response.head.status_code < 300:
            return reading, []
        return self._read_content(task, response, reading)

    def _read_content(
        self, task: Task, response: Fetched, reading: Reading
    ) -> tuple[Reading, list[tuple[str, Source, bool]]]:
        head = response.head
        content_type = head.get("content-type")
        mime = charset.mime_type(content_type)
        decoded = decode.decode(
            response.payload,
            head.get_all("content-encoding"),
            keep=self._content.max_html,
            max_decoded=self._fetch.max_decoded,
            max_expansion=self._fetch.max_expansion,
        )
        robots = head.get_all("x-robots-tag") if self._obey else []
        encoding: str | None = None
        title: str | None = None
        language: str | None = None
        canonical: str | None = None
        if mime in _HTML or (not mime and decoded.data.lstrip()[:1] == b"<"):
            encoding = charset.sniff(decoded.data, content_type)
            parsed = html.extract(
                charset.to_utf8(decoded.data, encoding),
                task.url,
                requisites=self._requisites,
                max_links=self._content.max_links,
            )
            rules = directives.page_directives(parsed.robots if self._obey else (), robots, self._token)
            links = [(link.url, link.source, link.nofollow or rules.nofollow) for link in parsed.links]
            if parsed.refresh is not None:
                links.append((parsed.refresh, Source.REDIRECT, False))
            title, language, canonical = parsed.title, parsed.language, parsed.canonical
        else:
            rules = directives.page_directives((), robots, self._token)
            links = []
            if mime == "text/css" and self._requisites:
                links = [(link.url, link.source, False) for link in css.references(decoded.data, task.url)]
        reading.index = not rules.noindex
        reading.links_found = len(links)
        reading.page = PageInfo(canonical, mime or None, encoding, title, language, len(links), decoded.size)
        return reading, links

    def judge(self, task: Task, reading: Reading, links: Iterable[tuple[str, Source, bool]], scope: Scope) -> None:
        """The cheap half, on the event loop: which links are worth storing. Fills `reading.discovered`."""
        hop_path, depth, seen = task.hop_path[-_KEPT_HOPS:], task.depth, self._seen
        page_keys: set[int] = set()
        for url, source, nofollow in links:
            key = key_of(url)
            if source is Source.REDIRECT:
                if key == key_of(task.url) and url != task.url:
                    key = respelt_key_of(url)
            elif key in page_keys or seen.has(key):
                continue
            page_keys.add(key)
            try:
                url, origin = checked(url)
            except UrlError as error:
                reading.skipped.append(Skipped(url, "", error.reason, str(error)))
                continue
            if nofollow and self._obey and source not in (Source.REQUISITE, Source.REDIRECT):
                reading.skipped.append(Skipped(url, origin.host, DenyReason.NOFOLLOW, "nofollow"))
                continue
            found = _discovered(task, url, origin, key, source, hop_path, depth)
            if found.redirects > MAX_REDIRECTS:
                rule = f"more than {MAX_REDIRECTS} redirects"
                reading.skipped.append(Skipped(url, origin.host, DenyReason.REDIRECT_LIMIT, rule))
                continue
            denied = scope.judge(url, origin, depth=found.depth, hop_path=found.hop_path, source=source)
            if denied is not None:
                reading.skipped.append(Skipped(url, origin.host, denied.reason, denied.rule))
                continue
            seen.add(key)
            reading.discovered.append(found)


def _discovered(
    task: Task, url: str, origin: Origin, key: int, source: Source, hop_path: str, depth: int
) -> Discovered:
    match source:
        case Source.REDIRECT:
            return Discovered(url, origin, key, depth, hop_path + "R", source, task.priority, task.redirects + 1)
        case Source.REQUISITE:
            return Discovered(url, origin, key, depth, hop_path + "E", source, task.priority)
        case _:
            return Discovered(url, origin, key, depth + 1, hop_path + "L", source, task.priority)
