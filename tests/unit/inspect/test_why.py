"""Why a URL was fetched or not: each end a URL can come to, judged on a real store."""

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
from crawler.core.options import PolitenessOptions, Rules, ScopeOptions, ScopeRule
from crawler.core.scope import Scope
from crawler.core.url import kind_key_of, parse, respelled_key_of
from crawler.frontier.base import BlockedHost, FrontierCorrupt, FrontierVersion
from crawler.frontier.sqlite.database import MIGRATIONS, Database
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain import auxiliary
from crawler.inspection.explain.answer import Explanation, table
from crawler.inspection.explain.hosts import views
from crawler.inspection.explain.why import Inquiry
from crawler.inspection.log.totals import LogTotals
from crawler.inspection.report import Happened, report
from tests.support.frontiers import NOW, answer, batch, fast_folder, found, links, visit

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
ROOT = Path(__file__).parents[3]
GROUP = 54_321  # of nobody here
PATHS = ("done", "gone", "queued", "behind", "waiting", "gave-up", "private/x", "private/open/y", "no/z", "~jo", "old")


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """A seed, and pages that came to every end there is."""
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
        "gone": visit(tasks[f"{SEED}gone"], answer(404)),
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
            visit(held_task, answer(503), host_id=2, robots=unreachable),
            counters=Counters(urls_fetched=5),
        )
    )
    await frontier.close(clean=True)


def ask(store: Path, url: str, rules: Rules | None = RULES, *, now: float = NOW + 1) -> Explanation:
    with StoreReader(store, is_live=False) as reader:
        return Inquiry(reader, rules, is_live=True, now=now).why(url)


def step(answer: Explanation, name: str) -> tuple[str, str]:
    return next((one.verdict, one.text) for one in answer.steps if one.name == name)


@pytest.mark.parametrize(
    ("path", "verdict", "headline", "following"),
    [
        ("", "fetched", "fetched: status 200", "nothing: it is fetched once"),
        ("done", "fetched", "fetched: status 200", "nothing: it is fetched once"),
        ("gone", "fetched", "fetched: status 404", "nothing: it is fetched once"),
        ("queued", "queued", "not fetched yet: queued", "first in the queue of its host"),
        ("behind", "queued", "not fetched yet: queued",
         "after 1 URL of its host, one every 2 s: in 2 s at the earliest"),
        ("waiting", "waiting", "not fetched yet: attempt 1 failed (first_byte_timeout: 30 s)",
         "tried again in 4 min 59 s"),
        ("gave-up", "gave_up", "not fetched: given up after 5 attempts: first_byte_timeout: 30 s",
         "nothing, unless `crawler requeue` queues it"),
        ("private/x", "denied", 'not fetched: denied by robots.txt, line 6 "Disallow: /private"',
         "robots.txt is requested again in 21 h 59 min"),
        ("old", "denied", 'line 6 "Disallow: /old" (09:00:00; the rules now allow it)', "judged again"),
        ("no/z", "queued", 'not fetched: out of scope: crawler.toml:15  exclude "/no/**"', "it will be denied"),
    ],
)  # fmt: skip
def test_every_end_of_a_url_is_told(store: Path, path: str, verdict: str, headline: str, following: str) -> None:
    """The headline says what became of it, the last line what comes next."""
    told = ask(store, SEED + path)
    assert told.known
    assert (told.verdict, headline in told.headline) == (verdict, True), told.headline
    assert following in told.next_text


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
def test_what_was_never_seen_is_judged_as_it_would_be(
    store: Path, url: str, verdict: str, reason: str | None, headline: str
) -> None:
    """The answer for an unknown URL is what the crawl would do with a link to it."""
    told = ask(store, url)
    assert not told.known
    assert (told.verdict, told.deny_reason) == (verdict, reason)
    assert headline in told.headline
    assert told.next_text


def test_the_verdict_is_that_of_the_crawl(store: Path) -> None:
    """Scope is judged by the very object that admission uses."""
    scope = Scope(RULES.scope, RULES.seed_hosts)
    for url in ("https://e.org/a", "https://e.org/no/a", "https://x.org/", "https://f.org/a"):
        href, origin = parse(url)
        denied = scope.judge(href, origin, depth=1, hop_path="L", source=Source.LINK)
        told = ask(store, url)
        assert told.deny_reason == (denied.reason if denied else None)
        assert (denied is None) or denied.rule in step(told, "scope")[1]


