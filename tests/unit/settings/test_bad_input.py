"""What a person is told about a wrong configuration: exact words, line and column."""

import math
import os
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from crawler.settings import sources
from crawler.settings.configuration_errors import ConfigurationError, Problem
from crawler.settings.loading import load
from crawler.settings.schema import SECTIONS, ConfigurationKey, keys
from crawler.settings.settings import Mode
from crawler.settings.value_types import KeyKind, number_text, refusal


def problems_of(
    path: Path | None, *overrides: str, environ: dict[str, str] | None = None, mode: Mode = "crawl"
) -> list[Problem]:
    """What `load` refuses."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, overrides, environ or {}, mode)
    assert "\n".join(map(str, caught.value.problems)) == str(caught.value)
    return caught.value.problems


def write(folder: Path, text: str, name: str = "crawler.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


DURATION = 'must be a duration such as "500ms", "1s" or "1h30m"'
HOST = 'must be a host name, or "*." and one'
NO_PORT = "a host stands without scheme, port and path; scope.include takes those"
NOT_PRINTABLE = "an entry of fetch.headers must be ASCII text without control characters"
NOT_OURS = "the crawler sends it itself"
MISSING = "cannot be read: No such file or directory"


def _refusals() -> list[tuple[str, str]]:
    _, *cases = Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8").split("========\n")
    return [(source, message) for source, _, message in (case.partition("--------\n") for case in cases)]


@pytest.mark.parametrize(("source", "message"), _refusals())
def test_a_wrong_line_is_shown_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    """One fault, one problem: place, sentence, the line with a caret, and a hint where there is one (refusals.txt)."""
    write(tmp_path, source)
    monkeypatch.chdir(tmp_path)
    assert [message.rstrip("\n")] == [str(problem) for problem in problems_of(Path("crawler.toml"))]


@pytest.mark.parametrize(
    ("source", "line", "column", "message", "hint"),
    [
        ("headers = { 'a b' = 'hunter2' }", 2, 13, 'a key of fetch.headers must be a header name, not "a b"', ""),
        ("headers = { x = 'hunter2\u00e9' }", 2, 17, NOT_PRINTABLE, ""),
        ('headers = { x = "hunter2\\r\\nY: z" }', 2, 17, NOT_PRINTABLE, ""),
        ("headers = { x = [ 'hunter2' ] }", 2, 17, "an entry of fetch.headers must be text in quotes", ""),
        (
            "headers = { User-Agent = 'hunter2' }",
            2,
            13,
            f"a key of fetch.headers must not be User-Agent: {NOT_OURS}",
            "identity.user_agent sets it",
        ),
        ("headers = { Host = 'hunter2' }", 2, 13, f"a key of fetch.headers must not be Host: {NOT_OURS}", ""),
    ],
)
def test_a_header_value_is_never_shown(
    tmp_path: Path, source: str, line: int, column: int, message: str, hint: str
) -> None:
    """It may be a password, and messages reach the journal: the place is told, not the line."""
    path = write(tmp_path, f"[fetch]\n{source}")
    assert [Problem(str(path), line, column, message, "", hint)] == problems_of(path)


@pytest.mark.parametrize(
    ("override", "shown", "message", "hint"),
    [
        (
            "politeness.delay=x",
            "-o politeness.delay=x",
            f'politeness.delay {DURATION}, not "x"',
            "units: d, h, m, s, ms",
        ),
        ("politeness.dealy=1", "-o politeness.dealy=1", 'unknown key "dealy" in [politeness]', 'did you mean "delay"?'),
        ("polite.delay=1", "-o polite.delay=1", 'unknown section "polite"', 'did you mean "politeness"?'),
        ("delay=1", "-o delay=1", "must be SECTION.KEY=VALUE", 'did you mean "politeness.delay"?'),
        ("politeness.delay", "-o politeness.delay", "must be SECTION.KEY=VALUE", ""),
        ("", "-o ", "must be SECTION.KEY=VALUE", ""),
        ("output.warc=yes", "-o output.warc=yes", 'output.warc must be true or false, not "yes"', "write true"),
        (
            "engine.workers=1\nb=2",
            "-o engine.workers=1\nb=2",
            'engine.workers must be a whole number, not "1\\u000ab=2"',
            "",
        ),
        (
            "scope.hosts=http://e.org",
            "-o scope.hosts=http://e.org",
            f'an entry of scope.hosts {HOST}, not "http://e.org"',
            NO_PORT,
        ),
        (
            "network.resolve.a=1",
            "-o network.resolve.a=1",
            'unknown key "resolve.a" in [network]',
            'did you mean "resolve"?',
        ),
        ("fetch.headers={x=1}", "-o fetch.headers", "an entry of fetch.headers must be text in quotes", ""),
        ("crawl.seed_files=/no/such", "-o crawl.seed_files=/no/such", f"crawl.seed_files /no/such: {MISSING}", ""),
    ],
)
def test_a_wrong_override_is_named(override: str, shown: str, message: str, hint: str) -> None:
    """There is no line to point at, so the override itself stands before the sentence."""
    assert [Problem(shown, 0, 0, message, "", hint)] == problems_of(None, override)


@pytest.mark.parametrize(
    ("variable", "value", "message", "hint"),
    [
        ("CRAWLER_POLITENESS__DELAY", "x", f'politeness.delay {DURATION}, not "x"', "units: d, h, m, s, ms"),
        ("CRAWLER_POLITENESS__DEALY", "1", 'unknown key "dealy" in [politeness]', 'did you mean "delay"?'),
        ("CRAWLER_RECRAWL__VISITS_PER_DAY", "0", "recrawl.visits_per_day must be at least 1, not 0", ""),
        ("CRAWLER_FOO__BAR", "1", 'unknown section "foo"', f"the sections are {', '.join(SECTIONS)}"),
        ("CRAWLER_NETWORK__RESOLVE__A", "1", 'unknown key "resolve__a" in [network]', 'did you mean "resolve"?'),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, message: str, hint: str) -> None:
    """The variable stands before the sentence."""
    assert [Problem(f"environment {variable}", 0, 0, message, "", hint)] == problems_of(None, environ={variable: value})


def test_every_problem_of_every_layer_is_reported_at_once(tmp_path: Path) -> None:
    """In the order of the layers and of the lines, those that a later layer would have replaced included."""
    path = write(
        tmp_path,
        "[fetch]\nhours = 1\nmax_body = 'x'\nwat = 1\n[politeness]\ndelay = 'soon'\n[crawl]\nseed_files = ['no']\n",
    )
    write(tmp_path, "[crawl", "conf.d/10-broken.toml")
    write(tmp_path, "[crawl]\nnames = 'x'", "conf.d/20.toml")
    found = problems_of(path, "politeness.delay=1", "x=1", environ={"CRAWLER_A__B": ""}, mode="run")
    assert [
        (str(path), 2),
        (str(path), 3),
        (str(path), 4),
        (str(path), 6),
        (str(path), 8),
        (str(tmp_path / "conf.d/10-broken.toml"), 1),
        (str(tmp_path / "conf.d/20.toml"), 2),
        ("environment CRAWLER_A__B", 0),
        ("-o x=1", 0),
    ] == [(problem.file, problem.line) for problem in found]


def test_what_rests_on_an_unreadable_value_is_not_reported_beside_it(tmp_path: Path) -> None:
    """A daemon whose user agent is malformed is not told as well that its user agent names no contact."""
    path = write(tmp_path, "[identity]\nuser_agent = 3\n")
    assert [problem.message for problem in problems_of(path, mode="run")] == [
        "identity.user_agent must be text in quotes, not 3",
        "output.directory must be set for `crawler run`",
    ]


def test_a_file_that_cannot_be_parsed_is_the_only_problem(tmp_path: Path) -> None:
    """What is missing because the file was not understood is not reported as missing."""
    path = write(tmp_path, "[crawl\n")
    assert [problem.line for problem in problems_of(path, mode="run")] == [1]


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        (b"[crawl]\nname = '\xff'\n", 2, 9, "not UTF-8"),
        (b"\xff", 1, 1, "not UTF-8"),
        (b"\xef\xbb\xbf[crawl]\nname = '\xe4'", 2, 9, "not UTF-8"),
        (b"a = " + b"[" * 5_000 + b"]" * 5_000, 0, 0, "not usable: nested too deeply"),
    ],
)
def test_bytes_that_are_no_toml_are_refused(
    tmp_path: Path, content: bytes, line: int, column: int, message: str
) -> None:
    """Nothing that a file may hold gets past as an exception of another kind."""
    path = tmp_path / "crawler.toml"
    path.write_bytes(content)
    assert [Problem(str(path), line, column, message)] == problems_of(path)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    """Python limits the conversion; that is a configuration error, not a bug."""
    (problem,) = problems_of(write(tmp_path, f"a = {'9' * 5_000}"))
    assert problem.message == "not usable: a number has too many digits"
    (problem,) = problems_of(None, f"fetch.max_body={'9' * 5_000}")
    assert problem.message == "fetch.max_body must be at most 1TiB"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_another_encoding_gets_a_hint(tmp_path: Path, encoding: str) -> None:
    """Notepad's "Unicode" is no TOML; neither are seeds in it."""
    path = tmp_path / "crawler.toml"
    path.write_bytes("[crawl]\nname = 'a'\n".encode(encoding))
    assert [Problem(str(path), 0, 0, "not UTF-8 but UTF-16", "", "save it as UTF-8")] == problems_of(path)
    seeds = tmp_path / "seeds.txt"
    seeds.write_bytes("https://a.test/\n".encode(encoding))
    assert [Problem(str(seeds), 0, 0, "not UTF-8 but UTF-16", "", "save it as UTF-8")] == problems_of(
        None, f"crawl.seed_files={seeds}"
    )


