"""Messages of the commands: numbers with their nouns, mistakes, and what was not found."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from crawler.admin.commands import brief
from crawler.cli import main
from crawler.cli.output import Pen, event_text, exit_for, tsv
from crawler.cli.status import warning_text
from crawler.cli.steering import change_lines
from crawler.core.enums import Source
from crawler.core.options import ScopeOptions
from crawler.core.scope import Scope
from crawler.core.url import parse_seed
from crawler.frontier.base import BlockedHost, FrontierLocked
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.inspection.report_page import _fields
from tests.support.frontiers import NOW, found


def test_events_and_requests_are_shown_as_text() -> None:
    """In `logs --events`, `status`, the HTML report, the log of commands and `reload`."""
    line = {"ts": "2026-11-25T10:00:00.000Z", "event": "reload_ok", "config": None, "changed": ["a", "b"], "ok": True}
    assert event_text(line, Pen(colour=False)).endswith("  changed=a, b ok=true")
    assert warning_text(line) == "reload_ok changed=a, b ok=true"
    assert _fields(line) == "changed=a, b ok=true"
    assert brief({"name": "e.org", "host_only": False, "template": None, "urls": ["a", "b"]}) == (
        "name=e.org host_only=false urls=a, b"
    )
    result = {"changed": [], "needs_restart": [], "new_seeds": 1, "dry_run": True}
    assert change_lines(result) == ["would add: 1 seed", "nothing would change"]


def test_a_wrong_line_of_a_file_cannot_steer_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its characters are shown but for the control characters; tabs stay, for the caret below them."""
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("\033]0;pwned\007\033[31m\tred://x\n")
    assert main(["config", "show", "-o", f"crawl.seed_files={seeds}"], standalone_mode=False) == 78
    assert capfd.readouterr().err.splitlines() == [
        f'{seeds}:1:1: no seed: what stands before "://" is no scheme',
        "    \ufffd]0;pwned\ufffd\ufffd[31m\tred://x",
        "    ^",
    ]


def test_a_host_out_of_scope_is_shown_with_the_names_of_the_scope() -> None:
    """As in the configuration, not as a Python list."""
    url, origin = parse_seed("https://other.test/")
    for hosts, text in ((("seed-hosts",), "seed-hosts"), (("a.test", "*.b.test"), "a.test, *.b.test")):
        denied = Scope(ScopeOptions(hosts=hosts), ["a.test"]).judge(
            url, origin, depth=1, hop_path="L", source=Source.LINK
        )
        assert denied is not None
        assert denied.rule == f"scope.hosts = {text}"


