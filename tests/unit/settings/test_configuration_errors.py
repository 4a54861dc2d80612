"""How a problem looks to a person."""

from crawler.settings.configuration_errors import ConfigurationError, Problem, did_you_mean, in_order, shown


def test_a_problem_shows_the_line_a_caret_and_the_hint() -> None:
    """Place and sentence on the first line, so that editors and scripts can read it."""
    problem = Problem("a/crawler.toml", 14, 9, "politeness.delay must be …", 'delay = "x"', 'did you mean "1s"?')
    assert str(problem) == (
        'a/crawler.toml:14:9: politeness.delay must be …\n    delay = "x"\n            ^\n    did you mean "1s"?'
    )


def test_a_problem_without_a_line_is_one_sentence() -> None:
    """Overrides and variables have no line; without any place the sentence stands alone."""
    assert str(Problem("-o a.b=c", 0, 0, "is wrong")) == "-o a.b=c: is wrong"
    assert str(Problem("", 0, 0, "is wrong")) == "is wrong"


def test_the_caret_stands_below_tabs_and_wide_characters() -> None:
    """A tab is repeated, a wide character counts for two columns."""
    assert str(Problem("f", 1, 5, "m", "\tä漢 x")).split("\n")[1:] == ["    \tä漢 x", "    \t    ^"]


def test_a_long_line_is_cut_around_the_caret() -> None:
    """Neither what is shown nor the caret goes off the screen."""
    _, line, caret = str(Problem("f", 1, 501, "m", "x" * 500 + "Y" + "z" * 500)).split("\n")
    assert len(line) < 130
    assert line[caret.index("^")] == "Y"
    assert line[4] == line[-1] == "…"


def test_an_error_carries_every_problem() -> None:
    """Its text is theirs, one after the other."""
    problems = [Problem("f", 1, 1, "a"), Problem("g", 0, 0, "b")]
    error = ConfigurationError(problems)
    assert error.problems == problems
    assert str(error) == "f:1:1: a\ng: b"


def test_problems_are_ordered_by_file_and_line() -> None:
    """Files keep the order they first occur in; what has no line comes last."""
    a, b, c, d = Problem("f", 0, 0, ""), Problem("g", 1, 1, ""), Problem("f", 2, 9, ""), Problem("f", 2, 1, "")
    assert in_order([a, b, c, d]) == [d, c, a, b]


def test_a_near_word_is_suggested_and_a_far_one_is_not() -> None:
    """A hint that is a guess at random helps nobody."""
    assert did_you_mean("dealy", ["delay", "key"]) == 'did you mean "delay"?'
    assert did_you_mean("xyzzy", ["delay", "key"]) == ""


def test_a_quoted_value_is_short() -> None:
    """60 characters of a text are shown, of a list or a table only that it is one."""
    assert shown("x" * 100) == f'"{"x" * 60}…"'
    assert [shown(True), shown([1]), shown({}), shown(1.5)] == ["true", "a list", "a table", "1.5"]
