# ruff: noqa: E501 - messages as they are printed
"""[[override]]: other options for some hosts, from the file to the options of the parts."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli
from click.testing import CliRunner

from crawler.cli import cli
from crawler.core.options import ANY_DEPTH, dump_rules, load_rules
from crawler.core.scope import Overrides
from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import Loaded, load
from crawler.settings.schema import OVERRIDE
from crawler.settings.settings import changes, tables_text
from tests.unit.settings.test_schema import SCHEMA, accepts

TEXT = """\
[fetch]
headers = { X-A = "secret", Accept-Language = "de" }
[[override]]
hosts = ["*.example.org"]
delay = "5s"
robots = "ignore"
headers = { accept-language = "en", X-B = "s3" }
[[override]]
hosts = ["WWW.example.org", "bücher.test"]
max_urls = 10
delay = 0
adaptive = false
max_crawl_delay = "2s"
connections_per_host = 3
[[override]]
hosts = ["old.example.org"]
enabled = false
max_urls = "none"
"""


def loaded(folder: Path, text: str, *overrides: str) -> Loaded:
    (folder / "crawler.toml").write_text(text, encoding="utf-8")
    return load(folder / "crawler.toml", overrides, {}, "crawl")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        loaded(folder, text)
    return [f"{one.line}:{one.column}: {one.message} ({one.hint})" for one in refused.value.problems]


def test_overrides_reach_the_options_of_the_parts(tmp_path: Path) -> None:
    """With their places; the header fields go to the client only, not into run.json."""
    settings = loaded(tmp_path, TEXT).settings
    options = settings.engine_configuration("crawl")
    www = options.overrides.of("www.example.org")
    assert (www.delay_s, www.robots, www.max_urls, www.adaptive) == (0.0, "ignore", 10, False)
    assert (www.max_crawl_delay_s, www.connections_per_host, www.enabled) == (2.0, 3, None)
    assert www.place == "crawler.toml:8"
    assert options.overrides.of("xn--bcher-kva.test").max_urls == 10
    old = options.overrides.of("old.example.org")
    assert (old.enabled, old.max_urls, old.delay_s) == (False, 0, 5.0)
    assert options.client.connections_per_host == 3
    assert options.client.fetch.host_headers == (("*.example.org", (("accept-language", "en"), ("X-B", "s3"))),)
    rules = settings.rules()
    assert "s3" not in json.dumps(dump_rules(rules))
    assert load_rules(json.loads(json.dumps(dump_rules(rules)))) == rules


def test_a_later_file_replaces_the_overrides(tmp_path: Path) -> None:
    """As it replaces a key whole; one without any keeps them."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1.toml").write_text('[[override]]\nhosts = ["b.test"]\ndelay = 3\n')
    (tmp_path / "conf.d" / "2.toml").write_text("[engine]\nworkers = 3\n")
    (only,) = loaded(tmp_path, TEXT).settings.host_overrides()
    assert (only.hosts, only.delay_s, only.place) == (("b.test",), 3.0, "conf.d/1.toml:1")


