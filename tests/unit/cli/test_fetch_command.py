"""`crawler fetch`: what a person gets wrong."""

import pytest

from crawler.cli import main


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
def test_a_mistake_has_its_message_and_code(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, nothing on stdout."""
    assert main(["fetch", *arguments], standalone_mode=False) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err
