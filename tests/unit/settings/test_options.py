"""From settings to the options of each component, and the defaults they share."""

from dataclasses import asdict
from pathlib import Path

import pytest

from crawler.content.options import ContentOptions
from crawler.core.options import PolitenessOptions, RecrawlOptions, ScopeOptions
from crawler.engine.options import EngineOptions
from crawler.fetch.options import FetchOptions, IdentityOptions, NetworkOptions, TlsOptions
from crawler.obs.options import LogOptions
from crawler.settings import Settings, changes, load
from crawler.settings.schema import SECTIONS, keys
from crawler.settings.sections import UNSUPPORTED, Section
from crawler.sinks.options import SinkOptions


def every_option(settings: Settings) -> dict[str, object]:
    """All options objects as one flat table."""
    return {
        f"{type(options).__name__}.{name}": value
        for options in (
            settings.scope_options(),
            settings.trap_options(),
            settings.politeness_options(),
            settings.identity_options(),
            settings.fetch_options(),
            settings.network_options(),
            settings.tls_options(),
            settings.content_options(),
            settings.sink_options(),
            settings.engine_options("crawl"),
            settings.log_options(),
            settings.recrawl_options("crawl"),
        )
        for name, value in asdict(options).items()
    }


def test_defaults_are_those_of_the_option_classes() -> None:
    """One owner for each default: the room that uses it."""
    settings = Settings()
    assert settings.scope_options() == ScopeOptions()
    assert settings.politeness_options() == PolitenessOptions()
    assert settings.identity_options() == IdentityOptions()
    assert settings.fetch_options() == FetchOptions()
    assert settings.network_options() == NetworkOptions()
    assert settings.tls_options() == TlsOptions()
    assert settings.content_options() == ContentOptions()
    assert settings.sink_options() == SinkOptions()
    assert settings.engine_options("crawl") == EngineOptions()
    assert settings.log_options() == LogOptions()
    assert settings.recrawl_options("crawl") == RecrawlOptions()


