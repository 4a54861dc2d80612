"""The effective configuration: the options each component gets from it, what a reload changes, and how it is shown.

Holds values only; `loading` makes them. No component receives the whole: each gets its own options class.
Invariants: with no key given, every options object equals the default of its class. Values are shown with secrets
masked: no header value but those of the fields in _HARMLESS, and no userinfo of a seed, a proxy or a database.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Final, Literal, TypeVar

from crawler.core.options import (
    ANY_DEPTH,
    ImportanceRule,
    Override,
    PolitenessOptions,
    RecrawlOptions,
    Rules,
    ScheduleOptions,
    ScopeOptions,
    ScopeRule,
    SeedOptions,
    TrapOptions,
)
from crawler.core.ownership import ONLY_AGENT
from crawler.core.scope import Overrides, SeedPlaces, directory_of
from crawler.core.url import parse, parse_seed
from crawler.engine.options import ContentOptions, EngineConfiguration, EngineOptions, SeedFile
from crawler.fetch.options import (
    FETCH_OVERRIDES,
    ClientOptions,
    FetchOptions,
    IdentityOptions,
    NetworkOptions,
    ProxyOptions,
    Secrets,
    TlsOptions,
)
from crawler.obs.log_files import LogOptions
from crawler.output_directory import CrawlPaths
from crawler.settings import sections
from crawler.settings.schema import OVERRIDE, SEED, ConfigurationKey, keys, table_keys, toml_text
from crawler.settings.validators import TOKEN, proxy_authorization
from crawler.sinks.base import SinkOptions

Mode = Literal["crawl", "run"]
_T = TypeVar("_T")
DEFAULT_ORIGIN: Final = "default"
MASK: Final = "***"

# Header fields that are shown. Any other may be a credential.
_HARMLESS: Final = frozenset(
    (
        "accept",
        "accept-charset",
        "accept-language",
        "cache-control",
        "dnt",
        "pragma",
        "sec-gpc",
        "upgrade-insecure-requests",
    )
)
_USERINFO = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?/*)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Settings(sections.Sections):
    """Every section, with the files of `crawl.seed_files`, and the content of the one that `identity.secrets` names.

    `pattern_places` maps "include" and "exclude" to the location ("crawler.toml:14") of each pattern,
    `override_places` has that of each override, `seed_places` that of each [[seed]].
    """

    file_seeds: tuple[SeedFile, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)
    pattern_places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overrides: tuple[sections.OverrideSection, ...] = ()
    override_places: tuple[str, ...] = ()
    seed_tables: tuple[sections.SeedSection, ...] = ()
    seed_places: tuple[str, ...] = ()

    def get(self, dotted: str) -> object:
        """The value of "section.key". Raises KeyError if there is no such key."""
        key = keys()[dotted]
        value: object = getattr(getattr(self, key.section), key.attribute)
        return value

    @property
    def seed_count(self) -> int:
        """Of `crawl.seeds`, of [[seed]] and of the files."""
        return len(self.listed_seeds) + sum(file.count for file in self.file_seeds)

    @property
    def listed_seeds(self) -> tuple[str, ...]:
        """Those of `crawl.seeds`, and those of [[seed]]."""
        return (*self.crawl.seeds, *(one.url for one in self.seed_tables))

    @property
    def first_seed(self) -> str | None:
        """As written: of `crawl.seeds`, else of [[seed]] or of the files. None if there is no seed."""
        found = [*self.listed_seeds[:1], *(file.first for file in self.file_seeds if file.count)]
        return found[0] if found else None

    @property
    def output_directory(self) -> Path:
        return Path(self.output.directory or self.crawl.name)

    @property
    def frontier_path(self) -> Path:
        return Path(self.frontier.path) if self.frontier.path else self.output_directory / "frontier.db"

    @property
    def control_socket(self) -> Path:
        return Path(self.admin.socket) if self.admin.socket else self.output_directory / "control.sock"

    @property
    def log_directory(self) -> Path:
        return Path(self.log.directory) if self.log.directory else self.output_directory / "logs"

    def paths(self) -> CrawlPaths:
        """The paths of the crawl that these settings describe."""
        return CrawlPaths(
            self.output_directory, self.frontier_path, self.log_directory, self.control_socket,
            is_database=self.frontier.store == "postgresql", agent=self.frontier.agent,
        )  # fmt: skip

    def with_default_output(self) -> "Settings":
        """The same settings, with the default output.directory of `crawl`, named for the first seed, if none is set."""
        if self.output.directory or self.first_seed is None:
            return self
        directory = Path(self.crawl.name) / str(parse_seed(self.first_seed)[1]).partition("//")[2]
        return replace(self, output=self.output.model_copy(update={"directory": str(directory)}))

    def rules(self, mode: Mode = "run") -> Rules:
        """The rules by which URLs are judged, for commands that explain a crawl. A schedule is a daemon's."""
        network, scope = self.network_options(), self.scope_options()
        seeds = EngineConfiguration(
            seeds=self.listed_seeds, seed_files=self.file_seeds, scope=scope, scoped_seeds=self._scoped_seeds()
        )
        return Rules(
            scope=scope,
            politeness=self.politeness_options(),
            traps=self.trap_options(),
            seed_hosts=tuple(sorted(seeds.seed_hosts)),
            seed_directories=tuple(sorted(seeds.seed_directories)),
            seed_names=seeds.seed_names,
            robots_token=self.robots_token,
            allow_private=network.allow_private,
            resolve=network.resolve,
            schedule=self.schedule_options() if mode == "run" else ScheduleOptions(),
            overrides=self.host_overrides(),
            seeds=self.seed_options(),
        )

    @property
    def robots_token(self) -> str:
        """`identity.robots_token`, or the first product in user_agent without its version."""
        if self.identity.robots_token is not None:
            return self.identity.robots_token
        product = re.match(TOKEN, self.identity.user_agent)
        return product[0] if product else IdentityOptions().robots_token

    def scope_options(self) -> ScopeOptions:
        rules = {name: self._rules(name, getattr(self.scope, name)) for name in ("include", "exclude")}
        return _options(ScopeOptions, self.scope, **rules)

    def _rules(self, key: str, patterns: tuple[str, ...]) -> tuple[ScopeRule, ...]:
        places = self.pattern_places.get(key) or ("",) * len(patterns)
        return tuple(ScopeRule(pattern, place) for pattern, place in zip(patterns, places, strict=True))

    def host_overrides(self) -> tuple[Override, ...]:
        """The overrides without their header fields, which may be secret."""
        places = self.override_places or ("",) * len(self.overrides)
        return tuple(_host_override(one, place) for one, place in zip(self.overrides, places, strict=True))

    def seed_options(self) -> tuple[SeedOptions, ...]:
        """The options of [[seed]], with the directories of the seeds: a path and query may be secret."""
        places = self.seed_places or ("",) * len(self.seed_tables)
        return tuple(
            SeedOptions(directory_of(parse_seed(one.url)[0]), place, one.tags, _depth_of(one), one.scope or ())
            for one, place in zip(self.seed_tables, places, strict=True)
        )

    def _scoped_seeds(self) -> frozenset[str]:
        return frozenset(parse_seed(one.url)[0] for one in self.seed_tables if one.scope)

    def trap_options(self) -> TrapOptions:
        return _options(TrapOptions, self.traps)

    def politeness_options(self) -> PolitenessOptions:
        return _options(PolitenessOptions, self.politeness)

    def address_politeness(self) -> PolitenessOptions:
        """`politeness_options` for IP addresses. Behind a proxy, where all connections go to one address, they set no
        limits.
        """
        options = self.politeness_options()
        if self.network.proxy is None:
            return options
        return replace(options, address_delay_s=0.0, connections_per_address=self.fetch.connections)

    def identity_options(self) -> IdentityOptions:
        return _options(IdentityOptions, self.identity, robots_token=self.robots_token)

    def fetch_options(self) -> FetchOptions:
        overriding = [one for one in self.overrides if one.headers is not None]
        host_headers = tuple((name, tuple((one.headers or {}).items())) for one in overriding for name in one.hosts)
        headers = tuple(self.fetch.headers.items())
        limiting = (
            replace(one, place="")
            for one in self.host_overrides()
            if any(getattr(one, name) is not None for name in FETCH_OVERRIDES)
        )
        return _options(FetchOptions, self.fetch, headers=headers, host_headers=host_headers, overrides=tuple(limiting))

    def network_options(self) -> NetworkOptions:
        return _options(NetworkOptions, self.network, resolve=tuple(self.network.resolve.items()), proxy=self._proxy())

    def _proxy(self) -> ProxyOptions | None:
        """`network.proxy` taken apart; credentials in the secrets file come before those in the URL."""
        if self.network.proxy is None:
            return None
        userinfo, _, place = self.network.proxy.removeprefix("http://").rpartition("@")
        host, _, port = place.rpartition(":")
        authorization = self.secrets.proxy_authorization or (proxy_authorization(userinfo) if userinfo else None)
        return ProxyOptions(host, int(port), authorization)

    def tls_options(self) -> TlsOptions:
        return _options(TlsOptions, self.tls)

    def client_options(self) -> ClientOptions:
        address = self.address_politeness()
        return ClientOptions(
            identity=self.identity_options(),
            fetch=self.fetch_options(),
            network=self.network_options(),
            tls=self.tls_options(),
            secrets=self.secrets,
            connections_per_host=max(
                address.connections_per_host, *(one.connections_per_host or 0 for one in self.overrides), 0
            ),
            connections_per_address=address.connections_per_address,
        )

    def content_options(self) -> ContentOptions:
        return _options(ContentOptions, self.content)

    def sitemaps(self, mode: Mode) -> str:
        """crawl.sitemaps, or its default: trying usual places of sitemaps is worth it only in a crawl that goes on."""
        return self.crawl.sitemaps or ("probe" if mode == "run" else "named")

    def schedule_options(self) -> ScheduleOptions:
        return _options(ScheduleOptions, self.schedule)

    def recrawl_options(self, mode: Mode) -> RecrawlOptions:
        enabled = mode == "run" if self.recrawl.enabled is None else self.recrawl.enabled
        importance = tuple(ImportanceRule(*rule) for rule in self.recrawl.importance.items())
        return _options(RecrawlOptions, self.recrawl, enabled=enabled, importance=importance)

    def sink_options(self) -> SinkOptions:
        name = self.crawl.name if self.frontier.agent == ONLY_AGENT else f"{self.crawl.name}-{self.frontier.agent}"
        return _options(SinkOptions, self.crawl, self.output, name=name)

    def shared_rules(self) -> str:
        """A hash of what all agents of a crawl must have in common: the rules of scope and politeness."""
        rules = self.engine_configuration("run")
        common = (rules.fingerprint, rules.scope, rules.politeness, rules.address_politeness, rules.overrides.all)
        return sha256(repr(common).encode()).hexdigest()

    def engine_options(self, mode: Mode) -> EngineOptions:
        """`run` never ends by itself, so it has neither linger nor max_duration."""
        endless = {"linger_s": None, "max_duration_s": None} if mode == "run" else {}
        return _options(EngineOptions, self.engine, self.crawl, self.output, self.fetch, **endless)

    def engine_configuration(self, mode: Mode) -> EngineConfiguration:
        return EngineConfiguration(
            seeds=self.listed_seeds,
            seed_files=self.file_seeds,
            seed_options=self.seed_options(),
            scoped_seeds=self._scoped_seeds(),
            scope=self.scope_options(),
            politeness=self.politeness_options(),
            address_politeness=self.address_politeness(),
            traps=self.trap_options(),
            recrawl=self.recrawl_options(mode),
            schedule=self.schedule_options(),
            content=self.content_options(),
            client=self.client_options(),
            overrides=Overrides(self.host_overrides()),
            engine=self.engine_options(mode),
            sitemaps=self.sitemaps(mode),
            output=self.output_directory,
        )

    def log_options(self) -> LogOptions:
        return _options(LogOptions, self.log)


