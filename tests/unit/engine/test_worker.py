"""Visits: what a response means for its URL, for the links on the page, and for the host."""

import asyncio
import gzip
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from crawler.content.html import parsing
from crawler.content.html.links import Link
from crawler.core.enums import (
    CodingFault,
    DenyReason,
    ErrorType,
    ReadingFault,
    Source,
    StoppedBy,
    TaskKind,
    TruncatedReason,
    UrlState,
)
from crawler.core.models import Denied, Fetched, FetchResult, NotModified, Origin, Task
from crawler.core.options import ScopeOptions, ScopeRule
from crawler.core.outcomes import is_connection_error
from crawler.core.scope import Scope
from crawler.engine.pages.response_processor import LARGE_BYTES, ProcessedResponse, is_large
from crawler.engine.pages.worker import Visited
from tests.support.engine import AT_ONCE, POLITE, Harness
from tests.support.pcre2_without_jit import interpreted
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import elapse, run

ROOT = "https://a.test/"


class Crawled:
    """What a crawl of `web` from its root did. URLs not in `web` have status 404."""

    def __init__(
        self, web: dict[str, Any], *, scope: ScopeOptions | None = None, seed: str = ROOT, **more: Any
    ) -> None:
        async def main() -> Harness:
            engine = Harness(seed, web=web, scope=scope, politeness=more.get("politeness", AT_ONCE))
            engine.web.before = more.get("before", lambda origin, task: None)
            self.stopped_by = await engine.run()
            return engine

        self.engine = run(main())
        self.requests = self.engine.web.page_urls
        self.states = self.engine.settled

    def visits(self, url: str = ROOT) -> list[Visited]:
        return [visited for visited, _, _ in self.engine.visits if visited.settlement.task.url == url]

    def task(self, url: str) -> Task:
        return self.visits(url)[0].settlement.task

    @property
    def skipped(self) -> list[tuple[str, str]]:
        return [(each.url, each.reason.value) for each in self.engine.skipped]


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_discovery(status: int) -> None:
    """Its target is a URL of its own, as deep as the page that named it."""
    crawled = Crawled({ROOT: response(status, location="/b"), f"{ROOT}b": response(200, page("/c"))})
    assert crawled.requests == [ROOT, f"{ROOT}b", f"{ROOT}c"]
    target = crawled.task(f"{ROOT}b")
    assert (target.source, target.depth, target.hop_path, target.redirects, target.via) == (
        Source.REDIRECT,
        0,
        "R",
        1,
        ROOT,
    )
    assert crawled.task(f"{ROOT}c").hop_path == "RL"
    assert crawled.task(f"{ROOT}c").redirects == 0


def test_a_meta_refresh_is_a_redirect() -> None:
    """Though its page is kept as a page."""
    crawled = Crawled({ROOT: response(200, b'<meta http-equiv="refresh" content="0; url=/b">')})
    assert crawled.task(f"{ROOT}b").source is Source.REDIRECT
    assert crawled.engine.counters.pages == 1


def test_links_of_a_page_in_another_encoding_are_asked_in_it() -> None:
    """Their queries, whether the header names the encoding or the page does; a Location is taken byte by byte."""
    links = '<base href="/d/"><a href="s?q=привет"></a><meta http-equiv="refresh" content="0; url=/r?q=привет">'
    by_meta = ('<meta charset="koi8-r">' + links).encode("koi8-r")
    web = {
        ROOT: response(200, links.encode("cp1251"), content_type="text/html; charset=windows-1251"),
        f"{ROOT}r?q=%EF%F0%E8%E2%E5%F2": response(200, by_meta),
        f"{ROOT}d/s?q=%D0%D2%C9%D7%C5%D4": response(301, location="/caf\xe9?\xef"),
    }
    assert sorted(Crawled(web).requests) == sorted([
        *web, f"{ROOT}d/s?q=%EF%F0%E8%E2%E5%F2", f"{ROOT}r?q=%D0%D2%C9%D7%C5%D4", f"{ROOT}caf%E9?%EF",
    ])  # fmt: skip


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
def test_a_refresh_field_is_a_redirect(content_type: str) -> None:
    """As a meta element of that name is, of whatever type the page is; what leads nowhere is none."""
    crawled = Crawled(
        {
            ROOT: response(200, b"", content_type=content_type, refresh="5; URL='/b\xc3\xa9?x=1#y'"),
            f"{ROOT}b%C3%A9?x=1": response(200, refresh="0;url=javascript:x"),
        }
    )
    assert crawled.requests == [ROOT, f"{ROOT}b%C3%A9?x=1"]
    target = crawled.task(f"{ROOT}b%C3%A9?x=1")
    assert (target.source, target.depth, target.hop_path, target.via) == (Source.REDIRECT, 0, "R", ROOT)


