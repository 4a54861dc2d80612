"""The rules of one group of robots.txt, ready to judge many URLs (RFC 9309 §2.2.2, §2.2.3).

The longest rule that matches decides, an Allow before a Disallow of the same length. Paths and patterns are compared
with their escapes made alike, as Protego does it, which is the oracle of the tests; unlike it, this says which line
decided, and a file of thousands of wildcards costs little more than one of ten. It does not know how a file is read.

Invariant: judging is linear in the URL, for rules without wildcards; a rule with wildcards is only tried where its
rarest four characters stand in the URL.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

_GRAM: Final = 4  # characters of a rule that must stand in a URL before the rule is tried
_FEW: Final = 24  # so many rules with wildcards are simply tried one after the other
_INDEX: Final = "index.html"  # as Google and Protego: "Allow: /a/index.html" allows "/a/" too
_RULE_BYTES: Final = 400  # what a rule costs beside its text, indexes included

_QUOTED: Final = re.compile(r"[A-Za-z0-9_.~/=*-]*")
_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_KEPT_IN_PATH: Final = frozenset((b"%2F", b"%25"))
_KEPT_IN_PATTERN: Final = frozenset((b"%2F", b"%25", b"%2A"))


@dataclass(frozen=True, slots=True)
class RobotsVerdict:
    """Whether a URL may be fetched, and line (from 1) and text of the rule that says so; None: no rule speaks of it."""

    allowed: bool
    line: int | None = None
    rule: str | None = None


class Rule(NamedTuple):
    """An Allow or Disallow line that has a value."""

    line: int
    allows: bool
    value: str


class _Wild(NamedTuple):
    """A pattern with wildcards, taken apart at them. `rank` orders all patterns, the strongest first."""

    rank: int
    parts: tuple[str, ...]
    anchored: bool
    verdict: RobotsVerdict

    def matches(self, path: str) -> bool:
        parts = self.parts
        if not path.startswith(parts[0]):
            return False
        position = len(parts[0])
        for part in parts[1:-1]:
            found = path.find(part, position)
            if found < 0:
                return False
            position = found + len(part)
        last = parts[-1]
        if self.anchored:
            return len(path) - len(last) >= position and path.endswith(last)
        return path.find(last, position) >= 0


class RuleSet:
    """All rules that hold for one product token. `size_bytes` estimates what keeping them costs."""

    __slots__ = ("_by_gram", "_exact", "_gram_sizes", "_lengths", "_plain", "_wild", "size_bytes")

    def __init__(self, rules: Sequence[Rule]) -> None:
        patterns = {
            (pattern, rule.allows): RobotsVerdict(rule.allows, rule.line, _words(rule))
            for rule in reversed(rules)  # of the same rule twice, the first is named
            for pattern in _patterns(rule)
        }
        ordered = sorted(patterns.items(), key=lambda item: (-len(item[0][0]), not item[0][1]))
        self._plain: dict[str, tuple[int, RobotsVerdict]] = {}
        self._exact: dict[str, tuple[int, RobotsVerdict]] = {}
        self._wild: list[_Wild] = []
        for rank, ((pattern, _), verdict) in enumerate(ordered):
            if "*" in pattern:
                self._wild.append(_wild(rank, pattern, verdict))
            elif pattern.endswith("$"):
                self._exact.setdefault(pattern[:-1], (rank, verdict))
            else:
                self._plain.setdefault(pattern, (rank, verdict))
        self._lengths = sorted({len(pattern) for pattern in self._plain}, reverse=True)
        self._by_gram: dict[str, list[_Wild]] = {}
        self._gram_sizes: list[int] = []
        if len(self._wild) > _FEW:
            self._index()
        self.size_bytes = sum(2 * len(pattern) + _RULE_BYTES for pattern, _ in patterns)

    def judge(self, url: str) -> RobotsVerdict:
        """Judge a URL that `core.url.parse` returned."""
        if not self.size_bytes:
            return NO_RULE
        path = _quoted_path(url[url.index("/", url.index("://") + 3) :])
        if path == "/robots.txt" or path.startswith("/robots.txt%3F"):  # §2.2.2: always allowed
            return NO_RULE
        rank, verdict = self._exact.get(path, _NOTHING)
        for length in self._lengths:  # the longest first: the first that is there is the strongest of them
            found = self._plain.get(path[:length])
            if found is not None and length <= len(path):
                if found[0] < rank:
                    rank, verdict = found
                break
        for wild in self._candidates(path):
            if wild.rank >= rank:
                break
            if wild.matches(path):
                return wild.verdict
        return verdict

    def lines(self) -> set[str]:
        """The rules as written, "Disallow: /x"."""
        verdicts = [verdict for _, verdict in (*self._plain.values(), *self._exact.values())]
        verdicts += [wild.verdict for wild in self._wild]
        return {verdict.rule for verdict in verdicts if verdict.rule is not None}

    def _candidates(self, path: str) -> Iterable[_Wild]:
        """Every rule with wildcards that may match, the strongest first."""
        if not self._by_gram:
            return self._wild
        found: list[_Wild] = list(self._by_gram.get("", ()))
        for size in self._gram_sizes:
            grams = {path[start : start + size] for start in range(len(path) - size + 1)}
            for gram in grams & self._by_gram.keys():
                found += self._by_gram[gram]
        found.sort()
        return found

    def _index(self) -> None:
        often = Counter(gram for wild in self._wild for gram in _grams(wild))
        for wild in self._wild:
            rarest = min(_grams(wild), key=lambda gram: (-len(gram), often[gram]), default="")
            self._by_gram.setdefault(rarest, []).append(wild)
        self._gram_sizes = sorted({len(gram) for gram in self._by_gram} - {0})


NO_RULE: Final = RobotsVerdict(allowed=True)
_NOTHING: Final = (1 << 60, NO_RULE)


def _words(rule: Rule) -> str:
    return f"{'Allow' if rule.allows else 'Disallow'}: {rule.value}"


def _grams(wild: _Wild) -> Iterator[str]:
    """The pieces of which each must stand in what the rule matches; short ones only where there is nothing longer."""
    longest = max(map(len, wild.parts))
    size = min(_GRAM, longest)
    if size:
        for part in wild.parts:
            for start in range(len(part) - size + 1):
                yield part[start : start + size]


def _wild(rank: int, pattern: str, verdict: RobotsVerdict) -> _Wild:
    anchored = pattern.endswith("$")
    parts = re.sub(r"\*+", "*", pattern.removesuffix("$")).split("*")
    return _Wild(rank, tuple(parts), anchored, verdict)


def _patterns(rule: Rule) -> Iterator[str]:
    """What a rule's value may mean. "$" at its end is an anchor, and may have been meant as itself."""
    if "$" in rule.value:
        yield from _allowed_pages(rule, _quoted_pattern(rule.value.replace("$", "%24")))
    yield from _allowed_pages(rule, _quoted_pattern(rule.value))


