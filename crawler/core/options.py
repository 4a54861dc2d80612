"""Options of the decisions in `core`, the rules that run.json records, and the set of names in these. Times in seconds,
None: no limit.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """One include or exclude pattern and where it was written ("crawler.toml:14"), for `why`."""

    pattern: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class ScopeOptions:
    """What may be fetched. `hosts` is ("seed-hosts",), ("seed-domains",), ("seed-prefix",), or names, "*.name" for
    every subdomain.
    """

    hosts: tuple[str, ...] = ("seed-hosts",)
    include: tuple[ScopeRule, ...] = ()
    exclude: tuple[ScopeRule, ...] = ()
    max_depth: int | None = 20
    max_urls: int | None = None
    max_urls_per_host: int | None = None
    requisites: bool = True
    lazy: bool = True


@dataclass(frozen=True, slots=True)
class PolitenessOptions:
    """How often a host may get a request."""

    key: str = "domain"  # or "host"
    delay_s: float = 1.0
    address_delay_s: float | None = None  # None: the smaller of 0.25 s and `delay_s`
    max_crawl_delay_s: float = 60.0
    connections_per_host: int = 1
    connections_per_address: int | None = None  # None: the larger of 4 and `connections_per_host`
    robots: str = "obey"  # or "ignore"
    adaptive: bool = True


@dataclass(frozen=True, slots=True)
class Override:
    """Options of some hosts, or of some URLs, used instead of those of the crawl; None: as in the crawl.

    `hosts`: names, "*.name" for every subdomain. `urls`: patterns as in `ScopeOptions.include`. One of both is empty.
    `place`: where it was written ("crawler.toml:14"). Only hosts have the options before `urls` and after
    `max_interval_s`, only URLs `include` and `exclude`.
    """

    hosts: tuple[str, ...] = ()
    place: str = ""
    enabled: bool | None = None
    delay_s: float | None = None
    max_crawl_delay_s: float | None = None
    connections_per_host: int | None = None
    robots: str | None = None
    adaptive: bool | None = None
    max_urls: int | None = None  # 0: no limit
    urls: tuple[str, ...] = ()
    include: bool | None = None
    exclude: bool | None = None
    max_depth: int | None = None  # ANY_DEPTH: no limit
    requisites: bool | None = None
    recrawl: bool | None = None  # RecrawlOptions.enabled
    min_interval_s: float | None = None
    max_interval_s: float | None = None
    first_byte_timeout_s: float | None = None
    read_timeout_s: float | None = None
    total_timeout_s: float | None = None
    min_rate: int | None = None  # 0: no limit
    max_body: int | None = None
    content_types: tuple[str, ...] | None = None
    bandwidth_per_host: int | None = None  # 0: no limit


NO_OVERRIDE: Final = Override()
ANY_DEPTH: Final = -1


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """Options of a seed, which hold for the URLs in its place.

    `directory`: of its URL, as in "https://a.org/docs/". `scope`: its place, as `ScopeOptions.hosts`; empty: as the
    crawl has it. `place`: where it was written ("crawler.toml:14").
    """

    directory: str
    place: str = ""
    tags: tuple[str, ...] = ()
    max_depth: int | None = None  # None: as in the crawl; ANY_DEPTH: no limit
    scope: tuple[str, ...] = ()


def patterns_of(host: str) -> Iterator[str]:
    """The patterns that match a host, the most specific first: its name, then "*.name" for each domain above it."""
    rest = host.rstrip(".").lower()
    yield rest
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


@dataclass(frozen=True, slots=True)
class ImportanceRule:
    """Pages whose URL matches `pattern` (as in `scope.include`) matter `factor` times as much."""

    pattern: str
    factor: float


@dataclass(frozen=True, slots=True)
class RecrawlOptions:
    """When pages are visited again."""

    enabled: bool = False
    min_interval_s: float = 3_600.0
    max_interval_s: float = 90 * 86_400.0
    visits_per_day: int | None = None  # None: a seventh of the known pages, one visit of each a week on average
    importance: tuple[ImportanceRule, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """When a daemon visits seeds, or everything, anew."""

    at: tuple[str, ...] = ()  # calendar expressions; empty: never
    what: str = "seeds"  # or "all": everything that was visited before


@dataclass(frozen=True, slots=True)
class TrapOptions:
    """How much is fetched from parts of a site that may be endless."""

    # "off"; "report": log suspected templates and fetch their URLs like others; "hold": fetch their URLs last, and
    # leave them if there is no end to them
    detect: str = "hold"
    max_path_segments: int = 24  # Heritrix: 20
    max_repeats: int = 3  # Heritrix: 2
    max_parameters: int = 24
    max_pages_per_template: int = 250_000  # Rust's documentation, the largest honest one seen, has 32,101
    soft_404: bool = True


HASH_BYTES: Final = 16
_LOOKED_UP: Final = 16_384  # names of which is known whether they are in a set: those of the last links


def hash_of(name: str) -> bytes:
    """The hash of a name in a NameSet: BLAKE2b, HASH_BYTES long."""
    return blake2b(name.encode(), digest_size=HASH_BYTES).digest()


class NameSet:
    """A set of names of hosts or domains, as 128-bit hashes: 16 bytes a name. `digest` is equal for equal sets.

    Why 128 bits: docs/decisions/0016-seed-hosts.md.
    """

    __slots__ = ("_has", "_high", "_low", "digest")

    def __init__(self, content: bytes | bytearray = b"") -> None:
        """`content`: different hashes in ascending order, as `content` returns them. Raises ValueError for another
        length than a multiple of theirs.
        """
        if len(content) % HASH_BYTES:
            raise ValueError(f"{len(content)} bytes are no list of hashes")
        words = array("Q")
        words.frombytes(content)
        if sys.byteorder == "little":
            words.byteswap()
        self._high, self._low = words[::2], words[1::2]
        self.digest = blake2b(content, digest_size=HASH_BYTES).hexdigest()
        self._has = lru_cache(maxsize=_LOOKED_UP)(self._search)

    @classmethod
    def of(cls, names: Iterable[str]) -> "NameSet":
        """The set of names."""
        return cls.of_hashes(b"".join(map(hash_of, names)))

    @classmethod
    def of_hashes(cls, hashes: bytes | bytearray) -> "NameSet":
        """The set of the names that have these hashes, in any order and repeated."""
        parts = [bytearray() for _ in range(256)]  # by the first byte: only one of them is ever sorted
        for start in range(0, len(hashes), HASH_BYTES):
            parts[hashes[start]] += hashes[start : start + HASH_BYTES]
        content = bytearray()
        for number, part in enumerate(parts):
            content += b"".join(sorted({bytes(part[n : n + HASH_BYTES]) for n in range(0, len(part), HASH_BYTES)}))
            parts[number] = bytearray()
        return cls(content)

    def content(self) -> bytes:
        """The hashes in ascending order, one after the other."""
        words = array("Q", bytes(HASH_BYTES * len(self)))
        words[::2], words[1::2] = self._high, self._low
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()

    def __len__(self) -> int:
        return len(self._high)

    def __contains__(self, name: str) -> bool:
        return bool(self._high) and self._has(name)

    def _search(self, name: str) -> bool:
        hashed = hash_of(name)
        high, low = int.from_bytes(hashed[:8], "big"), int.from_bytes(hashed[8:], "big")
        place = bisect_left(self._high, high)
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return True
            place += 1
        return False

    def __or__(self, other: "NameSet") -> "NameSet":
        if not (self and other):
            return self or other
        return NameSet.of_hashes(self.content() + other.content())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NameSet) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a crawl judges URLs by, as run.json holds them. They have no secrets: no header field, no seed.

    Invariant: `load_rules(dump_rules(rules)) == rules` if `seed_names` is found; what a newer version added is ignored.
    """

    scope: ScopeOptions = field(default_factory=ScopeOptions)
    politeness: PolitenessOptions = field(default_factory=PolitenessOptions)
    traps: TrapOptions = field(default_factory=TrapOptions)
    seed_hosts: tuple[str, ...] = ()
    seed_directories: tuple[str, ...] = ()  # if the scope follows from them
    seed_names: NameSet = field(default_factory=NameSet)  # hosts, or domains, of the seeds in files
    robots_token: str = ""  # product token for robots.txt
    allow_private: tuple[str, ...] = ()  # network.allow_private
    resolve: tuple[tuple[str, tuple[str, ...]], ...] = ()  # network.resolve
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)  # of a daemon
    overrides: tuple[Override, ...] = ()
    seeds: tuple[SeedOptions, ...] = ()  # those with options of their own, without path and query


