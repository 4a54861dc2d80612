"""Why a URL was fetched or not, for each state of a URL in a real store."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crawler.core.enums import DenyReason, ErrorType, SinkFileState, Source, TaskKind, UrlState
from crawler.core.models import (
    Backoff,
    Counters,
    Denied,
    Failed,
    NotModified,
    Outcome,
    RecordLocation,
    RobotsRecord,
    SinkFile,
    Task,
    TemplateRow,
)
from crawler.core.options import (
    ANY_DEPTH,
    Override,
    PolitenessOptions,
    Rules,
    ScheduleOptions,
    ScopeOptions,
    ScopeRule,
    SeedOptions,
)
from crawler.core.scope import Overrides, Scope
from crawler.core.url import kind_key_of, parse, respelled_key_of
from crawler.frontier.base import BlockedHost, FrontierCorrupt, FrontierVersion
from crawler.frontier.sqlite.database import MIGRATIONS, Database
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.explanation import Explanation, add_auxiliary, logged_auxiliary
from crawler.inspection.explain.hosts import views
from crawler.inspection.explain.why import Explainer
from crawler.inspection.log.totals import LogTotals
from crawler.inspection.report import EventTotals, report
from tests.support.frontiers import NOW, batch, fast_folder, found, links, response, visit

SEED = "https://e.org/"
MD5 = "9f86d081884c7d659a2feaa0c55ad015"
RULES = Rules(
    scope=ScopeOptions(
        include=(ScopeRule("e.org/**", "crawler.toml:14"), ScopeRule("f.org/**")),
        exclude=(ScopeRule("/no/**", "crawler.toml:15"),),
    ),
    seed_hosts=("e.org",),
    robots_token="mybot",
)
ROBOTS = (
    b"User-agent: *\nDisallow: /all\n\nUser-agent: mybot\nAllow: /private/open\nDisallow: /private\nCrawl-delay: 2\n"
)
ROOT = Path(__file__).parents[4]
GROUP = 54_321  # of nobody here
PATHS = ("done", "gone", "queued", "behind", "waiting", "gave-up", "private/x", "private/open/y", "no/z", "~jo", "old")


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """A seed, and pages in every state."""
    with fast_folder() as folder:
        asyncio.run(fill(folder))
        yield folder / "frontier.db"


async def fill(folder: Path) -> None:
    frontier = SqliteFrontier(folder / "frontier.db")
    await frontier.open()
    await frontier.add([found(SEED)], now=NOW - 100)
    (seed,) = await frontier.take(1, 1, leased=())
    pages = links(*(f"{SEED}{path}" for path in PATHS))
    respelt = replace(found(f"{SEED}%7Ejo", depth=1, source=Source.REDIRECT), key=respelled_key_of(f"{SEED}%7Ejo"))
    robots = RobotsRecord("rules", 200, ROBOTS, NOW - 7200, NOW + 79_200, crawl_delay_s=2.0)
    robots_task = Task(id=0, url=f"{SEED}robots.txt", kind=TaskKind.ROBOTS)
    held = found("https://held.e.org/x", depth=1, source=Source.LINK)
    file = SinkFile("warc", "w.warc.gz", SinkFileState.OPEN, 10)
    await frontier.settle(
        batch(
            visit(seed, discovered=(*pages, respelt, held), digest="sha256:AA"),
            visit(robots_task, robots=robots),
            written=[RecordLocation("w.warc.gz", 3), None],
            sink_files=[file],
        )
    )
    tasks = {task.url: task for task in await frontier.take(1, 99, leased=())}
    failed = Failed(ErrorType.FIRST_BYTE_TIMEOUT, "30 s", retryable=True)
    settle = {
        "done": visit(tasks[f"{SEED}done"]),
        "gone": visit(tasks[f"{SEED}gone"], response(404)),
        "waiting": visit(tasks[f"{SEED}waiting"], failed, state=UrlState.WAITING, next_at=NOW + 300),
        "gave-up": visit(
            replace(tasks[f"{SEED}gave-up"], attempt=5), replace(failed, retryable=False), state=UrlState.GAVE_UP
        ),
        "private/x": visit(
            tasks[f"{SEED}private/x"],
            Denied(DenyReason.ROBOTS, f'{SEED}robots.txt line 6 "Disallow: /private"'),
            state=UrlState.DENIED,
        ),
        "old": visit(
            tasks[f"{SEED}old"],
            Denied(DenyReason.ROBOTS, f'{SEED}robots.txt line 6 "Disallow: /old"'),
            state=UrlState.DENIED,
        ),
    }
    unreachable = RobotsRecord("unreachable", 503, None, NOW - 60, NOW + 540, failing_since=NOW - 3600)
    held_task = Task(id=0, url="https://held.e.org/robots.txt", kind=TaskKind.ROBOTS)
    await frontier.settle(
        batch(
            *settle.values(),
            visit(held_task, response(503), host_id=2, robots=unreachable),
            counters=Counters(urls_fetched=5),
        )
    )
    await frontier.close(clean=True)


def explain(store: Path, url: str, rules: Rules | None = RULES, *, now: float = NOW + 1) -> Explanation:
    with StoreReader(store, is_live=False) as reader:
        return Explainer(reader, rules, is_live=True, now=now).why(url)


def step(explanation: Explanation, name: str) -> tuple[str, str]:
    return next((one.verdict, one.text) for one in explanation.steps if one.name == name)


@pytest.mark.parametrize(
    ("path", "verdict", "headline", "following"),
    [
        ("", "fetched", "fetched: status 200", "nothing: it is fetched once"),
        ("done", "fetched", "fetched: status 200", "nothing: it is fetched once"),
        ("gone", "fetched", "fetched: status 404", "nothing: it is fetched once"),
        ("queued", "queued", "not fetched yet: queued", "first in the queue of its host"),
        ("behind", "queued", "not fetched yet: queued",
         "after 1 URL of its host, one every 2 s: in 2 s at the earliest"),
        ("waiting", "waiting", "not fetched yet: due later, attempt 1 failed (first_byte_timeout: 30 s)",
         "tried again in 4 min 59 s"),
        ("gave-up", "gave_up", "not fetched: given up after 5 attempts: first_byte_timeout: 30 s",
         "nothing, unless `crawler requeue` queues it"),
        ("private/x", "denied", 'not fetched: denied by robots.txt, line 6 "Disallow: /private"',
         "robots.txt is requested again in 21 h 59 min"),
        ("old", "denied", 'line 6 "Disallow: /old" (09:00:00Z; the rules now allow it)', "judged again"),
        ("no/z", "queued", 'not fetched: out of scope: crawler.toml:15  exclude "/no/**"', "it will be denied"),
    ],
)  # fmt: skip
def test_every_state_of_a_url_is_shown(store: Path, path: str, verdict: str, headline: str, following: str) -> None:
    """The headline says what became of it, the last line what comes next."""
    explanation = explain(store, SEED + path)
    assert explanation.known
    assert (explanation.verdict, headline in explanation.headline) == (verdict, True), explanation.headline
    assert following in explanation.next_text


@pytest.mark.parametrize(
    ("what", "path", "following"),
    [
        ("seeds", "", "fetched again in 14 h 59 min (2026-11-24T00:00:00Z), by [schedule] if it is one of crawl.seeds"),
        ("seeds", "done", "nothing: it is fetched once"),
        ("all", "done", "fetched again in 14 h 59 min (2026-11-24T00:00:00Z), by [schedule]"),
        ("all", "gave-up", "fetched again in 14 h 59 min (2026-11-24T00:00:00Z), by [schedule]"),
        ("all", "waiting", "tried again in 4 min 59 s"),
    ],
)
def test_the_next_time_of_the_schedule_is_shown(store: Path, what: str, path: str, following: str) -> None:
    rules = replace(RULES, schedule=ScheduleOptions(at=("daily UTC", "yearly UTC"), what=what))
    assert explain(store, SEED + path, rules).next_text.startswith(following)


@pytest.mark.parametrize(
    ("url", "verdict", "reason", "headline"),
    [
        ("https://e.org/new", "would_fetch", None, "never seen; it would be fetched"),
        ("e.org/new", "would_fetch", None, "never seen; it would be fetched"),
        ("e.org:443/private/new", "would_deny", "robots", 'line 6 "Disallow: /private"'),
        ("https://e.org/private/new", "would_deny", "robots", 'line 6 "Disallow: /private"'),
        ("https://e.org/private/open/new", "would_fetch", None, "would be fetched"),
        ("https://e.org/no/new", "would_deny", "scope_exclude", 'crawler.toml:15  exclude "/no/**"'),
        ("https://other.org/", "would_deny", "scope_host", "scope.hosts"),
        ("https://held.e.org/new", "would_deny", "scope_host", "scope.hosts"),
        ("javascript:alert(1)", "would_deny", "scope_scheme", "not http or https"),
        ("https://e.org:22/", "would_deny", "port_blocked", "port 22"),
        ("https://e.org/" + "x" * 3000, "would_deny", "url_too_long", "longer than"),
        ("", "would_deny", "url_invalid", "not a URL"),
    ],
)
def test_a_url_that_is_not_stored_is_judged_as_a_link(
    store: Path, url: str, verdict: str, reason: str | None, headline: str
) -> None:
    """The verdict is what the crawl would do with a link to it."""
    explanation = explain(store, url)
    assert not explanation.known
    assert (explanation.verdict, explanation.deny_reason) == (verdict, reason)
    assert headline in explanation.headline
    assert explanation.next_text


def test_the_verdict_is_that_of_the_crawl(store: Path) -> None:
    """Scope is judged by the object that the URL policy uses."""
    scope = Scope(RULES.scope, RULES.seed_hosts)
    for url in ("https://e.org/a", "https://e.org/no/a", "https://x.org/", "https://f.org/a"):
        href, origin = parse(url)
        denied = scope.judge(href, origin, depth=1, hop_path="L", source=Source.LINK)
        explanation = explain(store, url)
        assert explanation.deny_reason == (denied.reason if denied else None)
        assert (denied is None) or denied.rule in step(explanation, "scope")[1]


def test_the_directory_of_the_seed_is_named(store: Path) -> None:
    """If the scope follows from these."""
    rules = Rules(
        scope=ScopeOptions(hosts=("seed-prefix",)), seed_hosts=("e.org",), seed_directories=("https://e.org/private/",)
    )
    inside = explain(store, "https://e.org/private/never", rules)
    assert step(inside, "scope") == ("ok", "scope.hosts: seed-prefix (https://e.org/private/)")
    outside = explain(store, "https://e.org/never", rules)
    assert outside.deny_reason == "scope_host"
    assert "scope.hosts = seed-prefix" in outside.headline


def test_the_seed_in_whose_place_a_url_is_is_named(store: Path) -> None:
    """With its options and their place."""
    seed = SeedOptions("https://e.org/private/", "crawler.toml:5", ("a", "b"), 0, ("seed-prefix",))
    rules = Rules(seed_hosts=("other.org",), seeds=(seed,))
    text = "crawler.toml:5 in the place of https://e.org/private/: tags = a, b; scope = seed-prefix; max_depth = 0"
    too_deep = explain(store, "https://e.org/private/never", rules)
    assert step(too_deep, "seed") == ("", text)
    assert step(too_deep, "scope") == ("DENY", "crawler.toml:5  seed max_depth = 0")
    inside = explain(store, "https://e.org/private/never", replace(rules, seeds=(replace(seed, max_depth=None),)))
    where = "crawler.toml:5  seed scope = seed-prefix (https://e.org/private/)"
    assert step(inside, "scope") == ("ok", where)
    outside = explain(store, "https://e.org/never", rules)
    assert "seed" not in [one.name for one in outside.steps]


def test_overrides_of_the_host_are_named(store: Path) -> None:
    """Each with its place, in the step that it decides."""
    override = Override(("e.org",), "crawler.toml:20", delay_s=7.0, robots="ignore", max_urls=2)
    rules = replace(RULES, overrides=(override, Override(("*.e.org",), "crawler.toml:30", enabled=False)))
    where = 'crawler.toml:20 override "e.org"'
    explanation = explain(store, f"{SEED}private/never", rules)
    assert step(explanation, "robots") == ("ok", f"{where} robots = ignore")
    assert step(explanation, "override") == ("", f"{where} delay = 7 s")
    assert step(explanation, "budget")[1].startswith(f"{where} max_urls = 2, ")
    of_url = Override(urls=("e.org/never/**",), place="crawler.toml:40", max_depth=ANY_DEPTH, recrawl=False)
    explanation = explain(store, f"{SEED}never/x", replace(rules, overrides=(override, of_url)))
    where_url = 'crawler.toml:40 override "e.org/never/**"'
    text = f"{where} delay = 7 s; {where_url} max_depth = none; {where_url} recrawl = false"
    assert step(explanation, "override") == ("", text)
    limits = replace(override, delay_s=None, min_rate=0, max_body=1024, content_types=("text/*",))
    explanation = explain(store, f"{SEED}x", replace(rules, overrides=(limits,)))
    text = f"{where} min_rate = none; {where} max_body = 1.0 KiB; {where} content_types = text/*"
    assert step(explanation, "override") == ("", text)
    inside = replace(of_url, urls=("other.org/in/**",), include=True)
    explanation = explain(store, "https://other.org/in/x", replace(rules, overrides=(inside,)))
    assert step(explanation, "scope") == ("ok", 'crawler.toml:40  override "other.org/in/**" include = true')
    outside = replace(of_url, exclude=True)
    explanation = explain(store, f"{SEED}never/x", replace(rules, overrides=(outside,)))
    assert step(explanation, "scope") == ("DENY", 'crawler.toml:40  override "e.org/never/**" exclude = true')
    off = explain(store, "https://www.e.org/", rules)
    assert off.headline.endswith('out of scope: crawler.toml:30  override "*.e.org" enabled = false')
    assert off.deny_reason == "scope_host"
    with StoreReader(store, is_live=False) as reader:
        view, *_ = views(reader, RULES.politeness, {}, {}, None, now=NOW, overrides=Overrides([override]))
        assert f"{where} delay = 7 s" in view.why
        rarely = Overrides([replace(override, recrawl=False)])
        view, *_ = views(reader, RULES.politeness, {}, {}, None, now=NOW, overrides=rarely)
        assert f"{where} delay = 7 s, {where} recrawl = false" in view.why
        all_off = Overrides([Override(("e.org",), "crawler.toml:9", enabled=False)])
        view, *_ = views(reader, RULES.politeness, {}, {}, None, now=NOW, overrides=all_off)
        assert (view.state, view.why) == ("blocked", 'crawler.toml:9  override "e.org" enabled = false')


@pytest.mark.parametrize(
    ("overrides", "is_said"),
    [
        ((), True),
        ((Override(("cdn.test",), enabled=False),), False),
        ((Override(urls=("cdn.test/**",), requisites=False),), False),
        ((Override(urls=("cdn.test/**",), exclude=True),), False),
        ((Override(urls=("cdn.test/**",), include=False),), True),
    ],
)
def test_what_is_out_of_scope_as_a_page_may_be_part_of_one(
    store: Path, overrides: tuple[Override, ...], is_said: bool
) -> None:
    """Unless a rule refuses it as that too."""
    explanation = explain(store, "https://cdn.test/a.css", replace(RULES, overrides=overrides))
    verdict, text = step(explanation, "scope")
    assert verdict == "DENY"
    assert ("of a page in scope it would be fetched" in text) is is_said


def test_a_seed_that_is_not_stored_is_judged_as_one(store: Path) -> None:
    """A rule that refuses it is named; scope.hosts refuses no seed."""
    off = Override(("new.test",), "crawler.toml:9", enabled=False)
    with StoreReader(store, is_live=False) as reader:
        refused, new = (
            Explainer(reader, rules, is_live=True, now=NOW, has_seed=lambda url: url == "https://new.test/").why(
                "new.test"
            )
            for rules in (replace(RULES, overrides=(off,)), RULES)
        )
    rule = 'crawler.toml:9  override "new.test" enabled = false'
    assert refused.headline == f"a seed of the configuration, not stored; it would not be fetched: out of scope: {rule}"
    assert step(refused, "scope") == ("DENY", f"{rule} (it refuses this seed)")
    assert step(refused, "found")[1].startswith("never stored: it is a seed; no URL of ")
    assert step(new, "scope") == ("ok", "a seed")
    assert (new.verdict, new.next_text) == ("would_fetch", "nothing, until the crawl is started or reloaded")


def test_the_steps_show_their_evidence(store: Path) -> None:
    """File and line of the scope rule, line of robots.txt, place in the archive, the way from the seed."""
    explanation = explain(store, f"{SEED}private/open/y")
    assert step(explanation, "scope") == ("ok", 'crawler.toml:14  include "e.org/**"')
    assert step(explanation, "robots") == (
        "ok",
        'https://e.org/robots.txt line 5 "Allow: /private/open" (fetched 2 h ago)',
    )
    assert step(explanation, "found") == ("", "09:00:00Z as a link via https://e.org/, depth 1")
    explanation = explain(store, SEED)
    assert step(explanation, "archive") == ("", "warc/w.warc.gz.open at byte 3, sha256:AA")


def test_a_duplicate_is_shown_as_duplicate(store: Path) -> None:
    """Another spelling leads to the row that was found first; the spelling of a redirect to its own row."""
    explanation = explain(store, "https://e.org/%64one?#top")
    assert explanation.known
    assert explanation.url == "https://e.org/done"
    assert "is a duplicate of https://e.org/done" in step(explanation, "url")[1]
    assert explain(store, "https://e.org/%7Ejo").url == "https://e.org/%7Ejo"
    assert explain(store, "https://e.org/~jo").url == "https://e.org/~jo"


def test_a_session_id_that_is_left_out_is_named(store: Path) -> None:
    """Where two URLs count as one for it, and where there is only one so far."""
    explanation = explain(store, f"https://e.org/done?sid={MD5}")
    assert (explanation.known, explanation.url) == (True, "https://e.org/done")
    assert step(explanation, "url")[1] == (
        f"https://e.org/done?sid={MD5} is a duplicate of https://e.org/done, which was found first; "
        f"left out as a session id: sid={MD5}"
    )
    assert (
        f"known as https://e.org/nowhere?p=1; left out as a session id: sid={MD5}"
        in step(explain(store, f"https://e.org/nowhere?sid={MD5}&p=1"), "url")[1]
    )
    assert not explain(store, "https://e.org/done?sid=20240131").known


async def test_a_store_of_older_key_rules_is_understood(tmp_path: Path) -> None:
    """Before the upgrade its duplicates are duplicates; after it, what was forgotten still is."""
    path = tmp_path / "frontier.db"
    database = Database(path, migrations=MIGRATIONS[:5])
    database.run((ROOT / "tests/unit/frontier/store_5.sql").read_text())
    database.close()
    first, other = ("https://a.example/article.php?sid=20240131", "https://a.example/article.php?sid=20240201")
    explanation = explain(path, other, None)
    assert (explanation.url, explanation.known) == (first, True)
    assert f"is a duplicate of {first}" in step(explanation, "url")[1]
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.close(clean=True)
    assert (explain(path, first, None).known, explain(path, other, None).known) == (True, False)
    assert explain(path, "https://a.example/never?sid=20250102", None).verdict == "forgotten"


def test_a_host_whose_robots_txt_fails_is_held(store: Path) -> None:
    """Queued, held back, and when robots.txt is requested again."""
    rules = replace(RULES, seed_hosts=("e.org", "held.e.org"), scope=ScopeOptions())
    explanation = explain(store, "https://held.e.org/x", rules)
    assert explanation.verdict == "queued"
    assert explanation.deny_reason == "robots_unreachable"
    assert "cannot be read (status 503) since 08:00:00Z; requested again at 09:09:00Z" in step(explanation, "robots")[1]
    assert "in 8 min 59 s" in explanation.next_text


async def test_why_robots_txt_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """In the same words by `why` and `hosts`; without the cause in a store of an older version."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://held.e.org/x")], now=NOW)
    down = RobotsRecord("unreachable", None, None, NOW, NOW + 60, failing_since=NOW, error="tls_self_signed")
    task = Task(0, "https://held.e.org/robots.txt", TaskKind.ROBOTS)
    await frontier.settle(batch(visit(task, response(503), robots=down)))
    await frontier.close(clean=True)
    rules = replace(RULES, seed_hosts=("held.e.org",), scope=ScopeOptions())
    words = "robots.txt cannot be read (tls_self_signed)"
    assert words in step(explain(tmp_path / "frontier.db", "https://held.e.org/x", rules), "robots")[1]
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        (view,) = views(reader, PolitenessOptions(), {}, {}, None, now=NOW)
        assert (view.state, view.why) == ("held", words)
        assert report(LogTotals(), EventTotals(), reader)["robots_unreadable"] == [
            {"status": None, "error_type": "tls_self_signed", "hosts": 1}
        ]
    database = Database(tmp_path / "frontier.db")
    database.run("ALTER TABLE robots DROP COLUMN error")
    database.run("PRAGMA user_version = 8")
    database.close()
    explanation = explain(tmp_path / "frontier.db", "https://held.e.org/x", rules)
    assert "robots.txt cannot be read since" in step(explanation, "robots")[1]
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        (view,) = views(reader, PolitenessOptions(), {}, {}, None, now=NOW)
        assert (view.state, view.why) == ("held", "robots.txt cannot be read")


