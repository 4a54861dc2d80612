"""Options of the decisions in `core`, and the rules that run.json records. Times in seconds, None: no limit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
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
class HostOverride:
    """Options of some hosts, used instead of those of the crawl; None: as in the crawl.

    `hosts`: names, "*.name" for every subdomain. `place`: where it was written ("crawler.toml:14").
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


NO_OVERRIDE: Final = HostOverride()
_OVERRIDABLE: Final = tuple(one.name for one in fields(HostOverride) if one.name not in ("hosts", "place"))


class Overrides:
    """Finds what holds for one host. Of several overrides that give an option, the one with the most specific pattern
    decides: the name of the host itself, then the longest "*.name".
    """

    def __init__(self, overrides: Iterable[HostOverride] = ()) -> None:
        self.all = tuple(overrides)
        self._by_pattern = {pattern.lower(): one for one in self.all for pattern in one.hosts}

    def __bool__(self) -> bool:
        return bool(self._by_pattern)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overrides) and self.all == other.all

    __hash__ = None  # type: ignore[assignment]

    def matching(self, host: str) -> list[tuple[str, HostOverride]]:
        """The patterns that match a host, with their overrides, the most specific first."""
        if not self._by_pattern:
            return []
        return [(pattern, self._by_pattern[pattern]) for pattern in patterns_of(host) if pattern in self._by_pattern]

    def of(self, host: str) -> HostOverride:
        """What is overridden for a host. `hosts` and `place` are those of the most specific override."""
        found = [one for _, one in self.matching(host)]
        if len(found) < 2:
            return found[0] if found else NO_OVERRIDE
        values: dict[str, Any] = {
            name: next((value for one in found if (value := getattr(one, name)) is not None), None)
            for name in _OVERRIDABLE
        }
        return replace(found[0], **values)

    def deciding(self, host: str, option: str) -> tuple[str, HostOverride] | None:
        """The pattern and the override that decide an option of a host; None if the crawl's option holds."""
        return next((found for found in self.matching(host) if getattr(found[1], option) is not None), None)

    def disabled_by(self, host: str) -> str | None:
        """The rule that switches a host off, as text; None if none does."""
        found = self.deciding(host, "enabled")
        if found is None or found[1].enabled:
            return None
        pattern, override = found
        return f'{override.place}  override "{pattern}" enabled = false'.lstrip()

    def judging(self) -> list[tuple[str, bool | None, str | None]]:
        """What of the overrides decides whether a stored URL may be fetched, whatever the order of the overrides."""
        return sorted(
            (pattern, one.enabled, one.robots)
            for pattern, one in self._by_pattern.items()
            if one.enabled is not None or one.robots is not None
        )


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


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a crawl judges URLs by, as run.json holds them. They have no secrets: no header field, no seed.

    Invariant: `load_rules(dump_rules(rules)) == rules`; what a newer version added is ignored.
    """

    scope: ScopeOptions = field(default_factory=ScopeOptions)
    politeness: PolitenessOptions = field(default_factory=PolitenessOptions)
    traps: TrapOptions = field(default_factory=TrapOptions)
    seed_hosts: tuple[str, ...] = ()
    seed_directories: tuple[str, ...] = ()  # if the scope follows from them
    robots_token: str = ""  # product token for robots.txt
    allow_private: tuple[str, ...] = ()  # network.allow_private
    resolve: tuple[tuple[str, tuple[str, ...]], ...] = ()  # network.resolve
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)  # of a daemon
    overrides: tuple[HostOverride, ...] = ()


def dump_rules(rules: Rules) -> dict[str, Any]:
    """Rules as a JSON object."""
    table: dict[str, Any] = orjson.loads(orjson.dumps(rules))
    return table


def load_rules(table: object) -> Rules | None:
    """Rules from a JSON object; None for one that no crawler wrote."""
    if not isinstance(table, Mapping):
        return None
    try:
        known = _known_fields(Rules, table)
        scope = _known_fields(ScopeOptions, known.get("scope", {}))
        for name in ("include", "exclude"):
            scope[name] = tuple(ScopeRule(rule["pattern"], rule.get("place", "")) for rule in scope.get(name, ()))
        known["scope"] = ScopeOptions(**scope)
        known["politeness"] = PolitenessOptions(**_known_fields(PolitenessOptions, known.get("politeness", {})))
        known["traps"] = TrapOptions(**_known_fields(TrapOptions, known.get("traps", {})))
        known["schedule"] = ScheduleOptions(**_known_fields(ScheduleOptions, known.get("schedule", {})))
        overrides = (_known_fields(HostOverride, one) for one in known.get("overrides", ()))
        known["overrides"] = tuple(HostOverride(**one) for one in overrides)
        return Rules(**known)
    except (TypeError, AttributeError):
        return None


def _known_fields(kind: type[Any], table: object) -> dict[str, Any]:
    """The fields of a dataclass that a JSON object has, arrays as tuples. Raises TypeError for another value."""
    if not isinstance(table, Mapping):
        raise TypeError
    return {one.name: _as_tuple(table[one.name]) for one in fields(kind) if one.name in table}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
