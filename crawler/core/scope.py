"""The scope rules: which URLs may be fetched, and what is other for some hosts and URLs. Discovery, leasing and `why`
judge by the same function.

A `Scope` is a frozen snapshot; a redirect of a seed makes a new one. Invariant: every refusal names the rule that
decided.
"""

import platform
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final

from crawler.core.enums import DenyReason, Source
from crawler.core.formatting import duration, size
from crawler.core.models import Denied, Origin
from crawler.core.options import (
    ANY_DEPTH,
    NO_OVERRIDE,
    NameSet,
    Override,
    RecrawlOptions,
    Rules,
    ScopeOptions,
    ScopeRule,
    SeedOptions,
    TrapOptions,
    patterns_of,
)
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
NO_NAMES: Final = NameSet()
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


_OVERRIDABLE: Final = tuple(one.name for one in fields(Override) if one.name not in ("hosts", "urls", "place"))
_OF_SCOPE: Final = ("include", "exclude", "max_depth", "requisites")
_OF_RECRAWL: Final = ("recrawl", "min_interval_s", "max_interval_s")
Matched = tuple[str, Override]  # an override, and the pattern by which it holds


class Overrides:
    """Finds what holds for one host or URL. Of several overrides that give an option, the one with the most specific
    pattern decides. The order is:
    1. patterns of URLs before patterns of hosts
    2. of URLs, the one with the most characters before its first wildcard, without a scheme; of equals the last one
    3. of hosts, the name of the host itself, then the longest "*.name"

    Raises ScopePatternError.
    """

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        self.all = tuple(overrides)
        self._by_pattern = {pattern.lower(): one for one in self.all for pattern in one.hosts}
        by_url = [(pattern, compile_pattern(pattern), one) for one in self.all for pattern in one.urls]
        self._by_url = sorted(by_url, key=lambda one: _literal_length(one[0]))[::-1]
        self.decide_scope = any(_gives(one, _OF_SCOPE) for one in self.all)
        self.decide_recrawl = any(_gives(one, _OF_RECRAWL) for one in self.all)

    def __bool__(self) -> bool:
        return bool(self.all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overrides) and self.all == other.all

    __hash__ = None  # type: ignore[assignment]

    def matching(self, host: str, url: str | None = None) -> list[Matched]:
        """The overrides that hold for a host, or for a URL of it, the most specific first."""
        found = [] if url is None else [(text, one) for text, pattern, one in self._by_url if pattern.search(url)]
        if not self._by_pattern:
            return found
        return found + [(text, self._by_pattern[text]) for text in patterns_of(host) if text in self._by_pattern]

    def of(self, host: str, url: str | None = None) -> Override:
        """What is overridden for a host, or for a URL of it. `hosts`, `urls` and `place` are those of the most specific
        override.
        """
        found = [one for _, one in self.matching(host, url)]
        if len(found) < 2:
            return found[0] if found else NO_OVERRIDE
        values: dict[str, Any] = {
            name: next((value for one in found if (value := getattr(one, name)) is not None), None)
            for name in _OVERRIDABLE
        }
        return replace(found[0], **values)

    def deciding(self, host: str, *options: str, url: str | None = None) -> Matched | None:
        """What decides the first of the options that is given, of a host or of a URL of it; None if the crawl's options
        hold.
        """
        return next((found for found in self.matching(host, url) if _gives(found[1], options)), None)

    def disabled_by(self, host: str) -> str | None:
        """The rule that switches a host off, as text; None if none does."""
        found = self.deciding(host, "enabled") if self._by_pattern else None
        return None if found is None or found[1].enabled else override_text(found, "enabled = false")

    def judging(self) -> list[tuple[object, ...]]:
        """What of the overrides decides whether a stored URL may be fetched; the order of those of hosts is none."""
        hosts = sorted(
            (pattern, one.enabled, one.robots)
            for pattern, one in self._by_pattern.items()
            if one.enabled is not None or one.robots is not None
        )
        scopes = [(pattern, *(getattr(one, name) for name in _OF_SCOPE)) for pattern, _, one in self._by_url]
        scopes += sorted(
            (pattern, *(getattr(one, name) for name in _OF_SCOPE)) for pattern, one in self._by_pattern.items()
        )
        return [*hosts, *(one for one in scopes if any(value is not None for value in one[1:]))]

    def recrawl_options(self, options: RecrawlOptions, host: str, url: str) -> RecrawlOptions:
        """When pages of a URL are visited again."""
        one = self.of(host, url)
        return replace(
            options,
            enabled=options.enabled if one.recrawl is None else one.recrawl,
            min_interval_s=options.min_interval_s if one.min_interval_s is None else one.min_interval_s,
            max_interval_s=options.max_interval_s if one.max_interval_s is None else one.max_interval_s,
        )