@pytest.mark.parametrize(
    "fields",
    [("text/plain", "text/html"), ("text/html", "*/*"), ("*/*",), ("unknown/unknown",), ("nonsense", "text/html, x")],
)
def test_the_last_valid_type_decides_how_a_page_is_read(fields: tuple[str, ...]) -> None:
    """Where none says anything the content does."""
    first = response(200, b"\xef\xbb\xbf <a href='/b'>", content_type=fields[0])
    head = replace(first.head, fields=tuple(("content-type", value) for value in fields))
    assert Crawled({ROOT: replace(first, head=head), f"{ROOT}b": response(200)}).requests == [ROOT, f"{ROOT}b"]


def test_ten_redirects_are_followed() -> None:
    """The eleventh is refused, with its reason."""
    web = {f"{ROOT}{n}": response(302, location=f"/{n + 1}") for n in range(20)}
    crawled = Crawled(web, seed=f"{ROOT}0")
    assert crawled.requests == [f"{ROOT}{n}" for n in range(11)]
    assert crawled.skipped == [(f"{ROOT}11", "redirect_limit")]


def test_a_redirect_to_itself_ends() -> None:
    """The URL is known; it is not asked again."""
    assert Crawled({ROOT: response(302, location="/")}).requests == [ROOT]


def test_a_loop_of_redirects_ends_where_it_began() -> None:
    """However many URLs and hosts it goes round by: each is asked once, and stands as done."""
    hops = [ROOT, f"{ROOT}b", f"{ROOT}c", f"{ROOT}d"]
    web = {url: response(307, location=there) for url, there in zip(hops, [*hops[1:], f"{ROOT}b"], strict=True)}
    crawled = Crawled(web)
    assert crawled.requests == hops
    assert set(crawled.states.values()) == {"done"}


def test_a_redirect_to_another_spelling_of_itself_is_followed_once() -> None:
    """The canonical form is known, the spelling is not: without this the page would never be fetched."""
    tilde, escaped = f"{ROOT}~jo", f"{ROOT}%7Ejo"
    there = Crawled({escaped: response(301, location="/~jo"), tilde: response(200, page())}, seed=escaped)
    assert there.requests == [escaped, tilde]
    in_circles = Crawled(
        {escaped: response(301, location="/~jo"), tilde: response(301, location="/%7Ejo")}, seed=escaped
    )
    assert len(in_circles.requests) <= 3


def test_a_redirect_without_a_usable_target_is_an_answer() -> None:
    """It leads nowhere, and is stored as it came."""
    for location in ("", "javascript:x", "https://a.test:22/"):
        crawled = Crawled({ROOT: response(302, location=location)})
        assert crawled.states == {ROOT: "done"}