def test_the_steps_show_their_evidence(store: Path) -> None:
    """File and line of the scope rule, line of robots.txt, place in the archive, the way from the seed."""
    told = ask(store, f"{SEED}private/open/y")
    assert step(told, "scope") == ("ok", 'crawler.toml:14  include "e.org/**"')
    assert step(told, "robots") == ("ok", 'https://e.org/robots.txt line 5 "Allow: /private/open" (fetched 2 h ago)')
    assert step(told, "found") == ("", "09:00:00 as a link via https://e.org/, depth 1")
    told = ask(store, SEED)
    assert step(told, "archive") == ("", "warc/w.warc.gz.open at byte 3, sha256:AA")


def test_a_duplicate_is_told_as_one(store: Path) -> None:
    """Another spelling leads to the row that was found first; the spelling of a redirect to its own row."""
    told = ask(store, "https://e.org/%64one?#top")
    assert told.known
    assert told.url == "https://e.org/done"
    assert "is a duplicate of https://e.org/done" in step(told, "url")[1]
    assert ask(store, "https://e.org/%7Ejo").url == "https://e.org/%7Ejo"
    assert ask(store, "https://e.org/~jo").url == "https://e.org/~jo"


def test_a_session_id_that_is_left_out_is_named(store: Path) -> None:
    """Where two URLs count as one for it, and where there is only one so far."""
    told = ask(store, f"https://e.org/done?sid={MD5}")
    assert (told.known, told.url) == (True, "https://e.org/done")
    assert step(told, "url")[1] == (
        f"https://e.org/done?sid={MD5} is a duplicate of https://e.org/done, which was found first; "
        f"left out as a session id: sid={MD5}"
    )
    assert (
        f"known as https://e.org/nowhere?p=1; left out as a session id: sid={MD5}"
        in step(ask(store, f"https://e.org/nowhere?sid={MD5}&p=1"), "url")[1]
    )
    assert not ask(store, "https://e.org/done?sid=20240131").known


async def test_a_store_of_older_key_rules_is_understood(tmp_path: Path) -> None:
    """Before a crawl has brought it up, what it took for one is told as one; afterwards what was forgotten still is."""
    path = tmp_path / "frontier.db"
    database = Database(path, migrations=MIGRATIONS[:5])
    database.run((ROOT / "tests/unit/frontier/store_5.sql").read_text())
    database.close()
    first, other = ("https://a.example/article.php?sid=20240131", "https://a.example/article.php?sid=20240201")
    told = ask(path, other, None)
    assert (told.url, told.known) == (first, True)
    assert f"is a duplicate of {first}" in step(told, "url")[1]
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.close(clean=True)
    assert (ask(path, first, None).known, ask(path, other, None).known) == (True, False)
    assert ask(path, "https://a.example/never?sid=20250102", None).verdict == "forgotten"


def test_a_host_whose_robots_txt_fails_is_held(store: Path) -> None:
    """Queued, and held back; when robots.txt is asked for again is said."""
    rules = replace(RULES, seed_hosts=("e.org", "held.e.org"), scope=ScopeOptions())
    told = ask(store, "https://held.e.org/x", rules)
    assert told.verdict == "queued"
    assert told.deny_reason == "robots_unreachable"
    assert "cannot be read (status 503) since 08:00:00; requested again at 09:09:00" in step(told, "robots")[1]
    assert "in 8 min 59 s" in told.next_text