def test_limits_are_shown_with_their_use(store: Path) -> None:
    """A spent limit is a verdict; one that is not spent is shown."""
    spent = replace(RULES, scope=replace(RULES.scope, max_urls=5, max_urls_per_host=100))
    explanation = explain(store, f"{SEED}queued", spent)
    assert explanation.headline == "not fetched: scope.max_urls = 5 is reached"
    assert step(explanation, "budget") == ("DENY", "scope.max_urls = 5, used up")
    explanation = explain(store, f"{SEED}done", spent)
    assert all(one.name != "budget" for one in explanation.steps)


def test_an_address_that_may_not_be_dialled_is_shown(store: Path) -> None:
    """A literal, in whatever disguise, and a name whose address is configured."""
    rules = replace(RULES, scope=ScopeOptions(hosts=("*.x.test", "127.0.0.1")), resolve=(("*.x.test", ("10.0.0.1",)),))
    for url in ("http://127.1/", "http://0x7f000001/", "https://a.x.test/"):
        explanation = explain(store, url, rules)
        assert explanation.verdict == "would_deny"
        assert step(explanation, "address")[0] == "DENY"
    assert explain(store, "https://a.x.test/", replace(rules, allow_private=("10.0.0.0/8",))).verdict == "would_fetch"


def test_without_rules_what_is_not_known_is_reported(store: Path) -> None:
    """No run.json and no -c: the store still knows what became of a URL."""
    explanation = explain(store, f"{SEED}private/x", None)
    assert explanation.verdict == "denied"
    assert "not known" in step(explanation, "scope")[1]


