"""What the response to a request for robots.txt means, and what the crawl does if there is none."""

import gzip
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from crawler.content.robots_txt import RobotsTxt
from crawler.core.enums import ErrorType, StoppedBy, TruncatedReason
from crawler.core.models import Fetched, FetchResult, Origin, Outcome, Redirected, RobotsRecord
from crawler.engine.options import EngineOptions
from crawler.engine.pages import robots
from crawler.fetch.options import FetchOptions
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.engine import POLITE, TOKEN, Harness
from tests.support.scripted_web import failed, page, response
from tests.support.virtual_time import EPOCH, InThread, run

ROOT = "https://a.test/"
ROBOTS = "https://a.test/robots.txt"
NOW = 1_000_000_000.0
HOUR, DAY = 3_600.0, 86_400.0
GOOD = RobotsRecord("rules", 200, b"User-agent: *\nDisallow: /x", NOW, NOW + DAY)


def record(
    outcome: Outcome, *, known: RobotsRecord | None = None, now: float = NOW, rest_s: float = 60.0
) -> RobotsRecord:
    return robots.verdict_of(outcome, known=known, now=now, retry_s=rest_s, token=TOKEN, limits=FetchOptions()).record


@pytest.mark.parametrize(
    ("outcome", "verdict", "expires_in"),
    [
        (response(200, b"User-agent: *"), "rules", DAY),
        (response(204), "rules", DAY),
        (response(200, b"User-agent: *", truncated=TruncatedReason.LENGTH), "rules", DAY),
        (response(200, b"User-a", truncated=TruncatedReason.DISCONNECT), "unreachable", 60),
        (response(404), "allow", DAY),
        (response(403), "allow", DAY),
        (response(429), "unreachable", 60),
        (response(500), "unreachable", 60),
        (response(503), "unreachable", 60),
        (failed(ErrorType.TOTAL_TIMEOUT), "unreachable", 60),
        (failed(ErrorType.DNS_NOT_FOUND), "unreachable", 60),
        (failed(ErrorType.TLS_CERT_EXPIRED), "unreachable", 60),
        (Redirected(response(301), ROBOTS), "allow", DAY),  # the hops are spent (RFC 9309 §2.3.1.2)
        (response(301), "allow", DAY),  # no usable Location
    ],
)
def test_what_an_answer_means(outcome: Outcome, verdict: str, expires_in: float) -> None:
    """RFC 9309 §2.3.1; "unreachable" lasts until it is asked for again."""
    found = record(outcome)
    assert (found.verdict, found.expires_at - NOW) == (verdict, expires_in)
    assert (found.failing_since is not None) == (verdict == "unreachable")


@pytest.mark.parametrize("known", [None, GOOD])
def test_why_it_could_not_be_read_is_kept(known: RobotsRecord | None) -> None:
    """A status says it itself; otherwise the error, beside a good copy too, until it was read."""
    for outcome, error in (
        (failed(ErrorType.TLS_SELF_SIGNED), "tls_self_signed"),
        (failed(ErrorType.DNS_NOT_FOUND), "dns_not_found"),
        (response(200, b"User-a", truncated=TruncatedReason.DISCONNECT, error_type=ErrorType.RESET), "reset"),
        (response(200, b"User-a", truncated=TruncatedReason.TIME), "truncated"),
        (response(503), None),
    ):
        found = record(outcome, known=known)
        assert found.error == error
        assert record(response(404), known=found).error is None


def test_the_crawl_delay_is_ours() -> None:
    """That of the group that speaks to us."""
    body = b"User-agent: *\nCrawl-delay: 9\n\nUser-agent: testbot\nCrawl-delay: 3\n"
    assert record(response(200, body)).crawl_delay_s == 3.0


def test_a_coded_robots_txt_is_decoded() -> None:
    """Some servers compress everything."""
    packed = response(200, gzip.compress(GOOD.body or b""), content_encoding="gzip")
    assert record(packed).body == GOOD.body


def test_of_a_huge_robots_txt_500_kib_are_read() -> None:
    """RFC 9309 §2.5; a byte more is kept, so that whoever reads it knows of the rest."""
    assert len(record(response(200, b"#" * 2_000_000)).body or b"") == 500 * 1024 + 1


def test_the_line_that_the_limit_cuts_through_is_no_rule() -> None:
    """ "Disallow: /private" cut to "Disallow: /p" would close pages that nobody closed."""
    body = b"User-agent: *\n" + b"Disallow: /private\n" * 100_000
    rules = RobotsTxt.parse(record(response(200, body)).body or b"").rules_for(TOKEN)
    assert not rules.judge("https://a.test/private").allowed
    assert rules.judge("https://a.test/p0").allowed


FAILS = response(500)