_ZERO_IF_NONE: Final = ("max_urls", "min_rate", "bandwidth_per_host")  # how an Override says "none"


def _host_override(one: sections.OverrideSection, place: str) -> Override:
    unlimited = {name: 0 for name in _ZERO_IF_NONE if name in one.model_fields_set and getattr(one, name) is None}
    return _options(Override, one, place=place, max_depth=_depth_of(one), **unlimited)


def _depth_of(one: sections.OverrideSection | sections.SeedSection) -> int | None:
    return ANY_DEPTH if "max_depth" in one.model_fields_set and one.max_depth is None else one.max_depth


def _options(options: Callable[..., _T], *given: sections.Section, **others: object) -> _T:
    """The options of a component. Each field has the value of the key of its name (without "_s" for a time), or that in
    `others`, or its default.
    """
    values = {key: value for section in given for key, value in section}
    names = [name for name in signature(options).parameters if name.removesuffix("_s") in values]
    return options(**{name: values[name.removesuffix("_s")] for name in names} | others)


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys ("section.key") whose values differ: those a reload brings into force, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """What a reload from `old` to `new` changes. A changed seed file counts as `crawl.seed_files`, secrets likewise."""
    files = {"crawl.seed_files": old.file_seeds != new.file_seeds, "identity.secrets": old.secrets != new.secrets}
    overriding = (OVERRIDE,) if old.overrides != new.overrides else ()
    seeding = (SEED,) if old.seed_tables != new.seed_tables else ()
    differing = [key for name, key in keys().items() if old.get(name) != new.get(name) or files.get(name)]
    return Changes(
        live=(*(str(key) for key in differing if not key.restart), *overriding, *seeding),
        restart=tuple(str(key) for key in differing if key.restart),
    )


