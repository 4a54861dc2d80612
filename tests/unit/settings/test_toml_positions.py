"""Where keys and values stand in a TOML document."""

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.settings.configuration_errors import KeyPath, Positions


@pytest.mark.parametrize(
    ("source", "path", "key", "value"),
    [
        ("a = 1", ("a",), (1, 1), (1, 5)),
        ("\n  a=1", ("a",), (2, 3), (2, 5)),
        ("[s]\na = 1", ("s",), (1, 2), (1, 2)),
        ("[s]\na = 1", ("s", "a"), (2, 1), (2, 5)),
        ("[ s ] # [t]\na = 1", ("s", "a"), (2, 1), (2, 5)),
        ("s.a = 1", ("s",), (1, 1), (1, 1)),
        ("s.a = 1", ("s", "a"), (1, 3), (1, 7)),
        ("s . 'a b' = 1", ("s", "a b"), (1, 5), (1, 13)),
        ('"s.t".a = 1', ("s.t", "a"), (1, 7), (1, 11)),
        ('"\\u0041" = 1', ("A",), (1, 1), (1, 12)),
        ("[s.t]\nu.v = 1", ("s", "t", "u", "v"), (2, 3), (2, 7)),
        ("s = {a = 1, b.c = [2]}", ("s", "b", "c"), (1, 15), (1, 19)),
        ("s = {a = 1, b.c = [2]}", ("s", "b", "c", 0), (1, 15), (1, 20)),
        ("a = [\n  1, # ]\n  # x = 3\n  2,\n]\nb = 3", ("a", 1), (1, 1), (4, 3)),
        ("a = [\n  1, # ]\n  # x = 3\n  2,\n]\nb = 3", ("b",), (6, 1), (6, 5)),
        ("a = [[1], [2, {b = 3}]]", ("a", 1, 1, "b"), (1, 16), (1, 20)),
        ('a = """\nb = 1\n"""\nb = 2', ("b",), (4, 1), (4, 5)),
        ('a = """x\\""""""\nb = 2', ("b",), (2, 1), (2, 5)),
        ("a = '''x'''''\nb = 2", ("b",), (2, 1), (2, 5)),
        ("a = '''\nx''y\n[t]\n'''\nb = 2", ("b",), (5, 1), (5, 5)),
        ("a = \"]#\"\nb = ']#'", ("b",), (2, 1), (2, 5)),
        ('a = ["]", "#"] # "\nb = 2', ("b",), (2, 1), (2, 5)),
        ("a = [1979-05-27 07:32:00, 2]", ("a", 1), (1, 1), (1, 27)),
        ("[[t]]\na = 1\n[[t]]\na = 2", ("t", 1, "a"), (4, 1), (4, 5)),
        ("[[t]]\n[t.u]\na = 1\n[[t]]\n[t.u]\na = 2", ("t", 1, "u", "a"), (6, 1), (6, 5)),
        ("[[t]]\n[[t.u]]\n[[t.u]]\na = 2", ("t", 0, "u", 1, "a"), (4, 1), (4, 5)),
        ("[s]\n[s.t]\n[u]\n[s.v]", ("s", "v"), (4, 4), (4, 4)),
        ("\ta = 1", ("a",), (1, 2), (1, 6)),
        ("'é' = 'ü'\nb = 2", ("b",), (2, 1), (2, 5)),
    ],
)
def test_a_key_and_its_value_are_found(
    source: str, path: KeyPath, key: tuple[int, int], value: tuple[int, int]
) -> None:
    """Line and column count from 1, in characters."""
    tomli.loads(source)
    positions = Positions(source)
    assert (key, value) == (positions.key(path), positions.value(path))


def test_what_is_not_in_the_document_is_placed_at_what_holds_it() -> None:
    """A path that goes on beyond the document ends at its last known part; an empty one at the beginning."""
    positions = Positions("[s]\na = [1]")
    assert positions.value(("s", "a", 0, "x")) == (2, 6)
    assert positions.key(("s", "a", 0)) == (2, 1)
    assert positions.value(("nothing",)) == (1, 1)
    assert positions.key(("nothing",)) == (1, 1)


NAMES = st.one_of(st.sampled_from(["a", "b", "c-d", "1", "a.b", "x y", "", "é", '"', "#", "]"]), st.text(max_size=3))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["]", "#", "'''", '"""', "}", "=", "\\"])


