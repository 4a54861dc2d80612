"""robots.txt (RFC 9309): the URLs of a host that we may fetch, and the line that decides.

A file is split into lines, and the lines into groups. The group of our product token is chosen as in RFC 9309 §2.2.1
(other parsers also accept "crawl" for "crawler"). Lines of other records change nothing (§2.2.4). The longest matching
rule of a group decides about a URL. Invariant: it raises for no file.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from crawler.content.charset import to_utf8
from crawler.content.html.links import from_bytes

MAX_BYTES: Final = 500 * 1024  # RFC 9309 §2.5: parse at least 500 KiB
MAX_LINE: Final = 16 * 1024  # as in google/robotstxt: eight times the longest URL
MAX_SITEMAPS: Final = 1_000

# The fields and spellings that Protego accepts.
_USER_AGENT: Final = frozenset(("user-agent", "useragent", "user agent"))
_ALLOW: Final = frozenset(("allow",))
_DISALLOW: Final = frozenset(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"))
_DELAY: Final = frozenset(("crawl-delay", "crawl delay"))
_SITEMAP: Final = frozenset(("sitemap", "sitemaps", "site-map"))
_KNOWN: Final = _USER_AGENT | _ALLOW | _DISALLOW | _DELAY | _SITEMAP

_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")  # RFC 9309 has no digits; agents in use do ("360Spider")

_GRAM: Final = 4  # characters of a rule that a URL must contain before the rule is tried
_FEW: Final = 24  # up to so many rules with wildcards are tried one after the other, without an index
_INDEX: Final = "index.html"  # as in Google's parser and Protego, "Allow: /a/index.html" also allows "/a/"
_RULE_BYTES: Final = 400  # memory of a rule without its text, with indexes

_QUOTED: Final = re.compile(r"[A-Za-z0-9_.~/=*-]*")
_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_KEPT_IN_PATH: Final = frozenset((b"%2F", b"%25"))
_KEPT_IN_PATTERN: Final = frozenset((b"%2F", b"%25", b"%2A"))


@dataclass(frozen=True, slots=True)
class RobotsVerdict:
    """Whether a URL may be fetched, and line number (from 1) and text of the rule that decides, None without one."""

    allowed: bool
    line: int | None = None
    rule: str | None = None


class Rule(NamedTuple):
    """An Allow or Disallow line that has a value."""

    line: int
    allows: bool
    value: str

    @property
    def text(self) -> str:
        return f"{'Allow' if self.allows else 'Disallow'}: {self.value}"


NO_RULE: Final = RobotsVerdict(allowed=True)
_NOTHING: Final = (1 << 60, NO_RULE)


@dataclass(slots=True)
class _Group:
    """The rules of agents that are named in successive lines. An agent named in several places has several groups.

    Groups between which there is only a delay share the same list of `rules`.
    """

    rules: list[Rule]
    delay: float | None = None


def policy_for_status(status_code: int) -> Literal["rules", "allow", "unreachable"]:
    """The meaning of the final status of a request for robots.txt.

    "rules": parse the body. "allow": there is no file, everything is allowed. "unreachable": nothing may be fetched.
    Source: RFC 9309 §2.3.1. 429 counts as unreachable: it means "not now", not "no such file".
    """
    if 200 <= status_code < 300:
        return "rules"
    if status_code == 429 or status_code >= 500:
        return "unreachable"
    return "allow"  # 4xx, and redirects without an end (§2.3.1.2, §2.3.1.3)


class RobotsTxt:
    """A parsed robots.txt. The rules of a token are prepared when they are first needed."""

    def __init__(self, groups: dict[str, list[_Group]], sitemaps: tuple[str, ...]) -> None:
        self._groups = groups
        self._sitemaps = sitemaps
        self._rules: dict[str, RuleSet] = {}

    @classmethod
    def parse(cls, body: bytes) -> "RobotsTxt":
        """Parse the first MAX_BYTES of a file, without an incomplete last line. Never raises."""
        groups: dict[str, list[_Group]] = {}
        sitemaps: dict[str, None] = {}
        current = _Group([])  # rules before the first agent are ignored
        has_rules = has_delay = True
        for number, field, value in _lines(_text(body)):
            if field in _USER_AGENT:
                # Only a rule ends a group (§2.2.1), as in google/robotstxt; a delay is for the agents before it.
                if has_rules or has_delay:
                    current = _Group([] if has_rules else current.rules)
                has_rules = has_delay = False
                agent = _agent(value)
                if agent is not None:
                    named = groups.setdefault(agent, [])
                    if not named or named[-1] is not current:
                        named.append(current)
            elif field in _ALLOW or field in _DISALLOW:
                has_rules = True
                if value:
                    current.rules.append(Rule(number, field in _ALLOW, value))
            elif field in _DELAY:
                has_delay = True
                delay = _seconds(value)
                if delay is not None:
                    current.delay = delay
            elif field in _SITEMAP and value and len(sitemaps) < MAX_SITEMAPS:
                sitemaps[value] = None
            # Other records are ignored (§2.2.4).
        return cls(groups, tuple(sitemaps))

    @property
    def sitemaps(self) -> tuple[str, ...]:
        """The values of the Sitemap lines as written, each once."""
        return self._sitemaps

    def allows(self, url: str, token: str) -> RobotsVerdict:
        """Judge a URL that `core.url.parse` returned, for the product `token` (any case)."""
        return self.rules_for(token).judge(url)

    def rules_for(self, token: str) -> "RuleSet":
        """The rules for the product `token`. They do not keep the file in memory."""
        rules = self._rules.get(token)
        if rules is None:
            parts = {id(group.rules): group.rules for group in self._groups_of(token)}
            rules = self._rules[token] = RuleSet([rule for part in parts.values() for rule in part])
        return rules

    def crawl_delay(self, token: str) -> float | None:
        """The Crawl-delay for the product `token` in seconds; None without a usable value."""
        delays = [group.delay for group in self._groups_of(token) if group.delay is not None]
        return delays[-1] if delays else None

    def _groups_of(self, token: str) -> list[_Group]:
        """The groups of the product token, else those of "*" (RFC 9309 §2.2.1)."""
        return self._groups.get(token.lower()) or self._groups.get("*") or []


def _text(body: bytes) -> str:
    """The file as text, in the encoding of its byte order mark or else in UTF-8, with invalid bytes escaped."""
    data = body[:MAX_BYTES]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = to_utf8(data, "utf-16le" if data[0] == 0xFF else "utf-16be")
    text = from_bytes(data).removeprefix("\ufeff")  # paths may be in the encoding of the server's file names (§2.2.2)
    if len(body) > MAX_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    return text


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, field (lower case) and value of every line with a field, except lines over MAX_LINE."""
    for number, line in enumerate(_NEWLINE.split(text), 1):
        if len(line) > MAX_LINE:
            continue
        # NUL and the like are no part of a path; for Protego some of them end a line.
        line = "".join(line.partition("#")[0].split("\0")).strip()
        if not line.isprintable():
            line = " ".join(line.split())
        if line:
            found = _field(line)
            if found is not None:
                yield number, *found


