"""Counts and values as a person reads them."""

import pytest

from crawler.core.words import counted, fields_of, worded


def test_one_thing_is_in_the_singular() -> None:
    """And only one."""
    assert [counted(n, "host") for n in (0, 1, 2, 1_234)] == ["0 hosts", "1 host", "2 hosts", "1,234 hosts"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (3, "3"),
        (["a", "b"], "a, b"),
        ((), ""),
        ([None, False], ", false"),
        ({"a": [1, 2], "b": None}, "a: 1, 2, b: "),
        ("it's", "it's"),
    ],
)
def test_no_value_shows_the_language_the_program_is_written_in(value: object, text: str) -> None:
    """No None, no brackets, no quotation marks around items."""
    assert worded(value) == text


def test_what_says_nothing_is_no_field() -> None:
    """Nor is what every event has."""
    line = {"ts": "t", "event": "start", "level": "info", "pid": 0, "proxy": None, "changed": ["a", "b"], "more": []}
    assert list(fields_of(line)) == [("pid", "0"), ("changed", "a, b")]
