"""What `crawler crawl` prints at its end in a pipe."""

from pathlib import Path
from typing import Any

import pytest

from crawler import app
from crawler.cli import main
from crawler.core.enums import LeftReason, StoppedBy
from crawler.core.outcomes import UrlCounts
from crawler.engine.monitoring.bottleneck import LIMIT, Backlog
from crawler.engine.monitoring.ending import Ending

LIMITED = Backlog(*LIMIT, 488, 1, "https://a.test")
LATER = Backlog(LeftReason.RETRY, "due later, after an error", 2)
ROUND = {"number": 2, "visited": 1_200, "unchanged": 9, "changed": 0, "gone": 3, "failed": 0, "new": 1, "ended": True}


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *words: str,
    left: tuple[Backlog, ...] = (),
    last_round: dict[str, object] | None = None,
    visited_at: float | None = None,
    stopped_by: StoppedBy = StoppedBy.MAX_URLS,
    code: int = 0,
) -> str:
    def run(*_: Any, **__: Any) -> app.Result:
        urls = UrlCounts(500, 10, 0, 0, sum(one.urls for one in left), 0)
        summary: dict[str, object] = {"round": last_round}
        return app.Result(Ending(stopped_by, urls, left), summary, {"failures": {}}, visited_at=visited_at)

    monkeypatch.setattr(app, "run", run)
    assert main(["crawl", "https://a.test/", "--output", "no-crawl-is-here", *words], standalone_mode=False) == code
    return capfd.readouterr().err


def test_the_limit_that_holds_is_named_once_with_its_value(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a sum before them only if there are several reasons."""
    left = "crawler: left: 488 URLs of https://a.test held back by scope.max_urls = 12\n"
    assert printed(monkeypatch, capfd, "--limit", "12", left=(LIMITED,)) == left
    both = printed(
        monkeypatch, capfd, "--limit", "9", "-o", "scope.max_urls_per_host=5", left=(LIMITED, LATER), code=75
    )
    assert both.splitlines() == [
        "crawler: 490 URLs are left",
        "crawler: 488 URLs of https://a.test held back by scope.max_urls = 9 or scope.max_urls_per_host = 5",
        "crawler: 2 URLs due later, after an error",
    ]


def test_the_override_that_holds_is_named_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of one host what decides for it, of several hosts all that may hold, the first few by name."""
    file = tmp_path / "site.toml"
    file.write_text(
        "[scope]\nmax_urls_per_host = 7\n"
        + "".join(f'[[override]]\nhosts = ["{name}.test"]\nmax_urls = {n}\n' for n, name in enumerate("abcde", 5))
    )
    config = ("-c", str(file))
    of_a = 'site.toml:3 override "a.test" max_urls = 5'
    assert printed(monkeypatch, capfd, *config, left=(LIMITED,)) == (
        f"crawler: left: 488 URLs of https://a.test held back by {of_a}\n"
    )
    other = Backlog(*LIMIT, 488, 1, "https://www.a.test:8443")
    line = printed(monkeypatch, capfd, *config, left=(other,))
    assert line == "crawler: left: 488 URLs of https://www.a.test:8443 held back by scope.max_urls_per_host = 7\n"
    both = Backlog(*LIMIT, 9, 2, "https://a.test")
    assert printed(monkeypatch, capfd, *config, "--limit", "12", left=(both,)) == (
        f"crawler: left: 9 URLs of 2 hosts held back by scope.max_urls = 12 or scope.max_urls_per_host = 7 or {of_a} "
        'or site.toml:6 override "b.test" max_urls = 6 or site.toml:9 override "c.test" max_urls = 7 '
        "or max_urls of 2 other overrides\n"
    )


def test_a_round_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    line = "crawler: round 2: 1,200 visited again, 9 unchanged, 3 gone, 1 new\n"
    assert printed(monkeypatch, capfd, "--again", last_round=ROUND) == line
    assert printed(monkeypatch, capfd, "--again", "--json", last_round=ROUND) == ""
    rest = "; it is not over, the same command goes on with it\n"
    interrupted = printed(monkeypatch, capfd, "--again", last_round=ROUND | {"ended": False})
    assert interrupted == line.replace("\n", rest)
    nothing_left = "; all in runs before, this one found nothing left of it\n"
    assert printed(monkeypatch, capfd, last_round=ROUND, visited_at=1e9) == line.replace("\n", nothing_left)
    empty = dict.fromkeys(ROUND, 0) | {"number": 3, "ended": True}
    assert (
        printed(monkeypatch, capfd, "--again", last_round=empty, visited_at=1e9)
        == "crawler: round 3: 0 visited again\n"
    )


def test_the_time_limit_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In a pipe too: whoever reads the mail of cron sees why URLs are left."""
    line = "crawler: stopped after crawl.max_duration = 8 s; 2 URLs are left, the same command continues with them\n"
    words = ("--max-duration", "8s")
    assert printed(monkeypatch, capfd, *words, left=(LATER,), stopped_by=StoppedBy.MAX_DURATION) == line