def _gives(override: Override, options: Iterable[str]) -> bool:
    return any(getattr(override, name) is not None for name in options)


def _literal_length(pattern: str) -> int:
    """The number of characters before the first wildcard, without a scheme; a regular expression has none."""
    return 0 if pattern.startswith("re:") else len(re.split(r"[*?]", pattern.rpartition("://")[2], maxsplit=1)[0])


def override_text(found: Matched, given: str) -> str:
    """An override as the rule that decided, as in 'crawler.toml:14  override "example.org" enabled = false'."""
    pattern, override = found
    return f'{override.place}  override "{pattern}" {given}'.lstrip()


_NO_LIMITS: Final = (("max_depth", ANY_DEPTH), ("min_rate", 0), ("bandwidth_per_host", 0))
_BYTES: Final = frozenset(("min_rate", "max_body", "bandwidth_per_host"))


def option_text(found: Matched, option: str) -> str:
    """An override with one of its options, as in 'crawler.toml:14 override "example.org" delay = 5 s'."""
    pattern, override = found
    value = getattr(override, option)
    if (option, value) in _NO_LIMITS:
        text = "none"
    elif option in _BYTES:
        text = size(value)
    elif isinstance(value, tuple):
        text = ", ".join(value) or "all"
    else:
        text = duration(value) if option.endswith("_s") else str(value).lower()
    return f'{override.place} override "{pattern}" {option.removesuffix("_s")} = {text}'.lstrip()


def directory_of(url: str) -> str:
    """The directory of a URL, as in "https://a.org/docs/" of "https://a.org/docs/page?x"."""
    return url[: url.rindex("/", 0, _end_of_path(url)) + 1]


def directories_above(url: str) -> Iterator[str]:
    """The directories in which a URL is, the shortest first."""
    end, slash = _end_of_path(url), url.index("/", url.index("://") + 3)
    while slash >= 0:
        yield url[: slash + 1]
        slash = url.find("/", slash + 1, end)


def _end_of_path(url: str) -> int:
    end = url.find("?")
    return len(url) if end < 0 else end


class SeedPlaces:
    """Finds the options of the seed in whose place a URL is: its directory, its host, its domain or the hosts that it
    lists. `mode` is the first word of scope.hosts; with a list of hosts the place of a seed is its host.

    Seeds of one place have all their tags in common, and the largest of their `max_depth`.
    """

    def __init__(self, seeds: Iterable[SeedOptions], mode: str) -> None:
        self._mode = mode if mode in SEED_MODES else _SEED_HOSTS
        self._by_directory: dict[str, SeedOptions] = {}
        self._by_host: dict[str, SeedOptions] = {}  # by pattern
        self._by_domain: dict[str, SeedOptions] = {}
        self._hosts_in_scope: frozenset[str] = frozenset()  # of directories
        for seed in seeds:
            self._add(seed, seed.directory)

    def __bool__(self) -> bool:
        return bool(self._by_directory or self._by_host or self._by_domain)

    def _add(self, seed: SeedOptions, directory: str) -> None:
        host = parse(directory)[1].host
        match seed.scope or (self._mode,):
            case ("seed-prefix",):
                _put(self._by_directory, (directory,), seed)
                self._hosts_in_scope |= {host} if seed.scope else frozenset()
            case ("seed-hosts",):
                _put(self._by_host, (host,), seed)
            case ("seed-domains",):
                _put(self._by_domain, (registrable_domain(host),), seed)
            case listed:
                _put(self._by_host, listed, seed)

    def moved(self, redirects: Iterable[tuple[str, str]]) -> "SeedPlaces":
        """The same, with places for what seeds were redirected to: directories, each with that of the seed."""
        places = copy(self)
        for name in ("_by_directory", "_by_host", "_by_domain"):
            setattr(places, name, dict(getattr(self, name)))
        for directory, source in redirects:
            places._add(self.of(source, parse(source)[1].host)[0], directory)
        return places

    def of(self, url: str, host: str) -> list[SeedOptions]:
        """The options of the seeds in whose places a URL is, the most specific first."""
        found = [self._by_directory[one] for one in directories_above(url) if one in self._by_directory]
        return found[::-1] + self._of_host(host)

    def _of_host(self, host: str) -> list[SeedOptions]:
        found = [self._by_host[name] for name in patterns_of(host) if name in self._by_host]
        of_domain = self._by_domain.get(registrable_domain(host)) if self._by_domain else None
        return found if of_domain is None else [*found, of_domain]

    def has_host(self, host: str) -> bool:
        """Whether seeds with a scope of their own may have URLs of a host in scope."""
        return host in self._hosts_in_scope or any(seed.scope for seed in self._of_host(host))