def _field(line: str) -> tuple[str, str] | None:
    """Split "Field: value" and also "Field value", which is common, and accepted by Google and Protego."""
    name, colon, value = line.partition(":")
    name = name.strip().lower()
    if colon and name in _KNOWN:
        return name, value.strip()
    if colon and value[:1].strip() == "":
        return name, value.strip()
    words = line.split(maxsplit=2)
    for count in (1, 2):
        candidate = " ".join(words[:count]).lower()
        if candidate in _KNOWN:
            return candidate, " ".join(words[count:])
    return (name, value.strip()) if colon else None


def _agent(value: str) -> str | None:
    """The product token of a User-agent line, lower case; "*" for all; None without one."""
    if value.startswith("*"):
        return "*" if value[1:2].strip() == "" else None
    match = _TOKEN.match(value)
    return match[0].lower() if match is not None else None


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


# -- matching


class _WildcardRule(NamedTuple):
    """A pattern with wildcards, split at them. `rank` orders all patterns, the strongest first."""

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
    """The rules for one product token. `size_bytes` estimates their memory."""

    __slots__ = ("_by_gram", "_exact", "_gram_sizes", "_lengths", "_plain", "_wild", "size_bytes")

    def __init__(self, rules: Sequence[Rule]) -> None:
        patterns = {
            (pattern, rule.allows): RobotsVerdict(rule.allows, rule.line, rule.text)
            for rule in reversed(rules)  # the first of equal rules is the one that is named
            for pattern in _patterns(rule)
        }
        ordered = sorted(patterns.items(), key=lambda item: (-len(item[0][0]), not item[0][1]))
        self._plain: dict[str, tuple[int, RobotsVerdict]] = {}
        self._exact: dict[str, tuple[int, RobotsVerdict]] = {}
        self._wild: list[_WildcardRule] = []
        for rank, ((pattern, _), verdict) in enumerate(ordered):
            if "*" in pattern:
                self._wild.append(_wildcard_rule(rank, pattern, verdict))
            elif pattern.endswith("$"):
                self._exact.setdefault(pattern[:-1], (rank, verdict))
            else:
                self._plain.setdefault(pattern, (rank, verdict))
        self._lengths = sorted({len(pattern) for pattern in self._plain}, reverse=True)
        self._by_gram: dict[str, list[_WildcardRule]] = {}
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
        for length in self._lengths:  # the longest first: the first found is the strongest
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
        """The texts of the rules: "Disallow: /x"."""
        verdicts = [verdict for _, verdict in (*self._plain.values(), *self._exact.values())]
        verdicts += [wild.verdict for wild in self._wild]
        return {verdict.rule for verdict in verdicts if verdict.rule is not None}

    def _candidates(self, path: str) -> Iterable[_WildcardRule]:
        """The rules with wildcards that may match, the strongest first."""
        if not self._by_gram:
            return self._wild
        found: list[_WildcardRule] = list(self._by_gram.get("", ()))
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


