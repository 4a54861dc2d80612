"""Each formatter, value by value."""

import errno
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import crawler.admin
from crawler.core.formatting import (
    ago,
    average,
    count,
    counts,
    date_time,
    duration,
    event_fields,
    local_time,
    naming_key,
    printable,
    rate,
    share,
    size,
    timestamp,
    unreadable_robots,
    utc_second,
    value_text,
    wall_time,
)

NOW = 1_795_598_410.5  # 2026-11-25T09:20:10.5Z
DAY_S = 86_400

Row = tuple[tuple[object, ...], str]
TABLE: dict[Callable[..., str], tuple[Row, ...]] = {
    count: (
        ((0,), "0"), ((1_234_567,), "1,234,567"), ((2.6,), "3"), ((0, "host"), "0 hosts"), ((1, "host"), "1 host"),
        ((2, "host"), "2 hosts"), ((1_234, "host"), "1,234 hosts"),
    ),
    counts: (
        (({},), ""), (({"ok": 0},), ""), (({"redirect": 12, "ok": 1_204, "error": 0},), "1,204 ok, 12 redirect"),
        (({"reset": 1, "read_timeout": 1},), "1 read_timeout, 1 reset"),
    ),
    average: (((0,), "0.0"), ((9.66,), "9.7"), ((99.94,), "99.9"), ((99.96,), "100"), ((1_234.5,), "1,234")),
    rate: (((0,), "0.0/s"), ((13.2,), "13.2/s"), ((1_234.5,), "1,234/s")),
    share: (((0,), "0 %"), ((0.854,), "85 %"), ((1.17,), "117 %")),
    size: (
        ((0,), "0 B"), ((1_023,), "1023 B"), ((1_024,), "1.0 KiB"), ((1_536,), "1.5 KiB"),
        ((1_024**2 - 1,), "1.0 MiB"), ((345_678_901,), "329.7 MiB"), ((5 * 1_024**3,), "5.0 GiB"),
        ((3 * 1_024**4,), "3.0 TiB"), ((1_024**5,), "1,024.0 TiB"),
    ),
    duration: (
        ((-5,), "0 s"), ((0,), "0 s"), ((0.000_04,), "0 s"), ((0.000_4,), "0.4 ms"), ((0.002,), "2 ms"),
        ((0.009_96,), "10 ms"), ((0.412,), "412 ms"), ((0.999_6,), "1 s"), ((1.5,), "1.5 s"), ((2,), "2 s"),
        ((9.96,), "10 s"), ((42.4,), "42 s"), ((59.6,), "1 min"), ((480,), "8 min"), ((185,), "3 min 05 s"),
        ((3_599.6,), "1 h"), ((3_600 + 59,), "1 h"), ((7_500,), "2 h 05 min"), ((DAY_S - 0.4,), "1 d"),
        ((4 * DAY_S + 3 * 3_600,), "4 d 03 h"), ((4_000 * DAY_S,), "4,000 d"),
    ),
    ago: (((0.9,), "just now"), ((1,), "1 s ago"), ((500,), "8 min 20 s ago")),
    utc_second: (((0,), "1970-01-01T00:00:00"), ((1_795_598_410,), "2026-11-25T09:20:10")),
    timestamp: (((NOW,), "2026-11-25T09:20:10.500Z"), ((NOW + 0.499_9,), "2026-11-25T09:20:10.999Z")),
    date_time: (((NOW,), "2026-11-25T09:20:10Z"), (("2026-11-25T09:20:10.500Z",), "2026-11-25T09:20:10Z"), (("",), "")),
    wall_time: (
        ((NOW, NOW), "09:20:10Z"), ((NOW - DAY_S, NOW), "2026-11-24T09:20:10Z"),
        ((NOW - 400 * DAY_S, NOW), "2025-10-21T09:20:10Z"),
    ),
    printable: ((("a\x1b[2J\nb",), "a�[2J�b"), (("Größe",), "Größe")),
    value_text: (
        ((None,), ""), ((True,), "true"), ((3,), "3"), ((["a", "b"],), "a, b"), (((),), ""),
        (([None, False],), ", false"),
        (({"a": [1, 2], "b": None},), "a: 1, 2, b: "), (("it's",), "it's"),
    ),
    unreadable_robots: (
        ((503, None), "robots.txt cannot be read (status 503)"), ((None, "reset"), "robots.txt cannot be read (reset)"),
        ((None, None), "robots.txt cannot be read"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [(function, *row) for function, rows in TABLE.items() for row in rows],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_value_has_its_text(function: Callable[..., str], arguments: tuple[object, ...], text: str) -> None:
    """Limits of units, rounding at the limits, singular and plural."""
    assert function(*arguments) == text


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine two hours east of UTC."""
    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_local_time_names_its_zone() -> None:
    """It is the zone of the machine's clock."""
    assert local_time(NOW) == "Wed 11:20 XYZ"


def test_empty_and_common_fields_are_no_fields_of_an_event() -> None:
    """Zero is a value; None and an empty list are not."""
    line = {"ts": "t", "event": "start", "level": "info", "pid": 0, "proxy": None, "changed": ["a", "b"], "more": []}
    assert list(event_fields(line)) == [("pid", "0"), ("changed", "a, b")]


def test_an_error_of_the_system_names_the_key(tmp_path: Path) -> None:
    """It keeps the errno and has the place and the failed action."""
    with pytest.raises(FileNotFoundError) as caught, naming_key("log.directory", tmp_path, "cannot be made"):
        (tmp_path / "missing").read_text()
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == f"log.directory {tmp_path}"
    assert caught.value.strerror == "cannot be made: No such file or directory"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_status_page_formats_alike() -> None:
    """Its script formats averages, sizes and durations as the commands do."""
    script = (Path(crawler.admin.__file__).parent / "static/page.js").read_text()
    functions = script[script.index("const number") : script.index("const clock")]
    for function in (average, size, duration):
        rows = [(arguments[0], text) for arguments, text in TABLE[function] if "," not in text]
        code = f"{functions}; console.log(JSON.stringify({json.dumps([n for n, _ in rows])}.map({function.__name__})))"
        done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == [text for _, text in rows]