def test_the_time_of_the_queue_is_shown_to_urls_that_wait_in_it(store: Path) -> None:
    """A denied URL does not."""
    for path, is_shown in (("new", True), ("private/x", False), ("old", False), ("private/new", False)):
        explanation = explain(store, f"{SEED}{path}")
        facts = next(step.facts for step in explanation.steps if step.name == "host")
        assert (facts["eta_s"] is not None) is is_shown, path
        assert ("the queue takes" in step(explanation, "host")[1]) is is_shown, path


def test_robots_that_are_ignored_deny_nothing(store: Path) -> None:
    """With politeness.robots = "ignore"."""
    ignoring = replace(RULES, politeness=PolitenessOptions(robots="ignore"))
    assert explain(store, f"{SEED}private/new", ignoring).verdict == "would_fetch"


async def test_a_host_that_backs_off_is_shown_with_the_reason(tmp_path: Path) -> None:
    """After 429 the politeness key backs off: until when, why, and when the queue is empty."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://www.slow.edu/")], now=NOW)
    await frontier.settle(batch(backoffs=[Backoff("slow.edu", NOW + 480, 2, "429 Retry-After 480")]))
    await frontier.close(clean=True)
    explanation = explain(
        tmp_path / "frontier.db", "https://www.slow.edu/", Rules(seed_hosts=("www.slow.edu",)), now=NOW
    )
    assert step(explanation, "host") == (
        "wait", "slow.edu backs off until 09:08:00Z (in 8 min): 429 Retry-After 480, 2 failures in a row"
            "; the queue takes at least 8 min 01 s",
    )  # fmt: skip
    assert explanation.headline == "not fetched yet: queued; its host backs off (429 Retry-After 480)"
    assert explanation.next_at == NOW + 480


def test_secrets_are_masked(store: Path) -> None:
    """In the URL that was typed, as in the logs."""
    shown = str(explain(store, "https://u:pw1@e.org/a?api_key=s3cr3t").as_json())
    assert "s3cr3t" not in shown
    assert "pw1" not in shown


async def test_an_owned_store_is_read_beside_its_owner(tmp_path: Path) -> None:
    """What is committed is seen at once, also what is still in SQLite's log."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    with StoreReader(tmp_path / "frontier.db", is_live=True) as reader:
        assert list(reader.hosts()) == []
        await frontier.add([found(SEED)], now=NOW)
        assert [row["host"] for row in reader.hosts()] == ["e.org"]
    await frontier.close(clean=True)


