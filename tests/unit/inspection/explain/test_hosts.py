"""When a host's queue will be empty: by the delay, by the log, and beside other hosts of its key."""

from pathlib import Path

import orjson
import pytest

from crawler.cli import explain as command
from crawler.cli import main
from crawler.core.enums import TaskKind
from crawler.core.models import Backoff, HostReadiness, RobotsRecord, SlowResponse, Task
from crawler.core.options import PolitenessOptions, Rules
from crawler.frontier.base import BlockedHost, Leaving, Wanted
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.hosts import (
    SORTS,
    STATES,
    HostView,
    RoundRobin,
    eta_s,
    first_hosts,
    logged_gap_s,
    request_gap_s,
    views,
)
from crawler.inspection.explain.why import Explainer
from crawler.inspection.log.totals import HostTally, LogTotals, Spread
from tests.support.frontiers import NOW, batch, found, visit

QUEUED = {"a.one.test": 100, "b.one.test": 10, "slow.test": 5, "down.test": 5, "rests.test": 5, "evil.test": 5}


def test_hosts_of_one_key_wait_for_each_other() -> None:
    """The result is that of a simulation in which each host gets one request in turn."""
    for lengths in ([3, 10, 100], [7], [4, 4, 4], [0, 5, 2]):
        left, made, done = dict(enumerate(lengths)), 0, {}
        while any(left.values()):
            for who in left:
                if left[who]:
                    left[who] -= 1
                    made += 1
                    if not left[who]:
                        done[who] = made
        for who, length in enumerate(lengths):
            if length:
                requests = RoundRobin(lengths).until_done(length)
                assert done[who] <= requests <= done[who] + len(lengths) - 1


def test_the_delay_runs_from_the_end_of_a_response() -> None:
    """A request takes the delay and the response time; without a delay nothing is known."""
    options = PolitenessOptions(delay_s=2.0, adaptive=False)
    assert request_gap_s(options, None, 0.5) == pytest.approx(2.51)
    assert request_gap_s(options, 10.0, 0.0) == pytest.approx(10.01)
    assert request_gap_s(PolitenessOptions(delay_s=1.0), None, 3.0) == pytest.approx(18.01)  # five times 3 s
    assert request_gap_s(PolitenessOptions(delay_s=0.0), None, 3.0) == 0.0


def test_the_longer_bound_counts_and_an_unknown_one_is_not_zero() -> None:
    """Neither bound known is None; an empty queue takes no time; a back-off is added."""
    assert eta_s(9, 20.0, 30.0, 0.0) == 30.0
    assert eta_s(9, 20.0, 3.0, 60.0) == 80.0
    assert eta_s(9, 0.0, 0.0, 60.0) is None
    assert eta_s(0, 20.0, 30.0, 60.0) == 0.0


def test_a_night_without_requests_does_not_slow_the_gap() -> None:
    """Gaps of two seconds, and one of ten hours: two seconds, within what a bucket is wide."""
    tally = LogTotals(300)
    begin = "2026-11-23T{:02d}:{:02d}:{:02d}.500Z"
    for hour in (8, 18):
        for n in range(60):
            line = {"ts": begin.format(hour, n // 30, n % 30 * 2), "outcome": "ok", "server_address": "a.test"}
            tally.add(line | {"conn_id": 1})
    tally.add({"ts": "2026-11-23T18:x", "outcome": "ok", "server_address": "a.test", "conn_id": 1})
    host = tally.hosts["a.test"]
    assert sum(host.gaps.values()) == 119
    assert host.gaps.mean(0.95) == pytest.approx(2_000, rel=0.06)
    assert Spread().mean(0.95) is None


async def store(path: Path) -> None:
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found(f"https://{name}/{n}") for name, count in QUEUED.items() for n in range(count)], now=NOW)
    await frontier.block(BlockedHost("evil.test", "host", NOW, "a complaint"))
    ready = RobotsRecord("allow", 404, None, NOW, NOW + 9999)
    down = RobotsRecord("unreachable", 503, None, NOW, NOW + 60, failing_since=NOW)
    robots = [
        visit(
            Task(id=0, url=f"https://{name}/robots.txt", kind=TaskKind.ROBOTS),
            host_id=host_id,
            robots=down if name == "down.test" else ready,
        )
        for host_id, name in enumerate(QUEUED, 1)
    ]
    backoffs = [Backoff("rests.test", NOW + 600, 1, "429")]
    await frontier.settle(batch(*robots, backoffs=backoffs, slow_responses=[SlowResponse("slow.test", 2.0, NOW)]))
    await frontier.close(clean=True)