# Key, a value that is not its default, and the one option it changes, to what.
REACHES = [
    ("crawl.name", "x", "SinkOptions.name", "x"),
    ("crawl.linger", "1s", "EngineOptions.linger_s", 1.0),
    ("crawl.max_duration", "1h", "EngineOptions.max_duration_s", 3600.0),
    ("identity.user_agent", "crawlerd/9", "IdentityOptions.user_agent", "crawlerd/9"),
    ("identity.robots_token", "x", "IdentityOptions.robots_token", "x"),
    ("identity.from", "a@b", "IdentityOptions.from_address", "a@b"),
    ("scope.hosts", "e.org", "ScopeOptions.hosts", ("e.org",)),
    ("scope.include", "a", "ScopeOptions.include", ({"pattern": "a", "place": "-o scope.include"},)),
    ("scope.exclude", "a", "ScopeOptions.exclude", ({"pattern": "a", "place": "-o scope.exclude"},)),
    ("scope.max_depth", "3", "ScopeOptions.max_depth", 3),
    ("scope.max_urls", "3", "ScopeOptions.max_urls", 3),
    ("scope.max_urls_per_host", "3", "ScopeOptions.max_urls_per_host", 3),
    ("scope.requisites", "false", "ScopeOptions.requisites", False),
    ("scope.lazy", "false", "ScopeOptions.lazy", False),
    ("traps.detect", "report", "TrapOptions.detect", "report"),
    ("traps.max_path_segments", "3", "TrapOptions.max_path_segments", 3),
    ("traps.max_repeats", "2", "TrapOptions.max_repeats", 2),
    ("traps.max_parameters", "3", "TrapOptions.max_parameters", 3),
    ("traps.max_pages_per_template", "3", "TrapOptions.max_pages_per_template", 3),
    ("traps.soft_404", "false", "TrapOptions.soft_404", False),
    ("politeness.key", "host", "PolitenessOptions.key", "host"),
    ("politeness.delay", "2s", "PolitenessOptions.delay_s", 2.0),
    ("politeness.address_delay", "2s", "PolitenessOptions.address_delay_s", 2.0),
    ("politeness.max_crawl_delay", "2s", "PolitenessOptions.max_crawl_delay_s", 2.0),
    ("politeness.connections_per_host", "2", "PolitenessOptions.connections_per_host", 2),
    ("politeness.connections_per_address", "2", "PolitenessOptions.connections_per_address", 2),
    ("politeness.robots", "ignore", "PolitenessOptions.robots", "ignore"),
    ("politeness.adaptive", "false", "PolitenessOptions.adaptive", False),
    ("fetch.connections", "2", "FetchOptions.connections", 2),
    ("fetch.connect_timeout", "2s", "FetchOptions.connect_timeout_s", 2.0),
    ("fetch.tls_timeout", "2s", "FetchOptions.tls_timeout_s", 2.0),
    ("fetch.first_byte_timeout", "2s", "FetchOptions.first_byte_timeout_s", 2.0),
    ("fetch.read_timeout", "2s", "FetchOptions.read_timeout_s", 2.0),
    ("fetch.total_timeout", "2m", "FetchOptions.total_timeout_s", 120.0),
    ("fetch.min_rate", "1KiB", "FetchOptions.min_rate", 1024),
    ("fetch.max_head", "1KiB", "FetchOptions.max_head", 1024),
    ("fetch.max_fields", "2", "FetchOptions.max_fields", 2),
    ("fetch.max_informational", "0", "FetchOptions.max_informational", 0),
    ("fetch.max_chunk_line", "1KiB", "FetchOptions.max_chunk_line", 1024),
    ("fetch.max_trailers", "1KiB", "FetchOptions.max_trailers", 1024),
    ("fetch.max_chunks", "2", "FetchOptions.max_chunks", 2),
    ("fetch.max_body", "1KiB", "FetchOptions.max_body", 1024),
    ("fetch.max_decoded", "1KiB", "FetchOptions.max_decoded", 1024),
    ("fetch.max_expansion", "2", "FetchOptions.max_expansion", 2),
    ("fetch.spool_over", "0", "FetchOptions.spool_over", 0),
    ("fetch.receive_buffer", "1MiB", "FetchOptions.receive_buffer", 1 << 20),
    ("fetch.idle_timeout", "2s", "FetchOptions.idle_timeout_s", 2.0),
    ("fetch.max_connection_age", "2s", "FetchOptions.max_connection_age_s", 2.0),
    ("fetch.max_requests_per_connection", "2", "FetchOptions.max_requests_per_connection", 2),
    ("fetch.encodings", "br", "FetchOptions.encodings", ("br",)),
    ("fetch.headers", "{a='b', c='d'}", "FetchOptions.headers", (("a", "b"), ("c", "d"))),
    ("fetch.cookies", "session", "FetchOptions.cookies", "session"),
    ("fetch.content_types", "TEXT/*", "FetchOptions.content_types", ("text/*",)),
    ("fetch.bandwidth", "1KiB", "FetchOptions.bandwidth", 1024),
    ("fetch.bandwidth_per_host", "1KiB", "FetchOptions.bandwidth_per_host", 1024),
    ("fetch.hours", "22:00-06:00", "EngineOptions.hours", ("22:00-06:00",)),
    ("content.max_html", "1KiB", "ContentOptions.max_html", 1024),
    ("content.max_links", "2", "ContentOptions.max_links", 2),
    ("network.allow_private", "10.0.0.0/8", "NetworkOptions.allow_private", ("10.0.0.0/8",)),
    ("network.resolve", "{'*.a'=['8.8.8.8']}", "NetworkOptions.resolve", (("*.a", ("8.8.8.8",)),)),
    ("network.nameservers", "9.9.9.9", "NetworkOptions.nameservers", ("9.9.9.9",)),
    ("network.bind_address", "::1", "NetworkOptions.bind_address", "::1"),
    ("network.address_family", "ipv4", "NetworkOptions.address_family", "ipv4"),
    (
        "network.proxy",
        "http://u%40:p@[::1]:3128",
        "NetworkOptions.proxy",
        {"host": "[::1]", "port": 3128, "authorization": "Basic dUA6cA=="},
    ),
    ("tls.verify", "false", "TlsOptions.verify", False),
    ("tls.min_version", "1.3", "TlsOptions.min_version", "1.3"),
    ("tls.ciphers", "DEFAULT", "TlsOptions.ciphers", "DEFAULT"),
    ("recrawl.enabled", "true", "RecrawlOptions.enabled", True),
    ("recrawl.min_interval", "2h", "RecrawlOptions.min_interval_s", 7200.0),
    ("recrawl.max_interval", "2d", "RecrawlOptions.max_interval_s", 172_800.0),
    ("recrawl.visits_per_day", "7", "RecrawlOptions.visits_per_day", 7),
    ("recrawl.importance", "{'/a'=5}", "RecrawlOptions.importance", ({"pattern": "/a", "factor": 5.0},)),
    ("output.warc", "false", "SinkOptions.warc", False),
    ("output.warc_size", "1KiB", "SinkOptions.warc_size", 1024),
    ("output.pages", "false", "SinkOptions.pages", False),
    ("output.min_free", "0", "EngineOptions.min_free", 0),
    ("log.level", "debug", "LogOptions.level", "debug"),
    ("log.directory", "/x", "LogOptions.directory", "/x"),
    ("log.rotate_size", "1KiB", "LogOptions.rotate_size", 1024),
    ("log.keep", "0", "LogOptions.keep", 0),
    ("engine.workers", "2", "EngineOptions.workers", 2),
    ("engine.lease_size", "2", "EngineOptions.lease_size", 2),
    ("engine.memory", "2MiB", "EngineOptions.memory", 2 * 1024**2),
    ("engine.drain", "2s", "EngineOptions.drain_s", 2.0),
]
# Keys that are no component's option, or whose value has to exist on the disk; each has a test of its own.
ELSEWHERE = {
    "crawl.seeds",
    "crawl.seed_files",
    "identity.secrets",
    "network.ca_file",
    "crawl.sitemaps",
    "frontier.store",
    "frontier.path",
    "frontier.duplicates",
    "output.directory",
    "admin.socket",
    "admin.listen",
}