async def _stored(output: Path) -> None:
    frontier = SqliteFrontier(output / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://e.org/")], now=NOW)
    await frontier.block(BlockedHost("evil.test", "domain", NOW, "a complaint"))
    await frontier.close(clean=True)


def _run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    printed = capfd.readouterr()
    return end.value.code, printed.out, printed.err


def test_an_unknown_host_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With exit code 1; a known one is shown."""
    asyncio.run(_stored(tmp_path))
    code, out, err = _run(capfd, "hosts", "--host", "nothere", "--output", tmp_path)
    assert (code, out) == (1, "")
    assert "the store knows no host nothere" in err
    code, out, _ = _run(capfd, "hosts", "--host", "e.org", "--output", tmp_path)
    assert code == 0
    assert "e.org" in out


def test_blocks_are_a_table_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with a date; piped, JSON."""
    asyncio.run(_stored(tmp_path))
    assert _run(capfd, "block", "--list", "--output", tmp_path)[1].startswith('{"name":"evil.test"')
    monkeypatch.setattr("crawler.cli.steering.is_terminal", lambda: True)
    lines = _run(capfd, "block", "--list", "--output", tmp_path)[1].splitlines()
    assert lines[0].split() == ["HOST", "COVERS", "BLOCKED", "AT", "REASON"]
    assert lines[1].startswith("evil.test  it and below")
    assert lines[1].endswith("a complaint")
    assert _run(capfd, "block", "--list", "--json", "--output", tmp_path)[1].startswith('{"name":"evil.test"')
    assert _run(capfd, "block", "e.org", "--json", "--output", tmp_path)[0] == 2


def test_a_block_of_an_unknown_host_asks_for_its_spelling(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And the second block of a host says that there is one."""
    asyncio.run(_stored(tmp_path))
    assert _run(capfd, "block", "other.test", "--output", tmp_path)[1] == (
        "blocked other.test and all below it: 0 hosts, 0 connections closed; no host of that name is known to this "
        "crawl: is it spelled right?\n"
    )
    assert _run(capfd, "block", "e.org", "--host-only", "--output", tmp_path)[1] == (
        "blocked e.org: 1 host, 0 connections closed\n"
    )
    assert _run(capfd, "block", "evil.test", "--output", tmp_path)[1].startswith(
        "evil.test and all below it was blocked already: 0 hosts, "
    )


def test_a_block_that_changes_is_told_with_what_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Wider, for another reason; and what was when it ends."""
    asyncio.run(_stored(tmp_path))
    first = _run(capfd, "block", "e.org", "--host-only", "--output", tmp_path)[1]
    assert first == "blocked e.org: 1 host, 0 connections closed\n"
    wider = _run(capfd, "block", "e.org", "--reason", "asked\x1b", "--output", tmp_path)[1].splitlines()
    assert wider == [
        "blocked e.org and all below it: 1 host, 0 connections closed",
        "changed: covers = it and below   (was it alone)",
        "changed: reason = asked�   (was none given)",
    ]
    words = r"it had been blocked since 20\d\d-\d\d-\d\dT\S+Z: it and below; reason: asked�"
    assert re.fullmatch(words, _run(capfd, "block", "e.org", "--output", tmp_path)[1].splitlines()[-1])
    assert _run(capfd, "unblock", "www.e.org", "--output", tmp_path)[::2] == (
        1, "crawler: www.e.org is blocked by e.org\n",
    )  # fmt: skip
    ended = _run(capfd, "unblock", "e.org", "--output", tmp_path)[1].splitlines()
    assert ended[0] == "unblocked e.org"
    assert re.fullmatch(words, ended[1])


def test_hosts_in_a_pipe_are_separated_by_tabs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names as in JSON, plain numbers, and nothing for what is unknown; on a terminal a table."""
    asyncio.run(_stored(tmp_path))
    head, row = _run(capfd, "hosts", "--output", tmp_path)[1].splitlines()
    values = dict(zip(head.split("\t"), row.split("\t"), strict=True))
    (found,) = map(json.loads, _run(capfd, "hosts", "--json", "--output", tmp_path)[1].splitlines())
    assert {name: "" if found[name] is None else str(found[name]) for name in values if name != "until"} == {
        name: value for name, value in values.items() if name != "until"
    }
    assert (values["host"], values["state"], values["until"], values["queued"]) == ("e.org", "new", "", "1")
    monkeypatch.setattr("crawler.cli.explain.is_terminal", lambda: True)
    assert _run(capfd, "hosts", "--output", tmp_path)[1].startswith("HOST   STATE")


def test_a_separator_in_a_value_is_none() -> None:
    """Text from outside makes neither columns nor lines."""
    assert (
        tsv(("a", "b"), [("x\ty", "z\n"), (None, 1.5)])
        == "a\tb\nx\N{REPLACEMENT CHARACTER}y\tz\N{REPLACEMENT CHARACTER}\n\t1.5\n".encode()
    )


def test_findings_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A line each, then the totals."""
    asyncio.run(_stored(tmp_path))
    (tmp_path / "logs").mkdir()
    (tmp_path / "warc").mkdir()
    (tmp_path / "warc" / "crawl-20261130000000-00001.warc.gz").write_bytes(b"x")
    code, out, _ = _run(capfd, "verify", "--json", "--output", tmp_path)
    *findings, summary = map(json.loads, out.splitlines())
    assert [one["event"] for one in findings] == ["finding"] * len(findings)
    assert (summary["event"], summary["findings"], code) == ("summary", len(findings), 1 if findings else 0)
    assert "warc" in findings[0]["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["http://["], 2, "not a URL"),
        (["ftp://a.test/"], 2, "not http or https"),
        ([], 2, "Missing argument 'URL'"),
        (["a.test", "b.test"], 2, "unexpected extra argument"),
        (["a.test", "-c", "/no/such/file.toml"], 78, "/no/such/file.toml"),
        (["a.test", "-o", "fetch.bandwith=1"], 78, "did you mean"),
    ],
)
def test_a_mistake_in_fetch_has_its_message_and_code(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, nothing on stdout."""
    assert main(["fetch", *arguments], standalone_mode=False) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_a_store_that_fails_a_running_crawl_is_no_bug(capfd: pytest.CaptureFixture[str]) -> None:
    """Its tasks raise that in groups. With anything else among it, it is one."""
    lost = FrontierLocked("other agents took over")
    assert exit_for(ExceptionGroup("", [ExceptionGroup("", [lost, FrontierLocked("again")])])) == 75
    assert capfd.readouterr().err == "crawler: other agents took over\n"
    for other in (KeyError("a bug"), OSError("a bug too")):
        assert exit_for(ExceptionGroup("", [lost, ExceptionGroup("", [other])])) is None
        assert exit_for(ExceptionGroup("", [other])) is None
    assert capfd.readouterr().err == ""