async def test_why_robots_txt_cannot_be_read_is_said(tmp_path: Path) -> None:
    """In the same words by `why` and `hosts`; a store of before it was kept has none to say."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://held.e.org/x")], now=NOW)
    down = RobotsRecord("unreachable", None, None, NOW, NOW + 60, failing_since=NOW, error="tls_self_signed")
    task = Task(0, "https://held.e.org/robots.txt", TaskKind.ROBOTS)
    await frontier.settle(batch(visit(task, answer(503), robots=down)))
    await frontier.close(clean=True)
    rules = replace(RULES, seed_hosts=("held.e.org",), scope=ScopeOptions())
    words = "robots.txt cannot be read (tls_self_signed)"
    assert words in step(ask(tmp_path / "frontier.db", "https://held.e.org/x", rules), "robots")[1]
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        (view,) = views(reader, PolitenessOptions(), {}, {}, None, now=NOW)
        assert (view.state, view.why) == ("held", words)
        assert report(LogTotals(), Happened(), reader)["robots_unreadable"] == [
            {"status": None, "error_type": "tls_self_signed", "hosts": 1}
        ]
    database = Database(tmp_path / "frontier.db")
    database.run("ALTER TABLE robots DROP COLUMN error")
    database.run("PRAGMA user_version = 8")
    database.close()
    told = ask(tmp_path / "frontier.db", "https://held.e.org/x", rules)
    assert "robots.txt cannot be read since" in step(told, "robots")[1]
    with StoreReader(tmp_path / "frontier.db", is_live=False) as reader:
        (view,) = views(reader, PolitenessOptions(), {}, {}, None, now=NOW)
        assert (view.state, view.why) == ("held", "robots.txt cannot be read")


def test_limits_are_told_with_what_is_used_of_them(store: Path) -> None:
    """A spent limit is a verdict; one that is not spent is shown."""
    spent = replace(RULES, scope=replace(RULES.scope, max_urls=5, max_urls_per_host=100))
    told = ask(store, f"{SEED}queued", spent)
    assert told.headline == "not fetched: scope.max_urls = 5 is reached"
    assert step(told, "budget") == ("DENY", "scope.max_urls = 5, used up")
    told = ask(store, f"{SEED}done", spent)
    assert all(one.name != "budget" for one in told.steps)


def test_an_address_that_may_not_be_dialled_is_told(store: Path) -> None:
    """A literal, in whatever disguise, and a name whose address is configured."""
    rules = replace(RULES, scope=ScopeOptions(hosts=("*.x.test", "127.0.0.1")), resolve=(("*.x.test", ("10.0.0.1",)),))
    for url in ("http://127.1/", "http://0x7f000001/", "https://a.x.test/"):
        told = ask(store, url, rules)
        assert told.verdict == "would_deny"
        assert step(told, "address")[0] == "DENY"
    assert ask(store, "https://a.x.test/", replace(rules, allow_private=("10.0.0.0/8",))).verdict == "would_fetch"


def test_without_rules_what_is_not_known_is_said(store: Path) -> None:
    """No run.json and no -c: the store still tells what became of a URL."""
    told = ask(store, f"{SEED}private/x", None)
    assert told.verdict == "denied"
    assert "not known" in step(told, "scope")[1]


def test_robots_that_are_ignored_deny_nothing(store: Path) -> None:
    """politeness.robots = "ignore" is what is said of robots.txt."""
    ignoring = replace(RULES, politeness=PolitenessOptions(robots="ignore"))
    assert ask(store, f"{SEED}private/new", ignoring).verdict == "would_fetch"


async def test_a_resting_host_is_told_with_its_reason(tmp_path: Path) -> None:
    """429 rests the politeness key: until when, and why, and what that makes of the queue."""
    frontier = SqliteFrontier(tmp_path / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://www.slow.edu/")], now=NOW)
    await frontier.settle(batch(backoffs=[Backoff("slow.edu", NOW + 480, 2, "429 Retry-After 480")]))
    await frontier.close(clean=True)
    told = ask(tmp_path / "frontier.db", "https://www.slow.edu/", Rules(seed_hosts=("www.slow.edu",)), now=NOW)
    assert step(told, "host") == (
        "wait", "slow.edu backs off until 09:08:00 (in 8 min): 429 Retry-After 480, 2 failures in a row"
            "; the queue takes at least 8 min 01 s",
    )  # fmt: skip
    assert told.headline == "not fetched yet: queued; its host backs off (429 Retry-After 480)"
    assert told.next_at == NOW + 480


def test_secrets_do_not_leave_in_the_answer(store: Path) -> None:
    """What was typed is masked as in the logs."""
    shown = str(table(ask(store, "https://u:pw1@e.org/a?api_key=s3cr3t")))
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
    ask(store, SEED)
    assert sorted(path.name for path in store.parent.iterdir()) == ["frontier.db", "frontier.db.lock"]


def test_a_store_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    """Newer, foreign, damaged, empty, missing: each in words."""
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
    """The one seed answered: none is missing, and all could be looked through."""
    with StoreReader(store, is_live=False) as reader:
        assert reader.unreached_seeds(10, within_s=10) == ([], True)


async def test_a_block_and_a_takedown_are_told(tmp_path: Path) -> None:
    """Who blocked what, when and why; a blocked URL stays queued."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found("https://www.evil.test/x")], now=NOW)
    await frontier.block(BlockedHost("evil.test", "domain", NOW, "a complaint"))
    await frontier.close(clean=True)
    rules = Rules(seed_hosts=("www.evil.test",))
    told = ask(path, "https://www.evil.test/x", rules)
    assert told.headline == "not fetched: domain evil.test was blocked 09:00:00: a complaint"
    assert step(told, "block")[0] == "DENY"
    assert "stays queued" in told.next_text
    assert ask(path, "https://www.evil.test/new", rules).verdict == "would_deny"