@pytest.mark.parametrize("variable", ["CRAWLER_POLITENESS_DELAY", "CRAWLER_POLITENES_DELAY"])
def test_a_variable_with_one_underscore_gets_the_right_name(variable: str) -> None:
    """It counted for nothing, and nothing was said."""
    message = "names no key: the variable for politeness.delay is CRAWLER_POLITENESS__DELAY, with two underscores"
    assert [Problem(f"environment {variable}", 0, 0, message)] == problems_of(None, environ={variable: "5s"})


def test_a_variable_that_only_looks_like_ours_is_a_warning() -> None:
    """Where it begins with a section; others are somebody else's."""
    loaded = load(None, [], {"CRAWLER_FETCH_FOO": "1", "CRAWLER_HOME": "/x", "CRAWLER": "y"}, "crawl")
    assert loaded.warnings == [
        "environment CRAWLER_FETCH_FOO: names no key and is ignored; keys are CRAWLER_SECTION__KEY"
    ]


_NUMBERS = [key for key in keys().values() if key.kind in (KeyKind.COUNT, KeyKind.DURATION, KeyKind.SIZE)]


@pytest.mark.parametrize("key", _NUMBERS, ids=str)
def test_every_number_has_a_largest_value(key: ConfigurationKey) -> None:
    """That is taken; the next is not, nor one that no machine holds."""
    assert key.most is not None
    assert not isinstance(key.default, int | float) or key.default <= key.most
    words = f"{key} must be at most {number_text(key.kind, key.most)}"
    most = int(key.most) if key.kind is KeyKind.COUNT else number_text(key.kind, key.most)
    found = SECTIONS[key.section].model_validate({key.name: most})
    assert getattr(found, key.attribute) == key.most
    for value in (int(key.most) + 1, 2**62):
        assert any(f"{key} must be at most " in problem.message for problem in problems_of(None, f"{key}={value}"))
    assert words in str(problems_of(None, f"{key}={int(key.most) + 1}")[0])