@pytest.mark.parametrize(("key", "text", "option", "value"), REACHES)
def test_each_key_reaches_its_option_and_no_other(key: str, text: str, option: str, value: object) -> None:
    """A key that changes nothing, or something else, would be a lie in the documentation."""
    before = every_option(Settings())
    after = every_option(load(None, [f"{key}={text}"], {}, "crawl").settings)
    assert {option: value} == {name: new for name, new in after.items() if new != before[name]}


def test_every_key_is_known_to_the_table_above() -> None:
    """A new key comes with the option it reaches."""
    assert {key for key, *_ in REACHES} | ELSEWHERE == set(keys())


def test_the_daemon_comes_back_and_looks_for_sitemaps_unless_told_otherwise() -> None:
    """A one-off crawl does neither unless told to."""
    assert Settings().recrawl_options("run").enabled
    assert not load(None, ["recrawl.enabled=false"], {}, "crawl").settings.recrawl_options("run").enabled
    assert (Settings().sitemaps("run"), Settings().sitemaps("crawl")) == ("probe", "named")
    off = load(None, ["crawl.sitemaps=off"], {}, "crawl").settings
    assert (off.sitemaps("run"), off.sitemaps("crawl")) == ("off", "off")


def test_run_never_ends_by_itself() -> None:
    """linger and max_duration are for `crawl`."""
    settings = load(None, ["crawl.linger=1s", "crawl.max_duration=1h"], {}, "crawl").settings
    options = settings.engine_options("run")
    assert (options.linger_s, options.max_duration_s) == (None, None)