async def test_a_url_that_was_forgotten_before_it_was_known_is_told(tmp_path: Path) -> None:
    """It is a mark without anything in it."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.forget_url("https://e.org/never", now=NOW)
    await frontier.close(clean=True)
    told = ask(path, "https://e.org/never", Rules(seed_hosts=("e.org",)))
    assert told.verdict == "forgotten"
    assert told.headline == "not fetched: an operator took it down; it is never fetched again"


@pytest.mark.parametrize("state", [UrlState.DONE, UrlState.GAVE_UP, UrlState.WAITING])
@pytest.mark.parametrize("refusal", ["block", "exclude", "robots"])
async def test_no_visit_is_promised_that_cannot_happen(tmp_path: Path, state: UrlState, refusal: str) -> None:
    """A URL that is due while a block or a rule of now forbids it: the headline says what stands in the way."""
    path, url = tmp_path / "frontier.db", "https://e.org/x"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(url)], now=NOW)
    (task,) = await frontier.take(1, 1, leased=())
    outcome = answer(200) if state is UrlState.DONE else Failed(ErrorType.FIRST_BYTE_TIMEOUT, "30 s", retryable=True)
    await frontier.settle(batch(visit(task, outcome, state=state, next_at=NOW + 600)))
    rules = Rules(seed_hosts=("e.org",))
    assert "again in" in ask(path, url, rules).next_text
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
    told = ask(path, url, rules)
    words = {
        "block": "; now domain e.org was blocked 09:00:00: a complaint",
        "exclude": '; now out of scope: crawler.toml:9  exclude "/x"',
        "robots": '; now denied by robots.txt, line 2 "Disallow: /x"',
    }
    assert words[refusal] in told.headline
    assert told.next_text.startswith("nothing")
    assert told.next_at is None


async def test_a_suspect_is_told_with_its_template(tmp_path: Path) -> None:
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
    told = ask(path, url, rules)
    assert (told.verdict, told.state, told.deny_reason) == ("suspect", "suspect", None)
    assert told.headline == "not fetched: it belongs to a part of its host that looks endless"
    assert "`crawler release e.org`" in told.next_text
    words = (
        '"/calendar/{date}" looks endless since 09:00:00: its pages are alike; '
        "200 suspects were fetched and led to more pages of the kind"
    )
    assert step(told, "trap") == ("WAIT", words)
    told = ask(path, "https://e.org/calendar/2031-01-01", rules)
    assert (told.verdict, step(told, "trap")) == ("would_fetch", ("WAIT", words))
    assert ask(path, "https://e.org/" + "a/" * 40, rules).deny_reason == "trap_path"
    await frontier.settle(batch(templates=[replace(row, released_at=NOW)]))
    told = ask(path, "https://e.org/calendar/2031-01-01", rules)
    assert step(told, "trap") == ("ok", '"/calendar/{date}" was suspected, released 09:00:00')
    await frontier.close(clean=True)


async def test_a_revisit_and_a_robots_txt_that_changed_are_told(tmp_path: Path) -> None:
    """What came of it before is not forgotten when it is queued again."""
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
    told = ask(path, SEED)
    assert told.next_text == "fetched again in 9 s (09:00:10)"
    await frontier.promote_revisits(now=NOW + 11, limit=9)
    told = ask(path, SEED, now=NOW + 12)
    assert told.headline == "fetched 1 time; queued to be fetched again"
    assert "changed 2 times, last 09:00:02" in step(told, "robots")[1]
    await frontier.close(clean=True)


async def test_the_record_that_holds_the_content_is_named_beside_the_last_one(tmp_path: Path) -> None:
    """Through revisits that found the same, an error in between, and a change."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(SEED)], now=NOW)
    files = [SinkFile("warc", name, SinkFileState.CLOSED, 10) for name in ("a.warc.gz", "b.warc.gz")]
    same = NotModified(answer(304))
    visits: list[tuple[Outcome, str | None, RecordLocation, tuple[str, int] | None]] = [
        (answer(200), "sha256:AA", RecordLocation("a.warc.gz", 3), None),
        (same, None, RecordLocation("a.warc.gz", 50), ("a.warc.gz", 3)),
        (answer(200), "sha256:AA", RecordLocation("b.warc.gz", 5), ("a.warc.gz", 3)),
        (answer(404), None, RecordLocation("b.warc.gz", 60), ("a.warc.gz", 3)),
        (answer(200), "sha256:BB", RecordLocation("b.warc.gz", 90), None),
        (same, None, RecordLocation("b.warc.gz", 120), ("b.warc.gz", 90)),
    ]
    for n, (outcome, digest, place, content) in enumerate(visits):
        (task,) = await frontier.take(1, 1, leased=())
        settlement = visit(task, outcome, digest=digest, next_at=NOW + n)
        await frontier.settle(batch(settlement, written=[place], sink_files=files))
        told = ask(path, SEED, now=NOW + n)
        (facts,) = (one.facts for one in told.steps if one.name == "archive")
        assert (facts["file"], facts["offset"]) == (place.name, place.offset)
        named = (facts["content_file"], facts["content_offset"]) if "content_file" in facts else None
        assert named == content
        if content is not None:
            assert f"the content is in warc/{content[0]} at byte {content[1]}" in step(told, "archive")[1]
        await frontier.promote_revisits(now=NOW + n, limit=1)
    await frontier.close(clean=True)