def keeping(old: Settings, new: Settings, dotted: Sequence[str]) -> Settings:
    """`new`, with the values of `old` for these keys, as for those that need a restart."""
    kept = new
    for name in dotted:
        key = keys()[name]
        section = getattr(kept, key.section).model_copy(update={key.attribute: old.get(name)})
        kept = replace(kept, **{key.section: section})
    return replace(kept, secrets=old.secrets) if "identity.secrets" in dotted else kept


@dataclass(frozen=True, slots=True)
class ShownKey:
    """One key. `value` is for JSON: None if there is no limit or nothing is set; `text` is the same as TOML.

    `note` describes a value that follows from other keys; `origin` is "default" or a location ("crawler.toml:14").
    """

    key: str
    value: object
    text: str
    origin: str
    note: str
    description: str
    restart: bool


def masked(settings: Settings, origins: Mapping[str, str]) -> list[ShownKey]:
    """Every key of `settings`, in the order of the file."""
    return [_shown(key, settings, origins.get(dotted, DEFAULT_ORIGIN)) for dotted, key in keys().items()]


# What the keys of an override are used instead of.
_INSTEAD_OF: Final = {
    "enabled": "override.enabled",
    "include": "override.include",
    "exclude": "override.exclude",
    "max_depth": "scope.max_depth",
    "requisites": "scope.requisites",
    "max_urls": "scope.max_urls_per_host",
    "delay": "politeness.delay",
    "max_crawl_delay": "politeness.max_crawl_delay",
    "connections_per_host": "politeness.connections_per_host",
    "robots": "politeness.robots",
    "adaptive": "politeness.adaptive",
    "first_byte_timeout": "fetch.first_byte_timeout",
    "read_timeout": "fetch.read_timeout",
    "total_timeout": "fetch.total_timeout",
    "min_rate": "fetch.min_rate",
    "max_body": "fetch.max_body",
    "content_types": "fetch.content_types",
    "bandwidth_per_host": "fetch.bandwidth_per_host",
    "headers": "fetch.headers",
    "recrawl": "recrawl.enabled",
    "min_interval": "recrawl.min_interval",
    "max_interval": "recrawl.max_interval",
}


