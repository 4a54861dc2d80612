"""Options of `crawler crawl` that are short for a key."""

from pathlib import Path
from typing import Any

import pytest

from crawler import app
from crawler.cli import main
from crawler.settings.settings import Settings

SHORTHANDS = (
    ("--limit", "7", "scope", "max_urls", 7),
    ("--depth", "0", "scope", "max_depth", 0),
    ("--delay", "1m", "politeness", "delay", 60.0),
    ("--delay", "2", "politeness", "delay", 2.0),
    ("--include", '/a"b/**', "scope", "include", ('/a"b/**',)),
    ("--exclude", "re:x{2}$", "scope", "exclude", ("re:x{2}$",)),
)


@pytest.fixture(autouse=True)
def crawls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the crawls that would have been made."""
    found: list[Settings] = []

    def run(settings: Settings, **_: Any) -> None:
        found.append(settings)
        raise BrokenPipeError  # ends the command with 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "run", run)
    return found


def called(*words: str) -> int:
    return main(["crawl", "https://a.test/", *words], standalone_mode=False)


@pytest.mark.parametrize(("option", "text", "section", "name", "value"), SHORTHANDS)
def test_an_option_sets_its_key(
    crawls: list[Settings], option: str, text: str, section: str, name: str, value: object
) -> None:
    """To the same value as -o would, and over the file."""
    Path("c.toml").write_text('[scope]\nmax_urls = 5\nmax_depth = 5\ninclude = ["/x"]\n[politeness]\ndelay = "5s"\n')
    assert called("-c", "c.toml", option, text) == 0
    assert getattr(getattr(crawls[0], section), name) == value


def test_patterns_are_repeatable(crawls: list[Settings]) -> None:
    assert called("--include", "/a/**", "--include", "/b/**", "--exclude", "/a/x") == 0
    assert (crawls[0].scope.include, crawls[0].scope.exclude) == (("/a/**", "/b/**"), ("/a/x",))


@pytest.mark.parametrize(("option", "text", "section", "name", "_"), SHORTHANDS)
def test_an_option_and_its_key_conflict(
    capsys: pytest.CaptureFixture[str], option: str, text: str, section: str, name: str, _: object
) -> None:
    """A usage error that names both."""
    assert called(option, text, "-o", f"{section}.{name}=1") == 2
    assert f"{option} and -o {section}.{name} are the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--limit", "0"), 2, "'--limit'"),
        (("--limit", "many"), 2, "'--limit': 'many' is not a valid whole number."),
        (("--depth", "-1"), 2, "'--depth'"),
        (("--max-duration", "10"), 78, "--max-duration: crawl.max_duration must be a duration"),
        (("--delay", "soon"), 78, "--delay: politeness.delay must be a duration"),
        (("--include", "re:("), 78, "--include: an entry of scope.include"),
        (("--exclude", "ok", "--exclude", ""), 78, "--exclude: an entry of scope.exclude"),
    ],
)
def test_a_mistake_names_the_option(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    """As it was given, and not the -o that it is short for."""
    assert called(*words) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("crawl", f"https://a.test/{'a' * 90_000}"),
        ("crawl", "a" * 90_000),
        ("crawl", "https://a.test/", "--exclude", f"re:({'a' * 90_000}"),
        ("crawl", "https://a.test/", "--delay", "9" * 4_000),
        ("check", "-o", f"scope.exclude=['re:({'a' * 90_000}']"),
        ("block", "a.test", "--output", "x", "--reason", "a" * 90_000),
    ],
)
def test_a_value_of_any_length_is_named_in_a_few_lines(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main(list(words), standalone_mode=False) in (2, 78)
    err = capsys.readouterr().err
    assert 0 < len(err) < 600
    assert err.startswith("--exclude: ") == ("--exclude" in words)


@pytest.mark.parametrize(("name", "is_foreign"), [("README.md", True), ("c.toml", False)])
def test_a_document_is_no_configuration(capsys: pytest.CaptureFixture[str], name: str, is_foreign: bool) -> None:
    """Its first line would have been repaired; that of a configuration is."""
    Path(name).write_text("# Crawler\n\nA web crawler\n")
    assert called("-c", name) == 78
    said = capsys.readouterr().err
    assert ("this is no configuration (TOML)" in said, "write A = web crawler" in said) == (is_foreign, not is_foreign)


def test_a_slip_in_the_scheme_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("htp://a.test/") == 2
    assert "not http or https: htp:; did you mean http:// or https://?" in capsys.readouterr().err


def test_the_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    main(["crawl", "--help"], standalone_mode=False)
    text = capsys.readouterr().out
    assert [f"{section}.{name}" for _, _, section, name, _ in SHORTHANDS if f"{section}.{name}" not in text] == []


def test_a_warning_names_the_option_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Not the -o that was made of it."""
    assert called("--exclude", "/private/") == 0
    assert capsys.readouterr().err == (
        'crawler: warning: --exclude: scope.exclude "/private/" matches that one URL only (for the folder write '
        '"/private/**")\n'
    )