async def test_hosts_and_why_show_when_a_queue_is_empty(tmp_path: Path) -> None:
    """Turns of a shared delay, a slow host, a rest; nothing for hosts not asked; the log's gap where it is longer."""
    path = tmp_path / "frontier.db"
    await store(path)
    options = PolitenessOptions(delay_s=1.0)
    expected = {
        "a.one.test": pytest.approx(110 * 1.01, abs=0.1),
        "b.one.test": pytest.approx(20 * 1.01, abs=0.1),
        "slow.test": pytest.approx(5 * 12.01, abs=0.1),
        "down.test": None,
        "rests.test": pytest.approx(600 + 5 * 1.01, abs=0.1),
        "evil.test": None,
    }

    def etas(reader: StoreReader, tallies: dict[str, HostTally]) -> dict[str, float | None]:
        found_views: list[HostView] = views(reader, options, tallies, {}, None, now=NOW)
        return {view.host: view.eta_s for view in found_views}

    with StoreReader(path, is_live=False) as reader:
        assert etas(reader, {}) == expected
        inquiry = Explainer(reader, Rules(politeness=options, seed_hosts=tuple(QUEUED)), is_live=True, now=NOW)
        told = {name: inquiry.why(f"https://{name}/0").steps[-1] for name in QUEUED}
        tally = HostTally()
        for n in range(20):
            tally.note_end(NOW + 30.0 * n)
        measured = etas(reader, {"b.one.test": tally})
        gap_s = logged_gap_s(tally)
        inquiry = Explainer(
            reader, Rules(politeness=options, seed_hosts=tuple(QUEUED)), is_live=True, now=NOW,
            gap_s_of=lambda host: gap_s if host == "b.one.test" else 0.0,
        )  # fmt: skip
        again = {name: inquiry.why(f"https://{name}/0").steps[-1].facts for name in told if told[name].name == "host"}
    steps = {name: step for name, step in told.items() if step.name == "host"}
    assert {name: step.facts["eta_s"] for name, step in steps.items()} == expected
    assert steps["b.one.test"].text.endswith("; the queue takes at least 20 s")
    assert {name: facts["eta_s"] for name, facts in again.items()} == {name: measured[name] for name in again}
    assert measured["b.one.test"] == pytest.approx(300, rel=0.06)
    assert measured["a.one.test"] == expected["a.one.test"]


async def test_why_reads_no_log_for_a_host_without_requests(tmp_path: Path) -> None:
    """The store knows of its robots.txt and its visits; the newest part of the log would be 256 MiB to read."""
    path = tmp_path / "frontier.db"
    await store(path)
    frontier = SqliteFrontier(path)
    await frontier.open()
    await frontier.add([found("https://new.test/0")], now=NOW)
    await frontier.close(clean=True)
    read: list[str] = []

    def gap_s_of(host: str) -> float:
        read.append(host)
        return 30.0

    rules = Rules(politeness=PolitenessOptions(delay_s=1.0), seed_hosts=(*QUEUED, "new.test"))
    with StoreReader(path, is_live=False) as reader:
        explainer = Explainer(reader, rules, is_live=True, now=NOW, gap_s_of=gap_s_of)
        host = explainer.why("https://new.test/0").steps[-1]
        assert (host.name, host.facts["queued"], read) == ("host", 1, [])
        assert explainer.why("https://b.one.test/0").steps[-1].facts["eta_s"] > 100
        assert read == ["b.one.test"]