def masked_tables(settings: Settings, table: str) -> list[dict[str, str]]:
    """The overrides or the tables of seeds, each with its keys and their values as TOML."""
    tables: Sequence[sections.Section] = settings.overrides if table == OVERRIDE else settings.seed_tables
    return [
        {
            name: toml_text(key, _masked(name, getattr(one, name)))
            for name, key in table_keys(table).items()
            if name in one.model_fields_set
        }
        for one in tables
    ]


def _masked(name: str, value: object) -> object:
    if isinstance(value, dict):
        return _masked_headers(value)
    return _without_userinfo(value) if name == "url" and isinstance(value, str) else value


def tables_text(settings: Settings, table: str) -> str:
    """The overrides or the tables of seeds as one line of TOML."""
    found = (", ".join(f"{name} = {text}" for name, text in one.items()) for one in masked_tables(settings, table))
    return f"[{', '.join(f'{{ {one} }}' for one in found)}]"


def masked_for(settings: Settings, origins: Mapping[str, str], url: str) -> list[ShownKey]:
    """The keys that overrides may change, with their values for one URL, "override.enabled", and "override.include" and
    "override.exclude" if an override gives them, and "seed.tags" if a seed does.
    """
    host, overrides = parse(url)[1].host, Overrides(settings.host_overrides())
    matching = [
        (f'{one.place} override "{pattern}"', settings.overrides[overrides.all.index(one)])
        for pattern, one in overrides.matching(host, url)
    ]
    seeds = SeedPlaces(settings.seed_options(), settings.scope.hosts[0]).of(url, host)
    found = []
    if tagged := next((one for one in seeds if one.tags), None):
        key = table_keys(SEED)["tags"]
        text = toml_text(key, tagged.tags)
        found.append(ShownKey("seed.tags", list(tagged.tags), text, tagged.place, "", key.description, restart=False))
    for name, dotted in _INSTEAD_OF.items():
        origin, section = next(((where, one) for where, one in matching if name in one.model_fields_set), ("", None))
        if section is not None:
            key = keys().get(dotted) or table_keys(OVERRIDE)[name]
            value = getattr(section, name)
            if isinstance(value, dict):
                value = _masked_headers(_with_headers(settings.fetch.headers, value))
            found.append(ShownKey(dotted, value, toml_text(key, value), origin, "", key.description, key.restart))
        elif name == "max_depth" and (limiting := next((one for one in seeds if one.max_depth is not None), None)):
            key, limit = keys()[dotted], None if limiting.max_depth == ANY_DEPTH else limiting.max_depth
            origin = f"{limiting.place} seed"
            found.append(ShownKey(dotted, limit, toml_text(key, limit), origin, "", key.description, restart=False))
        elif dotted in keys():
            found.append(_shown(keys()[dotted], settings, origins.get(dotted, DEFAULT_ORIGIN)))
        elif name == "enabled":
            description = table_keys(OVERRIDE)[name].description
            found.append(ShownKey(dotted, True, "true", DEFAULT_ORIGIN, "", description, restart=False))
    return found


