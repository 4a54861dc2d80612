"""What is shipped for other tools: lnav reads both logs, GoAccess what jq makes of one."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crawler.obs import fetch_line
from crawler.obs.events import CATALOGUE, Event
from tests.support.log_lines import COMMON, fetch_lines, write

ROOT = Path(__file__).parents[3]
LINES = list(fetch_lines(500, hosts=5))


def lnav_format(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"config/crawler-{name}.lnav.json").read_text())
    return found[f"crawler_{name}"]


def test_lnav_knows_every_field_of_a_fetch() -> None:
    """A field that the program writes can be asked for by name."""
    source = Path(fetch_line.__file__).read_text()
    written = set(re.findall(r'line\["([a-z_]+)"\]', source)) | set(re.findall(r'^        "([a-z_]+)": ', source, re.M))
    known = set(lnav_format("fetch")["value"]) | {"ts"}
    assert len(written) > 30
    assert written - known == set()


def test_lnav_knows_only_fields_that_events_have() -> None:
    """What the format names is in the catalogue."""
    fields = set(COMMON).union(*(spec.required | spec.optional for spec in CATALOGUE.values()))
    assert set(lnav_format("events")["value"]) - fields == set()


@pytest.fixture(scope="module")
def lnav(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs lnav with our formats; what it prints."""
    if shutil.which("lnav") is None:
        pytest.skip("lnav is not installed")
    folder = tmp_path_factory.mktemp("lnav")
    formats = folder / "formats" / "crawler"
    formats.mkdir(parents=True)
    for name in ("fetch", "events"):
        shutil.copy(ROOT / f"config/crawler-{name}.lnav.json", formats / f"crawler-{name}.json")

    def run(*arguments: object) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "TZ": "UTC", "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["lnav", "-I", str(folder), *map(str, arguments)],
            env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_lnav_accepts_the_formats(lnav: Any) -> None:
    """Its own check finds nothing."""
    lnav("-C")


def test_lnav_reads_fetches(lnav: Any, tmp_path: Path) -> None:
    """Lines are shown as lines, each field a word of its own, and can be asked for in SQL."""
    log = tmp_path / "fetch.jsonl"
    write(log, iter(LINES))
    shown = lnav("-n", log).splitlines()
    assert len(shown) == len(LINES)
    for line, text in zip(LINES, shown, strict=True):
        fields = [line[name] for name in ("url_full", "error_type", "deny_reason", "redirect_to") if name in line]
        assert text.split()[-len(fields) :] == fields
    counted = lnav("-n", "-c", ";SELECT outcome, count(*) AS n FROM crawler_fetch GROUP BY outcome", log)
    found = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", counted, re.M))
    expected = {word: sum(line["outcome"] == word for line in LINES) for word in {line["outcome"] for line in LINES}}
    assert {word: int(number) for word, number in found.items()} == expected


def test_lnav_reads_events(lnav: Any, tmp_path: Path) -> None:
    """Level and event are told apart; what there is of host, URL and reason follows, each a word of its own."""
    log = tmp_path / "events.jsonl"
    common = {"crawl": "c", "run_id": "r"}
    lines = [
        {"ts": "2026-11-25T09:00:00.000Z", "event": Event.READY, "level": "info", "queued": 3, **common},
        {"ts": "2026-11-25T09:00:01.000Z", "event": Event.LOOP_LAG, "level": "warning", "lag_ms": 400, **common},
        {"ts": "2026-11-25T09:00:02.000Z", "event": Event.CONN_FAIL, "level": "info", "server_address": "a.test",
         "error_type": "tls_self_signed", **common},
        {"ts": "2026-11-25T09:00:03.000Z", "event": Event.URL_SKIPPED, "level": "info", "url_full": "https://a.test/x",
         "deny_reason": "robots", **common},
    ]  # fmt: skip
    write(log, iter(lines))
    words = [text.split()[2:] for text in lnav("-n", log).splitlines()]
    assert words[2:] == [["conn_fail", "a.test", "tls_self_signed"], ["url_skipped", "https://a.test/x", "robots"]]
    shown = lnav("-n", "-c", ";SELECT event, log_level FROM crawler_events", log)
    assert re.findall(r"^(\w+)\s+(\w+)", shown, re.M)[-4:-2] == [("ready", "info"), ("loop_lag", "warning")]


def test_goaccess_reads_what_the_documented_line_makes(tmp_path: Path) -> None:
    """The line in docs/reference/commands.md, as it stands there: every answer is a valid request."""
    for tool in ("goaccess", "jq"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    text = (ROOT / "docs/reference/commands.md").read_text()
    (command,) = re.findall(r"```sh\n(jq -r 'select.*?goaccess.*?)\n```", text, re.S)
    write(tmp_path / "logs" / "fetch.jsonl", iter(LINES))
    command = command.replace("report.html", "report.json")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    general = json.loads((tmp_path / "report.json").read_text())["general"]
    answered = [line for line in LINES if "http_response_status_code" in line]
    assert (general["total_requests"], general["failed_requests"]) == (len(answered), 0)
    assert general["bandwidth"] == sum(line["http_response_body_size"] for line in answered)