async def test_what_was_asked_for_as_something_else_than_a_page_is_told(tmp_path: Path) -> None:
    """A sitemap, a feed that is still queued, robots.txt; and a page beside a sitemap of the same address."""
    path = tmp_path / "frontier.db"
    frontier = SqliteFrontier(path)
    await frontier.open()
    listings = [
        replace(found(f"{SEED}{name}", source=Source.ROBOTS, kind=kind), key=kind_key_of(f"{SEED}{name}", kind))
        for name, kind in (("map.xml", TaskKind.SITEMAP), ("news", TaskKind.FEED), ("both", TaskKind.SITEMAP))
    ]
    await frontier.add([*listings, found(f"{SEED}both")], now=NOW)
    for task in await frontier.take(1, 9, leased=()):
        if task.kind is not TaskKind.FEED:
            await frontier.settle(batch(visit(task, answer(200 if task.kind is TaskKind.SITEMAP else 404))))
    robots_task = Task(id=0, url=f"{SEED}robots.txt", kind=TaskKind.ROBOTS)
    await frontier.settle(batch(visit(robots_task, robots=RobotsRecord("rules", 200, b"", NOW, NOW + 9))))
    told = ask(path, f"{SEED}map.xml")
    assert told.headline.startswith("requested as a sitemap, not as a page: status 200 (09:00:00, 1 s ago); as a page")
    assert told.verdict == "would_fetch"
    assert ask(path, f"{SEED}news").headline.startswith("to be requested as a feed, not as a page: queued (not yet)")
    robots = ask(path, f"{SEED}robots.txt")
    assert robots.headline.startswith("requested as robots.txt, not as a page: status 200, rules (09:00:00")
    both = ask(path, f"{SEED}both")
    assert both.headline.startswith("fetched: status 404")
    assert step(both, "asked") == ("", "requested as a sitemap: status 200 (09:00:00, 1 s ago)")
    assert not any(one.name == "asked" for one in ask(path, f"{SEED}other").steps)
    await frontier.close(clean=True)


def test_what_only_the_log_knows_of_is_told_once() -> None:
    """A probe, and the robots.txt that another host's redirects to: the last line of each."""
    lines = [
        {"ts": "2025-11-25T09:00:01.000Z", "kind": "probe", "http_response_status_code": 404, "fetch_id": "a"},
        {"ts": "2025-11-25T09:00:02.000Z", "kind": "robots", "outcome": "error", "error_type": "reset"},
        {"ts": "2025-11-25T09:00:03.000Z", "kind": "robots", "http_response_status_code": 200},
        {"ts": "2025-11-25T09:00:04.000Z", "outcome": "ok"},
    ]
    told = Explanation(SEED, SEED, headline="never seen")
    for _ in range(2):
        auxiliary.tell(told, auxiliary.logged(lines), NOW)
    assert [(one.facts["kind"], one.facts["status"]) for one in told.steps] == [("probe", 404), ("robots", 200)]
    assert told.headline.startswith("requested as a page that should not exist (traps.soft_404), not as a page:")


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
