"""The scope rules: which URLs may be fetched. Discovery, leasing and `why` judge by the same function.

A `Scope` is a frozen snapshot; a redirect of a seed makes a new one. Invariant: every refusal names the rule that
decided.
"""

import platform
import re
import warnings
from collections.abc import Collection, Iterable
from copy import copy
from functools import cache
from typing import Final

from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied, Origin
from crawler.core.options import Overrides, Rules, ScopeOptions, ScopeRule, TrapOptions
from crawler.core.url import parse, registrable_domain, target_of
from crawler.core.url_templates import impossible_path

# Page → style sheet → imported style sheet → image: a page is not shown completely without these. Out of scope this is
# the limit. In scope a style sheet may import as deep as links may lead.
MAX_REQUISITE_HOPS: Final = 3
MAX_REDIRECTS: Final = 10  # the Fetch standard allows 20, curl 50, wget 20

# A seed is in scope because the operator named it. A sitemap is no page and may be on another host.
_ANYWHERE: Final = frozenset((Source.SEED, Source.ROBOTS, Source.INDEX))
_SEED_HOSTS: Final = "seed-hosts"
_SEED_DOMAINS: Final = "seed-domains"
_SEED_PREFIX: Final = "seed-prefix"
SEED_MODES: Final = (_SEED_HOSTS, _SEED_DOMAINS, _SEED_PREFIX)  # of scope.hosts


class ScopePatternError(ValueError):
    """An include or exclude pattern that cannot be compiled. The message says why."""