def _basic(text: str) -> str:
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


@st.composite
def strings(draw: st.DrawFn) -> str:
    """A string in one of TOML's four forms, quoting what its form must."""
    text = draw(TEXTS)
    form = draw(st.integers(0, 3))
    plain = all(c >= " " and c != "\x7f" for c in text)
    if form == 1 and plain and "'" not in text:
        return f"'{text}'"
    if form == 2 and plain and "'''" not in text:
        return f"'''\n{text}{'' if text.endswith(chr(39)) else draw(st.sampled_from(['', chr(39), chr(39) * 2]))}'''"
    if form == 3 and plain:
        inner = text.replace("\\", "\\\\").replace('"""', '""\\"')
        return f'"""{inner}{"" if inner.endswith(chr(34)) else draw(st.sampled_from(["", chr(34), chr(34) * 2]))}"""'
    return _basic(text)


SCALARS = st.one_of(
    strings(),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(
        ["true", "false", "inf", "-1.5e3", "0x_f".replace("_", ""), "1_000", "1979-05-27 07:32:00", "07:32:00"]
    ),
)
GAPS = st.sampled_from(["", " ", "\t", "\n", " # ] } , '\n  "])


def _keys(draw: st.DrawFn, parts: list[str]) -> str:
    def one(part: str) -> str:
        if part and part.isascii() and part.replace("-", "").isalnum() and draw(st.booleans()):
            return part
        return _basic(part)

    return draw(st.sampled_from([".", " . "])).join(map(one, parts))


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """A value as TOML text: a scalar, an array over any number of lines, or an inline table."""
    shape = draw(st.integers(0, 3)) if depth else 0
    if shape == 2:
        items = draw(st.lists(values(depth - 1), max_size=3))
        gap = draw(GAPS)
        return f"[{gap}" + f"{gap},{gap}".join(items) + (f"{gap}," if items and draw(st.booleans()) else "") + f"{gap}]"
    if shape == 3:
        names = draw(st.lists(NAMES, max_size=3, unique=True))
        pairs = [f"{_keys(draw, [n, *draw(st.lists(NAMES, max_size=1))])} = {draw(values(depth - 1))}" for n in names]
        return "{ " + ", ".join(pairs) + " }"
    return draw(SCALARS)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A whole document with tables, arrays of tables, dotted keys, comments and blank lines."""
    lines: list[str] = []

    def pairs() -> None:
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            parts = [name, *draw(st.lists(NAMES, max_size=2))]
            lines.append(f"{_keys(draw, parts)} = {draw(values())}{draw(st.sampled_from(['', ' # = [x]', '  ']))}")

    pairs()
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        # A prefix keeps headers apart from the pairs above; what TOML does not allow would only be thrown away.
        head = _keys(draw, [f"T{name}", *draw(st.lists(NAMES, max_size=2))])
        if draw(st.booleans()):
            for _ in range(draw(st.integers(1, 3))):
                lines.append(f"[[{head}]]")
                pairs()
                if draw(st.booleans()):
                    lines.append(f"[{head}.{_keys(draw, ['Sub', *draw(st.lists(NAMES, max_size=1))])}]")
                    pairs()
        else:
            lines.append(f"  [ {head} ]")
            pairs()
        lines.append("")
    return "\n".join(lines)


def _leaves(value: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(path, value)] * bool(path) + [leaf for part, item in inner for leaf in _leaves(item, (*path, part))]


def _same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(documents())
def test_the_text_at_every_place_means_the_value_that_stands_there(source: str) -> None:
    """tomli is the oracle: each path it yields has a span whose text, read alone, is that value under that key."""
    data = tomli.loads(source)
    positions = Positions(source)
    everything = _leaves(data)
    assert set(positions.spans) == {(), *(path for path, _ in everything)}
    for path, value in everything:
        span = positions.spans[path]
        if span.end > span.start:
            assert _same(tomli.loads(f"v = {source[span.start : span.end]}")["v"], value)
        else:
            assert isinstance(value, dict | list)
        if span.key >= 0:
            name = path[-1] if isinstance(path[-1], str) else path[-2]
            assert source.startswith((str(name), _basic(str(name))), span.key)
        line, column = positions.value(path)
        assert source.split("\n")[line - 1][column - 1 :].startswith(source[span.start : span.end].split("\n")[0])