def _allowed_pages(rule: Rule, pattern: str) -> Iterator[str]:
    if pattern:
        yield pattern
        if rule.allows and pattern.endswith(f"/{_INDEX}"):
            yield pattern.removesuffix(_INDEX) + "$"


def _quoted_path(path: str) -> str:
    return path if _QUOTED.fullmatch(path) and "*" not in path else _quote(path, _KEPT_IN_PATH, "/%=")


def _quoted_pattern(pattern: str) -> str:
    body = pattern.removesuffix("$")
    anchor = "$" if len(body) < len(pattern) else ""
    if body.startswith(("https://", "http://")):  # written by mistake: it matches a path with that URL in it
        body = f"/{body}"
    return (body if _QUOTED.fullmatch(body) else _quote(body, _KEPT_IN_PATTERN, "/%=*")) + anchor


def _quote(text: str, kept: frozenset[bytes], safe: str) -> str:
    """One spelling for all: escapes undone but for `kept`, then everything escaped that is not `safe`."""

    def undo(match: re.Match[bytes]) -> bytes:
        escape = match[0].upper()
        return escape if escape in kept else bytes.fromhex(escape[1:].decode())

    if "%" in text:
        text = _ESCAPE.sub(undo, text.encode()).decode("utf-8", "surrogateescape")
    return quote(text, safe=safe, errors="surrogateescape")