# Parts of a regular expression that are no operators: escaped characters and character classes.
_LITERALS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_POSSESSIVE: Final = re.compile(r"[*+?}]\+|\(\?>")
# Possessive quantifiers and an atomic group, each with a text and the end of its match there.
_POSSESSIVE_EXAMPLES: Final = (
    ("(?:ab?c)++", "aca", 2), ("(?:ab?c)?+", "a", 0), ("(?:ab?c){1,3}+", "aca", 2), ("(?>(?:ab?c)*)", "aca", 2),
)  # fmt: skip


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile an include or exclude pattern to a regular expression, to be used with `search` on a whole URL.

    "re:…" is a regular expression, searched anywhere in the URL. Any other pattern is a glob: "*" matches within a path
    segment, "**" anything, "?" one character. A glob that contains "://" is compared with the whole URL, one that
    begins with "/" with path and query, any other with all that follows "://". Raises ScopePatternError.
    """
    if pattern.startswith("re:"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # see `doubt_about`
                compiled = re.compile(pattern[3:])
        except re.error as error:
            raise ScopePatternError(f"not a regular expression: {error}") from None
        if _POSSESSIVE.search(_LITERALS.sub("", pattern[3:])) is not None and not has_sound_possessives():
            raise ScopePatternError(
                f"Python {platform.python_version()} gets possessive quantifiers and atomic groups wrong (3.11.5 does "
                'not): use "*" instead of "*+" and "(?:" instead of "(?>"'
            )
        return compiled
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


def doubt_about(pattern: str) -> str:
    """What of a pattern other tools read in another way, as in "re:[[:alpha:]]"; "" if there is nothing."""
    if not pattern.startswith("re:"):
        return ""
    re.purge()  # a pattern that is in the cache gives no warning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        re.compile(pattern[3:])
    found = next((str(one.message) for one in caught if one.category is FutureWarning), "")
    return found and found[0].lower() + found[1:]


@cache
def has_sound_possessives() -> bool:
    """Whether `re` matches possessive quantifiers and atomic groups right. CPython before 3.11.5 does not (gh-106052),
    unless it was patched, as in Debian 12 since 3.11.2-6+deb12u9.
    """
    found = (re.match(pattern, text) for pattern, text, _ in _POSSESSIVE_EXAMPLES)
    ends = [None if match is None else match.end() for match in found]
    return ends == [end for _, _, end in _POSSESSIVE_EXAMPLES]


_GLOB: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def directory_of(url: str) -> str:
    """The directory of a URL, as in "https://a.org/docs/" of "https://a.org/docs/page?x"."""
    return url[: url.rindex("/", 0, _end_of_path(url)) + 1]


def _end_of_path(url: str) -> int:
    end = url.find("?")
    return len(url) if end < 0 else end


class Scope:
    """The current scope rules. `seed_hosts` are the hosts of the seeds, `seed_directories` their directories if the
    scope follows from these. `added`: the directories to which redirects of seeds led; from an older store the hosts.
    """

    __slots__ = ("_added_names", "_exact", "_exclude", "_include", "_mode", "_names", "_suffixes", "added", "options",
                 "overrides", "seed_directories", "seed_hosts", "traps")  # fmt: skip

    def __init__(
        self,
        options: ScopeOptions,
        seed_hosts: Collection[str],
        traps: TrapOptions | None = None,
        overrides: Overrides | None = None,
        *,
        seed_directories: Collection[str] = (),
        added: Iterable[str] = (),
    ) -> None:
        """`traps` None: paths are not checked for traps. Raises ScopePatternError."""
        self.overrides = Overrides() if overrides is None else overrides
        self.traps = traps if traps is not None and traps.detect != "off" else None
        self.options = options
        self.seed_hosts = frozenset(seed_hosts)
        self.seed_directories = frozenset(seed_directories)
        self._include = tuple((rule, compile_pattern(rule.pattern)) for rule in options.include)
        self._exclude = tuple((rule, compile_pattern(rule.pattern)) for rule in options.exclude)
        self._mode = options.hosts[0] if options.hosts[0] in SEED_MODES else "list"
        # Computed once: lists of seeds may name a million hosts.
        self._names = self.seed_hosts if self._mode != _SEED_DOMAINS else frozenset(map(registrable_domain, seed_hosts))
        self._exact = frozenset(name.lower() for name in options.hosts if not name.startswith("*."))
        self._suffixes = tuple(name[1:].lower() for name in options.hosts if name.startswith("*."))
        self.added = self._added_names = frozenset[str]()
        self._add(frozenset(added))

    @classmethod
    def by(cls, rules: Rules, added: Iterable[str] = ()) -> "Scope":
        """The scope of the rules that run.json holds."""
        return cls(
            rules.scope,
            rules.seed_hosts,
            rules.traps,
            Overrides(rules.overrides),
            seed_directories=rules.seed_directories,
            added=added,
        )

    def _add(self, places: frozenset[str]) -> None:
        self.added |= places
        hosts = frozenset(parse(one)[1].host if "://" in one else one for one in places)
        self._added_names |= frozenset(map(self._name_of, hosts))

    def _name_of(self, host: str) -> str:
        return registrable_domain(host) if self._mode == _SEED_DOMAINS else host

    def widened(self, *places: str) -> "Scope":
        """The same rules with more of `added`."""
        scope = copy(self)
        scope._add(frozenset(places))
        return scope

    @property
    def follows_seeds(self) -> bool:
        """Whether the scope follows from the seeds, so that a redirect of a seed may widen it."""
        return self._mode != "list"

    def has_host(self, host: str) -> bool:
        """Whether URLs of a host may be in scope."""
        if self.overrides and self.overrides.disabled_by(host) is not None:
            return False
        if self._mode == "list":
            return host in self._exact or (bool(self._suffixes) and host.endswith(self._suffixes))
        name = self._name_of(host)
        return name in self._names or name in self._added_names

    def covers(self, url: str, host: str) -> bool:
        """Whether scope.hosts has a URL of this host in scope."""
        if not self.has_host(host):
            return False
        return self._mode != _SEED_PREFIX or self.directory_above(url) is not None

    def directory_above(self, url: str) -> str | None:
        """The first directory of a seed in which a URL is, if the scope follows from these."""
        if self._mode != _SEED_PREFIX:
            return None
        # Each directory above is looked up: there may be a million seeds, and a path has few segments.
        end, slash = _end_of_path(url), url.index("/", url.index("://") + 3)
        while slash >= 0:
            if (directory := url[: slash + 1]) in self.seed_directories or directory in self.added:
                return directory
            slash = url.find("/", slash + 1, end)
        return None

    def judge(self, url: str, origin: Origin, *, depth: int, hop_path: str, source: Source) -> Denied | None:
        """The refusal of a URL by the first rule that applies; None if it is in scope."""
        if self.overrides and (rule_text := self.overrides.disabled_by(origin.host)) is not None:
            return Denied(DenyReason.SCOPE_HOST, rule_text)
        for rule, pattern in self._exclude:
            if pattern.search(url):
                return Denied(DenyReason.SCOPE_EXCLUDE, _rule_text("exclude", rule))
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
            if not self.covers(url, origin.host):
                return Denied(DenyReason.SCOPE_DEPTH, f"more than {MAX_REQUISITE_HOPS} requisite hops out of scope")
            limit = self.options.max_depth
            if limit is None or depth + hops <= limit:
                return None
            return Denied(DenyReason.SCOPE_DEPTH, f"scope.max_depth = {limit}")
        if "E" in hop_path[len(hop_path.rstrip("ER")) :]:  # a redirected requisite is a requisite
            return None if self.options.requisites else Denied(DenyReason.REQUISITES_OFF, "scope.requisites = false")
        if not self.covers(url, origin.host):
            return Denied(DenyReason.SCOPE_HOST, f"scope.hosts = {', '.join(self.options.hosts)}")
        limit = self.options.max_depth
        if limit is not None and depth > limit:
            return Denied(DenyReason.SCOPE_DEPTH, f"scope.max_depth = {limit}")
        if self._include and not any(pattern.search(url) for _, pattern in self._include):
            return Denied(DenyReason.SCOPE_INCLUDE, "matches no include pattern")
        return None


def _rule_text(verb: str, rule: ScopeRule) -> str:
    text = f'{verb} "{rule.pattern}"'
    return f"{rule.place}  {text}" if rule.place else text