def test_reading_a_closed_store_leaves_nothing_beside_it(store: Path) -> None:
    """No -shm and no -wal that the owner could not open later."""
    explain(store, SEED)
    assert sorted(path.name for path in store.parent.iterdir()) == ["frontier.db", "frontier.db.lock"]


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """Newer, foreign, damaged, empty, missing: each with a message of its own."""
    path = tmp_path / "frontier.db"
    with pytest.raises(FileNotFoundError):
        StoreReader(path, is_live=False)
    path.touch()
    with pytest.raises(FrontierCorrupt, match="is empty"):
        StoreReader(path, is_live=False)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(FrontierCorrupt, match="damaged or no database"):
        StoreReader(path, is_live=False)
    path.unlink()
    Database(path).close()
    with StoreReader(path, is_live=False) as reader:
        version = reader.version
    database = Database(path)
    database.run(f"PRAGMA user_version = {version + 1}")
    database.close()
    with pytest.raises(FrontierVersion, match="use the newer program"):
        StoreReader(path, is_live=False)


def test_seeds_that_were_not_reached_are_found(store: Path) -> None:
    """The one seed responded: none is missing, and the search was complete."""
    with StoreReader(store, is_live=False) as reader:
        assert reader.unreached_seeds(10, within_s=10) == ([], True)


