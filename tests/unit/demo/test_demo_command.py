"""`python -m crawler.demo`: the command it runs, and the folder it may empty."""

import http.client
import itertools
import ssl
import sys
from pathlib import Path

import pytest
import tomli

from crawler.core.enums import Exit
from crawler.demo import __main__ as demo
from crawler.demo.__main__ import MARK, OutputTaken, fresh_output


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_site_is_up_while_the_crawl_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The crawl gets TOML values that lead to a server that answers, and the demo returns its exit code."""
    seen: list[list[str]] = []

    def crawl(arguments: list[str]) -> None:
        seen.append(arguments)
        options = tomli.loads("\n".join(value for flag, value in itertools.pairwise(arguments) if flag == "-o"))
        assert options["network"]["resolve"]["www.demo.test"] == ["127.0.0.1"]
        context = ssl.create_default_context(cafile=options["network"]["ca_file"])
        context.check_hostname = False
        port = int(arguments[1].rpartition(":")[2].strip("/"))
        client = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
        client.request("GET", "/", headers={"Host": f"www.demo.test:{port}"})
        assert client.getresponse().read().count(b"lighthouses") == 1
        client.close()
        sys.exit(Exit.FINDINGS)

    monkeypatch.setattr(demo, "crawler", crawl)
    assert demo.run(["--json"]) == Exit.FINDINGS
    (arguments,) = seen
    assert arguments[0] == "crawl"
    assert arguments[-3:] == ["--output", "crawl/demo", "--json"]
    captured = capsys.readouterr()
    assert captured.out == ""


@pytest.mark.parametrize("own", [["--output", "mine"], ["--output=mine"]])
def test_an_output_of_ones_own_is_left_alone(own: list[str], monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """It is passed through, and ./crawl/demo is not touched."""
    seen: list[list[str]] = []
    monkeypatch.setattr(demo, "crawler", seen.append)
    assert demo.run(own) == Exit.OK
    assert seen[0][-len(own) :] == own
    assert "crawl/demo" not in seen[0]
    assert not (here / "crawl").exists()


def test_an_earlier_demo_is_emptied(here: Path) -> None:
    """Files and folders go, the mark stays."""
    directory = here / "out"
    with fresh_output(directory):
        (directory / "warc").mkdir()
        (directory / "warc" / "a").write_text("x")
        (directory / "frontier.db").write_text("x")
    with fresh_output(directory):
        assert [path.name for path in directory.iterdir()] == [MARK]


def test_a_folder_that_is_not_the_demos_is_never_emptied(here: Path) -> None:
    """Somebody's crawl in that place stays, with a word on what to do."""
    directory = here / "out"
    directory.mkdir()
    (directory / "precious").write_text("x")
    with pytest.raises(OutputTaken, match="--output DIR"), fresh_output(directory):
        raise AssertionError("unreachable")
    assert (directory / "precious").exists()


def test_a_link_in_the_folder_is_removed_not_followed(here: Path) -> None:
    """What a symbolic link points at is not the demo's."""
    (here / "precious").mkdir()
    (here / "precious" / "file").write_text("x")
    with fresh_output(here / "out"):
        (here / "out" / "link").symlink_to(here / "precious")
    with fresh_output(here / "out"):
        assert not (here / "out" / "link").exists()
    assert (here / "precious" / "file").exists()


def test_two_demos_do_not_share_a_folder(here: Path) -> None:
    """The second says so instead of emptying the first's."""
    with fresh_output(here / "out"):
        (here / "out" / "frontier.db").write_text("x")
        with pytest.raises(OutputTaken, match="in use") as raised, fresh_output(here / "out"):
            raise AssertionError("unreachable")
        assert raised.value.exit_code == Exit.WAITING
        assert (here / "out" / "frontier.db").exists()


def test_a_refusal_is_a_message_not_a_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 and one line."""
    (here / "crawl" / "demo").mkdir(parents=True)
    (here / "crawl" / "demo" / "precious").write_text("x")
    assert demo.run([]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("crawler.demo: crawl/demo was not made by an earlier demo")


def test_an_interrupted_demo_reports_that_it_cannot_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The crawl promises that the same command goes on; here that would be wrong."""

    def interrupted(_arguments: list[str]) -> None:
        sys.exit(Exit.WAITING)

    monkeypatch.setattr(demo, "crawler", interrupted)
    assert demo.run([]) == Exit.WAITING
    assert capsys.readouterr().err.splitlines()[-1].startswith("But this is the demo, which starts afresh")
    assert demo.run(["--output", "mine"]) == Exit.WAITING
    assert "afresh" not in capsys.readouterr().err