def dump_rules(rules: Rules) -> dict[str, Any]:
    """Rules as a JSON object, with the number and digest of `seed_names` in place of the set."""
    table: dict[str, Any] = orjson.loads(orjson.dumps(rules, default=_named))
    return table


def _named(names: object) -> dict[str, Any]:
    if not isinstance(names, NameSet):
        raise TypeError
    return {"count": len(names), "digest": names.digest}


def load_rules(table: object, names_of: Callable[[str], NameSet | None] = lambda digest: None) -> Rules | None:
    """Rules from a JSON object; None for one that no crawler wrote. `names_of` returns the set with a digest; if there
    is none, the rules are not known either.
    """
    if not isinstance(table, Mapping):
        return None
    try:
        names: NameSet | None = NameSet()
        if table.get("seed_names", {}).get("count"):
            names = names_of(table["seed_names"]["digest"])
            if names is None:
                return None
        known = _known_fields(Rules, table)
        scope = _known_fields(ScopeOptions, known.get("scope", {}))
        for name in ("include", "exclude"):
            scope[name] = tuple(ScopeRule(rule["pattern"], rule.get("place", "")) for rule in scope.get(name, ()))
        known["scope"] = ScopeOptions(**scope)
        known["politeness"] = PolitenessOptions(**_known_fields(PolitenessOptions, known.get("politeness", {})))
        known["traps"] = TrapOptions(**_known_fields(TrapOptions, known.get("traps", {})))
        known["schedule"] = ScheduleOptions(**_known_fields(ScheduleOptions, known.get("schedule", {})))
        overrides = (_known_fields(Override, one) for one in known.get("overrides", ()))
        known["overrides"] = tuple(Override(**one) for one in overrides)
        known["seeds"] = tuple(SeedOptions(**_known_fields(SeedOptions, one)) for one in known.get("seeds", ()))
        known["seed_names"] = names
        return Rules(**known)
    except (TypeError, AttributeError, KeyError):
        return None


def _known_fields(kind: type[Any], table: object) -> dict[str, Any]:
    """The fields of a dataclass that a JSON object has, arrays as tuples. Raises TypeError for another value."""
    if not isinstance(table, Mapping):
        raise TypeError
    return {one.name: _as_tuple(table[one.name]) for one in fields(kind) if one.name in table}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