def test_a_seeds_redirect_brings_its_host_in() -> None:
    """Also over several hops; what a page of it redirects to does not."""
    crawled = Crawled(
        {
            ROOT: response(301, location="https://b.test/"),
            "https://b.test/": response(301, location="https://www.c.test/"),
            "https://www.c.test/": response(200, page("/x", "https://b.test/y", "https://d.test/")),
            "https://www.c.test/x": response(301, location="https://e.test/"),
        }
    )
    assert crawled.engine.scope_hosts == [("b.test", ROOT), ("www.c.test", "https://b.test/")]
    assert crawled.requests[:3] == [ROOT, "https://b.test/", "https://www.c.test/"]
    assert sorted(crawled.requests[3:]) == ["https://b.test/y", "https://www.c.test/x"]
    assert crawled.skipped == [("https://d.test/", "scope_host"), ("https://e.test/", "scope_host")]


def test_a_seeds_redirect_brings_its_directory_in() -> None:
    """Where the scope is the directories of the seeds: the one that it leads to, also on the same host."""
    docs = "https://www.a.test/docs/"
    crawled = Crawled(
        {
            ROOT: response(301, location="http://a.test/en/x"),
            "http://a.test/en/x": response(301, location=docs),
            docs: response(200, page("/docs/y", "/", "http://a.test/en/", "http://a.test/", "https://a.test/z")),
        },
        scope=ScopeOptions(hosts=("seed-prefix",)),
    )
    assert crawled.engine.scope_hosts == [("a.test", ROOT), ("www.a.test", "http://a.test/en/x")]
    assert crawled.requests[:3] == [ROOT, "http://a.test/en/x", docs]
    assert sorted(crawled.requests[3:]) == ["http://a.test/en/", "https://a.test/z", f"{docs}y"]
    assert {url for url, _ in crawled.skipped} == {"https://www.a.test/", "http://a.test/"}
    assert sorted(crawled.engine.frontier._scope_hosts) == [
        "http://a.test/en/ https://a.test/",
        f"{docs} http://a.test/en/",
    ]


def test_a_list_of_hosts_is_not_widened() -> None:
    """Who names hosts means these."""
    crawled = Crawled({ROOT: response(301, location="https://b.test/")}, scope=ScopeOptions(hosts=("a.test",)))
    assert crawled.requests == [ROOT]
    assert crawled.engine.scope_hosts == []


# -- links


def test_nofollow_of_a_link_a_page_or_a_header() -> None:
    """It is obeyed, and logged."""
    link = b'<a href="/x" rel="nofollow">x</a><a href="/y">y</a>'
    assert Crawled({ROOT: response(200, link)}).requests == [ROOT, f"{ROOT}y"]
    everything = b'<meta name="robots" content="nofollow">' + link
    crawled = Crawled({ROOT: response(200, everything)})
    assert crawled.requests == [ROOT]
    assert crawled.skipped == [(f"{ROOT}x", "nofollow"), (f"{ROOT}y", "nofollow")]
    assert Crawled({ROOT: response(200, link, x_robots_tag="nofollow")}).requests == [ROOT]


def test_a_page_that_asks_not_to_be_indexed_is_recorded_without_a_page() -> None:
    """The WARC has it, pages/ does not; its links count."""
    crawled = Crawled({ROOT: response(200, b'<meta name="robots" content="noindex"><a href="/x">x</a>')})
    [visited] = crawled.visits()
    assert visited.settlement.record is not None
    assert visited.settlement.record.page is None
    assert (visited.links_found, crawled.engine.counters.links_found) == (1, 1)
    assert crawled.requests == [ROOT, f"{ROOT}x"]


def test_each_visit_tells_as_many_links_as_the_sum_counts() -> None:
    """Also where a link leads out of scope, stands twice, or its page is not to be indexed, or is a redirect."""
    web = {
        ROOT: response(
            200, b'<meta name="robots" content="noindex"><a href="/x">x</a><a href="https://no.test/">n</a>'
        ),
        f"{ROOT}x": response(302, location="https://no.test/"),
    }
    crawled = Crawled(web)
    assert [sum(one.links_found for one in crawled.visits(url)) for url in (ROOT, f"{ROOT}x")] == [2, 1]
    assert crawled.engine.counters.links_found == 3


