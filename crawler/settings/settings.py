"""The effective configuration, and the options each component gets from it.

Holds values only; how they came about is in `loading`. No component receives the whole: each gets its own options
class. Invariant: with no key given, every options object equals the default of its class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from crawler.content.options import ContentOptions
from crawler.core.options import (
    ImportanceRule,
    PolitenessOptions,
    RecrawlOptions,
    ScopeOptions,
    ScopeRule,
    TrapOptions,
)
from crawler.engine.options import EngineOptions
from crawler.fetch.credentials import BadCredential, basic
from crawler.fetch.options import FetchOptions, IdentityOptions, NetworkOptions, ProxyOptions, Secrets, TlsOptions
from crawler.obs.options import LogOptions
from crawler.settings import sections
from crawler.settings.readers import TOKEN
from crawler.settings.schema import keys
from crawler.sinks.options import SinkOptions

Mode = Literal["crawl", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every section, what was read from `crawl.seed_files` and `identity.secrets`, and the places of the scope's
    patterns.

    `pattern_places` maps "include" and "exclude" to a place ("crawler.toml:14") for each pattern.
    """

    crawl: sections.Crawl = field(default_factory=sections.Crawl)
    identity: sections.Identity = field(default_factory=sections.Identity)
    scope: sections.Scope = field(default_factory=sections.Scope)
    traps: sections.Traps = field(default_factory=sections.Traps)
    politeness: sections.Politeness = field(default_factory=sections.Politeness)
    fetch: sections.Fetch = field(default_factory=sections.Fetch)
    content: sections.Content = field(default_factory=sections.Content)
    network: sections.Network = field(default_factory=sections.Network)
    tls: sections.Tls = field(default_factory=sections.Tls)
    recrawl: sections.Recrawl = field(default_factory=sections.Recrawl)
    frontier: sections.Frontier = field(default_factory=sections.Frontier)
    output: sections.Output = field(default_factory=sections.Output)
    log: sections.Log = field(default_factory=sections.Log)
    admin: sections.Admin = field(default_factory=sections.Admin)
    engine: sections.Engine = field(default_factory=sections.Engine)
    file_seeds: tuple[str, ...] = ()
    secrets: Secrets = field(default_factory=Secrets)
    pattern_places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def get(self, dotted: str) -> object:
        """The value of "section.key". Raises KeyError if there is no such key."""
        key = keys()[dotted]
        value: object = getattr(getattr(self, key.section), key.attribute)
        return value

    @property
    def seeds(self) -> list[str]:
        """As written: those of `crawl.seeds`, then those of the files."""
        return [*self.crawl.seeds, *self.file_seeds]

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

    @property
    def robots_token(self) -> str:
        """`identity.robots_token`, or the first product in user_agent without its version."""
        if self.identity.robots_token is not None:
            return self.identity.robots_token
        product = TOKEN.match(self.identity.user_agent)
        return product[0] if product else IdentityOptions().robots_token

    def scope_options(self) -> ScopeOptions:
        return ScopeOptions(
            hosts=self.scope.hosts,
            include=self._rules("include", self.scope.include),
            exclude=self._rules("exclude", self.scope.exclude),
            max_depth=self.scope.max_depth,
            max_urls=self.scope.max_urls,
            max_urls_per_host=self.scope.max_urls_per_host,
            requisites=self.scope.requisites,
            lazy=self.scope.lazy,
        )

    def _rules(self, key: str, patterns: tuple[str, ...]) -> tuple[ScopeRule, ...]:
        places = self.pattern_places.get(key) or ("",) * len(patterns)
        return tuple(ScopeRule(pattern, place) for pattern, place in zip(patterns, places, strict=True))

    def trap_options(self) -> TrapOptions:
        return TrapOptions(
            detect=self.traps.detect,
            max_path_segments=self.traps.max_path_segments,
            max_repeats=self.traps.max_repeats,
            max_parameters=self.traps.max_parameters,
            max_pages_per_template=self.traps.max_pages_per_template,
            soft_404=self.traps.soft_404,
        )

    def politeness_options(self) -> PolitenessOptions:
        return PolitenessOptions(
            key=self.politeness.key,
            delay_s=self.politeness.delay,
            address_delay_s=self.politeness.address_delay,
            max_crawl_delay_s=self.politeness.max_crawl_delay,
            connections_per_host=self.politeness.connections_per_host,
            connections_per_address=self.politeness.connections_per_address,
            robots=self.politeness.robots,
            adaptive=self.politeness.adaptive,
        )

    def address_politeness(self) -> PolitenessOptions:
        """`politeness_options` for IP addresses. Behind a proxy all connections lead to one address, which says nothing
        about whose patience is spent: nothing is held back by it.
        """
        options = self.politeness_options()
        if self.network.proxy is None:
            return options
        return replace(options, address_delay_s=0.0, connections_per_address=self.fetch.connections)

    def identity_options(self) -> IdentityOptions:
        return IdentityOptions(
            user_agent=self.identity.user_agent,
            robots_token=self.robots_token,
            from_address=self.identity.from_address,
        )

    def fetch_options(self) -> FetchOptions:
        return FetchOptions(
            connections=self.fetch.connections,
            connect_timeout_s=self.fetch.connect_timeout,
            tls_timeout_s=self.fetch.tls_timeout,
            first_byte_timeout_s=self.fetch.first_byte_timeout,
            read_timeout_s=self.fetch.read_timeout,
            total_timeout_s=self.fetch.total_timeout,
            min_rate=self.fetch.min_rate,
            max_chunks=self.fetch.max_chunks,
            max_head=self.fetch.max_head,
            max_fields=self.fetch.max_fields,
            max_informational=self.fetch.max_informational,
            max_chunk_line=self.fetch.max_chunk_line,
            max_trailers=self.fetch.max_trailers,
            max_body=self.fetch.max_body,
            max_expansion=self.fetch.max_expansion,
            max_decoded=self.fetch.max_decoded,
            spool_over=self.fetch.spool_over,
            receive_buffer=self.fetch.receive_buffer,
            idle_timeout_s=self.fetch.idle_timeout,
            max_connection_age_s=self.fetch.max_connection_age,
            max_requests_per_connection=self.fetch.max_requests_per_connection,
            encodings=self.fetch.encodings,
            headers=tuple(self.fetch.headers.items()),
            cookies=self.fetch.cookies,
            content_types=self.fetch.content_types,
            bandwidth=self.fetch.bandwidth,
            bandwidth_per_host=self.fetch.bandwidth_per_host,
        )

    def network_options(self) -> NetworkOptions:
        return NetworkOptions(
            allow_private=self.network.allow_private,
            resolve=tuple(self.network.resolve.items()),
            nameservers=self.network.nameservers,
            ca_file=self.network.ca_file,
            bind_address=self.network.bind_address,
            address_family=self.network.address_family,
            proxy=self._proxy(),
        )

    def _proxy(self) -> ProxyOptions | None:
        """`network.proxy` taken apart; credentials in the secrets file come before those in the URL."""
        if self.network.proxy is None:
            return None
        userinfo, _, place = self.network.proxy.removeprefix("http://").rpartition("@")
        host, _, port = place.rpartition(":")
        authorization = self.secrets.proxy_authorization or (_basic_of(userinfo) if userinfo else None)
        return ProxyOptions(host, int(port), authorization)

    def complaint_about_proxy(self) -> str | None:
        """Why the user and password in `network.proxy` cannot be sent; None if they can, or there are none."""
        try:
            self._proxy()
        except BadCredential as error:
            return str(error)
        return None

    def tls_options(self) -> TlsOptions:
        return TlsOptions(verify=self.tls.verify, min_version=self.tls.min_version, ciphers=self.tls.ciphers)

    def content_options(self) -> ContentOptions:
        return ContentOptions(max_html=self.content.max_html, max_links=self.content.max_links)

    def sitemaps(self, mode: Mode) -> str:
        """crawl.sitemaps, or what stands for it: an unnamed sitemap is a guess that pays in a crawl that goes on."""
        return self.crawl.sitemaps or ("probe" if mode == "run" else "named")

    def recrawl_options(self, mode: Mode) -> RecrawlOptions:
        enabled = self.recrawl.enabled
        return RecrawlOptions(
            enabled=mode == "run" if enabled is None else enabled,
            min_interval_s=self.recrawl.min_interval,
            max_interval_s=self.recrawl.max_interval,
            visits_per_day=self.recrawl.visits_per_day,
            importance=tuple(ImportanceRule(*rule) for rule in self.recrawl.importance.items()),
        )

    def sink_options(self) -> SinkOptions:
        return SinkOptions(
            name=self.crawl.name, warc=self.output.warc, warc_size=self.output.warc_size, pages=self.output.pages
        )

    def engine_options(self, mode: Mode) -> EngineOptions:
        """`run` never ends by itself, so it has neither linger nor max_duration."""
        return EngineOptions(
            workers=self.engine.workers,
            lease_size=self.engine.lease_size,
            memory=self.engine.memory,
            drain_s=self.engine.drain,
            linger_s=self.crawl.linger if mode == "crawl" else None,
            max_duration_s=self.crawl.max_duration if mode == "crawl" else None,
            min_free=self.output.min_free,
            hours=self.fetch.hours,
        )

    def log_options(self) -> LogOptions:
        return LogOptions(
            level=self.log.level,
            directory=self.log.directory,
            rotate_size=self.log.rotate_size,
            keep=self.log.keep,
        )


def _basic_of(userinfo: str) -> str:
    username, _, password = userinfo.partition(":")
    return basic(unquote(username), unquote(password))


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys ("section.key") whose values differ: those a reload brings into force, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """What a reload from `old` to `new` changes. A changed seed file counts as `crawl.seed_files`, secrets likewise."""
    differing = [key for key in keys().values() if old.get(str(key)) != new.get(str(key))]
    live = [str(key) for key in differing if not key.restart]
    if old.file_seeds != new.file_seeds and "crawl.seed_files" not in live:
        live.append("crawl.seed_files")
    restart = [str(key) for key in differing if key.restart]
    if old.secrets != new.secrets and "identity.secrets" not in restart:
        restart.append("identity.secrets")
    return Changes(tuple(live), tuple(restart))


def keeping(old: Settings, new: Settings, dotted: Sequence[str]) -> Settings:
    """`new`, with the values of `old` for these keys: those that only a restart brings into force."""
    kept = new
    for name in dotted:
        key = keys()[name]
        section = getattr(kept, key.section).model_copy(update={key.attribute: old.get(name)})
        kept = replace(kept, **{key.section: section})
    return replace(kept, secrets=old.secrets) if "identity.secrets" in dotted else kept