def _with_headers(usual: Mapping[str, str], value: Mapping[str, str]) -> dict[str, str]:
    """Header fields of an override replace those of their names and leave the others."""
    replaced = {name.lower() for name in value}
    return {name: text for name, text in usual.items() if name.lower() not in replaced} | dict(value)


def _masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text if name.lower() in _HARMLESS else MASK for name, text in headers.items()}


def _shown(key: ConfigurationKey, settings: Settings, origin: str) -> ShownKey:
    value, note = settings.get(str(key)), ""
    if value is None:
        value, note = _derived_values(settings).get(str(key)), key.derived
    match str(key), value:
        case "fetch.headers", dict():
            value = _masked_headers(value)
        case "network.proxy" | "frontier.dsn", str():
            value = _without_userinfo(value)
        case "crawl.seeds", tuple():
            value = tuple(map(_without_userinfo, value))
    return ShownKey(
        key=str(key),
        value=list(value) if isinstance(value, tuple) else value,
        text="" if value is None and note else toml_text(key, value),
        origin=origin,
        note=note,
        description=key.description,
        restart=key.restart,
    )


def _without_userinfo(url: str) -> str:
    return _USERINFO.sub(rf"\g<1>{MASK}@", url)


def _derived_values(settings: Settings) -> dict[str, str]:
    """The values of keys that are not set, where other keys decide them."""
    return {
        "identity.robots_token": settings.robots_token,
        "output.directory": str(settings.output_directory),
        "frontier.path": str(settings.frontier_path),
        "log.directory": str(settings.log_directory),
        "admin.socket": str(settings.control_socket),
    }