def test_requisites_are_fetched_from_elsewhere_and_lead_no_further() -> None:
    """A page's image and style sheet, what the sheet imports, and not the links of what came in their place."""
    crawled = Crawled(
        {
            ROOT: response(
                200, b'<link rel="stylesheet" href="https://cdn.test/s.css"><img src="https://cdn.test/i.png">'
            ),
            "https://cdn.test/s.css": response(200, b'@import "t.css";', content_type="text/css"),
            "https://cdn.test/t.css": response(200, b"a { background: url(u.png) }", content_type="text/css"),
            "https://cdn.test/i.png": response(200, page("https://cdn.test/no")),
        }
    )
    names = [f"https://cdn.test/{name}" for name in ("s.css", "i.png", "t.css", "u.png")]
    assert sorted(crawled.requests) == sorted([ROOT, *names])
    assert crawled.task("https://cdn.test/u.png").hop_path == "EEE"
    assert crawled.skipped == [("https://cdn.test/no", "scope_host")]


def test_without_requisites_none_is_looked_for() -> None:
    """scope.requisites = false."""
    crawled = Crawled({ROOT: response(200, b'<img src="/i.png">')}, scope=ScopeOptions(requisites=False))
    assert crawled.requests == [ROOT]


@pytest.mark.parametrize("lazy", [True, False])
def test_what_scripts_put_in_place_is_fetched_unless_turned_off(lazy: bool) -> None:
    """scope.lazy."""
    image = "https://img.test/i.png"
    web = {ROOT: response(200, f'<img data-src="{image}">'.encode()), image: response(200, content_type="image/png")}
    crawled = Crawled(web, scope=ScopeOptions(lazy=lazy))
    assert crawled.requests == ([ROOT, image] if lazy else [ROOT])


def test_style_sheets_in_scope_import_as_deep_as_links_lead() -> None:
    """Of another host no more than a page needs at most."""
    there = "https://cdn.test/"
    css = {
        f"{base}{n}.css": response(200, f"@import '{n + 1}.css'".encode(), content_type="text/css")
        for base in (ROOT, there)
        for n in range(8)
    }
    links = f'<link rel=stylesheet href="/0.css"><link rel=stylesheet href="{there}0.css">'
    crawled = Crawled({ROOT: response(200, links.encode()), **css})
    assert {url for url in crawled.requests if url.startswith(ROOT)} == {ROOT, *(f"{ROOT}{n}.css" for n in range(9))}
    assert {url for url in crawled.requests if url.startswith(there)} == {f"{there}{n}.css" for n in range(3)}


def test_links_out_of_scope_are_skipped_with_their_reason() -> None:
    """And never stored."""
    scope = ScopeOptions(max_depth=1, exclude=(ScopeRule("**/private/*"),), include=(ScopeRule("a.test/**"),))
    crawled = Crawled(
        {
            ROOT: response(200, page("/b", "/private/x", "https://else.test/")),
            f"{ROOT}b": response(200, page("/deeper")),
        },
        scope=scope,
    )
    assert crawled.requests == [ROOT, f"{ROOT}b"]
    assert crawled.skipped == [
        (f"{ROOT}private/x", "scope_exclude"),
        ("https://else.test/", "scope_host"),
        (f"{ROOT}deeper", "scope_depth"),
    ]


def test_what_robots_txt_forbids_is_denied_when_leased() -> None:
    """With the line that says so; no request is made and no attempt counted."""
    crawled = Crawled(
        {f"{ROOT}robots.txt": response(200, b"User-agent: *\nDisallow: /no"), ROOT: response(200, page("/no", "/yes"))}
    )
    assert crawled.requests == [ROOT, f"{ROOT}yes"]
    [visited] = crawled.visits(f"{ROOT}no")
    assert isinstance(visited.settlement.outcome, Denied)
    assert visited.settlement.outcome.rule == 'https://a.test/robots.txt line 2 "Disallow: /no"'
    assert crawled.states[f"{ROOT}no"] == "denied"


