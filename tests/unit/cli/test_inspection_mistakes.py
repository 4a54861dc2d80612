"""Mistakes of those who look at a crawl: each gets clear words and the documented exit code."""

import json
import sys
from pathlib import Path

import pytest

from crawler.cli import main
from crawler.core.url import key_of
from crawler.frontier.sqlite.database import MIGRATIONS, Database
from tests.support.log_lines import fetch_lines, write


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("logs",), 2, "name the crawl"),
        (("logs", "--output", "nowhere"), 74, "no such directory"),
        (("logs", "--output", "."), 74, "holds no crawl"),
        (("why", "https://a.test/", "--output", "nowhere"), 74, "no such directory"),
        (("hosts", "--output", "nowhere"), 74, "no such directory"),
        (("report", "--output", "nowhere"), 74, "no such directory"),
        (("logs", "--output", ".", "--since", "soon"), 2, "is not a time"),
        (("logs", "--output", ".", "--status", "9xx"), 2, "neither a status code"),
        (("logs", "--output", ".", "--error-type", "dns_timeot"), 2, 'did you mean "dns_timeout"?'),
        (("logs", "--output", ".", "-n", "x"), 2, "neither a number"),
        (("report", "--output", ".", "--all", "--since", "1h"), 2, "--all cannot be combined"),
        (("report", "--output", ".", "--host", "a", "--html", "x"), 2, "--html cannot be combined"),
        (("hosts", "--output", ".", "--since", "soon"), 2, "is not a time"),
        (("hosts", "--output", ".", "--since", "800000d"), 2, "is before the year 1"),
        (("report", "--output", ".", "--until", "800000d"), 2, "is before the year 1"),
        (("logs", "-c", "missing.toml"), 78, "missing.toml"),
        (("logs", "--output", "made", "--url", "re:("), 2, "not a regular expression"),
        (("hosts", "--output", "made"), 74, "there is no store of a crawl"),
        (("logs", "--output", "made"), 74, "there is no such log"),
        (("hosts", "--output", "newer"), 65, "use the newer program"),
        (("why", "https://a.test/", "--output", "newer"), 65, "use the newer program"),
        (("report", "--output", "newer"), 65, "use the newer program"),
        (("top", "--output", "."), 69, "no crawler is running here"),
        (("status", "--output", "made"), 69, "`crawler report` and `crawler hosts` show what is left"),
    ],
)
def test_mistakes_get_words_and_a_code(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Never a traceback, and nothing on stdout."""
    (tmp_path / "made" / "logs").mkdir(parents=True)
    newer = tmp_path / "newer"
    write(newer / "logs" / "fetch.jsonl", fetch_lines(3))
    store = Database(newer / "frontier.db")
    store.run("PRAGMA user_version = 99")
    store.close()
    monkeypatch.chdir(tmp_path)
    found = main(arguments, standalone_mode=False)
    printed = capsys.readouterr()
    assert (found, printed.out) == (code, ""), printed.err
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_a_report_may_end_before_all_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The day before the first day is none."""
    (tmp_path / "logs").mkdir()
    assert main(["report", "--output", str(tmp_path), "--until", "0001-01-01"], standalone_mode=False) == 0
    assert capsys.readouterr().out == "nothing was fetched in this period\n"


def test_a_store_of_an_older_version_is_read_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it lacks is not there; looking migrates nothing."""
    store = Database(tmp_path / "frontier.db", migrations=MIGRATIONS[:1])
    store.run(
        "INSERT INTO host (id, slot, scheme, host, port, domain, found_at) VALUES (1, 1, 'https', 'a.test', 443, '', 0)"
    )
    store.run(
        "INSERT INTO url (id, host, hash, depth, target, source, found_at) VALUES (1, 1, ?, 0, '/', 'seed', 0)",
        (key_of("https://a.test/"),),
    )
    store.close()
    before = (tmp_path / "frontier.db").read_bytes()
    assert main(["why", "https://a.test/", "--output", str(tmp_path), "--json"], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "queued"
    assert main(["hosts", "--output", str(tmp_path), "--json"], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["host"] == "a.test"
    write(tmp_path / "logs" / "fetch.jsonl", fetch_lines(3))
    assert main(["report", "--output", str(tmp_path), "--json"], standalone_mode=False) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seeds_not_reached"]["seeds"] == [{"url": "https://a.test/", "state": "queued", "why": "not tried yet"}]
    assert (tmp_path / "frontier.db").read_bytes() == before


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store in PostgreSQL needs one that the crawl does not."""
    for name in [
        one for one in sys.modules if one.startswith(("crawler.frontier.postgresql", "crawler.frontier.copying"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert main(["frontier", "copy", str(tmp_path), "postgresql://me@/crawl"], standalone_mode=False) == 78
    assert capsys.readouterr().err == (
        "crawler: the library asyncpg is not installed: pip install 'crawlerd[postgresql]'\n"
    )
