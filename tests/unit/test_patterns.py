"""No pattern of `re` needs what CPython 3.11.2, as Debian 12 shipped it, gets wrong (gh-106052): possessive quantifiers
and atomic groups.

Every pattern in the package is parsed, whether a module keeps it or a function compiles it. Patterns of
`content.html.tags` are PCRE2's, and no concern of this.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]  # no public module parses a pattern
from types import ModuleType, SimpleNamespace

import pytest

import crawler
from crawler.core import scope
from crawler.core.scope import ScopePatternError, compile_pattern

WRONG = ("POSSESSIVE_REPEAT", "ATOMIC_GROUP")
FUNCTIONS = [
    f"re.{n}" for n in ("compile", "search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn")
]
# Patterns that no reading of the code can tell; why each may be what it is.
UNKNOWN = {
    ("crawler.core.scope", "pattern[3:]"): "the user's own; see below",
    ("crawler.core.scope", "pattern"): "those by which `has_sound_possessives` finds the fault",
    ("crawler.cli.service.unit", "pattern.replace(re.escape('%i'), '\\\\1')"): "escaped text",
}
MODULES = sorted(
    found.name for found in pkgutil.walk_packages(crawler.__path__, "crawler.") if not found.name.endswith("__main__")
)


def faults(pattern: str | bytes, flags: int = 0) -> list[str]:
    """The operations of a pattern that are handled wrongly, by name."""
    found: list[str] = []

    def walk(part: object) -> None:
        if isinstance(part, _parser.SubPattern):
            part = part.data
        if isinstance(part, list | tuple):
            if part and str(part[0]) in WRONG:
                found.append(str(part[0]))
            for inner in part:
                walk(inner)

    walk(_parser.parse(pattern, flags))
    return found


def kept(module: ModuleType) -> Iterator[re.Pattern[str] | re.Pattern[bytes]]:
    """The compiled patterns that a module or one of its classes keeps, however deep in a collection."""
    seen: set[int] = set()

    def walk(value: object) -> Iterator[re.Pattern[str] | re.Pattern[bytes]]:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, re.Pattern):
            yield value
        elif isinstance(value, dict):
            yield from walk([*value, *value.values()])
        elif isinstance(value, list | tuple | set | frozenset):
            for one in value:
                yield from walk(one)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            yield from walk(dict(vars(value)))

    yield from walk(dict(vars(module)))


def calls(module: ModuleType) -> Iterator[ast.expr]:
    """The pattern of each call of a function of `re` in a module."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FUNCTIONS:
            yield (node.args or [word.value for word in node.keywords if word.arg == "pattern"])[0]


def text_of(pattern: ast.expr, module: ModuleType) -> str | bytes:
    """What a pattern is when it is made, with "x" for what only a call knows. Raises NameError if that is all of it."""
    names = {name.id for name in ast.walk(pattern) if isinstance(name, ast.Name)}
    if isinstance(pattern, ast.JoinedStr):
        pattern = ast.JoinedStr(
            [
                ast.Constant("x") if isinstance(part, ast.FormattedValue) and not known(part, module) else part
                for part in pattern.values
            ]
        )
    elif not names <= vars(module).keys():
        raise NameError(ast.unparse(pattern))
    return eval(compile(ast.fix_missing_locations(ast.Expression(pattern)), "pattern", "eval"), vars(module))  # type: ignore[no-any-return]


def known(part: ast.expr, module: ModuleType) -> bool:
    """Whether every name in it is one of the module's."""
    return {name.id for name in ast.walk(part) if isinstance(name, ast.Name)} <= vars(module).keys()


@pytest.mark.parametrize("name", MODULES)
def test_no_pattern_is_possessive_or_atomic(name: str) -> None:
    """Patterns that are kept, and those in calls."""
    module = importlib.import_module(name)
    for pattern in kept(module):
        assert faults(pattern.pattern, pattern.flags & ~re.UNICODE) == [], pattern.pattern
    for call in calls(module):
        if (name, ast.unparse(call)) not in UNKNOWN:
            assert faults(text_of(call, module)) == [], ast.unparse(call)


def test_the_patterns_that_cannot_be_told_are_there() -> None:
    """The list is no longer than it must be."""
    found = {(name, ast.unparse(call)) for name in MODULES for call in calls(importlib.import_module(name))}
    assert found >= UNKNOWN.keys()


def test_re_is_used_under_its_own_name() -> None:
    """So that the calls above are all there are."""
    for name in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(name)))):
            if isinstance(node, ast.ImportFrom):
                assert node.module != "re", name
            elif isinstance(node, ast.Import):
                assert all(alias.asname is None for alias in node.names if alias.name == "re"), name


@pytest.mark.parametrize("pattern", ["a*+", "(?:ab)++", "a?+", "a{1,2}+", "(?>a|ab)c", b"[x]*+y", "(a|(?:b(?=c*+)))"])
def test_this_test_sees_them(pattern: str | bytes) -> None:
    """However deep."""
    assert faults(pattern)


POSSESSIVE = [
    ("re:/a*+b", "https://e.org/aab"),
    ("re:/(?>a|ab)c", "https://e.org/ac"),
    ("re:/[0-9]{2}+$", "https://e.org/12"),
    ("re:x(?:y++)", "https://e.org/xyy"),
]


@pytest.mark.parametrize(("pattern", "url"), POSSESSIVE)
def test_such_a_rule_of_a_user_is_refused_where_it_would_match_wrongly(
    pattern: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would match other URLs on one interpreter than on another."""
    monkeypatch.setattr(scope, "has_sound_possessives", lambda: False)
    with pytest.raises(ScopePatternError, match="gets possessive quantifiers and atomic groups wrong"):
        compile_pattern(pattern)


@pytest.mark.parametrize(("pattern", "url"), POSSESSIVE)
def test_such_a_rule_of_a_user_is_a_rule_where_it_matches_right(
    pattern: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python has them since 3.11."""
    monkeypatch.setattr(scope, "has_sound_possessives", lambda: True)
    assert compile_pattern(pattern).search(url)
    assert compile_pattern("re:^(?>[a-z]+)x").search("abx") is None


def test_python_matches_them_right_since_3_11_5() -> None:
    """By the examples of its own test of the fault. An earlier one may have been patched."""
    assert scope.has_sound_possessives() or sys.version_info < (3, 11, 5)


def test_the_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CPython 3.11.4 matches: the position is that of the attempt that failed."""
    wrong = SimpleNamespace(match=lambda pattern, text: re.match(".", text))
    monkeypatch.setattr(scope, "re", wrong)
    assert not scope.has_sound_possessives.__wrapped__()


@pytest.mark.parametrize(
    "pattern", [r"re:/\*+", r"re:/[*+]+x", r"re:\+\++", r"re:/[]*+]+", r"re:/[^]?+]a", r"re:\(?>x"]
)
def test_what_only_looks_like_it_is_a_rule(pattern: str) -> None:
    """An escaped character, or one of a set, may be repeated."""
    assert faults(pattern[3:]) == []
    compile_pattern(pattern)