# -- responses


def test_not_modified_needs_validators() -> None:
    """A 304 to an unconditional request is a response like any other; to a conditional one it keeps the digest."""

    async def main() -> None:
        engine = Harness(ROOT)
        bare, conditional = Task(1, ROOT), Task(1, ROOT, etag='"x"')
        assert not isinstance(engine.processor.outcome_of(bare, response(304)), NotModified)
        assert isinstance(engine.processor.outcome_of(conditional, response(304)), NotModified)

    run(main())


def test_a_304_leaves_the_digest_as_it_was() -> None:
    """It has no content of its own; it is recorded all the same."""
    cut = response(200, b"half", etag='"e"', truncated=TruncatedReason.DISCONNECT, error_type=ErrorType.RESET)

    def web(origin: Origin, task: Task) -> FetchResult:
        return response(404) if task.kind is TaskKind.ROBOTS else (cut if task.attempt == 1 else response(304))

    async def main() -> None:
        engine = Harness(ROOT)
        engine.web.other = web
        bare = engine.frontier._task_of
        engine.frontier._task_of = lambda url: replace(bare(url), etag='"e"')
        await engine.run()
        last = engine.visits[-1][0].settlement
        assert isinstance(last.outcome, NotModified)
        assert last.digest is None
        assert last.record is not None

    run(main())


@pytest.mark.parametrize("status", [400, 403, 404, 410, 501, 505])
def test_a_status_is_an_answer(status: int) -> None:
    """It ends the visit, and links on it are not read."""
    crawled = Crawled({ROOT: response(status, page("/x"))})
    assert crawled.states == {ROOT: "done"}
    assert crawled.engine.counters.pages == 0


def test_a_transient_failure_is_tried_again_later_and_given_up_in_the_end() -> None:
    """Each wait is longer; the last attempt's bytes are kept."""
    cut = response(200, page("/x"), truncated=TruncatedReason.TIME, error_type=ErrorType.READ_TIMEOUT)
    crawled = Crawled({ROOT: cut})
    begins = [one.begin for one in crawled.engine.web.requests if one.url == ROOT]
    waits = [after - before for before, after in pairwise(begins)]
    assert [round(wait) for wait in waits] == [pytest.approx(n, rel=0.3) for n in (5, 15, 45)]
    assert crawled.states[ROOT] == "gave_up"
    records = [visited.settlement.record for visited in crawled.visits()]
    assert [record is not None for record in records] == [False, False, False, True]
    assert f"{ROOT}x" in crawled.requests


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504, 522])
def test_a_status_that_may_pass_is_tried_again_and_given_up_in_the_end(status: int) -> None:
    """Each wait is longer, and only this URL waits, not others of the host. The last response is kept."""
    crawled = Crawled({ROOT: response(200, page("/bad", "/good")), f"{ROOT}bad": response(status, page("/x"))})
    asked = [(one.url, one.begin) for one in crawled.engine.web.requests]
    begins = [begin for url, begin in asked if url == f"{ROOT}bad"]
    waits = [after - before for before, after in pairwise(begins)]
    assert [round(wait) for wait in waits] == [pytest.approx(n, rel=0.3) for n in (5, 15, 45)]
    assert crawled.states == {ROOT: "done", f"{ROOT}bad": "gave_up", f"{ROOT}good": "done"}
    [good] = [begin for url, begin in asked if url == f"{ROOT}good"]
    assert good < begins[1]
    assert f"{ROOT}x" not in crawled.requests
    records = [visited.settlement.record for visited in crawled.visits(f"{ROOT}bad")]
    assert [record is not None for record in records] == [False, False, False, True]
    counters = crawled.engine.counters
    assert counters.gave_up == {f"status {status}": 1}
    assert counters.page_responses == {"ok": 1, "http_error": 5}  # /good is not there
    assert counters.auxiliary == 1  # a robots.txt that is not there is no error of a page
    assert counters.responses == counters.page_responses.total() + counters.auxiliary


