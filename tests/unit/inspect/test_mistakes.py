"""Mistakes of those who look at a crawl: each gets clear words and the exit code that OPERATIONS names."""

from pathlib import Path

import pytest

from crawler.cli import main


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("logs",), 2, "which crawl?"),
        (("logs", "--output", "nowhere"), 74, "no such directory"),
        (("logs", "--output", "."), 74, "holds no crawl"),
        (("why", "https://a.test/", "--output", "nowhere"), 74, "no such directory"),
        (("hosts", "--output", "nowhere"), 74, "no such directory"),
        (("report", "--output", "nowhere"), 74, "no such directory"),
        (("logs", "--output", ".", "--since", "soon"), 2, "is no time"),
        (("logs", "--output", ".", "--status", "9xx"), 2, "neither a status code"),
        (("logs", "--output", ".", "--error-type", "dns_timeot"), 2, "did you mean 'dns_timeout'?"),
        (("logs", "--output", ".", "-n", "x"), 2, "neither a number"),
        (("report", "--output", ".", "--all", "--since", "1h"), 2, "--all leaves nothing"),
        (("report", "--output", ".", "--host", "a", "--html", "x"), 2, "--html draws"),
        (("hosts", "--output", ".", "--since", "soon"), 2, "is no time"),
        (("logs", "-c", "missing.toml"), 78, "missing.toml"),
        (("logs", "--output", "made", "--url", "re:("), 2, "not a regular expression"),
        (("hosts", "--output", "made"), 74, "there is no store of a crawl"),
        (("logs", "--output", "made"), 74, "there is no such log"),
        (("top", "--output", "."), 69, "no crawler is running here"),
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
    monkeypatch.chdir(tmp_path)
    found = main(arguments, standalone_mode=False)
    printed = capsys.readouterr()
    assert (found, printed.out) == (code, ""), printed.err
    assert words in printed.err
    assert "Traceback" not in printed.err
