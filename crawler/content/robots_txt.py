"""robots.txt: what a host allows us, and which line says so (RFC 9309).

Bytes to lines, lines to groups, and the group for our product token as RFC 9309 §2.2.1 says (others also take "crawl"
to mean "crawler"). Lines of records that it does not define change nothing, whatever their name (§2.2.4). Which rule of
the group matches a URL is the business of `robots_rules`. It does not know whether the file was reachable, nor what a
crawl delay leads to. Invariant: no file makes it raise.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from crawler.content.charset import to_utf8
from crawler.content.html.resolution import from_bytes

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


__all__ = ["MAX_BYTES", "RobotsTxt", "RobotsVerdict", "RuleSet", "policy_for_status"]

MAX_BYTES: Final = 500 * 1024  # RFC 9309 §2.5: parse at least 500 KiB
MAX_LINE: Final = 16 * 1024  # as google/robotstxt: eight times the longest URL worth telling apart
MAX_SITEMAPS: Final = 1_000

# The fields and their spellings are those Protego takes.
_USER_AGENT: Final = frozenset(("user-agent", "useragent", "user agent"))
_ALLOW: Final = frozenset(("allow",))
_DISALLOW: Final = frozenset(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"))
_DELAY: Final = frozenset(("crawl-delay", "crawl delay"))
_SITEMAP: Final = frozenset(("sitemap", "sitemaps", "site-map"))
_KNOWN: Final = _USER_AGENT | _ALLOW | _DISALLOW | _DELAY | _SITEMAP

_NEWLINE: Final = re.compile(r"\r\n|\r|\n")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")  # RFC 9309 has no digits; agents in use do ("360Spider")


@dataclass(slots=True)
class _Group:
    """Agents named one behind the other share one group; an agent named in several places has several.

    Groups of agents between which only a delay stands share the same list of `rules`.
    """

    rules: list[Rule]
    delay: float | None = None


def policy_for_status(status_code: int) -> Literal["rules", "allow", "unreachable"]:
    """What the status of the final answer to a request for robots.txt means.

    "rules": parse the body. "allow": there is none, everything is allowed. "unreachable": nothing may be fetched.
    Source: RFC 9309 §2.3.1; 429 counts as unreachable, because it says "not now" and not "no such file".
    """
    if 200 <= status_code < 300:
        return "rules"
    if status_code == 429 or status_code >= 500:
        return "unreachable"
    return "allow"  # 4xx, and redirects that lead nowhere (§2.3.1.2, §2.3.1.3)


class RobotsTxt:
    """A parsed robots.txt. The rules of a token are prepared when it is first asked about."""

    def __init__(self, groups: dict[str, list[_Group]], sitemaps: tuple[str, ...]) -> None:
        self._groups = groups
        self._sitemaps = sitemaps
        self._rules: dict[str, RuleSet] = {}

    @classmethod
    def parse(cls, body: bytes) -> "RobotsTxt":
        """Read a file. Its first MAX_BYTES count, less a line that they cut through. Never raises."""
        groups: dict[str, list[_Group]] = {}
        sitemaps: dict[str, None] = {}
        current = _Group([])  # what stands before any agent is for nobody
        has_rules = has_delay = True
        for number, field, value in _lines(_text(body)):
            if field in _USER_AGENT:
                # Only a rule ends a group (§2.2.1), as google/robotstxt has it; a delay is for the agents before it.
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
            # Any other record is as if it were not there (§2.2.4).
        return cls(groups, tuple(sitemaps))

    @property
    def sitemaps(self) -> tuple[str, ...]:
        """The values of the Sitemap lines as written, each once."""
        return self._sitemaps

    def allows(self, url: str, token: str) -> RobotsVerdict:
        """Judge a URL that `core.url.parse` returned, for the product `token` (any case)."""
        return self.rules_for(token).judge(url)

    def rules_for(self, token: str) -> RuleSet:
        """The rules that hold for the product `token`; they do not keep the rest of the file."""
        rules = self._rules.get(token)
        if rules is None:
            parts = {id(group.rules): group.rules for group in self._groups_of(token)}
            rules = self._rules[token] = RuleSet([rule for part in parts.values() for rule in part])
        return rules

    def crawl_delay(self, token: str) -> float | None:
        """The seconds asked for between requests of the product `token`; None if nothing usable is said."""
        delays = [group.delay for group in self._groups_of(token) if group.delay is not None]
        return delays[-1] if delays else None

    def _groups_of(self, token: str) -> list[_Group]:
        """The groups of the product token, else those of all (RFC 9309 §2.2.1)."""
        return self._groups.get(token.lower()) or self._groups.get("*") or []


def _text(body: bytes) -> str:
    """The file as text: a byte order mark is obeyed, everything else is UTF-8, and a byte that is none an escape."""
    data = body[:MAX_BYTES]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = to_utf8(data, "utf-16le" if data[0] == 0xFF else "utf-16be")
    text = from_bytes(data).removeprefix("\ufeff")  # paths may be in what the server's files are named in (§2.2.2)
    if len(body) > MAX_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    return text


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, field (lower case) and value of every line that has a field. A line over MAX_LINE is left out."""
    for number, line in enumerate(_NEWLINE.split(text), 1):
        if len(line) > MAX_LINE:
            continue
        # NUL and the like are no part of a path; to Protego some of them would be line ends.
        line = "".join(line.partition("#")[0].split("\0")).strip()
        if not line.isprintable():
            line = " ".join(line.split())
        if line:
            found = _field(line)
            if found is not None:
                yield number, *found


def _field(line: str) -> tuple[str, str] | None:
    """Take "Field: value" apart, and also "Field value", which is common enough for Google and Protego to accept."""
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
    """The product token that a User-agent line names, lower case; "*" for all; None if it names nothing."""
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