ODD_VALUES: list[object] = [
    None, True, -1, 0, 2**63, 10**400, 1.5, math.inf, math.nan, "", " ", "x", "a\nb", "\udcff", "none", [], [1], [""],
    ["\udcff"], ["x", "x"], [[]], {}, {"": 1}, {"x": "y"}, {"\udcff": "y"}, {"x": ["y"]}, date(2026, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("key", keys().values(), ids=str)
def test_every_value_is_taken_or_refused_in_words_of_ours(key: ConfigurationKey) -> None:
    """pydantic's never reach a person, nor does an error of another kind come up."""
    for value in ODD_VALUES:
        try:
            SECTIONS[key.section].model_validate({key.name: value})
        except ValidationError as error:
            for detail in error.errors():
                assert str(refusal(detail, key.kind)).startswith("must "), (value, detail)


def test_a_value_that_is_not_utf_8_is_refused_unless_it_is_a_file_to_read(tmp_path: Path) -> None:
    """The environment and the command line are bytes; a file that is read may have any name."""
    (problem,) = problems_of(None, environ={"CRAWLER_CRAWL__NAME": "caf\udce9"})
    assert problem.message == "crawl.name must be UTF-8"
    seeds = tmp_path / "caf\udce9"
    seeds.write_text("https://a.test/\n")
    assert load(None, [f"crawl.seed_files={seeds}"], {}, "crawl").settings.first_seed == "https://a.test/"


def test_more_memory_than_the_machine_has_is_a_warning() -> None:
    """It cannot be meant for this machine."""
    (warning,) = load(None, ["engine.memory=1TiB"], {}, "crawl").warnings
    assert "engine.memory = 1TiB is more than the machine has" in warning


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """So is a folder in its place."""
    missing = tmp_path / "no.toml"
    assert [Problem(str(missing), 0, 0, MISSING)] == problems_of(missing)
    assert [Problem(str(tmp_path), 0, 0, "cannot be read: Is a directory")] == problems_of(tmp_path)


def test_a_missing_seed_file_is_shown_where_it_is_named(tmp_path: Path) -> None:
    """At its own entry of the list."""
    write(tmp_path, "https://e.org/\n", "there.txt")
    path = write(tmp_path, "[crawl]\nseed_files = [\n  'there.txt',\n  'not.txt',\n]\n")
    message = f"crawl.seed_files {tmp_path}/not.txt: {MISSING}"
    assert [Problem(str(path), 4, 3, message, "  'not.txt',")] == problems_of(path)


def test_a_line_of_a_seed_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """It would be a URL that nobody wrote; a comment may have other bytes."""
    seeds = tmp_path / "seeds.txt"
    seeds.write_bytes(b"# Stra\xdfe\nhttps://e.org/stra\xdfe\nhttps://e.org/ # gro\xdf\n")
    path = write(tmp_path, "crawl.seed_files = ['seeds.txt']\n")
    expected = Problem(str(seeds), 2, 1, "no seed: not UTF-8", "https://e.org/stra\ufffde")
    assert [expected] == problems_of(path)


def test_a_pipe_as_a_seed_file_waits_only_for_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO that nobody has opened to write is a mistake; a writer that takes its time is none."""
    monkeypatch.setattr(sources, "PIPE_WAIT_S", 0.0)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = write(tmp_path, "crawl.seed_files = ['fifo']\n")
    message = f"crawl.seed_files {fifo}: cannot be read: it is a pipe, and nobody writes to it"
    assert [Problem(str(path), 1, 21, message, "crawl.seed_files = ['fifo']")] == problems_of(path)

    def write_late(descriptor: int, blocking: bool) -> None:
        os.write(writer, b"https://e.org/\n")
        os.close(writer)
        set_blocking(descriptor, blocking)

    set_blocking, reader = os.set_blocking, os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    monkeypatch.setattr(os, "set_blocking", write_late)
    assert list(load(path, [], {}, "crawl").settings.file_seeds[0].read()) == ["https://e.org/"]
    os.close(reader)


def test_a_wrong_line_of_a_seed_file_is_shown_there(tmp_path: Path) -> None:
    """Problems of a seed file carry its own name and lines."""
    seeds = write(tmp_path, "# ours\nhttps://e.org/\n  ftp://x  # no\n", "seeds.txt")
    path = write(tmp_path, "crawl.seed_files = ['seeds.txt']\n")
    expected = Problem(str(seeds), 3, 3, "no seed: not http or https: ftp:", "  ftp://x  # no")
    assert [expected] == problems_of(path)