def test_what_a_reload_changes_is_named(tmp_path: Path) -> None:
    """A moved line is no change."""
    before = loaded(tmp_path, TEXT).settings
    assert changes(before, loaded(tmp_path, "\n" + TEXT).settings).live == ()
    after = loaded(tmp_path, TEXT.replace("5s", "6s")).settings
    assert changes(before, after).live == ("override",)
    assert 'delay = "6s"' in tables_text(after, OVERRIDE)
    assert "s3" not in tables_text(after, OVERRIDE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("delay = 1", '1:3: this override names neither hosts nor urls (as in hosts = ["example.org", '
         '"*.example.org"])'),
        ("hosts = []\ndelay = 1", '2:9: override.hosts must name at least one host (as in ["example.org", '
         '"*.example.org"])'),
        ('hosts = "a.test"\ndelay = 1', '2:9: override.hosts must be a list, not "a.test" (write ["a.test"])'),
        ('hosts = ["a.test", "https://b.test/"]\ndelay = 1', '2:20: an entry of override.hosts must be a host name, or '
         '"*." and one, not "https://b.test/" (a host stands without scheme, port and path; [[override]] urls takes those)'),
        ('hosts = ["a.test"]\ndelay = "5"', '3:9: override.delay must be a duration such as "500ms", "1s" or "1h30m", '
         'not "5" (a unit is missing: "5ms" or "5s")'),
        ('hosts = ["a.test"]\nrobots = "igrone"', '3:10: override.robots must be "obey" or "ignore", not "igrone" '
         '(did you mean "ignore"?)'),
        ('hosts = ["a.test"]\nenabled = 0', "3:11: override.enabled must be true or false, not 0 (write false)"),
        ('hosts = ["a.test"]\nmax_urls = 0', "3:12: override.max_urls must be at least 1, not 0 ()"),
        ('hosts = ["a.test"]\nmax_url = 5', '3:1: unknown key "max_url" in [[override]] (did you mean "max_urls"?)'),
        ('hosts = ["a.test"]\nbandwidth = 5', '3:1: unknown key "bandwidth" in [[override]] (fetch.bandwidth cannot be '
         "set for some hosts or URLs only)"),
        ('hosts = ["a.test"]\nheaders = { Host = "x" }', "3:13: a key of override.headers must not be Host: the crawler "
         "sends it itself ()"),
        ('hosts = ["a.test"]', "1:3: this override changes nothing (its keys are enabled, delay, max_crawl_delay, "
         "connections_per_host, robots, adaptive, max_urls, headers, max_depth, requisites, recrawl, min_interval, "
         "max_interval, first_byte_timeout, read_timeout, total_timeout, min_rate, max_body, content_types, "
         "bandwidth_per_host)"),
        ('urls = ["/x"]', "1:3: this override changes nothing (its keys are include, exclude, max_depth, requisites, "
         "recrawl, min_interval, max_interval)"),
        ("urls = []\nexclude = true", '2:8: override.urls must have at least one pattern (as in '
         '["example.org/archive/**", "**.pdf"])'),
        ('urls = [""]\nexclude = true', "2:9: an entry of override.urls must be a glob or a regular expression: an empty "
         "pattern matches nothing ()"),
        ('urls = ["/x", "re:("]\nexclude = true', "2:15: an entry of override.urls must be a glob or a regular "
         "expression: not a regular expression: missing ), unterminated subpattern at position 0 ()"),
        ('urls = "/x"\nexclude = true', '2:8: override.urls must be a list, not "/x" (write ["/x"])'),
        ('urls = ["/x"]\nexclude = "yes"', '3:11: override.exclude must be true or false, not "yes" (write true)'),
        ('urls = ["/x"]\nmax_depth = -1', "3:13: override.max_depth must be at least 0, not -1 ()"),
        ('urls = ["/x"]\nmax_depth = "all"', '3:13: override.max_depth must be a whole number, not "all" (no limit is '
         '"none")'),
        ('urls = ["/x"]\nexclud = true', '3:1: unknown key "exclud" in [[override]] (did you mean "exclude"?)'),
        ('urls = ["/x"]\ndelay = "5s"', "3:1: override.delay is for hosts: a delay is between two requests to one host, "
         "whatever their URLs (give it in an [[override]] with hosts)"),
        ('urls = ["/x"]\nrobots = "ignore"', "3:1: override.robots is for hosts: a robots.txt is that of a whole host "
         "(give it in an [[override]] with hosts)"),
        ('urls = ["/x"]\nmax_body = "1MiB"', "3:1: override.max_body is for hosts: exchanges with a host have the same "
         "limits (give it in an [[override]] with hosts)"),
        ('urls = ["/x"]\nenabled = false', "3:1: override.enabled is for hosts: it switches whole hosts off (for urls "
         "write exclude = true)"),
        ('hosts = ["a.test"]\nurls = ["/x"]\nrecrawl = false', "3:1: an override is for hosts or for urls, not for both "
         '(write two overrides; a pattern of urls may begin with a host, as in "example.org/archive/**")'),
        ('hosts = ["a.test"]\nexclude = true', "3:1: override.exclude is for urls (for hosts write enabled = false)"),
        ('hosts = ["a.test"]\ninclude = true', "3:1: override.include is for urls (scope.hosts lists the hosts in "
         "scope)"),
        ('urls = ["/x"]\ninclude = true\nexclude = true', "4:1: override.include and override.exclude are both true (leave one of them out)"),
        ('urls = ["/x"]\nmin_interval = "100d"', '3:16: override "/x": min_interval (100d) is longer than max_interval '
         "(90d) ()"),
        ('hosts = ["a.test"]\nmax_interval = "5m"', '3:16: override "a.test": min_interval (1h) is longer than '
         "max_interval (5m) ()"),
        ('hosts = ["*.a.test"]\ndelay = 1\n[[override]]\nhosts = ["*.A.test."]\ndelay = 1', '5:10: an entry of override.hosts, '
         '"*.a.test", is in an override before (crawler.toml:2) (put its keys into one override)'),
        ('hosts = ["a.test", "A.test"]\ndelay = 1', '2:20: an entry of override.hosts, "a.test", is in an override '
         "before (crawler.toml:2) (put its keys into one override)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """And what to write instead."""
    assert problems(tmp_path, f"[[override]]\n{text}\n") == [expected]


def test_every_mistake_is_told(tmp_path: Path) -> None:
    """In the order of the file, and no value of a header."""
    text = '[[override]]\ndelay = -1\n[[override]]\nhosts = ["a.test"]\nheaders = { A = "s3\\n" }\nrobots = 1\n'
    found = problems(tmp_path, text)
    assert [one.partition(" ")[0] for one in found] == ["1:3:", "2:9:", "5:17:", "6:10:"]
    assert "s3" not in "".join(found)


def test_one_table_and_an_override_outside_of_a_file_are_refused(tmp_path: Path) -> None:
    """With what to write."""
    hint = "(write [[override]], once for each group of hosts)"
    assert problems(tmp_path, '[override]\nhosts = ["a.test"]\n') == [
        f"1:2: override must be an array of tables {hint}"
    ]
    with pytest.raises(ConfigurationError, match=r"\[\[override\]\] can be given in a file only"):
        load(None, ["override.delay=3"], {}, "crawl")


@pytest.mark.parametrize(
    ("key", "warning"),
    [
        (
            "delay = 0",
            'crawler.toml:3:9: override "a.test": delay = 0s has no full effect: there are 250ms between two ',
        ),
        ("connections_per_host = 2", 'crawler.toml:3:24: override "a.test": connections_per_host = 2 has an effect '),
        (
            'robots = "ignore"',
            'crawler.toml:3:10: override "a.test": robots = "ignore": these hosts are crawled against',
        ),
        (
            'headers = { Authorization = "x" }',
            'crawler.toml:3:11: override "a.test": headers: Authorization is sent to',
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(tmp_path: Path, key: str, warning: str) -> None:
    """At its line."""
    (found,) = loaded(tmp_path, f'[[override]]\nhosts = ["a.test"]\n{key}\n').warnings
    assert found.removeprefix(f"{tmp_path}/").startswith(warning)


def test_a_cookie_beside_cookies_of_the_sites_is_refused(tmp_path: Path) -> None:
    """As in fetch.headers."""
    text = '[fetch]\ncookies = "session"\n[[override]]\nhosts = ["a.test"]\nheaders = { Cookie = "a=b" }\n'
    (found,) = problems(tmp_path, text)
    assert found.startswith('5:11: override "a.test": headers: Cookie cannot be sent beside')


def test_overrides_are_shown_as_they_are_written(tmp_path: Path) -> None:
    """What is shown loads as the same configuration, but for what is masked."""
    (tmp_path / "crawler.toml").write_text(TEXT, encoding="utf-8")
    shown = CliRunner().invoke(cli, ["config", "show", "--origin", "-c", str(tmp_path / "crawler.toml")])
    assert "[[override]]  # crawler.toml:8\n" in shown.stdout
    tables = tomli.loads(shown.stdout)["override"]
    assert tables[0]["headers"] == {"accept-language": "en", "X-B": "***"}
    assert tables[1]["hosts"] == ["www.example.org", "xn--bcher-kva.test"]
    assert tables[2] == {"hosts": ["old.example.org"], "enabled": False, "max_urls": "none"}


def shown_for(folder: Path, url: str, text: str = TEXT) -> dict[str, tuple[Any, str]]:
    (folder / "crawler.toml").write_text(text, encoding="utf-8")
    arguments = ["config", "show", "--for", url, "--json", "-c", str(folder / "crawler.toml")]
    lines = CliRunner().invoke(cli, arguments).stdout.splitlines()
    return {one["key"]: (one["value"], one["origin"]) for one in map(json.loads, lines)}


def test_the_values_for_one_url_are_shown_with_their_origin(tmp_path: Path) -> None:
    """The most specific pattern that has a key decides it."""
    www = shown_for(tmp_path, "https://www.example.org/a?b")
    assert www["politeness.delay"] == (0.0, 'crawler.toml:8 override "www.example.org"')
    assert www["politeness.robots"] == ("ignore", 'crawler.toml:3 override "*.example.org"')
    assert www["override.enabled"] == (True, "default")
    headers = {"X-A": "***", "accept-language": "en", "X-B": "***"}
    assert www["fetch.headers"] == (headers, 'crawler.toml:3 override "*.example.org"')
    old = shown_for(tmp_path, "old.example.org")
    assert old["override.enabled"] == (False, 'crawler.toml:15 override "old.example.org"')
    assert old["scope.max_urls_per_host"][0] is None
    assert shown_for(tmp_path, "https://example.org/")["politeness.delay"] == (1.0, "default")


URLS = """\
[scope]
max_depth = 3
[[override]]
hosts = ["www.example.org"]
max_depth = 5
recrawl = true
min_interval = "2h"
[[override]]
urls = ["**.example.org/**"]
requisites = false
[[override]]
urls = ["www.example.org/archive/**"]
max_depth = "none"
recrawl = false
[[override]]
urls = ["www.example.org/archive/**"]
exclude = true
"""


def test_the_values_for_one_url_are_those_of_its_patterns(tmp_path: Path) -> None:
    """Before those of its host; what only an override gives is there if one does."""
    archive = shown_for(tmp_path, "https://www.example.org/archive/x", URLS)
    where = 'override "www.example.org/archive/**"'
    assert archive["scope.max_depth"] == (None, f"crawler.toml:11 {where}")
    assert archive["recrawl.enabled"] == (False, f"crawler.toml:11 {where}")
    assert archive["recrawl.min_interval"] == (7_200.0, 'crawler.toml:3 override "www.example.org"')
    assert archive["recrawl.max_interval"] == (90 * 86_400.0, "default")
    assert archive["scope.requisites"] == (False, 'crawler.toml:8 override "**.example.org/**"')
    assert archive["override.exclude"] == (True, f"crawler.toml:15 {where}")
    assert "override.include" not in archive
    other = shown_for(tmp_path, "https://other.test/archive/x", URLS)
    assert other["scope.max_depth"] == (3, "crawler.toml:2")
    assert (other["recrawl.enabled"], "override.exclude" in other) == ((None, "default"), False)
    text = CliRunner().invoke(
        cli, ["config", "show", "--for", "www.example.org/archive/", "-c", str(tmp_path / "crawler.toml")]
    )
    assert f"# exclude = true  # crawler.toml:15 {where}\n\n[scope]\n" in text.stdout
    assert f'max_depth = "none"  # crawler.toml:11 {where}\n' in text.stdout
    assert tomli.loads(text.stdout)["scope"]["max_depth"] == "none"


def test_overrides_for_urls_are_in_the_rules_of_run_json(tmp_path: Path) -> None:
    """And a reload names their change."""
    settings = loaded(tmp_path, URLS).settings
    rules = settings.rules()
    assert load_rules(json.loads(json.dumps(dump_rules(rules)))) == rules
    assert [one.max_depth for one in rules.overrides] == [5, None, ANY_DEPTH, None]
    assert [one.urls for one in rules.overrides][1:3] == [("**.example.org/**",), ("www.example.org/archive/**",)]
    assert changes(settings, loaded(tmp_path, URLS.replace("exclude = true", "exclude = false")).settings).live == (
        "override",
    )
    assert accepts(json.loads(SCHEMA.read_text(encoding="utf-8")), tomli.loads(URLS))


def test_a_doubtful_pattern_of_urls_is_a_warning(tmp_path: Path) -> None:
    """As in scope.exclude."""
    (found,) = loaded(tmp_path, '[[override]]\nurls = ["example.org/archive/"]\nexclude = true\n').warnings
    assert found.removeprefix(f"{tmp_path}/") == (
        'crawler.toml:2:8: override.urls "example.org/archive/" matches that one URL only (for the folder write '
        '"example.org/archive/**")'
    )


def test_limits_of_exchanges_reach_the_client(tmp_path: Path) -> None:
    """A moved line, or an override of something else, makes no other client."""
    text = """
[[override]]
hosts = ["a.test"]
max_body = "1MiB"
min_rate = "none"
content_types = []
total_timeout = "1h"
bandwidth_per_host = "100kB"
"""
    client = loaded(tmp_path, text).settings.client_options()
    (given,) = client.fetch.overrides
    assert (given.max_body, given.min_rate, given.content_types) == (1024 * 1024, 0, ())
    assert (given.total_timeout_s, given.bandwidth_per_host) == (3_600.0, 100_000)
    moved = "\n\n" + text + '[[override]]\nhosts = ["b.test"]\nmax_urls = 3\n'
    assert loaded(tmp_path, moved).settings.client_options() == client
    assert accepts(json.loads(SCHEMA.read_text(encoding="utf-8")), tomli.loads(text))
    shown = shown_for(tmp_path, "https://a.test/", text)
    assert shown["fetch.min_rate"] == (None, 'crawler.toml:2 override "a.test"')
    assert shown["fetch.max_body"] == (1024 * 1024, 'crawler.toml:2 override "a.test"')
    late = text.replace("1h", "3s") + 'read_timeout = "4s"\n'
    (found,) = loaded(tmp_path, late).warnings
    assert found.removeprefix(f"{tmp_path}/").startswith(
        'crawler.toml:9:16: override "a.test": read_timeout (4s) is longer than total_timeout (3s)'
    )


def test_what_is_no_url_has_no_values(tmp_path: Path) -> None:
    """A usage error."""
    result = CliRunner().invoke(cli, ["config", "show", "--for", "https://"], env={"CRAWLER_CONFIG": None})
    assert result.exit_code == 2
    assert "--for: " in result.output


def test_the_schema_takes_what_the_loader_takes() -> None:
    """And refuses a wrong type."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert accepts(schema, tomli.loads(TEXT))
    for wrong in ({"hosts": "a.test"}, {"delay": -1}, {"robots": "no"}, {"enabled": 1}, {"max_urls": 0}, {"x": 1}):
        assert not accepts(schema, {"override": [wrong]}), wrong
    assert not accepts(schema, {"override": {"hosts": ["a.test"]}})


def test_a_more_specific_pattern_can_switch_a_host_on_again(tmp_path: Path) -> None:
    """*.a.test is off, but for one host."""
    text = '[[override]]\nhosts = ["*.a.test"]\nenabled = false\n[[override]]\nhosts = ["b.a.test"]\nenabled = true\n'
    overrides = Overrides(loaded(tmp_path, text).settings.host_overrides())
    assert overrides.disabled_by("c.a.test") == 'crawler.toml:1  override "*.a.test" enabled = false'
    assert overrides.disabled_by("c.a.test.") is not None
    assert (overrides.disabled_by("a.test"), overrides.disabled_by("b.a.test")) == (None, None)