@pytest.mark.parametrize(
    ("age_s", "verdict"),
    [(0.0, "rules"), (DAY, "rules"), (2 * DAY - 1, "rules"), (2 * DAY, "unreachable"), (9 * DAY, "unreachable")],
)
def test_the_last_good_copy_is_used_for_a_day_longer(age_s: float, verdict: str) -> None:
    """While the server fails; it is asked again meanwhile."""
    found = record(FAILS, known=GOOD, now=NOW + age_s)
    assert found.verdict == verdict
    assert found.expires_at == NOW + age_s + 60.0
    assert found.failing_since == NOW + age_s
    assert found.body == (GOOD.body if verdict == "rules" else None)


def test_after_thirty_days_of_failure_it_counts_as_absent() -> None:
    """RFC 9309 §2.3.1.4; counted from the first failure, through every later one."""
    first = record(FAILS)
    later = record(FAILS, known=first, now=NOW + 29 * DAY)
    assert (later.verdict, later.failing_since) == ("unreachable", NOW)
    last = record(FAILS, known=later, now=NOW + 30 * DAY)
    assert (last.verdict, last.expires_at) == ("allow", NOW + 31 * DAY)


def test_a_good_answer_ends_the_count() -> None:
    """The next failure is a first one."""
    stale = record(FAILS, known=GOOD, now=NOW + DAY)
    fresh = record(response(200), known=stale, now=NOW + DAY + 60)
    assert fresh.failing_since is None


# -- in a crawl


def crawl(robots: list[FetchResult], *, lasts_s: float = 200_000.0, linger_s: float = 100_000.0) -> Harness:
    async def main() -> Harness:
        options = EngineOptions(workers=4, min_free=0, linger_s=linger_s, max_duration_s=lasts_s)
        engine = Harness(ROOT, web={ROBOTS: robots, ROOT: response(200, page())}, engine=options)
        engine.stopped_by = await engine.run()  # type: ignore[attr-defined]
        return engine

    return run(main())


def asked_at(engine: Harness) -> list[float]:
    return [one.called for one in engine.web.requests if one.url == ROBOTS]


def test_a_robots_txt_with_status_500_is_requested_again_ever_more_seldom() -> None:
    """After a minute, then as long as it has failed so far, an hour at most; nothing else is asked."""
    engine = crawl([response(500)], lasts_s=6 * HOUR)
    times = asked_at(engine)
    waits = [after - before for before, after in pairwise(times)]
    assert waits[:2] == [pytest.approx(60.0, abs=1), pytest.approx(60.0, abs=1)]
    assert waits[2:5] == [pytest.approx(n, abs=2) for n in (120.0, 240.0, 480.0)]
    assert max(waits) < HOUR + 1
    assert len(times) < 16
    assert engine.web.page_urls == []


@pytest.mark.parametrize(
    ("responses", "waits"),
    [
        ([response(429, retry_after="100")], [100.0]),
        ([response(503), response(503)], [5.0, 15.0]),
        ([failed(ErrorType.CONNECT_REFUSED)] * 3, [1.0, 4.0, 900.0]),
        ([failed(ErrorType.TLS_CERT_EXPIRED)], [900.0]),
        ([failed(ErrorType.READ_TIMEOUT)], [60.0]),
    ],
)
def test_the_page_waits_for_the_whole_back_off_of_robots_txt(responses: list[FetchResult], waits: list[float]) -> None:
    """And is fetched as soon as it could be read."""
    engine = crawl([*responses, response(404)])
    times = asked_at(engine)
    assert len(times) == len(responses) + 1
    for wait, before, after in zip(waits, times, times[1:], strict=False):
        assert wait <= after - before <= wait * 1.25 + 1.5
    assert engine.web.page_urls == [ROOT]
    assert engine.settled == {ROOT: "done"}


def test_a_host_whose_robots_txt_cannot_be_read_ends_a_short_crawl() -> None:
    """As waiting, with its URL still queued: not denied, not lost."""
    engine = crawl([response(500)], linger_s=30.0)
    assert engine.stopped_by is StoppedBy.WAITING  # type: ignore[attr-defined]
    assert engine.settled == {}
    assert engine.host("a.test").queued == 1


@pytest.mark.parametrize(("hops", "allowed"), [(1, False), (5, False), (6, True), (20, True)])
def test_five_redirects_of_robots_txt_are_followed(hops: int, allowed: bool) -> None:
    """On any host; with more it counts as absent."""

    async def main() -> None:
        rules = response(200, b"User-agent: *\nDisallow: /")
        web: dict[str, Fetched] = {ROBOTS: response(302, location="https://b1.test/r")}
        for n in range(1, hops):
            web[f"https://b{n}.test/r"] = response(302, location=f"https://b{n + 1}.test/r")
        web[f"https://b{hops}.test/r"] = rules
        engine = Harness(ROOT, web=dict(web))
        await engine.run()
        assert engine.web.page_urls == ([ROOT] if allowed else [])
        assert len(engine.web.urls) == min(hops, 5) + 1 + allowed
        assert engine.host("a.test").robots is not None
        assert [host.origin.host for host in engine.robots_seen] == ["a.test"]

    run(main())


