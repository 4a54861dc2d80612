"""Options of the engine. Times in seconds, sizes in bytes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, reduce
from hashlib import sha256
from itertools import chain
from operator import or_
from pathlib import Path
from typing import Final

import orjson

from crawler.core.enums import Source
from crawler.core.formatting import count
from crawler.core.models import Origin
from crawler.core.options import (
    NameSet,
    PolitenessOptions,
    RecrawlOptions,
    ScheduleOptions,
    ScopeOptions,
    SeedOptions,
    TrapOptions,
)
from crawler.core.scope import NO_NAMES, SEED_MODES, Overrides, Scope, directory_of, name_in_scope
from crawler.core.url import UrlError, key_of, parse_seed
from crawler.fetch.options import ClientOptions
from crawler.obs.fetch_line import redact_text

SEEDS_NAMED: Final = 10  # of those that the scope refuses, in messages


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of the engine itself. A lease has up to `lease_size` tasks where the delay is 0. `memory` bounds the
    bodies held at once. A stop waits `drain_s` for what is in flight. A batch is committed at the first of its three
    bounds.
    """

    active_hosts: int = 10_000  # most hosts in memory; some 50 MB
    workers: int = 256  # coroutines: so many that a few hundred slow hosts do not block the others
    lease_size: int = 16
    memory: int = 128 * 1024 * 1024
    drain_s: float = 30.0
    commit_settlements: int = 256
    commit_bytes: int = 8 * 1024 * 1024
    commit_interval_s: float = 0.2
    max_attempts: int = 4  # of one URL, transient failures included
    linger_s: float | None = 600.0  # None: never end (`run`)
    max_duration_s: float | None = None
    min_free: int = 1024**3  # bytes left on the output's disk below which the crawl pauses
    hours: tuple[str, ...] = ()  # windows (`core.clock`, local time) in which requests may leave; empty: always


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """Bounds of what is read of a page."""

    max_html: int = 8 * 1024 * 1024  # bytes
    max_links: int = 10_000  # different references


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A file with a seed a line. Its seeds are not in memory: `read` reads their texts anew. Raises OSError.

    Two are equal if path and content are. `names` are the hosts of its seeds, or their domains if the scope follows
    from these, and `directories` their directories; they are empty if the scope does not follow from them.
    """

    path: str
    digest: str
    count: int
    first: str
    names: NameSet = field(compare=False, repr=False)
    read: Callable[[], Iterator[str]] = field(compare=False, repr=False)
    directories: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


def refused_text(refused: Sequence[str], number: int) -> list[str]:
    """Messages about `number` seeds that the scope refuses: the first of `refused`, and the number of the others."""
    named = [f"seed {one}" for one in refused[:SEEDS_NAMED]]
    more = number - len(named)
    return [*named, f"{count(more, 'other seed')}: denied by the scope"] if more else named


@dataclass(frozen=True)
class EngineConfiguration:
    """Options of all parts of a crawl, applied together. `min_free` is about the disk of the directory `output`,
    `sitemaps` is crawl.sitemaps, and `address_politeness` holds for IP addresses.
    """

    seeds: Sequence[str] = ()
    seed_files: Sequence[SeedFile] = ()
    scope: ScopeOptions = field(default_factory=ScopeOptions)
    politeness: PolitenessOptions = field(default_factory=PolitenessOptions)
    address_politeness: PolitenessOptions = field(default_factory=PolitenessOptions)
    traps: TrapOptions = field(default_factory=TrapOptions)
    recrawl: RecrawlOptions = field(default_factory=RecrawlOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    content: ContentOptions = field(default_factory=ContentOptions)
    client: ClientOptions = field(default_factory=ClientOptions)
    overrides: Overrides = field(default_factory=Overrides)
    seed_options: tuple[SeedOptions, ...] = ()
    scoped_seeds: frozenset[str] = frozenset()  # hrefs of seeds with a scope of their own
    engine: EngineOptions = field(default_factory=EngineOptions)
    sitemaps: str = "named"
    output: Path = Path()

    @property
    def robots_token(self) -> str:
        return self.client.identity.robots_token

    @property
    def obeys_robots(self) -> bool:
        return self.politeness.robots == "obey"

    @cached_property
    def seed_hosts(self) -> frozenset[str]:
        """The hosts of the seeds that are not in files."""
        return frozenset(origin.host for _, origin in self._seeds_of_crawl())

    @cached_property
    def seed_names(self) -> NameSet:
        """The hosts, or domains, of the seeds in files."""
        return reduce(or_, (file.names for file in self.seed_files), NO_NAMES)

    def _seeds_of_crawl(self) -> Iterator[tuple[str, Origin]]:
        """The seeds from which scope.hosts follows, without those of files."""
        return (one for one in map(parse_seed, self.seeds) if one[0] not in self.scoped_seeds)

    @cached_property
    def seed_directories(self) -> frozenset[str]:
        """The directories of the seeds, if the scope follows from them."""
        if self.scope.hosts != ("seed-prefix",):
            return frozenset()
        directories = frozenset(directory_of(url) for url, _ in self._seeds_of_crawl())
        return directories.union(*(file.directories for file in self.seed_files))

    def judging_scope(self, added: Iterable[str] = ()) -> Scope:
        """The scope, with what redirects of seeds added. Raises ScopePatternError."""
        return Scope(
            self.scope,
            self.seed_hosts,
            self.traps,
            self.overrides,
            seed_directories=self.seed_directories,
            seed_names=self.seed_names,
            seeds=self.seed_options,
            added=added,
        )

    def all_seeds(self) -> Iterator[str]:
        """The texts of all seeds, those of files read anew. Raises OSError."""
        return chain(self.seeds, chain.from_iterable(file.read() for file in self.seed_files))

    def has_seed(self, url: str) -> bool:
        """Whether a URL is a seed, in any spelling; those of a file that cannot be read any more do not count."""
        key = key_of(url)
        with suppress(OSError):
            return any(key_of(seed) == key for seed, _ in _parsed(self.all_seeds()))
        return False

    def refused_seeds(self) -> list[str]:
        """Messages about the seeds that the scope refuses: the first, and the number of the others. Raises OSError."""
        scope, refused, number = self.judging_scope(), list[str](), 0
        for url, origin in _parsed(self.all_seeds()):
            denied = scope.judge(url, origin, depth=0, hop_path="", source=Source.SEED)
            if denied is not None:
                number += 1
                if number <= SEEDS_NAMED:
                    refused.append(f"{redact_text(url)}: denied by {denied.rule}")
        return refused_text(refused, number)

    @property
    def fingerprint(self) -> str:
        """A hash of the rules that stored URLs are judged by. Limits on numbers of URLs are not in it, nor where a rule
        was written.
        """
        scope, traps = self.scope, self.traps
        seeds = sorted(self.seed_directories or self.seed_hosts) if scope.hosts[0] in SEED_MODES else []
        if self.seed_names and not self.seed_directories:
            listed = NameSet.of(name_in_scope(host, scope.hosts[0]) for host in seeds)
            seeds = [(listed | self.seed_names).digest]
        judging = (
            scope.hosts, sorted(rule.pattern for rule in scope.include), sorted(rule.pattern for rule in scope.exclude),
            scope.max_depth, scope.requisites, seeds,
            traps.detect != "off", traps.max_path_segments, traps.max_repeats, traps.max_parameters,
            self.politeness.robots, self.robots_token,
        )  # fmt: skip
        if overriding := self.overrides.judging():
            judging = (*judging, overriding)  # type: ignore[assignment]
        limiting = (one for one in self.seed_options if one.scope or one.max_depth is not None)
        if of_seeds := sorted((one.directory, one.scope, str(one.max_depth)) for one in limiting):
            judging = (*judging, of_seeds)  # type: ignore[assignment]
        return sha256(orjson.dumps(judging)).hexdigest()[:32]


def _parsed(texts: Iterable[str]) -> Iterator[tuple[str, Origin]]:
    for text in texts:
        with suppress(UrlError):  # a line that was changed after its file was checked
            yield parse_seed(text)