async def test_a_block_and_a_takedown_are_shown(tmp_path: Path) -> None:
    """Who blocked what, when and why; a blocked URL stays queued."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found("https://www.evil.test/x")], now=NOW)
    await frontier.block(BlockedHost("evil.test", "domain", NOW, "a complaint"))
    await frontier.close(clean=True)
    rules = Rules(seed_hosts=("www.evil.test",))
    explanation = explain(path, "https://www.evil.test/x", rules)
    assert explanation.headline == "not fetched: domain evil.test was blocked 09:00:00Z: a complaint"
    assert step(explanation, "block")[0] == "DENY"
    assert "stays queued" in explanation.next_text
    assert explain(path, "https://www.evil.test/new", rules).verdict == "would_deny"


async def test_a_url_that_was_forgotten_before_it_was_found_is_shown(tmp_path: Path) -> None:
    """Its row has no facts."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.forget_url("https://e.org/never", now=NOW)
    await frontier.close(clean=True)
    explanation = explain(path, "https://e.org/never", Rules(seed_hosts=("e.org",)))
    assert explanation.verdict == "forgotten"
    assert explanation.headline == "not fetched: an operator took it down; it is never fetched again"


@pytest.mark.parametrize("state", [UrlState.DONE, UrlState.GAVE_UP, UrlState.WAITING])
@pytest.mark.parametrize("refusal", ["block", "exclude", "robots"])
async def test_no_visit_is_promised_that_cannot_happen(tmp_path: Path, state: UrlState, refusal: str) -> None:
    """A URL that is due while a block or a present rule forbids it: the headline says which."""
    path, url = tmp_path / "frontier.db", "https://e.org/x"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(url)], now=NOW)
    (task,) = await frontier.take(1, 1, leased=())
    outcome = response(200) if state is UrlState.DONE else Failed(ErrorType.FIRST_BYTE_TIMEOUT, "30 s", retryable=True)
    await frontier.settle(batch(visit(task, outcome, state=state, next_at=NOW + 600)))
    rules = Rules(seed_hosts=("e.org",))
    assert "again in" in explain(path, url, rules).next_text
    if refusal == "block":
        await frontier.block(BlockedHost("e.org", "domain", NOW, "a complaint"))
    elif refusal == "exclude":
        rules = replace(rules, scope=ScopeOptions(exclude=(ScopeRule("/x", "crawler.toml:9"),)))
    else:
        robots = RobotsRecord("rules", 200, b"User-agent: *\nDisallow: /x\n", NOW, NOW + 86_400)
        await frontier.settle(
            batch(visit(Task(id=0, url="https://e.org/robots.txt", kind=TaskKind.ROBOTS), robots=robots))
        )
    await frontier.close(clean=True)
    explanation = explain(path, url, rules)
    words = {
        "block": "; now domain e.org was blocked 09:00:00Z: a complaint",
        "exclude": '; now out of scope: crawler.toml:9  exclude "/x"',
        "robots": '; now denied by robots.txt, line 2 "Disallow: /x"',
    }
    assert words[refusal] in explanation.headline
    assert explanation.next_text.startswith("nothing")
    assert explanation.next_at is None


