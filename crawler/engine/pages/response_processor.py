"""What a response means: its outcome, the URLs it leads to, and what is recorded of it.

Synchronous and without I/O, so that a large page can be read in a thread. It knows content and core; when, by whom and
whether a request is made is the worker's and scheduler's business.
"""

import asyncio
import codecs
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from crawler.content import charset, decode, page_headers
from crawler.content.html import parsing, tag_meaning
from crawler.content.html.fingerprint import Fingerprint, fingerprint
from crawler.content.html.links import FEED_TYPES, KnownLinks, Link
from crawler.content.html.scanner import ScanLimitError
from crawler.content.page_headers import header_links
from crawler.content.url_lists.formats import read_url_list
from crawler.content.url_lists.url_list import UrlList
from crawler.core import models
from crawler.core.body import payload_digest
from crawler.core.enums import DenyReason, ErrorType, ReadingFault, Source, TaskKind, TruncatedReason
from crawler.core.media_types import XHTML, mime_type
from crawler.core.models import (
    Denied,
    Discovered,
    Failed,
    Fetched,
    FetchResult,
    NotModified,
    Outcome,
    PageInfo,
    Redirected,
    Task,
)
from crawler.core.outcomes import response_of
from crawler.core.scope import MAX_REDIRECTS, Scope
from crawler.core.url import UrlError, check_href, key_of, kind_key_of, respelled_key_of
from crawler.engine.options import EngineConfiguration
from crawler.engine.pages.recent_urls import InLinks, RecentKeys, RecentUrls

T = TypeVar("T")

# A page of this size takes 2 ms to parse: larger ones are read in a thread, so that the loop is never held for long.
READ_IN_THREAD_OVER: Final = 512 * 1024
# Between being read and being handed to the committer a large page costs ten times its size (text, links, discoveries);
# more at once than there are cores would only cost memory.
LARGE_AT_ONCE: Final = 2
_XML_FACTOR: Final = 8  # pages in XML take so much longer
# Pages compress to a fifth, some to a thirtieth: a coded one this small decodes to no more than a plain large one.
_CODED_FACTOR: Final = 32


async def off_loop_if_large(outcome: Outcome, work: Callable[[], T]) -> T:
    """The result of `work`, which reads `outcome`."""
    return await asyncio.to_thread(work) if is_large(outcome) else work()


