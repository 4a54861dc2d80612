"""Which lines a query finds, by time, by words, from the end backwards; and what is said of lines that are none."""

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from crawler.core.formatting import timestamp
from crawler.core.scope import ScopePatternError
from crawler.inspection.log.query import Matcher, Query, last, matching
from crawler.inspection.log.ranges import Stretch, cut, last_time, newest, select
from crawler.inspection.log.rotated_log import RotatedLog
from tests.support.log_lines import BEGIN_AT, fetch_lines, write

LINES = list(fetch_lines(3_000, hosts=20, per_s=2.0))  # 25 minutes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three parts of a thousand lines."""
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
def test_a_query_finds_what_a_look_at_every_line_finds(log: Path, query: Query, expected: Any) -> None:
    """What is skipped for lack of a word would not have matched."""
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
        stretches = select(parts, BEGIN_AT + 700, BEGIN_AT + 760)
        assert sum(stretch.size for stretch in stretches) < sum(part.size for part in parts.youngest_first) / 3


def test_a_search_from_the_end_stops_when_it_has_enough(log: Path) -> None:
    """The last lines are found without the first part."""
    with RotatedLog(log) as parts:
        parts.oldest_first[0].file.close()  # reading it would raise
        assert [line for _, line in last(parts, Matcher(Query()), 3)] == LINES[-3:]


def test_the_newest_bytes_are_the_last_stretches(log: Path) -> None:
    """A budget in bytes is spent from the end."""
    with RotatedLog(log) as parts:
        (stretch,) = newest(select(parts), 1000)
        youngest = parts.youngest_first[0]
        assert stretch == Stretch(youngest, youngest.size - 1000, youngest.size)
        assert len(cut(select(parts), 10_000)) >= 100


def test_the_last_time_is_that_of_the_last_whole_line(log: Path, tmp_path: Path) -> None:
    """A torn end and an empty young part do not hide it."""
    with RotatedLog(log) as parts:
        assert last_time(parts) == pytest.approx(BEGIN_AT + 2999 / 2, abs=0.001)
    torn = tmp_path / "fetch.jsonl"
    (tmp_path / "fetch.jsonl.1").write_bytes(orjson.dumps(LINES[7]) + b'\n{"ts":"2099-')
    torn.write_bytes(b"")
    with RotatedLog(torn) as parts:
        assert last_time(parts) == pytest.approx(BEGIN_AT + 3.5, abs=0.001)


def test_lines_that_are_no_json_are_counted_and_said(tmp_path: Path) -> None:
    """They are left out, not passed on and not fatal."""
    log = tmp_path / "fetch.jsonl"
    log.write_bytes(b'{"ts":"2026"}\n\x1b[31mrubbish\n[1]\n{"ts":\n' + orjson.dumps({"a": 1}) + b"\n")
    with RotatedLog(log) as parts:
        matcher = Matcher(Query())
        assert [line for _, line in matching(parts, matcher)] == [{"ts": "2026"}, {"a": 1}]
        (said,) = matcher.said("fetch.jsonl")
    assert said == "fetch.jsonl: left out 3 lines without valid JSON, the first: �[31mrubbish"


def test_a_bad_pattern_is_refused_before_anything_is_read() -> None:
    """A regular expression that does not compile is the user's mistake."""
    with pytest.raises(ScopePatternError):
        Matcher(Query(url="re:("))