def test_a_host_that_answers_everything_with_500_rests_now_and_then() -> None:
    """The back-off after each ten in a row is 5, 15 and then 30 seconds. Any other response ends the row."""
    urls = [f"/{n}" for n in range(45)]
    bad = {f"{ROOT}{n}": response(500) for n in range(45)}
    crawled = Crawled({ROOT: response(200, page(*urls)), **bad})
    begins = [one.begin for one in crawled.engine.web.requests if one.url in bad]
    waits = [round(after - before) for before, after in pairwise(begins)]
    assert [wait for wait in waits if wait > 3][:4] == [5, 15, 30, 30]
    assert set(crawled.states.values()) == {"done", "gave_up"}


def test_a_body_cut_at_our_limit_is_final() -> None:
    """It would be cut again."""
    crawled = Crawled({ROOT: response(200, page("/x"), truncated=TruncatedReason.LENGTH)})
    assert crawled.requests == [ROOT, f"{ROOT}x"]
    assert crawled.states[ROOT] == "done"


@pytest.mark.parametrize("error", sorted(error for error in ErrorType if is_connection_error(error)))
def test_an_unreachable_host_never_costs_a_url(error: ErrorType) -> None:
    """More failures than there are attempts, then a response."""
    crawled = Crawled({ROOT: [*[failed(error)] * 7, response(200)], f"{ROOT}robots.txt": response(404)})
    # the host answered once, so that its rests grow from 5 s
    assert crawled.stopped_by in (StoppedBy.EMPTY, StoppedBy.WAITING)
    assert crawled.states[ROOT] in ("done", "waiting")
    assert "gave_up" not in crawled.states.values()
    begins = [one.begin for one in crawled.engine.web.requests if one.url == ROOT]
    assert all(after - before > 4.9 for before, after in pairwise(begins))


def test_a_url_waits_at_least_as_long_as_its_host_rests() -> None:
    """Else it would be promoted for nothing."""
    crawled = Crawled(
        {ROOT: [response(200), failed(ErrorType.DNS_NOT_FOUND)], f"{ROOT}b": failed(ErrorType.DNS_NOT_FOUND)},
        seed=f"{ROOT}b",
    )
    [visited] = crawled.visits(f"{ROOT}b")
    rest = crawled.engine.host("a.test").politeness.open_mono
    assert visited.settlement.next_at == pytest.approx(1_700_000_000.0 + rest)


def test_a_url_that_was_pushed_back_is_asked_again_when_the_host_has_rested() -> None:
    """It is requested again any number of times, after Retry-After or our own back-off, whichever is longer: it is
    not the URL's fault.
    """
    crawled = Crawled({ROOT: [*[response(429, retry_after="60")] * 4, response(200)]})
    assert crawled.states[ROOT] == "done"
    begins = [one.begin for one in crawled.engine.web.requests if one.url == ROOT]
    assert len(begins) == 5
    assert all(60.0 <= after - before < 61.0 for before, after in pairwise(begins))


def test_a_timeout_of_one_url_does_not_rest_the_host() -> None:
    """A body that stalls says nothing of the others; a first byte that never comes does."""
    body = Crawled({ROOT: response(200, page("/x", "/y")), f"{ROOT}x": failed(ErrorType.READ_TIMEOUT)})
    assert body.engine.host("a.test").politeness.failures == 0
    assert next(one.begin for one in body.engine.web.requests if one.url == f"{ROOT}y") < 2.0
    head = Crawled(
        {ROOT: response(200, page("/x", "/y")), f"{ROOT}x": [failed(ErrorType.FIRST_BYTE_TIMEOUT), response(200)]},
        politeness=POLITE,
    )
    assert next(one.begin for one in head.engine.web.requests if one.url == f"{ROOT}y") > 5.0