async def test_a_suspect_is_shown_with_its_template(tmp_path: Path) -> None:
    """A URL that is set aside, one of the same template that was never seen, and both once it is released."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    url = "https://e.org/calendar/2026-11-25"
    await frontier.add([found(url)], now=NOW)
    row = TemplateRow(1, "/calendar/{date}", spent=200, since_at=NOW)
    await frontier.settle(batch(templates=[row]))
    await frontier.make_suspects(1, [(1, row.template)])
    rules = Rules(seed_hosts=("e.org",))
    explanation = explain(path, url, rules)
    assert (explanation.verdict, explanation.state, explanation.deny_reason) == ("suspect", "suspect", None)
    assert explanation.headline == "not fetched yet: set aside, it belongs to a part of its host that looks endless"
    assert "more such pages; `crawler release e.org`" in explanation.next_text
    words = (
        '"/calendar/{date}" looks endless since 09:00:00Z: its pages are alike; '
        "200 suspects were fetched and led to more pages of the kind"
    )
    assert step(explanation, "trap") == ("wait", words)
    explanation = explain(path, "https://e.org/calendar/2031-01-01", rules)
    assert (explanation.verdict, step(explanation, "trap")) == ("would_fetch", ("wait", words))
    assert explain(path, "https://e.org/" + "a/" * 40, rules).deny_reason == "trap_path"
    await frontier.settle(batch(templates=[replace(row, released_at=NOW)]))
    explanation = explain(path, "https://e.org/calendar/2031-01-01", rules)
    assert step(explanation, "trap") == ("ok", '"/calendar/{date}" was suspected, released 09:00:00Z')
    await frontier.close(clean=True)


async def test_a_revisit_and_a_robots_txt_that_changed_are_shown(tmp_path: Path) -> None:
    """The earlier result is still shown when the URL is queued again."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(SEED)], now=NOW)
    (seed,) = await frontier.take(1, 1, leased=())
    robots_task = Task(id=0, url=f"{SEED}robots.txt", kind=TaskKind.ROBOTS)
    for n in range(3):
        body = b"User-agent: *\nDisallow: /%d\n" % n
        record = RobotsRecord("rules", 200, body, NOW + n, NOW + 99_999)
        await frontier.settle(batch(visit(robots_task, robots=record)))
    await frontier.settle(batch(visit(seed, next_at=NOW + 10)))
    explanation = explain(path, SEED)
    assert explanation.next_text == "fetched again in 9 s (09:00:10Z)"
    await frontier.promote(now=NOW + 11, limit=9, revisits=True)
    explanation = explain(path, SEED, now=NOW + 12)
    assert explanation.headline == "fetched 1 time; queued to be fetched again"
    assert "changed 2 times, last 09:00:02Z" in step(explanation, "robots")[1]
    await frontier.close(clean=True)


