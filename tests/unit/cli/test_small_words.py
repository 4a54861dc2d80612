"""Numbers with their nouns, and commands that say what they did not find."""

import asyncio
from pathlib import Path

import pytest

from crawler.cli import main
from crawler.cli.look import counted
from crawler.frontier.base import Block
from crawler.frontier.sqlite import SqliteFrontier
from tests.support.frontiers import NOW, found


def test_one_thing_is_in_the_singular() -> None:
    """And only one."""
    assert [counted(n, "host") for n in (0, 1, 2, 1_234)] == ["0 hosts", "1 host", "2 hosts", "1,234 hosts"]


async def _stored(output: Path) -> None:
    frontier = SqliteFrontier(output / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://e.org/")], now=NOW)
    await frontier.block(Block("evil.test", "domain", NOW, "a complaint"))
    await frontier.close(clean=True)


def _told(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capfd.readouterr()
    return end.value.code, said.out, said.err


def test_a_host_that_is_not_there_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With exit code 1; one that is there is shown, by its name or with its port."""
    asyncio.run(_stored(tmp_path))
    code, out, err = _told(capfd, "hosts", "--host", "nothere", "--output", tmp_path)
    assert (code, out) == (1, "")
    assert "the store knows no host nothere" in err
    code, out, _ = _told(capfd, "hosts", "--host", "e.org", "--output", tmp_path)
    assert code == 0
    assert "e.org" in out


def test_blocks_are_listed_for_people_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with a date; piped, JSON."""
    asyncio.run(_stored(tmp_path))
    assert _told(capfd, "block", "--list", "--output", tmp_path)[1].startswith('{"name":"evil.test"')
    monkeypatch.setattr("crawler.cli.block.is_terminal", lambda: True)
    lines = _told(capfd, "block", "--list", "--output", tmp_path)[1].splitlines()
    assert lines[0].split() == ["HOST", "COVERS", "BLOCKED", "AT", "(UTC)", "REASON"]
    assert lines[1].startswith("evil.test  and below")
    assert lines[1].endswith("a complaint")