def test_a_redirect_of_robots_txt_to_a_busy_host_rests_that_one() -> None:
    """429 there concerns its key; ours waits for it and then asks from the beginning."""

    async def main() -> None:
        engine = Harness(ROOT)
        engine.web.pages = {
            ROBOTS: response(301, location="https://b.test/robots.txt"),
            "https://b.test/robots.txt": [response(429, retry_after="100"), response(404)],
        }
        await engine.run()
        assert engine.host_table.keys["a.test"].politeness.failures == 0
        times = [one.called for one in engine.web.requests if one.origin.host == "b.test"]
        assert 100.0 <= times[1] - times[0] <= 105.0
        assert engine.web.page_urls == [ROOT]

    run(main())


def test_robots_ignored_is_not_asked_for() -> None:
    """politeness.robots = "ignore"."""

    async def main() -> None:
        engine = Harness(ROOT, politeness=replace(POLITE, robots="ignore"))
        await engine.run()
        assert engine.web.urls == [ROOT]

    run(main())


def test_the_clock_of_the_tests_is_sane() -> None:
    """Records carry UTC, not the loop's time."""
    engine = crawl([response(404)])
    assert engine.robots_seen[0].robots is not None
    assert engine.robots_seen[0].robots.fetched_at == pytest.approx(EPOCH, abs=1.0)


def test_rules_that_were_let_go_are_read_again_before_a_page_is_judged(tmp_path: Path) -> None:
    """With room for the rules of one host, all hosts are judged by their own; a robots.txt is fetched once."""

    async def main() -> None:
        names = [f"h{n}.test" for n in range(4)]
        engine = Harness(*(f"https://{name}/" for name in names), frontier=InThread(SqliteFrontier(tmp_path / "db")))
        engine.url_policy.rules._budget = 1
        for n, name in enumerate(names):
            links = [f"/{m}" for m in range(4)]
            engine.web.pages[f"https://{name}/"] = response(200, page(*links))
            text = f"User-agent: *\nDisallow: /{n}\n".encode()
            engine.web.pages[f"https://{name}/robots.txt"] = response(200, text, content_type="text/plain")
        assert await engine.run() is StoppedBy.EMPTY
        asked = Counter(engine.web.urls)
        assert max(asked.values()) == 1
        denied = {url for url, state in engine.settled.items() if state == "denied"}
        assert denied == {f"https://{name}/{n}" for n, name in enumerate(names)}
        assert sum(host.rules is not None for host in engine.host_table.hosts.values()) <= 1

    run(main())


def test_the_line_that_a_cut_went_through_is_no_rule() -> None:
    """Half of "Allow: /public" would allow everything."""
    text = b"User-agent: *\nDisallow: /private\nAllow: /"
    cut = response(200, text, content_type="text/plain", truncated=TruncatedReason.LENGTH)
    verdict = robots.verdict_of(cut, known=None, now=0.0, retry_s=60.0, token="testbot", limits=FetchOptions())
    assert verdict.record.body == b"User-agent: *\nDisallow: /private\n"
    assert verdict.rules is not None
    assert not verdict.rules.judge("https://a.test/private").allowed


@pytest.mark.parametrize("known_after_s", [0.0, 30.0, math.inf])
def test_the_robots_txt_of_another_agents_host_is_not_requested(known_after_s: float) -> None:
    """Where a redirect leads to it and that agent has it, or will have it in a minute. (Two do not keep one delay.)"""

    async def main() -> set[str]:
        moved = response(301, location="https://b.test/robots.txt")
        there = response(200, b"User-agent: *\nDisallow: /x")
        web = {ROOT: response(200, page("/x", "/y")), ROBOTS: moved, "https://b.test/robots.txt": there,
               f"{ROOT}x": response(200, b"x"), f"{ROOT}y": response(200, b"y")}  # fmt: skip
        one = Harness(ROOT, web=web)

        async def stored_robots(origin: Origin) -> RobotsRecord | None:
            assert origin.host == "b.test"
            return replace(GOOD, expires_at=EPOCH + DAY) if one.clock.now() >= EPOCH + known_after_s else None

        agents = SimpleNamespace(stored_robots=stored_robots, owns_host=lambda name: name != "b.test")
        one.engine.robots._agents = agents  # type: ignore[assignment]
        await one.run()
        return {each.url for each in one.web.requests}

    asked = run(main())
    assert ("https://b.test/robots.txt" in asked) is (known_after_s == math.inf)
    assert (f"{ROOT}y" in asked, f"{ROOT}x" in asked) == (True, False)