async def test_the_record_that_holds_the_content_is_named(tmp_path: Path) -> None:
    """Through revisits that found the same, an error in between, and a change."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(SEED)], now=NOW)
    files = [SinkFile("warc", name, SinkFileState.CLOSED, 10) for name in ("a.warc.gz", "b.warc.gz")]
    same = NotModified(response(304))
    visits: list[tuple[Outcome, str | None, RecordLocation, tuple[str, int] | None]] = [
        (response(200), "sha256:AA", RecordLocation("a.warc.gz", 3), None),
        (same, None, RecordLocation("a.warc.gz", 50), ("a.warc.gz", 3)),
        (response(200), "sha256:AA", RecordLocation("b.warc.gz", 5), ("a.warc.gz", 3)),
        (response(404), None, RecordLocation("b.warc.gz", 60), ("a.warc.gz", 3)),
        (response(200), "sha256:BB", RecordLocation("b.warc.gz", 90), None),
        (same, None, RecordLocation("b.warc.gz", 120), ("b.warc.gz", 90)),
    ]
    for n, (outcome, digest, place, content) in enumerate(visits):
        (task,) = await frontier.take(1, 1, leased=())
        settlement = visit(task, outcome, digest=digest, next_at=NOW + n)
        await frontier.settle(batch(settlement, written=[place], sink_files=files))
        explanation = explain(path, SEED, now=NOW + n)
        (facts,) = (one.facts for one in explanation.steps if one.name == "archive")
        assert (facts["file"], facts["offset"]) == (place.name, place.offset)
        named = (facts["content_file"], facts["content_offset"]) if "content_file" in facts else None
        assert named == content
        if content is not None:
            assert f"the content is in warc/{content[0]} at byte {content[1]}" in step(explanation, "archive")[1]
        await frontier.promote(now=NOW + n, limit=1, revisits=True)
    await frontier.close(clean=True)


async def test_auxiliary_requests_for_a_url_are_shown(tmp_path: Path) -> None:
    """A sitemap, a feed that is still queued, robots.txt; and a page and a sitemap of one URL."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    url_lists = [
        replace(found(f"{SEED}{name}", source=Source.ROBOTS, kind=kind), key=kind_key_of(f"{SEED}{name}", kind))
        for name, kind in (("map.xml", TaskKind.SITEMAP), ("news", TaskKind.FEED), ("both", TaskKind.SITEMAP))
    ]
    await frontier.add([*url_lists, found(f"{SEED}both")], now=NOW)
    for task in await frontier.take(1, 9, leased=()):
        if task.kind is not TaskKind.FEED:
            await frontier.settle(batch(visit(task, response(200 if task.kind is TaskKind.SITEMAP else 404))))
    robots_task = Task(id=0, url=f"{SEED}robots.txt", kind=TaskKind.ROBOTS)
    await frontier.settle(batch(visit(robots_task, robots=RobotsRecord("rules", 200, b"", NOW, NOW + 9))))
    explanation = explain(path, f"{SEED}map.xml")
    assert explanation.headline.startswith(
        "requested as a sitemap, not as a page: status 200 (09:00:00Z, 1 s ago); as a page"
    )
    assert explanation.verdict == "would_fetch"
    assert explain(path, f"{SEED}news").headline.startswith(
        "to be requested as a feed, not as a page: queued (not yet)"
    )
    robots = explain(path, f"{SEED}robots.txt")
    assert robots.headline.startswith("requested as robots.txt, not as a page: status 200, rules (09:00:00Z")
    both = explain(path, f"{SEED}both")
    assert both.headline.startswith("fetched: status 404")
    assert step(both, "requested") == ("", "as a sitemap: status 200 (09:00:00Z, 1 s ago)")
    assert not any(one.name == "requested" for one in explain(path, f"{SEED}other").steps)
    await frontier.close(clean=True)


