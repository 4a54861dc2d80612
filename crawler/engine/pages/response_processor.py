"""Response processing: the outcome of a request, the URLs that a response leads to, and the facts that are recorded.

It is synchronous and without I/O, so that a large page can be processed in a thread.
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
from crawler.content.html.tags import ScanLimitError
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

# A page of this size takes 2 ms to parse. Larger ones are processed in a thread, so that the event loop is not blocked.
LARGE_BYTES: Final = 512 * 1024
# Until it is committed, a large page takes ten times its size in memory (text, links, discoveries). To process more of
# them at once than there are cores would only take more memory.
LARGE_AT_ONCE: Final = 2
_XML_FACTOR: Final = 8  # to parse XML takes so many times longer
# Pages compress to a fifth, some to a thirtieth: a coded page below LARGE_BYTES / 32 is not large when decoded.
_CODED_FACTOR: Final = 32


async def off_loop_if_large(outcome: Outcome, work: Callable[[], T]) -> T:
    """Return the result of `work`, which processes `outcome`. It is called in a thread if that takes long."""
    return await asyncio.to_thread(work) if is_large(outcome) else work()


def is_large(outcome: Outcome, *, is_url_list: bool = False) -> bool:
    """Whether processing takes so long that it must be done in a thread.

    A coded body may be many times as large when decoded. A sitemap takes five times as long as HTML, and may be gzip
    without a Content-Encoding.
    """
    response = response_of(outcome)
    if response is None or response.payload.size <= LARGE_BYTES // _CODED_FACTOR:
        return False
    if is_url_list or response.head.get("content-encoding") is not None:
        return True
    is_xml = mime_type(response.head.content_type) == XHTML
    return response.payload.size > (LARGE_BYTES // _XML_FACTOR if is_xml else LARGE_BYTES)


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
URL_LIST_KINDS: Final = frozenset((TaskKind.SITEMAP, TaskKind.FEED))
_URL_LIST_TYPES: Final = FEED_TYPES | {"application/xml", "text/xml"}
_FEEDS_A_HOST: Final = 16
_FEED_HOSTS: Final = 65_536  # hosts whose feeds are counted; when there are more, all counts are reset
MAX_OUT_OF_SCOPE: Final = 8_192
_HTML: Final = frozenset({"text/html", XHTML})
MAX_HOP_PATH: Final = 64  # last letters of hop_path that are kept


@models.dataclass(frozen=True, slots=True)
class SkippedLink:
    """A refused link, its host ("" if it is no URL), and the rule that refused it."""

    url: str
    host: str
    reason: DenyReason
    rule: str


class OutOfScopeLinks:
    """A cache of links, by URL, that were refused because their host is out of scope.

    Pages of a site share such links. Whether the host of a plain link is in scope depends on neither depth nor hops.
    """

    def __init__(self) -> None:
        self._scope: Scope | None = None
        self._links: dict[str, SkippedLink] = {}

    def under(self, scope: Scope) -> dict[str, SkippedLink]:
        """Return the links that this scope refused, for the caller to look up and to add to.

        The cache is emptied when it is full; links are then judged again.
        """
        if scope is not self._scope or len(self._links) >= MAX_OUT_OF_SCOPE:
            self._scope, self._links = scope, {}
        return self._links


@dataclass(slots=True)
class ProcessedResponse:
    """The result of processing one response.

    `outcome` is the one before processing, or another one found by it: a decompression bomb is an error.
    """

    outcome: Outcome
    discovered: list[Discovered] = field(default_factory=list)
    page: PageInfo | None = None
    payload_digest: str | None = None
    links_found: int = 0
    skipped: list[SkippedLink] = field(default_factory=list)
    index: bool = True  # False: the page says noindex
    fingerprint: Fingerprint | None = None  # of an HTML page, if it was wanted
    url_list: UrlList | None = None  # a sitemap or feed; `engine.pages.url_list_policy` judges its entries


class ResponseProcessor:
    """Processes responses: `process` parses one, perhaps in a thread; `judge_links` judges its links on the event loop.

    `recent_keys` has the keys of recently stored URLs, whose links are left out. `in_links` counts links for revisits;
    None without revisits. Only `judge_links` uses the two.
    """

    def __init__(
        self,
        options: EngineConfiguration,
        *,
        recent_keys: RecentKeys,
        in_links: InLinks | None = None,
    ) -> None:
        self.reconfigure(options)
        self._recent_keys = recent_keys
        self._out_of_scope = OutOfScopeLinks()
        self._urls = RecentUrls()  # some URLs of `recent_keys`: looked up before the key is computed
        # If links are counted for revisits, none may be left out.
        self._known = KnownLinks(self._urls if in_links is None else ())
        self._in_links = in_links
        self._feeds: Counter[str] = Counter()

    def reconfigure(self, options: EngineConfiguration) -> None:
        """Apply options, from the next response on."""
        self._content = options.content
        self._fetch = options.client.fetch
        self._token = options.robots_token
        self._obey = options.obeys_robots
        self._overrides = options.overrides
        self._requisites = options.scope.requisites or any(one.requisites for one in options.overrides.all)
        self._lazy = options.scope.lazy

    def _obeys_robots_of(self, task: Task) -> bool:
        """Whether directives for robots on a page are obeyed."""
        robots = self._overrides.of(check_href(task.url)[1].host).robots if self._overrides else None
        return self._obey if robots is None else robots == "obey"

    @property
    def recent_keys_bytes(self) -> int:
        """Memory of the recent keys, which is constant."""
        return self._recent_keys.size_bytes

    def outcome_of(self, task: Task, result: FetchResult) -> Outcome:
        """Classify the result of a request: a redirect, a 304 to a conditional request, or the result itself."""
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

    def process(
        self, task: Task, outcome: Outcome, *, on_loop: bool = True, fingerprinted: bool = False
    ) -> tuple[ProcessedResponse, list[Link]]:
        """Hash, decode and parse a response, which is the slower half. Returns the links separately.

        `on_loop` must be False in a thread. On the event loop, links that are known to be stored are left out.
        `fingerprinted`: compute the fingerprint of an HTML page.
        """
        processed = ProcessedResponse(outcome)
        response = response_of(outcome)
        if response is None:
            return processed, []
        processed.payload_digest = payload_digest(response.payload)
        if task.kind is TaskKind.ROBOTS or response.truncated is TruncatedReason.CONTENT_TYPE:
            # `engine.pages.robots` processes robots.txt; a response of an unwanted type has no content
            return processed, []
        if isinstance(outcome, Redirected):
            moved = _redirect_link(outcome.target)
            processed.links_found = len(moved)  # the log line of a redirect counts it
            return processed, moved
        if isinstance(outcome, NotModified) or not 200 <= response.head.status_code < 300:
            return processed, []
        return self._process_content(task, response, processed, self._known if on_loop else None, fingerprinted)

    def _process_content(
        self, task: Task, response: Fetched, processed: ProcessedResponse, known: KnownLinks | None, fingerprinted: bool
    ) -> tuple[ProcessedResponse, list[Link]]:
        head = response.head
        content_type = head.content_type
        mime = mime_type(content_type)
        if task.kind in URL_LIST_KINDS or (mime in _URL_LIST_TYPES and task.kind is TaskKind.PAGE):
            return self._process_url_list(task, response, processed, mime), []
        decoded = decode.decode(
            response.payload,
            head.get_all("content-encoding"),
            keep=self._content.max_html,
            max_decoded=self._fetch.max_decoded,
            max_expansion=self._fetch.max_expansion,
        )
        if decoded.bomb:
            processed.outcome = replace(response, error_type=response.error_type or ErrorType.TOO_LARGE)
            return processed, []
        obeys = self._obeys_robots_of(task)
        robots = head.get_all("x-robots-tag") if obeys else []
        encoding: str | None = None
        title: str | None = None
        language: str | None = None
        canonical: str | None = None
        stated = head.get_all("link")
        stored = 0  # links that are left out, because the store has them
        fault: ReadingFault | None = None
        if mime in _HTML or (not mime and decoded.data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<"):
            xml = mime == XHTML
            encoding = (charset.sniff_xml if xml else charset.sniff)(decoded.data, content_type)
            text = charset.to_utf8(decoded.data, encoding)
            if fingerprinted:
                with suppress(ScanLimitError):
                    processed.fingerprint = fingerprint(text, task.url)
            parsed = parsing.parse_page(
                text,
                task.url,
                requisites=self._requisites,
                lazy=self._lazy,
                max_links=self._content.max_links,
                known=None if stated else known,  # links of the header are compared with all links of the page
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
            rules = page_headers.page_directives(parsed.robots if obeys else (), robots, self._token)
            links = list(parsed.links)
            if rules.nofollow:
                links = [link._replace(nofollow=True) for link in links]
            if parsed.refresh is not None:
                links += _redirect_link(parsed.refresh)
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
            links += [link for link in _redirect_link(refreshed) if link not in links]
        processed.index = not rules.noindex
        processed.links_found = count = len(links) + stored
        processed.page = PageInfo(
            canonical, mime or None, encoding, title, language, count, decoded.size, decoded.fault, fault
        )
        return processed, links

    def _process_url_list(
        self, task: Task, response: Fetched, processed: ProcessedResponse, mime: str
    ) -> ProcessedResponse:
        head = response.head
        url_list = processed.url_list = read_url_list(
            response.payload,
            head.get_all("content-encoding"),
            url=task.url,
            content_type=head.content_type,
            max_expansion=self._fetch.max_expansion,
            text_too=task.kind is TaskKind.SITEMAP,
        )
        processed.links_found = len(url_list.entries)
        if task.kind is TaskKind.PAGE:
            robots = head.get_all("x-robots-tag") if self._obeys_robots_of(task) else []
            rules = page_headers.page_directives((), robots, self._token)
            processed.index = not rules.noindex
            processed.page = PageInfo(None, mime or None, None, None, None, len(url_list.entries), url_list.size)
            if rules.nofollow:
                processed.url_list = None
        elif url_list.error is not None:
            processed.outcome = replace(response, error_type=response.error_type or ErrorType.CONTENT_ERROR)
        return processed

    def judge_links(
        self, task: Task, processed: ProcessedResponse, links: Sequence[Link], scope: Scope, *, remembers: bool = True
    ) -> None:
        """Judge links and fill `processed.discovered` and `skipped`: the cheap half, on the event loop.

        `remembers`: add what is discovered to the recent keys, so that it is not sent to the store again.
        """
        recent_keys, urls = self._recent_keys, self._urls
        if self._in_links is not None and links and not task.is_revisit and self._in_links.wants_page():
            self._in_links.note([key_of(link.url) for link in links])
        out_of_scope = self._out_of_scope.under(scope)
        for link in links:
            if link.url in urls and link.source is not Source.REDIRECT:
                continue
            if link.source is Source.LINK and not link.nofollow and (known := out_of_scope.get(link.url)) is not None:
                processed.skipped.append(known)
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
                if recent_keys.has(feed_key):
                    continue
                if self._has_room_for_feed(link):
                    kind, key = TaskKind.FEED, feed_key
                elif recent_keys.has(key):
                    continue
            elif recent_keys.has(key):
                urls.add(link.url)
                continue
            refused, found = self._judge_link(task, link, key, kind, scope)
            if refused is not None:
                skipped = SkippedLink(link.url, link.origin.host, refused.reason, refused.rule)
                processed.skipped.append(skipped)
                if refused.reason is DenyReason.SCOPE_HOST and link.source is Source.LINK:
                    out_of_scope[link.url] = skipped
            else:
                if remembers:
                    recent_keys.add(key)
                processed.discovered.append(found)

    def _has_room_for_feed(self, link: Link) -> bool:
        """Count a feed of a host, unless it has too many: some sites have a feed for each page.

        Further feeds are requested as pages, within the limits on pages.
        """
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
        if link.nofollow and source is not Source.REQUISITE and self._obeys_robots_of(task):
            return Denied(DenyReason.NOFOLLOW, "nofollow"), found
        if found.redirects > MAX_REDIRECTS:
            return Denied(DenyReason.REDIRECT_LIMIT, f"more than {MAX_REDIRECTS} redirects"), found
        return scope.judge(link.url, link.origin, depth=found.depth, hop_path=found.hop_path, source=source), found


def _redirect_link(target: str) -> list[Link]:
    """The link of a Location or a refresh; none if its target is no URL that can be requested."""
    try:
        url, origin = check_href(target)
    except UrlError:
        return []
    return [Link(url, origin, Source.REDIRECT, False)]


def _discovered(task: Task, link: Link, key: int, kind: TaskKind) -> Discovered:
    hop_path = task.hop_path[-MAX_HOP_PATH:]
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
