"""From settings to the options of each component, and the defaults they share."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest

from crawler.core.options import PolitenessOptions, RecrawlOptions, ScheduleOptions, ScopeOptions
from crawler.engine.options import ContentOptions, EngineOptions
from crawler.fetch.options import FetchOptions, IdentityOptions, NetworkOptions, TlsOptions
from crawler.obs.log_files import LogOptions
from crawler.settings.loading import load
from crawler.settings.schema import SECTIONS, ConfigurationKey, keys
from crawler.settings.settings import Settings, changes
from crawler.settings.value_types import KeyKind
from crawler.sinks.base import SinkOptions


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
            settings.schedule_options(),
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
    assert settings.schedule_options() == ScheduleOptions()


# Keys whose value cannot be made up, or whose option has another name or form: a value that is not the default, and the
# one option it changes, to what.
REACHES = [
    ("crawl.name", "x", "SinkOptions.name", "x"),
    ("identity.user_agent", "crawlerd/9", "IdentityOptions.user_agent", "crawlerd/9"),
    ("identity.robots_token", "x", "IdentityOptions.robots_token", "x"),
    ("identity.from", "a@b", "IdentityOptions.from_address", "a@b"),
    ("scope.hosts", "e.org", "ScopeOptions.hosts", ("e.org",)),
    ("scope.include", "a", "ScopeOptions.include", ({"pattern": "a", "place": "-o scope.include"},)),
    ("scope.exclude", "a", "ScopeOptions.exclude", ({"pattern": "a", "place": "-o scope.exclude"},)),
    ("fetch.encodings", "br", "FetchOptions.encodings", ("br",)),
    ("fetch.headers", "{a='b', c='d'}", "FetchOptions.headers", (("a", "b"), ("c", "d"))),
    ("fetch.content_types", "TEXT/*", "FetchOptions.content_types", ("text/*",)),
    ("fetch.hours", "22:00-06:00", "EngineOptions.hours", ("22:00-06:00",)),
    ("network.allow_private", "10.0.0.0/8", "NetworkOptions.allow_private", ("10.0.0.0/8",)),
    ("network.resolve", "{'*.a'=['8.8.8.8']}", "NetworkOptions.resolve", (("*.a", ("8.8.8.8",)),)),
    ("network.nameservers", "9.9.9.9", "NetworkOptions.nameservers", ("9.9.9.9",)),
    ("network.bind_address", "::1", "NetworkOptions.bind_address", "::1"),
    (
        "network.proxy",
        "http://u%40:p@[::1]:3128",
        "NetworkOptions.proxy",
        {"host": "[::1]", "port": 3128, "authorization": "Basic dUA6cA=="},
    ),
    ("tls.ciphers", "DEFAULT", "TlsOptions.ciphers", "DEFAULT"),
    ("recrawl.importance", "{'/a'=5}", "RecrawlOptions.importance", ({"pattern": "/a", "factor": 5.0},)),
    ("schedule.at", "daily", "ScheduleOptions.at", ("daily",)),
    ("log.directory", "/x", "LogOptions.directory", "/x"),
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
    "frontier.dsn",
    "frontier.agent",
    "frontier.lease",
    "frontier.duplicates",
    "output.directory",
    "admin.socket",
    "admin.listen",
    "admin.actions",
}


@pytest.mark.parametrize(("key", "text", "option", "value"), REACHES)
def test_a_key_of_its_own_form_reaches_its_option_and_no_other(key: str, text: str, option: str, value: object) -> None:
    """A key that changes nothing, or something else, would be a lie in the documentation."""
    assert {option: value} == _changed_by(f"{key}={text}")


@pytest.mark.parametrize("key", sorted(keys().keys() - {key for key, *_ in REACHES} - ELSEWHERE))
def test_every_other_key_reaches_the_option_of_its_name_and_no_other(key: str) -> None:
    """A time has "_s" in the option's name."""
    value = _another_value(keys()[key])
    ((option, new),) = _changed_by(f"{key}={str(value).lower()}").items()
    assert (option.partition(".")[2].removesuffix("_s"), new) == (keys()[key].attribute, value)


def _changed_by(override: str) -> dict[str, object]:
    before, after = every_option(Settings()), every_option(load(None, [override], {}, "crawl").settings)
    return {name: new for name, new in after.items() if new != before[name]}


def _another_value(key: ConfigurationKey) -> object:
    """One that is not the default."""
    match key.default:
        case None:
            return True if key.kind is KeyKind.FLAG else 1024
        case bool():
            return not key.default
        case float():
            return key.default / 2
        case int():
            return key.default + 1
        case _:
            words = get_args(SECTIONS[key.section].model_fields[key.attribute].annotation)
            return next(word for word in words if word != key.default)


def test_the_daemon_revisits_pages_and_probes_sitemaps_by_default() -> None:
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


def test_every_key_of_the_operations_document_is_there() -> None:
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
        "schedule": "at what",
        "frontier": "store path duplicates",
        "output": "directory warc warc_size pages min_free",
        "log": "level directory rotate_size keep",
        "admin": "socket listen",
        "engine": "workers lease_size memory drain",
    }
    assert {f"{section}.{name}" for section, names in contract.items() for name in names.split()} <= set(keys())
    assert list(SECTIONS) == list(contract)


def test_every_key_is_described_and_tagged() -> None:
    """admin, output, frontier, engine, log.directory, log.stderr and what the client is built with need a restart; the
    rest is live.
    """
    built_with = {
        "log.directory",
        "log.stderr",
        "identity.secrets",
        "fetch.cookies",
        "fetch.first_contacts",
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
    assert changes(old, new).live == ("crawl.seed_files", "politeness.delay")
    assert changes(old, new).restart == ("log.directory", "engine.workers")
