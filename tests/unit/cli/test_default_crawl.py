"""Commands without -c and --output: which crawl they take, what they print about it, and which guess nothing."""

import asyncio
import os
from pathlib import Path

import pytest

from crawler.cli import crawl_options, main
from crawler.frontier.sqlite.store import SqliteFrontier
from tests.support.frontiers import NOW, found

CONFIGURATION = '[crawl]\nseeds = ["https://{0}.test/"]\n[output]\ndirectory = "{1}"\n'
CHANGING = (
    ("pause",),
    ("resume",),
    ("stop", "--wait"),
    ("reload", "--dry-run"),
    ("block", "a.test", "--reason", "two words"),
    ("unblock", "a.test"),
    ("release", "a.test"),
    ("retry", "a.test"),
    ("forget", "a.test"),
    ("requeue", "--status", "404"),
    ("add", "a.test"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRAWLER_CONFIG", raising=False)
    monkeypatch.setattr(crawl_options, "SYSTEM_CONFIGURATION", tmp_path / "etc.toml")


def crawl(name: str) -> str:
    """The output directory of a crawl that does not run, with one URL of the host `name`.test."""

    async def store() -> None:
        frontier = SqliteFrontier(Path("crawl") / name / "frontier.db")
        await frontier.open()
        await frontier.add([found(f"https://{name}.test/")], now=NOW)
        await frontier.close(clean=True)

    (Path("crawl") / name / "logs").mkdir(parents=True)
    asyncio.run(store())
    return f"crawl/{name}"


def configured(path: str, name: str) -> None:
    Path(path).write_text(CONFIGURATION.format(name, crawl(name)))


def called(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words, standalone_mode=False)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    return code, printed.out, printed.err


def hosts(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The host that `export hosts` finds, and its line on stderr."""
    code, out, err = called(capfd, "export", "hosts", "--format", "csv", *words)
    assert code == 0, err
    return next(name for name in ("env", "here", "own", "etc", "only", "other") if f"{name}.test" in out), err


def test_the_order_in_which_a_crawl_is_taken(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each is said on stderr in one line; stdout stays clean."""
    crawl("only")
    assert hosts(capfd) == ("only", "crawler: using crawl/only, the only crawl in ./crawl\n")
    configured("etc.toml", "etc")
    assert hosts(capfd) == ("etc", f"crawler: using {tmp_path}/etc.toml\n")
    configured("crawler.toml", "own")
    assert hosts(capfd) == ("own", "crawler: using ./crawler.toml\n")
    (Path(crawl("here")) / "frontier.db").rename("frontier.db")
    Path("run.json").write_text("{}")
    assert hosts(capfd) == ("here", f"crawler: using the crawl in this directory, {tmp_path}\n")
    configured("env.toml", "env")
    monkeypatch.setenv("CRAWLER_CONFIG", "env.toml")
    assert hosts(capfd) == ("env", "crawler: using env.toml ($CRAWLER_CONFIG)\n")
    assert hosts(capfd, "--output", "crawl/only") == ("only", "")
    assert hosts(capfd, "-c", "crawler.toml") == ("own", "")


def test_several_crawls_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    """None of them is taken."""
    crawl("other")
    crawl("only")
    code, out, err = called(capfd, "hosts", "--state", "new")
    assert (code, out) == (2, "")
    assert "several crawls are here: crawl/only, crawl/other" in err
    assert "crawler hosts --output crawl/only --state new" in err


def test_a_link_to_a_crawl_is_no_other_one(capfd: pytest.CaptureFixture[str]) -> None:
    crawl("only")
    Path("crawl/a-link").symlink_to("only")
    Path("crawl/nowhere").symlink_to("gone")
    code, _, err = called(capfd, "hosts")
    assert (code, "using crawl/only, the only crawl in ./crawl" in err) == (0, True)


def test_nothing_to_take(capfd: pytest.CaptureFixture[str]) -> None:
    """The error names both options; of a configuration, the places looked at."""
    assert "name the crawl by its configuration (-c FILE)" in called(capfd, "hosts")[2]
    code, _, err = called(capfd, "run")
    assert code == 2
    assert "there is neither ./crawler.toml nor" in err


@pytest.mark.parametrize("words", CHANGING, ids=lambda words: words[0])
def test_what_changes_a_crawl_guesses_nothing(capfd: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Its error has the whole command to call instead, which then works."""
    configured("crawler.toml", "own")
    code, out, err = called(capfd, *words)
    assert (code, out) == (2, "")
    rest = " ".join(words[1:]).replace("two words", "'two words'")
    assert f"The one found here: crawler {words[0]} -c crawler.toml {rest}".rstrip() in err
    assert called(capfd, words[0], "-c", "crawler.toml", *words[1:])[0] in (0, 1, 69, 78)


def test_a_variable_names_the_crawl_for_every_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as explicit as -c."""
    configured("env.toml", "env")
    monkeypatch.setenv("CRAWLER_CONFIG", "env.toml")
    code, out, err = called(capfd, "block", "env.test")
    assert (code, out) == (0, "blocked env.test and all below it: 1 host, 0 connections closed\n")
    assert err == "crawler: using env.toml ($CRAWLER_CONFIG)\n"
    assert called(capfd, "check")[2].startswith("crawler: using env.toml")


def test_a_directory_of_another_user_is_not_steered(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run.json may lead to any socket. One's own is taken, as by `status`."""
    crawl("own")
    monkeypatch.chdir("crawl/own")
    Path("run.json").write_text("{}")
    code, _, err = called(capfd, "stop")
    assert (code, "using the crawl in this directory" in err) == (69, True)
    monkeypatch.setattr(os, "geteuid", lambda: 4_242)
    monkeypatch.setattr(crawl_options, "_stranger", lambda path: "user 4343")
    code, _, err = called(capfd, "stop")
    assert (code, "crawler stop --output ." in err) == (2, True)


def test_a_configuration_of_another_user_is_refused(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp anybody could have put it there. Named, it is used."""
    configured("crawler.toml", "own")
    monkeypatch.setattr(os, "geteuid", lambda: 4_242)
    if Path("crawler.toml").stat().st_uid == 0:
        os.chown("crawler.toml", 4_343, -1)
    code, out, err = called(capfd, "export", "hosts")
    assert (code, out) == (2, "")
    assert "./crawler.toml belongs to user " in err
    assert "crawler export -c crawler.toml hosts" in err
    assert hosts(capfd, "-c", "crawler.toml")[0] == "own"


@pytest.mark.parametrize("words", [("--output", "crawl/own"), ("-c", "crawler.toml"), ("crawl/own",), ()])
def test_verify_takes_the_options_of_all_others(capfd: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """Its argument goes on working."""
    configured("crawler.toml", "own")
    (Path("crawl/own/logs") / "fetch.jsonl").touch()
    code, _, err = called(capfd, "verify", *words)
    assert (code, "no findings" in err) == (0, True), err


def test_verify_is_told_one_directory(capfd: pytest.CaptureFixture[str]) -> None:
    assert called(capfd, "verify", "a", "--output", "b")[0] == 2


def test_a_directory_given_as_a_key_is_no_default(capfd: pytest.CaptureFixture[str]) -> None:
    """The only crawl here is another one."""
    crawl("only")
    assert called(capfd, "hosts", "-o", "output.directory=elsewhere")[0] == 2


def test_a_crawl_without_a_url_names_the_configuration_here(capfd: pytest.CaptureFixture[str]) -> None:
    """It is not taken: it may name the directory of a service."""
    assert "The one found" not in called(capfd, "crawl", "--json")[2]
    configured("crawler.toml", "own")
    code, _, err = called(capfd, "crawl", "--json")
    assert (code, "no URL: name one" in err, "crawler crawl -c crawler.toml --json" in err) == (2, True, True)