def test_a_large_page_is_read_in_a_thread_and_the_crawl_waits_for_it() -> None:
    """Though no request is out any more: what it leads to is still to come."""
    names = [f"/{n}" for n in range(30)]
    large = page(*names) + b" " * LARGE_BYTES
    threads: list[str] = []

    async def main() -> None:
        engine = Harness(ROOT, web={ROOT: response(200, large)})
        read = engine.processor.process

        def noted(task: Task, outcome: Any, *, on_loop: bool = True) -> Any:
            threads.append(f"{task.url} {threading.current_thread() is threading.main_thread()}")
            return read(task, outcome, on_loop=on_loop)

        engine.processor.process = noted  # type: ignore[method-assign]
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.web.page_urls) == 31
        assert f"{ROOT} False" in threads
        assert f"{ROOT}0 True" in threads

    run(main())


def test_a_large_robots_txt_is_read_in_a_thread() -> None:
    """And obeyed."""
    rules = b"User-agent: *\nDisallow: /no\n" + b"#" * LARGE_BYTES
    crawled = Crawled({f"{ROOT}robots.txt": response(200, rules), ROOT: response(200, page("/no", "/yes"))})
    assert crawled.requests == [ROOT, f"{ROOT}yes"]


def test_robots_txt_is_recorded_like_a_page_but_is_none() -> None:
    """The WARC has what was said; neither limits nor pages count it."""
    crawled = Crawled({f"{ROOT}robots.txt": response(200, b"User-agent: *\nDisallow:")})
    settlement = crawled.visits(f"{ROOT}robots.txt")[0].settlement
    assert settlement.record is not None
    assert settlement.record.page is None
    assert crawled.engine.counters.life.urls_fetched == 1
    assert crawled.engine.counters.responses == 2


def test_the_log_learns_how_long_politeness_held_a_request() -> None:
    """From the end of the one before; the first was held by nothing."""
    crawled = Crawled({ROOT: response(200, page("/x"))}, politeness=POLITE)
    waits = [visited.lease.waited_s for visited, _, _ in crawled.engine.visits]
    assert waits[0] == 0.0
    assert all(1.0 <= wait < 1.1 for wait in waits[1:])


def test_a_push_back_is_stored_at_once() -> None:
    """Before the interval of commits is over, with the rest that it brought: it must outlive a crash."""

    async def main() -> None:
        engine = Harness(ROOT, "https://b.test/", web={ROOT: [response(429, retry_after="60"), response(200)]})
        engine.web.takes_s = lambda origin, task: 30.0 if origin.host == "b.test" else 0.1
        seen: list[object] = []

        async def look() -> None:
            while not any(one.url == ROOT for one in engine.web.requests):
                await elapse(0.05)
            await elapse(0.05)
            seen.extend(engine.frontier._backoffs)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            await engine.run()
        assert seen == ["a.test"]

    run(main())


# -- bodies that are not what they seem


def test_a_decompression_bomb_is_an_error_that_is_final() -> None:
    """It is kept as it came and counted as too_large; it is no page, none of its links is followed, nobody retries."""
    bomb = gzip.compress(page("/b") + bytes(8_000_000))
    crawled = Crawled({ROOT: response(200, bomb, content_encoding="gzip")})
    assert crawled.requests == [ROOT]
    (visited,) = crawled.visits()
    settlement = visited.settlement
    assert isinstance(settlement.outcome, Fetched)
    assert (settlement.outcome.error_type, settlement.state) == (ErrorType.TOO_LARGE, UrlState.GAVE_UP)
    assert settlement.record is not None
    assert settlement.record.page is None
    assert settlement.record.fetched.raw_body.prefix(len(bomb)) == bomb
    counters = crawled.engine.counters
    assert (counters.pages, counters.errors, counters.error_types["too_large"]) == (0, 1, 1)
    assert (counters.outcomes["error"], counters.life.pages) == (1, 0)