@pytest.mark.parametrize(
    ("user_agent", "token"),
    [("mybot/1.0 (+https://e.org)", "mybot"), ("my-bot", "my-bot"), ("a b/1", "a"), ("MJ12bot/v1.4.8", "MJ12bot")],
)
def test_robots_token_is_the_first_product(user_agent: str, token: str) -> None:
    """Without its version, unless identity.robots_token says otherwise."""
    assert load(None, [f"identity.user_agent={user_agent}"], {}, "crawl").settings.robots_token == token


def test_every_planned_key_is_there_or_refused_by_name() -> None:
    """The sections and keys of the operations document are a contract."""
    contract = {
        "crawl": "name seeds seed_files linger",
        "identity": "user_agent robots_token from secrets",
        "scope": "hosts include exclude max_depth max_urls max_urls_per_host requisites lazy",
        "traps": "detect max_path_segments max_repeats max_parameters max_pages_per_template soft_404",
        "politeness": "key delay address_delay max_crawl_delay connections_per_host connections_per_address robots"
        " adaptive",
        "fetch": "connections connect_timeout tls_timeout first_byte_timeout read_timeout total_timeout min_rate"
        " max_head max_body max_expansion spool_over receive_buffer idle_timeout max_connection_age"
        " max_requests_per_connection encodings headers cookies content_types bandwidth hours",
        "content": "max_html max_links",
        "network": "allow_private resolve nameservers ca_file bind_address address_family proxy",
        "tls": "verify min_version ciphers",
        "recrawl": "enabled min_interval max_interval visits_per_day",
        "frontier": "store path duplicates",
        "output": "directory warc warc_size pages min_free",
        "log": "level directory rotate_size keep",
        "admin": "socket listen",
        "engine": "workers lease_size memory drain",
    }
    planned = {f"{section}.{name}" for section, names in contract.items() for name in names.split()}
    assert planned <= set(keys()) | UNSUPPORTED
    assert set(keys()).isdisjoint(UNSUPPORTED)
    assert list(SECTIONS) == list(contract)
    # A section that the settings have and the file may not name would be a promise that cannot be kept.
    defaults = Settings()
    sections_of_settings = {
        name for name in Settings.__dataclass_fields__ if isinstance(getattr(defaults, name), Section)
    }
    assert set(SECTIONS) == sections_of_settings


def test_every_key_is_described_and_tagged() -> None:
    """admin, output, frontier, engine, log.directory and what the client is built with need a restart; the rest is
    live.
    """
    built_with = {
        "log.directory",
        "identity.secrets",
        "fetch.cookies",
        "network.proxy",
        "politeness.key",
        "identity.robots_token",
    }
    for dotted, key in keys().items():
        assert key.description.endswith("."), dotted
        restart = key.section in ("admin", "output", "frontier", "engine") or dotted in built_with
        assert key.restart == restart, dotted
        if key.derived:
            assert key.default is None
            assert key.example, dotted


def test_a_reload_knows_what_it_cannot_change(tmp_path: Path) -> None:
    """Changed keys are told apart by their tag; a seed file whose content changed counts."""
    seeds = tmp_path / "seeds"
    seeds.write_text("a.test\n")
    override = f"crawl.seed_files={seeds}"
    old = load(None, [override], {}, "crawl").settings
    seeds.write_text("b.test\n")
    new = load(None, [override, "politeness.delay=2s", "engine.workers=1", "log.directory=/x"], {}, "crawl").settings
    assert changes(old, old).live == changes(old, old).restart == ()
    assert changes(old, new).live == ("politeness.delay", "crawl.seed_files")
    assert changes(old, new).restart == ("log.directory", "engine.workers")