def test_auxiliary_requests_in_the_log_are_shown_once() -> None:
    """A probe, and a robots.txt that another host redirects to: the last line of each."""
    lines = [
        {"ts": "2025-11-25T09:00:01.000Z", "kind": "probe", "http_response_status_code": 404, "fetch_id": "a"},
        {"ts": "2025-11-25T09:00:02.000Z", "kind": "robots", "outcome": "error", "error_type": "reset"},
        {"ts": "2025-11-25T09:00:03.000Z", "kind": "robots", "http_response_status_code": 200},
        {"ts": "2025-11-25T09:00:04.000Z", "outcome": "ok"},
    ]
    explanation = Explanation(SEED, SEED, headline="never seen")
    for _ in range(2):
        add_auxiliary(explanation, logged_auxiliary(lines), NOW)
    assert [(one.facts["kind"], one.facts["status"]) for one in explanation.steps] == [("probe", 404), ("robots", 200)]
    assert explanation.headline.startswith("requested as a page that should not exist (traps.soft_404), not as a page:")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("end", ["runs", "stopped", "killed"])
async def test_read_access_is_enough_to_look(end: str) -> None:
    """A member of the group that may read the files, and write none, reads the store in each of its states."""
    with fast_folder() as folder:
        folder.chmod(0o750)
        os.chown(folder, 0, GROUP)
        path = folder / "frontier.db"
        frontier = SqliteFrontier(path)
        await frontier.open()
        await frontier.add([found(SEED)], now=NOW)
        looked_at = path
        if end == "stopped":
            await frontier.close(clean=True)
        elif end == "killed":  # what a kill leaves: the log and its shared memory, and nobody who holds them
            looked_at = folder / "copy.db"
            for suffix in ("", "-wal", "-shm"):
                shutil.copyfile(f"{path}{suffix}", f"{looked_at}{suffix}")
        for file in folder.iterdir():
            file.chmod(0o640)
            os.chown(file, 0, GROUP)
        # Imported first: the interpreter may lie where only root may read.
        code = (
            "import os, sys; from pathlib import Path; from crawler.frontier.sqlite.store_reader import StoreReader\n"
            f"os.setgroups([]); os.setgid({GROUP}); os.setuid({GROUP})\n"
            f"with StoreReader(Path({str(looked_at)!r}), is_live={end == 'runs'}) as reader:\n"
            "    print([row['host'] for row in reader.hosts()])"
        )
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("['e.org']\n", "")
        await frontier.close(clean=True)