def is_large(outcome: Outcome, *, is_listing: bool = False) -> bool:
    """Whether reading takes long enough for a thread. What is coded may be many times as large as it looks; a sitemap
    takes five times as long as HTML, and may be gzip without saying so.
    """
    response = response_of(outcome)
    if response is None or response.payload.size <= READ_IN_THREAD_OVER // _CODED_FACTOR:
        return False
    if is_listing or response.head.get("content-encoding") is not None:
        return True
    is_xml = mime_type(response.head.content_type) == XHTML
    return response.payload.size > (READ_IN_THREAD_OVER // _XML_FACTOR if is_xml else READ_IN_THREAD_OVER)


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
LISTING_KINDS: Final = frozenset((TaskKind.SITEMAP, TaskKind.FEED))
_LISTING_TYPES: Final = FEED_TYPES | {"application/xml", "text/xml"}
_FEEDS_A_HOST: Final = 16
_FEED_HOSTS: Final = 65_536  # then counting starts over
MAX_ELSEWHERE: Final = 8_192
_HTML: Final = frozenset({"text/html", XHTML})
KEPT_HOPS: Final = 64  # letters of hop_path kept


@models.dataclass(frozen=True, slots=True)
class SkippedLink:
    """A link that was refused, and the host it leads to ("" if it is no URL)."""

    url: str
    host: str
    reason: DenyReason
    rule: str


class Elsewhere:
    """Links to hosts out of scope, judged lately. Pages of a site share them, and of a plain link neither depth nor
    hops have a say in it; another scope may think otherwise of all.
    """

    def __init__(self) -> None:
        self._scope: Scope | None = None
        self._links: dict[str, SkippedLink] = {}

    def under(self, scope: Scope) -> dict[str, SkippedLink]:
        """Those that this scope refused, by URL; to be added to. Emptied when it is full, which is harmless."""
        if scope is not self._scope or len(self._links) >= MAX_ELSEWHERE:
            self._scope, self._links = scope, {}
        return self._links


@dataclass(slots=True)
class ProcessedResponse:
    """What was read out of one response. `outcome` is the one that was given, or what reading made of it: a
    decompression bomb is an error, though it was fetched in order.
    """

    outcome: Outcome
    discovered: list[Discovered] = field(default_factory=list)
    page: PageInfo | None = None
    payload_digest: str | None = None
    links_found: int = 0
    skipped: list[SkippedLink] = field(default_factory=list)
    index: bool = True  # False: the page asks not to be indexed
    fingerprint: Fingerprint | None = None  # of an HTML page whose template is under suspicion
    listing: UrlList | None = None  # a sitemap or feed, whose entries `engine.pages.url_list_policy` judges


class ResponseProcessor:
    """Reads responses. `seen` spares the store links that it was sent lately, `in_links` counts them if revisits are
    planned by it; both are only asked and filled on the event loop (`judge`), never in a thread.
    """

    def __init__(
        self,
        options: EngineConfiguration,
        *,
        seen: RecentKeys,
        in_links: InLinks | None = None,
    ) -> None:
        self.reconfigure(options)
        self._seen = seen
        self._elsewhere = Elsewhere()
        self._urls = RecentUrls()  # of those in `seen`, the ones met last: not even their keys need be worked out
        # Of links counted for revisits none may be left out.
        self._known = KnownLinks(self._urls if in_links is None else ())
        self._in_links = in_links
        self._feeds: Counter[str] = Counter()

    def reconfigure(self, options: EngineConfiguration) -> None:
        """Put options in force, from the next response on."""
        self._content = options.content
        self._fetch = options.client.fetch
        self._token = options.robots_token
        self._obey = options.obeys_robots
        self._requisites = options.scope.requisites
        self._lazy = options.scope.lazy

    @property
    def seen_bytes(self) -> int:
        """What the memory of recent keys takes, however full it is."""
        return self._seen.size_bytes

    def outcome_of(self, task: Task, result: FetchResult) -> Outcome:
        """Tell a redirect and a 304 from an answer with content."""
        if isinstance(result, Failed):
            return result
        status = result.head.status_code
        if status == 304 and (task.etag or task.last_modified):
            return NotModified(result)
        if status in _REDIRECTS and result.head.get("location") is not None:
            try:
                return Redirected(result, page_headers.location(result.head, task.url))
            except UrlError:
                return result
        return result

    def read(
        self, task: Task, outcome: Outcome, *, on_loop: bool = True, fingerprinted: bool = False
    ) -> tuple[ProcessedResponse, list[Link]]:
        """The costly half: hash, decode, parse. Returns the reading and the links found, to be judged, perhaps without
        those that are stored. Safe in a thread, with `on_loop` false: then what links meant on other pages is not
        looked at.
        """
        reading = ProcessedResponse(outcome)
        response = response_of(outcome)
        if response is None:
            return reading, []
        reading.payload_digest = payload_digest(response.payload)
        if task.kind is TaskKind.ROBOTS or response.truncated is TruncatedReason.CONTENT_TYPE:
            # `robots_visit` reads the one, and there is nothing to read of the other
            return reading, []
        if isinstance(outcome, Redirected):
            moved = _moved_to(outcome.target)
            reading.links_found = len(moved)  # its line in the log counts it too
            return reading, moved
        if isinstance(outcome, NotModified) or not 200 <= response.head.status_code < 300:
            return reading, []
        return self._read_content(task, response, reading, self._known if on_loop else None, fingerprinted)

    def _read_content(
        self, task: Task, response: Fetched, reading: ProcessedResponse, known: KnownLinks | None, fingerprinted: bool
    ) -> tuple[ProcessedResponse, list[Link]]:
        head = response.head
        content_type = head.content_type
        mime = mime_type(content_type)
        if task.kind in LISTING_KINDS or (mime in _LISTING_TYPES and task.kind is TaskKind.PAGE):
            return self._read_listing(task, response, reading, mime), []
        decoded = decode.decode(
            response.payload,
            head.get_all("content-encoding"),
            keep=self._content.max_html,
            max_decoded=self._fetch.max_decoded,
            max_expansion=self._fetch.max_expansion,
        )
        if decoded.bomb:
            reading.outcome = replace(response, error_type=response.error_type or ErrorType.TOO_LARGE)
            return reading, []
        robots = head.get_all("x-robots-tag") if self._obey else []
        encoding: str | None = None
        title: str | None = None
        language: str | None = None
        canonical: str | None = None
        stated = head.get_all("link")
        stored = 0  # links that are left out
        fault: ReadingFault | None = None
        if mime in _HTML or (not mime and decoded.data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"):
            xml = mime == XHTML
            encoding = (charset.sniff_xml if xml else charset.sniff)(decoded.data, content_type)
            text = charset.to_utf8(decoded.data, encoding)
            if fingerprinted:
                with suppress(ScanLimitError):
                    reading.fingerprint = fingerprint(text, task.url)
            parsed = parsing.parse_page(
                text,
                task.url,
                requisites=self._requisites,
                lazy=self._lazy,
                max_links=self._content.max_links,
                known=None if stated else known,  # what the header states is compared with all of them
                encoding=encoding,
                xml=xml,
            )
            if parsed.cut:
                fault = ReadingFault.LIMIT
            elif decoded.size > len(decoded.data):
                fault = ReadingFault.MAX_HTML
            elif parsed.capped:
                fault = ReadingFault.MAX_LINKS
            stored = parsed.links_count - len(parsed.links)
            rules = page_headers.page_directives(parsed.robots if self._obey else (), robots, self._token)
            links = list(parsed.links)
            if rules.nofollow:
                links = [link._replace(nofollow=True) for link in links]
            if parsed.refresh is not None:
                links += _moved_to(parsed.refresh)
            title, language, canonical = parsed.title, parsed.language, parsed.canonical
        else:
            rules = page_headers.page_directives((), robots, self._token)
            links = []
            if mime == "text/css" and self._requisites:
                sheet = charset.to_utf8(decoded.data, charset.sniff_css(decoded.data, content_type))
                try:
                    links = tag_meaning.style_sheet_links(sheet, task.url)
                except ScanLimitError:
                    fault = ReadingFault.LIMIT
        if stated:
            more, named = header_links(stated, task.url, requisites=self._requisites, max_links=self._content.max_links)
            present = {(link.url, link.source) for link in links}
            links += [link for link in more if (link.url, link.source) not in present]
            canonical = canonical or named
            if rules.nofollow:
                links = [link._replace(nofollow=True) for link in links]
        refreshed = page_headers.refresh(head, task.url)
        if refreshed is not None:
            links += [link for link in _moved_to(refreshed) if link not in links]
        reading.index = not rules.noindex
        reading.links_found = count = len(links) + stored
        reading.page = PageInfo(
            canonical, mime or None, encoding, title, language, count, decoded.size, decoded.fault, fault
        )
        return reading, links

    def _read_listing(self, task: Task, response: Fetched, reading: ProcessedResponse, mime: str) -> ProcessedResponse:
        head = response.head
        listing = reading.listing = read_url_list(
            response.payload,
            head.get_all("content-encoding"),
            url=task.url,
            content_type=head.content_type,
            max_expansion=self._fetch.max_expansion,
            text_too=task.kind is TaskKind.SITEMAP,
        )
        reading.links_found = len(listing.entries)
        if task.kind is TaskKind.PAGE:
            rules = page_headers.page_directives((), head.get_all("x-robots-tag") if self._obey else [], self._token)
            reading.index = not rules.noindex
            reading.page = PageInfo(None, mime or None, None, None, None, len(listing.entries), listing.size)
            if rules.nofollow:
                reading.listing = None
        elif listing.error is not None:
            reading.outcome = replace(response, error_type=response.error_type or ErrorType.CONTENT_ERROR)
        return reading

    def judge(
        self, task: Task, reading: ProcessedResponse, links: Sequence[Link], scope: Scope, *, remembers: bool = True
    ) -> None:
        """The cheap half, on the event loop: which links are worth storing. Fills `reading.discovered`. `remembers`:
        what is sent to the store need not be sent again when another page links to it.
        """
        seen, urls = self._seen, self._urls
        if self._in_links is not None and links and not task.is_revisit and self._in_links.wants_page():
            self._in_links.note([key_of(link.url) for link in links])
        elsewhere = self._elsewhere.under(scope)
        for link in links:
            if link.url in urls and link.source is not Source.REDIRECT:
                continue
            if link.source is Source.LINK and not link.nofollow and (known := elsewhere.get(link.url)) is not None:
                reading.skipped.append(known)
                continue
            key = key_of(link.url)
            kind = TaskKind.PAGE
            if link.source is Source.REDIRECT:
                if key == key_of(task.url) and link.url != task.url:
                    key = respelled_key_of(link.url)
                kind = task.kind
                if kind is not TaskKind.PAGE:
                    key = kind_key_of(link.url, kind)
            elif link.source is Source.FEED:
                feed_key = kind_key_of(link.url, TaskKind.FEED)
                if seen.has(feed_key):
                    continue
                if self._has_room_for_feed(link):
                    kind, key = TaskKind.FEED, feed_key
                elif seen.has(key):
                    continue
            elif seen.has(key):
                urls.add(link.url)
                continue
            refused, found = self._judge_link(task, link, key, kind, scope)
            if refused is not None:
                skipped = SkippedLink(link.url, link.origin.host, refused.reason, refused.rule)
                reading.skipped.append(skipped)
                if refused.reason is DenyReason.SCOPE_HOST and link.source is Source.LINK:
                    elsewhere[link.url] = skipped
            else:
                if remembers:
                    seen.add(key)
                reading.discovered.append(found)

    def _has_room_for_feed(self, link: Link) -> bool:
        """Some sites have a feed for each page: beyond the first few of a host they are pages, as far as limits go."""
        if len(self._feeds) >= _FEED_HOSTS:
            self._feeds.clear()
        host = link.origin.host
        if self._feeds[host] >= _FEEDS_A_HOST:
            return False
        self._feeds[host] += 1
        return True

    def _judge_link(
        self, task: Task, link: Link, key: int, kind: TaskKind, scope: Scope
    ) -> tuple[Denied | None, Discovered]:
        source = link.source
        found = _discovered(task, link, key, kind)
        if link.nofollow and self._obey and source is not Source.REQUISITE:
            return Denied(DenyReason.NOFOLLOW, "nofollow"), found
        if found.redirects > MAX_REDIRECTS:
            return Denied(DenyReason.REDIRECT_LIMIT, f"more than {MAX_REDIRECTS} redirects"), found
        return scope.judge(link.url, link.origin, depth=found.depth, hop_path=found.hop_path, source=source), found


def _moved_to(target: str) -> list[Link]:
    """The link of a Location or a meta refresh; none if it leads nowhere that can be fetched."""
    try:
        url, origin = check_href(target)
    except UrlError:
        return []
    return [Link(url, origin, Source.REDIRECT, False)]


def _discovered(task: Task, link: Link, key: int, kind: TaskKind) -> Discovered:
    hop_path = task.hop_path[-KEPT_HOPS:]
    match link.source:
        case Source.REDIRECT:
            depth, hop_path, redirects = task.depth, hop_path + "R", task.redirects + 1
        case Source.REQUISITE:
            depth, hop_path, redirects = task.depth, hop_path + "E", 0
        case _:
            depth, hop_path, redirects = task.depth + 1, hop_path + "L", 0
    return Discovered(
        link.url,
        link.origin,
        key,
        depth,
        hop_path,
        link.source,
        task.priority,
        redirects,
        kind,
        legacy_url=link.legacy_url,
    )