@pytest.mark.parametrize(
    ("body", "coding", "fault"),
    [
        (gzip.compress(page("/b"), mtime=0)[:-9], "gzip", CodingFault.TRUNCATED),
        (page("/b"), "gzip", CodingFault.NOT_CODED),
        (page("/b"), "rot13", CodingFault.UNKNOWN),
        (gzip.compress(page("/b"), mtime=0), "gzip", None),
    ],
    ids=["cut", "plain", "unknown", "right"],
)
def test_a_coding_that_is_not_right_costs_no_link(body: bytes, coding: str, fault: CodingFault | None) -> None:
    """What can be read is read, and the page says what was wrong."""
    crawled = Crawled({ROOT: response(200, body, content_encoding=coding), f"{ROOT}b": response(200, page())})
    assert crawled.requests == [ROOT, f"{ROOT}b"]
    record = crawled.visits()[0].settlement.record
    assert record is not None
    assert record.page is not None
    assert record.page.coding_fault is fault


def test_a_page_that_takes_too_many_steps_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PCRE2 interprets it stops after ten million: the links before that are followed, and the page says so."""
    monkeypatch.setattr(parsing._WITH_REQUISITES, "_scanner", interpreted(parsing._WITH_REQUISITES._scanner))
    body = page("/b") + b"<" * 1_000_000 + page("/c")
    crawled = Crawled({ROOT: response(200, body), f"{ROOT}b": response(200, page())})
    assert crawled.requests == [ROOT, f"{ROOT}b"]
    records = [visited.settlement.record for url in crawled.requests for visited in crawled.visits(url)]
    faults = [record.page.reading_fault for record in records if record is not None and record.page is not None]
    assert faults == [ReadingFault.LIMIT, None]


def test_a_style_sheet_is_read_in_its_encoding() -> None:
    """What it refers to is not what UTF-8 would make of it."""
    sheet = response(200, "@import 'é.css'".encode("utf-16"), content_type="text/css")
    crawled = Crawled({ROOT: response(200, b'<link rel=stylesheet href="/s.css">'), f"{ROOT}s.css": sheet})
    assert crawled.requests == [ROOT, f"{ROOT}s.css", f"{ROOT}%C3%A9.css"]


def test_a_page_in_xml_is_read_as_xml() -> None:
    """In the encoding that it declares; as HTML its title would hide all that follows."""
    body = "<?xml version='1.0' encoding='koi8-r'?><html><title>П</title><title/><a href='/b'/></html>".encode("koi8-r")
    crawled = Crawled({ROOT: response(200, body, content_type="application/xhtml+xml"), f"{ROOT}b": response(200)})
    assert crawled.requests == [ROOT, f"{ROOT}b"]
    record = crawled.visits()[0].settlement.record
    assert record is not None
    assert record.page is not None
    assert (record.page.charset, record.page.title) == ("koi8-r", "П")


def test_a_page_in_xml_is_large_sooner() -> None:
    """It takes longer to read than HTML of its size."""
    size = LARGE_BYTES // 4
    assert not is_large(response(200, b" " * size))
    assert is_large(response(200, b" " * size, content_type="Application/XHTML+XML; charset=utf-8"))


def test_links_out_of_scope_are_judged_anew_under_another_scope() -> None:
    """What one scope refused is remembered for as long as that scope is in force, and counted each time."""

    async def main() -> None:
        processor = Harness(ROOT).processor
        narrow = Scope(ScopeOptions(), ["a.test"])
        link = Link("https://b.test/", Origin("https", "b.test", 443), Source.LINK, False)
        for _ in range(2):
            processed = ProcessedResponse(response(200))
            processor.judge_links(Task(1, ROOT), processed, [link], narrow)
            assert [(one.host, one.reason) for one in processed.skipped] == [("b.test", DenyReason.SCOPE_HOST)]
            assert processed.discovered == []
        processed = ProcessedResponse(response(200))
        processor.judge_links(Task(1, ROOT), processed, [link], narrow.widened("b.test"))
        assert [found.url for found in processed.discovered] == ["https://b.test/"]
        assert processed.skipped == []

    run(main())
