"""Which lines a query finds, from the oldest, from the end backwards, and while a log is written and rotated."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from crawler.core.formatting import timestamp
from crawler.core.scope import ScopePatternError
from crawler.core.url import UrlError
from crawler.inspection.log.query import Follower, Matcher, Query, host_names, last, matching
from crawler.inspection.log.rotated_log import LogRange, RotatedLog, cut, last_time, newest, select
from crawler.obs.log_files import RotatingFile
from tests.support.log_lines import BEGIN_AT, fetch_lines, write

LINES = list(fetch_lines(3_000, hosts=20, per_s=2.0))  # 25 minutes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts of a thousand lines each."""
    folder = tmp_path_factory.mktemp("log")
    write(folder / "fetch.jsonl.2", iter(LINES[:1000]))
    write(folder / "fetch.jsonl.1", iter(LINES[1000:2000]))
    write(folder / "fetch.jsonl", iter(LINES[2000:]))
    return folder / "fetch.jsonl"


def found(log: Path, query: Query, count: int | None = None) -> list[dict[str, Any]]:
    with RotatedLog(log) as parts:
        matcher = Matcher(query)
        lines = matching(parts, matcher) if count is None else last(parts, matcher, count)
        result = [line for raw, line in lines if orjson.loads(raw) == line]
        assert matcher.malformed == 0
        return result


QUERIES = [
    (Query(), lambda line: True),
    (Query(hosts=("h0001.many.test",)), lambda line: line["server_address"] == "h0001.many.test"),
    (Query(hosts=("*.many.test",)), lambda line: True),
    (Query(hosts=("h0001.many.test", "h0002.many.test")),
     lambda line: line["server_address"][:5] in ("h0001", "h0002")),
    (Query(outcomes=("error",)), lambda line: line["outcome"] == "error"),
    (Query(outcomes=("error", "redirect")), lambda line: line["outcome"] in ("error", "redirect")),
    (Query(error_types=("reset",)), lambda line: line.get("error_type") == "reset"),
    (Query(deny_reasons=("robots",)), lambda line: line.get("deny_reason") == "robots"),
    (Query(statuses=("404",)), lambda line: line.get("http_response_status_code") == 404),
    (Query(statuses=("4xx", "301")), lambda line: line.get("http_response_status_code") in (301, 404, 429)),
    (Query(url="page=3"), lambda line: line["url_full"].endswith("page=3")),
    (Query(url="h0003.many.test/articles/0000*"), lambda line: "h0003.many.test/articles/0000" in line["url_full"]),
    (Query(url="re:page=[12]$"), lambda line: line["url_full"][-1] in "12"),
    (Query(events=("fetch",), outcomes=("denied",)), lambda line: line["outcome"] == "denied"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), QUERIES)
def test_a_query_finds_what_testing_every_line_finds(log: Path, query: Query, expected: Any) -> None:
    """A line that is skipped because it lacks a word would not match."""
    wanted = [line for line in LINES if expected(line)]
    assert wanted
    assert found(log, query) == wanted
    assert found(log, query, 5) == wanted[-5:]


def test_times_cut_exactly_although_only_a_part_is_read(log: Path) -> None:
    """Every window gives the lines of that window."""
    rng = random.Random(3)
    for _ in range(40):
        since, until = sorted(BEGIN_AT + rng.random() * 1500 for _ in range(2))
        query = Query(since=timestamp(since), until=timestamp(until))
        assert found(log, query) == [line for line in LINES if timestamp(since) <= line["ts"] < timestamp(until)]


def test_a_window_reads_little_of_a_large_log(log: Path) -> None:
    """A minute of a log costs the minute and its slack, not the log."""
    with RotatedLog(log) as parts:
        ranges = select(parts, BEGIN_AT + 700, BEGIN_AT + 760)
        assert sum(log_range.size for log_range in ranges) < sum(part.size for part in parts.youngest_first) / 3


def test_a_search_from_the_end_stops_when_it_has_enough(log: Path) -> None:
    """The last lines are found without the first part."""
    with RotatedLog(log) as parts:
        parts.oldest_first[0].file.close()  # reading it would raise
        assert [line for _, line in last(parts, Matcher(Query()), 3)] == LINES[-3:]


def test_the_newest_bytes_are_the_last_ranges(log: Path) -> None:
    """A budget in bytes is spent from the end."""
    with RotatedLog(log) as parts:
        (log_range,) = newest(select(parts), 1000)
        youngest = parts.youngest_first[0]
        assert log_range == LogRange(youngest, youngest.size - 1000, youngest.size)
        assert len(cut(select(parts), 10_000)) >= 100