def _put(places: dict[str, SeedOptions], names: Iterable[str], seed: SeedOptions) -> None:
    places.update({name: _joined(seed, places.get(name)) for name in names})


def _joined(seed: SeedOptions, other: SeedOptions | None) -> SeedOptions:
    """The options of two seeds of one place."""
    if other is None:
        return seed
    depths = [depth for depth in (other.max_depth, seed.max_depth) if depth is not None]
    max_depth = None if not depths else ANY_DEPTH if ANY_DEPTH in depths else max(depths)
    tags = tuple(dict.fromkeys((*other.tags, *seed.tags)))
    return replace(other, tags=tags, max_depth=max_depth, scope=other.scope or seed.scope)


def name_in_scope(host: str, mode: str) -> str:
    """The name by which a host is in scope; `mode` is the first word of scope.hosts."""
    return registrable_domain(host) if mode == _SEED_DOMAINS else host


class Scope:
    """The current scope rules. `seed_hosts` are the hosts of the seeds, and `seed_names` those of the seeds in files,
    or their domains if the scope follows from these. `seed_directories` are the directories of all, if it follows from
    these. `added`: the directories to which redirects of seeds led, each with that of the seed after a space; from an
    older store the hosts alone. `seeds`: options of some seeds.
    """

    __slots__ = ("_added_directories", "_added_names", "_exact", "_exclude", "_has_seeds", "_include", "_mode",
                 "_names", "_suffixes", "added", "options", "overrides", "seed_directories", "seed_hosts",
                 "seed_names", "seeds", "traps")  # fmt: skip

    def __init__(
        self,
        options: ScopeOptions,
        seed_hosts: Collection[str],
        traps: TrapOptions | None = None,
        overrides: Overrides | None = None,
        *,
        seed_directories: Collection[str] = (),
        seed_names: NameSet = NO_NAMES,
        seeds: Iterable[SeedOptions] = (),
        added: Iterable[str] = (),
    ) -> None:
        """`traps` None: paths are not checked for traps. Raises ScopePatternError."""
        self.overrides = Overrides() if overrides is None else overrides
        self.traps = traps if traps is not None and traps.detect != "off" else None
        self.options = options
        self.seed_hosts = frozenset(seed_hosts)
        self.seed_directories = frozenset(seed_directories)
        self.seed_names = seed_names
        self._include = tuple((rule, compile_pattern(rule.pattern)) for rule in options.include)
        self._exclude = tuple((rule, compile_pattern(rule.pattern)) for rule in options.exclude)
        self._mode = options.hosts[0] if options.hosts[0] in SEED_MODES else "list"
        self._names = self.seed_hosts if self._mode != _SEED_DOMAINS else frozenset(map(registrable_domain, seed_hosts))
        self._exact = frozenset(name.lower() for name in options.hosts if not name.startswith("*."))
        self._suffixes = tuple(name[1:].lower() for name in options.hosts if name.startswith("*."))
        self.seeds = SeedPlaces(seeds, options.hosts[0])
        self._has_seeds = bool(self.seeds)
        self.added = self._added_names = self._added_directories = frozenset[str]()
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
            seed_names=rules.seed_names,
            seeds=rules.seeds,
            added=added,
        )

    def _add(self, places: frozenset[str]) -> None:
        """Add what redirects of seeds led to: to the place of the seed if it has a scope of its own, else to that of
        the crawl.
        """
        self.added |= places
        left = [(directory, source) for directory, _, source in (place.partition(" ") for place in places)]
        while self._has_seeds:  # a redirect of a redirect comes after the first
            of_source = [self.seeds.of(one[1], parse(one[1])[1].host) if one[1] else [] for one in left]
            if not any(of_source):
                break
            self.seeds = self.seeds.moved(one for one, found in zip(left, of_source, strict=True) if found)
            left = [
                (directory, "" if found else source)
                for (directory, source), found in zip(left, of_source, strict=True)
                if not (found and found[0].scope)
            ]
        self._added_directories |= {directory for directory, _ in left}
        hosts = (parse(directory)[1].host if "://" in directory else directory for directory, _ in left)
        self._added_names |= frozenset(map(self._name_of, hosts))

    def _name_of(self, host: str) -> str:
        return name_in_scope(host, self._mode)

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
        return self._has_host(host) or self.seeds.has_host(host)

    def _has_host(self, host: str) -> bool:
        if self._mode == "list":
            return host in self._exact or (bool(self._suffixes) and host.endswith(self._suffixes))
        name = self._name_of(host)
        return name in self._names or name in self._added_names or name in self.seed_names

    def covers(self, url: str, host: str) -> bool:
        """Whether scope.hosts, or the scope of a seed, has a URL of this host in scope, if the host is not switched
        off.
        """
        if self._has_host(host) and (self._mode != _SEED_PREFIX or self.directory_above(url) is not None):
            return True
        return self._has_seeds and any(seed.scope for seed in self.seeds.of(url, host))

    def directory_above(self, url: str) -> str | None:
        """The first directory of a seed in which a URL is, if the scope follows from these."""
        if self._mode != _SEED_PREFIX:
            return None
        # Each directory above is looked up: there may be a million seeds, and a path has few segments.
        places = self.seed_directories, self._added_directories
        return next((one for one in directories_above(url) if any(one in place for place in places)), None)

    def tags_of(self, url: str, host: str) -> tuple[str, ...]:
        """The tags of the seed in whose place a URL is."""
        return next((seed.tags for seed in self.seeds.of(url, host) if seed.tags), ()) if self._has_seeds else ()

    def judge(self, url: str, origin: Origin, *, depth: int, hop_path: str, source: Source) -> Denied | None:
        """The refusal of a URL by the first rule that applies; None if it is in scope."""
        if self.overrides and (rule_text := self.overrides.disabled_by(origin.host)) is not None:
            return Denied(DenyReason.SCOPE_HOST, rule_text)
        overrides = self.overrides.matching(origin.host, url) if self.overrides.decide_scope else ()
        chosen = None
        if overrides:
            chosen = next((found for found in overrides if _gives(found[1], ("include", "exclude"))), None)
        override = NO_OVERRIDE if chosen is None else chosen[1]
        if chosen is not None and override.exclude:
            return Denied(DenyReason.SCOPE_EXCLUDE, override_text(chosen, "exclude = true"))
        if not override.include and override.exclude is None:
            for rule, pattern in self._exclude:
                if pattern.search(url):
                    return Denied(DenyReason.SCOPE_EXCLUDE, _rule_text("exclude", rule))
        if source in _ANYWHERE:
            return None
        if self.traps is not None and (denied := impossible_path(target_of(url), self.traps)) is not None:
            return denied
        if source is Source.REQUISITE or "E" in hop_path[len(hop_path.rstrip("ER")) :]:
            if (denied := self._judge_requisite(overrides)) is not None:
                return denied
            hops = hop_path[len(hop_path.rstrip("ER")) :].count("E")
            if source is not Source.REQUISITE or hops <= MAX_REQUISITE_HOPS:
                return None
            if not (override.include or self.covers(url, origin.host)):
                return Denied(DenyReason.SCOPE_DEPTH, f"more than {MAX_REQUISITE_HOPS} requisite hops out of scope")
            return self._judge_depth(url, origin.host, overrides, depth + hops)
        if not (override.include or self.covers(url, origin.host)):
            return Denied(DenyReason.SCOPE_HOST, f"scope.hosts = {', '.join(self.options.hosts)}")
        if (denied := self._judge_depth(url, origin.host, overrides, depth)) is not None:
            return denied
        if chosen is not None and override.include is False:
            return Denied(DenyReason.SCOPE_INCLUDE, override_text(chosen, "include = false"))
        if self._include and not override.include and not any(pattern.search(url) for _, pattern in self._include):
            return Denied(DenyReason.SCOPE_INCLUDE, "matches no include pattern")
        return None

    def _judge_requisite(self, overrides: Sequence[Matched]) -> Denied | None:
        """Whether requisites are fetched."""
        found = next((found for found in overrides if found[1].requisites is not None), None) if overrides else None
        if self.options.requisites if found is None else found[1].requisites:
            return None
        given = "requisites = false"
        return Denied(DenyReason.REQUISITES_OFF, f"scope.{given}" if found is None else override_text(found, given))

    def _judge_depth(self, url: str, host: str, overrides: Sequence[Matched], depth: int) -> Denied | None:
        limit, rule_text = self.options.max_depth, ""
        found = next((found for found in overrides if found[1].max_depth is not None), None) if overrides else None
        if found is not None:
            limit, rule_text = found[1].max_depth, override_text(found, f"max_depth = {found[1].max_depth}")
        elif self._has_seeds:
            seed = next((seed for seed in self.seeds.of(url, host) if seed.max_depth is not None), None)
            if seed is not None:
                limit, rule_text = seed.max_depth, f"{seed.place}  seed max_depth = {seed.max_depth}".lstrip()
        if limit is None or limit == ANY_DEPTH or depth <= limit:
            return None
        return Denied(DenyReason.SCOPE_DEPTH, rule_text or f"scope.max_depth = {limit}")


def _rule_text(verb: str, rule: ScopeRule) -> str:
    text = f'{verb} "{rule.pattern}"'
    return f"{rule.place}  {text}" if rule.place else text
