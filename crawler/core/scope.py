"""Which URLs may be fetched: the scope rules, judged the same way for discovery, leasing and explanation.

A `Scope` is a frozen snapshot; bringing a host in makes a new one. It knows nothing of robots.txt or of what is already
stored. Invariant: every refusal names the rule that decided.
"""

import re
from collections.abc import Iterable
from typing import Final

from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied, Origin
from crawler.core.options import ScopeOptions, ScopeRule, TrapOptions
from crawler.core.url import registrable_domain, target_of
from crawler.core.url_templates import impossible_path

# A page's style sheet, what it imports, and the images it names: without these three the page is not shown whole. Out
# of scope it ends there; in scope a style sheet may import as deep as links may lead.
MAX_REQUISITE_HOPS: Final = 3
MAX_REDIRECTS: Final = 10  # OUTCOMES: Redirects; the Fetch standard allows 20, curl 50, wget 20

# Seeds are the operator's; a sitemap is no page, and may lie on a host of its own.
_ANYWHERE: Final = frozenset((Source.SEED, Source.ROBOTS, Source.INDEX))
_SEED_HOSTS: Final = "seed-hosts"
_SEED_DOMAINS: Final = "seed-domains"


class ScopePatternError(ValueError):
    """An include or exclude pattern that cannot be compiled; the message says why."""


# What is not read as syntax in a regular expression: escaped characters, and sets of characters.
_LITERALS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_POSSESSIVE: Final = re.compile(r"[*+?}]\+|\(\?>")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn an include/exclude pattern into a regular expression to be used with `search` on a whole URL.

    "re:…" is searched for in the URL as it stands. Otherwise it is a glob over all of the URL: "*" matches within a
    path segment, "**" anything, "?" one character. A glob with "://" is compared with the URL, one that begins with
    "/" with path and query on any host, any other with what follows "://". Raises ScopePatternError.
    """
    if pattern.startswith("re:"):
        try:
            if _POSSESSIVE.search(_LITERALS.sub("", pattern[3:])) is not None:
                raise ScopePatternError(
                    "possessive quantifiers and atomic groups are not understood by every Python 3.11: "
                    'use "*" instead of "*+" and "(?:" instead of "(?>"'
                )
            return re.compile(pattern[3:])
        except re.error as error:
            raise ScopePatternError(f"not a regular expression: {error}") from None
    if not pattern:
        raise ScopePatternError("an empty pattern matches nothing")
    body = "".join(_GLOB.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern))
    if "://" in pattern:
        prefix = ""
    elif pattern.startswith("/"):
        prefix = r"[a-z]+://[^/]+"
    else:
        prefix = r"[a-z]+://"
    return re.compile(rf"\A{prefix}{body}\Z", re.DOTALL)


_GLOB: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


class Scope:
    """The rules in force. `seed_hosts` are the hosts of the seeds and those that their redirects brought in."""

    __slots__ = ("_domains", "_exact", "_exclude", "_include", "_mode", "_suffixes", "options", "seed_hosts", "traps")

    def __init__(self, options: ScopeOptions, seed_hosts: Iterable[str], traps: TrapOptions | None = None) -> None:
        """`traps` None: any path will do. Raises ScopePatternError."""
        self.traps = traps if traps is not None and traps.detect != "off" else None
        self.options = options
        self.seed_hosts = frozenset(seed_hosts)
        self._include = tuple((rule, compile_pattern(rule.pattern)) for rule in options.include)
        self._exclude = tuple((rule, compile_pattern(rule.pattern)) for rule in options.exclude)
        self._mode = options.hosts[0] if options.hosts in ((_SEED_HOSTS,), (_SEED_DOMAINS,)) else "list"
        self._domains = frozenset(registrable_domain(host) for host in self.seed_hosts)
        self._exact = frozenset(name.lower() for name in options.hosts if not name.startswith("*."))
        self._suffixes = tuple(name[1:].lower() for name in options.hosts if name.startswith("*."))

    def with_host(self, host: str) -> "Scope":
        """The same rules with one seed host more."""
        return Scope(self.options, self.seed_hosts | {host}, self.traps)

    @property
    def follows_seeds(self) -> bool:
        """Whether the hosts in scope are those of the seeds, so that a seed's redirect may add one."""
        return self._mode != "list"

    def has_host(self, host: str) -> bool:
        if self._mode == _SEED_HOSTS:
            return host in self.seed_hosts
        if self._mode == _SEED_DOMAINS:
            return registrable_domain(host) in self._domains
        return host in self._exact or (bool(self._suffixes) and host.endswith(self._suffixes))

    def judge(self, url: str, origin: Origin, *, depth: int, hop_path: str, source: Source) -> Denied | None:
        """Whether `url` is out of scope, and by which rule. None: it may be fetched, as far as scope goes."""
        for rule, pattern in self._exclude:
            if pattern.search(url):
                return Denied(DenyReason.SCOPE_EXCLUDE, _words("exclude", rule))
        if source in _ANYWHERE:
            return None
        if self.traps is not None and (denied := impossible_path(target_of(url), self.traps)) is not None:
            return denied
        if source is Source.REQUISITE:
            if not self.options.requisites:
                return Denied(DenyReason.REQUISITES_OFF, "scope.requisites = false")
            hops = hop_path[len(hop_path.rstrip("ER")) :].count("E")
            if hops <= MAX_REQUISITE_HOPS:
                return None
            if not self.has_host(origin.host):
                return Denied(DenyReason.SCOPE_DEPTH, f"more than {MAX_REQUISITE_HOPS} requisite hops out of scope")
            limit = self.options.max_depth
            if limit is None or depth + hops <= limit:
                return None
            return Denied(DenyReason.SCOPE_DEPTH, f"scope.max_depth = {limit}")
        if "E" in hop_path[len(hop_path.rstrip("ER")) :]:  # a requisite that was redirected is still that requisite
            return None if self.options.requisites else Denied(DenyReason.REQUISITES_OFF, "scope.requisites = false")
        if not self.has_host(origin.host):
            return Denied(DenyReason.SCOPE_HOST, f"scope.hosts = {', '.join(self.options.hosts)}")
        limit = self.options.max_depth
        if limit is not None and depth > limit:
            return Denied(DenyReason.SCOPE_DEPTH, f"scope.max_depth = {limit}")
        if self._include and not any(pattern.search(url) for _, pattern in self._include):
            return Denied(DenyReason.SCOPE_INCLUDE, "matches no include pattern")
        return None


def _words(verb: str, rule: ScopeRule) -> str:
    words = f'{verb} "{rule.pattern}"'
    return f"{rule.place}  {words}" if rule.place else words
