"""robots.txt: what a host allows us, and which line says so (RFC 9309).

Bytes to lines, lines to groups, and the group for our product token as RFC 9309 §2.2.1 says (others also take "crawl"
to mean "crawler"). Lines of records that it does not define change nothing, whatever their name (§2.2.4). Which rule of
the group matches a URL is the business of `robots_rules`. It does not know whether the file was reachable, nor what a
crawl delay leads to. Invariant: no file makes it raise.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from crawler.content.charset import to_utf8
from crawler.content.resolve import from_bytes
from crawler.content.robots_rules import RobotsVerdict, Rule, RuleSet

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
