"""`crawler init`: what it asks, what it writes, and that what it writes is a configuration."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.cli import main
from crawler.settings.loading import load

GIVEN = ("--url", "https://a.test/", "--contact", "bot@a.test")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Terminal(io.StringIO):
    """Standard input with somebody before it."""

    def isatty(self) -> bool:
        return True


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["init", *words], standalone_mode=False)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize(
    ("contact", "user_agent"),
    [("bot@a.test", "crawlerd/0.1 (bot@a.test)"), ("https://a.test/bot", "crawlerd/0.1 (+https://a.test/bot)")],
)
def test_a_configuration_from_options(capsys: pytest.CaptureFixture[str], contact: str, user_agent: str) -> None:
    """The daemon takes it as it is; the next command is on stdout."""
    code, out, _ = called(capsys, "--url", "a.test:81", "--contact", contact)
    assert (code, out) == (0, "crawler crawl -c crawler.toml\n")
    settings = load(Path("crawler.toml"), (), {}, "run").settings
    assert settings.crawl.seeds == ("a.test:81",)
    assert settings.identity.user_agent == user_agent
    assert settings.output.directory == "crawl/a.test:81"
    assert main(["check"], standalone_mode=False) == 0


def test_what_is_commented_out_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """With the "#" removed, every value is what it was without."""
    assert called(capsys, *GIVEN)[0] == 0
    text = Path("crawler.toml").read_text()
    Path("all.toml").write_text(re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE))
    found, every = (load(Path(name), (), {}, "run") for name in ("crawler.toml", "all.toml"))
    assert replace(every.settings, pattern_places={}) == found.settings
    assert sum(origin.startswith("all.toml") for origin in every.origins.values()) == 10


def test_a_relative_directory_is_where_it_was_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Also for a file elsewhere, whose keys are relative to it."""
    Path("conf").mkdir()
    assert called(capsys, "conf/site.toml", *GIVEN, "--output", "archive")[0] == 0
    assert load(Path("conf/site.toml"), (), {}, "run").settings.output.directory == str(tmp_path / "archive")


def test_nothing_is_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("crawler.toml").write_text("mine")
    code, out, err = called(capsys, *GIVEN)
    assert (code, out, "is not overwritten" in err) == (2, "", True)
    assert Path("crawler.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --url and --contact"),
        (("--url", "https://a.test/"), "give --contact:"),
        (("--url", "ftp://a.test/", "--contact", "a@a.test"), "--url: "),
        (("--url", "https://a.test/", "--contact", "me"), "--contact: identity.user_agent must say how to reach you"),
        (("--url", "https://ada:pw@a.test/", "--contact", "a@a.test"), "--url: a URL is crawled without user name"),
        ((*GIVEN, "--output", "/"), "--output: / holds other files ("),
        ((*GIVEN, "--output", "~/x"), '--output: output.directory must be complete: "~" is not expanded'),
    ],
)
def test_a_mistake_leaves_no_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    """It names the option."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = called(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("crawler.toml").exists()


def test_a_link_that_leads_nowhere_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("crawler.toml").symlink_to("nowhere")
    code, _, err = called(capsys, *GIVEN)
    assert (code, "crawler.toml exists, and is not overwritten" in err) == (2, True)


def test_a_disk_that_is_full_leaves_no_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a configuration would be refused next time, as a file that is not overwritten."""
    opened = Path.open

    def full(self: Path, *arguments: Any, **options: Any) -> Any:
        file = opened(self, *arguments, **options)
        if arguments != ("x",):
            return file
        file.close()
        return opened(Path("/dev/full"), "w")

    monkeypatch.setattr(Path, "open", full)
    code, out, err = called(capsys, *GIVEN)
    assert (code, out, "No space left on device" in err) == (74, "", True)
    assert not Path("crawler.toml").exists()


def test_the_command_can_be_pasted_into_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "my site.toml", *GIVEN)[1] == "crawler crawl -c 'my site.toml'\n"


def test_a_terminal_is_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not given, again after an answer that cannot be used."""
    monkeypatch.setattr("sys.stdin", Terminal("ftp://x/\nhttps://a.test/\nme\nme@a.test\n\n"))
    code, out, err = called(capsys, "site.toml")
    assert (code, out) == (0, "crawler crawl -c site.toml\n"), err
    assert "identity.user_agent must say how to reach you" in err
    settings = load(Path("site.toml"), (), {}, "run").settings
    assert (settings.crawl.seeds, settings.output.directory) == (("https://a.test/",), "crawl/a.test")