def test_the_last_time_is_that_of_the_last_whole_line(log: Path, tmp_path: Path) -> None:
    """Although the end is torn and the youngest part is empty."""
    with RotatedLog(log) as parts:
        assert last_time(parts) == pytest.approx(BEGIN_AT + 2999 / 2, abs=0.001)
    torn = tmp_path / "fetch.jsonl"
    (tmp_path / "fetch.jsonl.1").write_bytes(orjson.dumps(LINES[7]) + b'\n{"ts":"2099-')
    torn.write_bytes(b"")
    with RotatedLog(torn) as parts:
        assert last_time(parts) == pytest.approx(BEGIN_AT + 3.5, abs=0.001)


def test_lines_without_json_are_counted_and_reported(tmp_path: Path) -> None:
    """They are left out, not passed on and not fatal."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b'{"ts":"2026"}\n\x1b[31mrubbish\n[1]\n{"ts":\n' + orjson.dumps({"a": 1}) + b"\n")
    with RotatedLog(log) as parts:
        matcher = Matcher(Query())
        assert [line for _, line in matching(parts, matcher)] == [{"ts": "2026"}, {"a": 1}]
        (said,) = matcher.problems("fetch.jsonl")
    assert said == "fetch.jsonl: left out 3 lines without valid JSON, the first: �[31mrubbish"


def test_a_bad_pattern_is_refused_before_anything_is_read() -> None:
    """A regular expression that does not compile is the user's mistake."""
    with pytest.raises(ScopePatternError):
        Matcher(Query(url="re:("))


def lines(follower: Follower) -> list[bytes]:
    return [line for block in follower.poll() for line in block.splitlines()]


@contextmanager
def follower_of(log: Path) -> Iterator[Follower]:
    with RotatedLog(log) as parts:
        follower = Follower(log, parts.youngest_first[0] if parts.youngest_first else None)
    yield follower
    follower.close()


def test_every_line_is_seen_once_across_rotations(tmp_path: Path) -> None:
    """The program's own rotation, several times between two polls."""
    log = tmp_path / "fetch.jsonl"
    file = RotatingFile(log, rotate_size=200, keep=20)
    file.write(b"before\n")
    with follower_of(log) as follower:
        expected, seen = [], []
        for number in range(300):
            line = orjson.dumps({"n": number})
            expected.append(line)
            file.write(line + b"\n")
            if number % 37 == 0:
                seen += lines(follower)
        seen += lines(follower)
        assert seen == expected


def test_a_line_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    """Half a line waits for its other half, also if it was there at the start."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n2")
    with follower_of(log) as follower:
        assert lines(follower) == []
        with log.open("ab") as file:
            file.write(b"2\n3")
        assert lines(follower) == [b"22"]
        with log.open("ab") as file:
            file.write(b"3\n")
        assert lines(follower) == [b"33"]


def test_a_log_that_appears_later_is_followed_from_its_beginning(tmp_path: Path) -> None:
    """The follower may be started before the crawl."""
    log = tmp_path / "fetch.jsonl"
    with follower_of(log) as follower:
        assert lines(follower) == []
        log.write_bytes(b"1\n")
        assert lines(follower) == [b"1"]


def test_a_log_that_is_moved_away_is_read_to_its_end(tmp_path: Path) -> None:
    """logrotate renames first; the crawl goes on writing to the old file until it opens a new one."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n")
    with follower_of(log) as follower:
        moved = log.rename(tmp_path / "fetch.jsonl-20261125")
        with moved.open("ab") as file:
            file.write(b"2\n")
        assert lines(follower) == [b"2"]
        log.write_bytes(b"3\n")
        assert lines(follower) == [b"3"]


def test_a_log_that_is_emptied_in_place_is_read_anew(tmp_path: Path) -> None:
    """By copytruncate of logrotate, or by hand."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b"1\n2\n3\n")
    with follower_of(log) as follower:
        log.write_bytes(b"4\n")
        assert lines(follower) == [b"4"]


def test_host_names_of_a_query_are_spelled_as_in_the_store() -> None:
    """ "*." stands for all hosts below; other patterns are refused, as they would find nothing."""
    names = ("A.test", "*.B\u00fccher.test", "::1", "[::1]", "https://c.test/x")
    assert host_names(names) == ("a.test", "*.xn--bcher-kva.test", "::1", "::1", "c.test")
    with pytest.raises(UrlError):
        host_names(("h*",))