async def test_the_first_hosts_are_those_of_all(tmp_path: Path) -> None:
    """With a bound larger than the store every order and state gives what reading all hosts gives. With a smaller one
    those that may not be requested are found all the same, and the result says that it is a part.
    """
    path = tmp_path / "frontier.db"
    await store(path)
    options = PolitenessOptions(delay_s=1.0)
    with StoreReader(path, is_live=False) as reader:
        limit = 9
        every = {view.origin: view for view in views(reader, options, {}, {}, None, now=NOW)}

        def first(sort: str = "queued", states: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> list[HostView]:
            ids, _ = first_hosts(reader, sort=sort, hosts=hosts, states=states, now=NOW, tallies={}, limit=limit)
            return views(reader, options, {}, {}, None, now=NOW, host_ids=ids)

        for sort in set(SORTS) - {"slow"}:
            assert {view.origin: view for view in first(sort)} == every
        for state in STATES:
            found = {view.origin for view in first(states=(state,)) if view.state == state}
            assert found == {view.origin for view in every.values() if view.state == state}
        assert [view.host for view in first(hosts=("b.one.test",))] == ["b.one.test"]
        assert {view.host for view in first(hosts=("*.one.test",))} == {"a.one.test", "b.one.test"}
        assert first(hosts=("test",)) == []
        tallies = {"b.one.test": HostTally(), "unknown.test": HostTally()}
        ids, is_complete = first_hosts(reader, sort="slow", hosts=(), states=(), now=NOW, tallies=tallies, limit=limit)
        assert (ids, is_complete) == ([2], False)
        limit = 1
        assert [view.host for view in first("queued")] == ["a.one.test"]
        assert [view.host for view in first("state", states=("backoff",))] != []
        assert {view.host for view in first("state")} == {"a.one.test", "down.test"}
        assert not first_hosts(reader, sort="state", hosts=(), states=(), now=NOW, tallies={}, limit=limit)[1]


async def test_a_host_that_the_store_parked_backs_off(tmp_path: Path) -> None:
    """It was not in memory when the crawl ended; no event of the present run tells of it."""
    path = tmp_path / "frontier.db"
    await store(path)
    frontier = SqliteFrontier(path)
    await frontier.open()
    parked = HostReadiness(1, NOW + 60, "backoff", 3, "connect_timeout", has_responded=True)
    await frontier.exchange(Leaving(hosts=[parked]), Wanted())
    await frontier.close(clean=True)
    with StoreReader(path, is_live=False) as reader:
        for now, state in ((NOW, ("backoff", NOW + 60, "connect_timeout")), (NOW + 61, ("ready", None, ""))):
            (view,) = views(reader, PolitenessOptions(), {}, {}, None, now=now, host_ids=[1])
            assert (view.state, view.until_at, view.why) == state


async def test_a_command_on_many_hosts_looks_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line says so; without -n in a pipe all are listed."""
    await store(tmp_path / "frontier.db")
    monkeypatch.setattr(command, "LOOKED_AT", 2)

    def printed(*arguments: str) -> list[str]:
        assert main(["hosts", "--output", str(tmp_path), *arguments], standalone_mode=False) == 0
        return capsys.readouterr().out.splitlines()

    assert len(printed("--json")) == len(QUEUED)
    assert len(printed("--json", "--host", "*.test")) == len(QUEUED)
    assert len(printed("--json", "--host", "*.one.test", "--host", "down.test")) == 3
    hosts = [orjson.loads(line)["host"] for line in printed("-n", "2", "--sort", "queued", "--json")]
    assert hosts == ["a.one.test", "b.one.test"]
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    last = printed("-n", "1", "--sort", "queued")[-1]
    assert last == "1 of the first 2 hosts that the store finds in this order shown; 6 hosts in all"
    assert printed("-n", "1", "--host", "slow.test")[-1] == "6 hosts in all"
    assert printed("--host", "slow.test", "--state", "held", "--json") == []  # known, in another state
    assert main(["hosts", "--output", str(tmp_path), "--host", "no.test"], standalone_mode=False) == 1
    assert capsys.readouterr().err.endswith("the store knows no host no.test\n")
