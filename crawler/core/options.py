"""Options of the decisions in `core`. Times in seconds, None: no limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """One include or exclude pattern and where it was written ("crawler.toml:14"), for `why`."""

    pattern: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class ScopeOptions:
    """What may be fetched. `hosts` is ("seed-hosts",), ("seed-domains",), or names, "*.name" for every subdomain."""

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
    """How often a host may be asked. An `address_delay_s` or `connections_per_address` of None follows from the host's
    values: the delay is then the smaller of 0.25 s and `delay_s`, the connections the larger of 4 and
    `connections_per_host`.
    """

    key: str = "domain"  # or "host"
    delay_s: float = 1.0
    address_delay_s: float | None = None
    max_crawl_delay_s: float = 60.0
    connections_per_host: int = 1
    connections_per_address: int | None = None
    robots: str = "obey"  # or "ignore"
    adaptive: bool = True


@dataclass(frozen=True, slots=True)
class ImportanceRule:
    """Pages whose URL matches `pattern` (as in `scope.include`) matter `factor` times as much."""

    pattern: str
    factor: float


@dataclass(frozen=True, slots=True)
class RecrawlOptions:
    """When pages are visited again. `visits_per_day` None: a seventh of the pages known, so that a page is visited once
    a week on average.
    """

    enabled: bool = False
    min_interval_s: float = 3_600.0
    max_interval_s: float = 90 * 86_400.0
    visits_per_day: int | None = None
    importance: tuple[ImportanceRule, ...] = ()


@dataclass(frozen=True, slots=True)
class TrapOptions:
    """How much is taken from parts of a site that may have no end. `detect` is "off", "report" (suspected templates are
    told and fetched like others) or "hold" (their URLs are fetched last, and left if that never ends).
    """

    detect: str = "hold"
    max_path_segments: int = 24  # Heritrix: 20
    max_repeats: int = 3  # Heritrix: 2
    max_parameters: int = 24
    max_pages_per_template: int = 250_000  # Rust's documentation, the largest honest one seen, has 32,101
    soft_404: bool = True