def _grams(wild: _WildcardRule) -> Iterator[str]:
    """Pieces that every match of the rule contains, of _GRAM characters, or fewer if all its parts are shorter."""
    longest = max(map(len, wild.parts))
    size = min(_GRAM, longest)
    if size:
        for part in wild.parts:
            for start in range(len(part) - size + 1):
                yield part[start : start + size]


def _wildcard_rule(rank: int, pattern: str, verdict: RobotsVerdict) -> _WildcardRule:
    anchored = pattern.endswith("$")
    parts = re.sub(r"\*+", "*", pattern.removesuffix("$")).split("*")
    return _WildcardRule(rank, tuple(parts), anchored, verdict)


def _patterns(rule: Rule) -> Iterator[str]:
    """The patterns of a rule's value. "$" at its end is an anchor, but its author may have meant the character."""
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
    if body.startswith(("https://", "http://")):  # a mistake: it matches a path with that URL in it
        body = f"/{body}"
    return (body if _QUOTED.fullmatch(body) else _quote(body, _KEPT_IN_PATTERN, "/%=*")) + anchor


def _quote(text: str, kept: frozenset[bytes], safe: str) -> str:
    """The canonical spelling: all escapes decoded except `kept`, then everything escaped that is not `safe`."""

    def undo(match: re.Match[bytes]) -> bytes:
        escape = match[0].upper()
        return escape if escape in kept else bytes.fromhex(escape[1:].decode())

    if "%" in text:
        text = _ESCAPE.sub(undo, text.encode()).decode("utf-8", "surrogateescape")
    return quote(text, safe=safe, errors="surrogateescape")
