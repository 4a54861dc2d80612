# ruff: noqa: E501 - messages as they are printed
"""[[seed]]: seeds with options of their own, from the file to the options of the parts."""

import json
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner

from crawler.app import with_seeds
from crawler.cli import cli
from crawler.core.options import ANY_DEPTH, SeedOptions, dump_rules, load_rules
from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load, load_paths
from crawler.settings.schema import SEED
from crawler.settings.settings import changes, tables_text
from tests.unit.settings.test_overrides import loaded, problems
from tests.unit.settings.test_schema import SCHEMA, accepts

TEXT = """\
[crawl]
seeds = ["c.test"]
[[seed]]
url = "a.test/docs/x?key=s3"
tags = ["manuals", "größe"]
max_depth = "none"
scope = "seed-prefix"
[[seed]]
url = "https://user:s3@b.test/"
max_depth = 2
"""


def test_seeds_reach_the_options_of_the_parts(tmp_path: Path) -> None:
    """Beside those of crawl.seeds; one with a scope of its own adds nothing to that of the crawl. No path and query of
    one is in run.json.
    """
    settings = loaded(tmp_path, TEXT).settings
    assert (settings.seed_count, settings.first_seed) == (3, "c.test")
    options = settings.engine_configuration("crawl")
    assert list(options.all_seeds()) == ["c.test", "a.test/docs/x?key=s3", "https://user:s3@b.test/"]
    assert options.seed_hosts == {"c.test", "b.test"}
    assert options.seed_options == (
        SeedOptions("https://a.test/docs/", "crawler.toml:3", ("manuals", "größe"), ANY_DEPTH, ("seed-prefix",)),
        SeedOptions("https://b.test/", "crawler.toml:8", (), 2),
    )
    rules = settings.rules()
    assert (rules.seeds, rules.seed_hosts) == (options.seed_options, ("b.test", "c.test"))
    assert "s3" not in json.dumps(dump_rules(rules))
    assert load_rules(json.loads(json.dumps(dump_rules(rules)))) == rules


def test_a_url_in_both_lists_has_the_scope_of_its_table(tmp_path: Path) -> None:
    """However it is written."""
    text = '[crawl]\nseeds = ["https://a.test/docs/"]\n[[seed]]\nurl = "a.test/docs/"\nscope = "seed-prefix"\n'
    assert loaded(tmp_path, text).settings.engine_configuration("crawl").seed_hosts == set()


def test_urls_of_the_command_line_are_the_only_seeds(tmp_path: Path) -> None:
    """Those of tables are none then, as those of crawl.seeds."""
    settings = with_seeds(loaded(tmp_path, TEXT).settings, ["https://d.test/"])
    assert list(settings.engine_configuration("crawl").all_seeds()) == ["https://d.test/"]


def test_the_output_is_named_for_the_first_of_the_tables_if_there_is_no_other_seed(tmp_path: Path) -> None:
    """And no warning says that there are no seeds."""
    (tmp_path / "crawler.toml").write_text('[[seed]]\nurl = "a.test"\n')
    settings = load(tmp_path / "crawler.toml", (), {}, "crawl").settings.with_default_output()
    assert settings.output_directory == Path("crawl/a.test")


def test_what_a_reload_changes_of_seeds_is_named(tmp_path: Path) -> None:
    """Without the password of a URL."""
    before = loaded(tmp_path, TEXT).settings
    after = loaded(tmp_path, TEXT.replace("= 2", "= 3")).settings
    assert changes(before, after).live == ("seed",)
    assert "max_depth = 3" in tables_text(after, SEED)
    assert "user:s3" not in tables_text(after, SEED)
    rules = before.engine_configuration("crawl"), after.engine_configuration("crawl")
    assert rules[0].fingerprint != rules[1].fingerprint
    other_tags = loaded(tmp_path, TEXT.replace("manuals", "guides")).settings.engine_configuration("crawl")
    assert other_tags.fingerprint == rules[0].fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tags = ['x']", '1:3: this seed has no url (as in url = "https://example.org/")'),
        ('url = ""', '2:7: seed.url must not be empty ()'),
        ('url = "mailto:x"', "2:7: seed.url must be a URL: not http or https: mailto: "
         '(as in "https://example.org/")'),
        ("url = 1", "2:7: seed.url must be text in quotes, not 1 (write \"1\")"),
        ('url = "a.test"\ntags = "x"', '3:8: seed.tags must be a list, not "x" (write ["x"])'),
        ('url = "a.test"\ntags = ["x", ""]', "3:14: an entry of seed.tags must not be empty ()"),
        ('url = "a.test"\ntags = ["x", "x"]', '3:8: seed.tags must name "x" once ()'),
        ('url = "a.test"\nmax_depth = -1', "3:13: seed.max_depth must be at least 0, not -1 ()"),
        ('url = "a.test"\nscope = "seed-host"', '3:9: seed.scope must be "seed-hosts", "seed-domains", "seed-prefix" or '
         'a list of hosts, not "seed-host" (did you mean "seed-hosts"?)'),
        ('url = "a.test"\nscope = []', "3:9: seed.scope must not be empty: nothing would be in scope ()"),
        ('url = "a.test"\ntag = ["x"]', '3:1: unknown key "tag" in [[seed]] (did you mean "tags"?)'),
        ('url = "a.test"\ndelay = 3', '3:1: unknown key "delay" in [[seed]] (politeness.delay cannot be set for one seed '
         "only)"),
        ('url = "a.test"\n[[seed]]\nurl = "https://a.test/"', '4:7: seed.url, "https://a.test/", is in a seed before '
         "(crawler.toml:2) (put its keys into one seed)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """And what to write instead."""
    assert problems(tmp_path, f"[[seed]]\n{text}\n") == [expected]


def test_a_crawl_is_found_by_a_configuration_with_a_wrong_seed(tmp_path: Path) -> None:
    """If its directory does not follow from the seeds; else the mistake is told."""
    (tmp_path / "crawler.toml").write_text('[output]\ndirectory = "out"\n[[seed]]\ntags = ["x"]\n')
    settings, errors = load_paths(tmp_path / "crawler.toml", (), {})
    assert (settings.output_directory, len(errors)) == (tmp_path / "out", 1)
    (tmp_path / "crawler.toml").write_text('[[seed]]\ntags = ["x"]\n')
    with pytest.raises(ConfigurationError, match="this seed has no url"):
        load_paths(tmp_path / "crawler.toml", (), {})


def test_tags_have_bounds(tmp_path: Path) -> None:
    """They are in every line of pages/."""
    many = json.dumps([str(n) for n in range(17)])
    assert problems(tmp_path, f'[[seed]]\nurl = "a.test"\ntags = {many}\n') == [
        "3:8: seed.tags must have 16 entries at most, not 17 ()"
    ]
    (found,) = problems(tmp_path, f'[[seed]]\nurl = "a.test"\ntags = ["{"x" * 65}"]\n')
    assert found.startswith("3:9: an entry of seed.tags must be a text of 64 characters at most, not ")


def test_one_table_and_a_seed_outside_of_a_file_are_refused(tmp_path: Path) -> None:
    """With what to write."""
    assert problems(tmp_path, '[seed]\nurl = "a.test"\n') == [
        "1:2: seed must be an array of tables (write [[seed]], once for each seed)"
    ]
    with pytest.raises(ConfigurationError, match=r"\[\[seed\]\] can be given in a file only"):
        load(None, ["seed.url=a.test"], {}, "crawl")


def test_seeds_are_shown_as_they_are_written(tmp_path: Path) -> None:
    """What is shown loads as the same configuration, but for passwords; and what holds for one URL is."""
    (tmp_path / "crawler.toml").write_text(TEXT, encoding="utf-8")
    config = str(tmp_path / "crawler.toml")
    shown = CliRunner().invoke(cli, ["config", "show", "--origin", "-c", config]).stdout
    assert "[[seed]]  # crawler.toml:3\n" in shown
    first, second = tomli.loads(shown)["seed"]
    assert first == {
        "url": "a.test/docs/x?key=s3", "tags": ["manuals", "größe"], "max_depth": "none", "scope": "seed-prefix",
    }  # fmt: skip
    assert second == {"url": "https://***@b.test/", "max_depth": 2}
    for url, expected in (
        ("a.test/docs/y", {"seed.tags": (["manuals", "größe"], "crawler.toml:3"), "scope.max_depth": (None, "crawler.toml:3 seed")}),
        ("b.test/docs/y", {"scope.max_depth": (2, "crawler.toml:8 seed")}),
        ("a.test/", {"scope.max_depth": (20, "default")}),
    ):  # fmt: skip
        lines = CliRunner().invoke(cli, ["config", "show", "--for", url, "--json", "-c", config]).stdout.splitlines()
        found = {one["key"]: (one["value"], one["origin"]) for one in map(json.loads, lines)}
        assert {key: found[key] for key in ("seed.tags", "scope.max_depth") if key in found} == expected


def test_the_schema_takes_seeds() -> None:
    """And refuses a wrong type."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert accepts(schema, tomli.loads(TEXT))
    for wrong in ({"url": 1}, {"tags": "x"}, {"max_depth": -1}, {"scope": "x"}, {"scope": []}, {"x": 1}):
        assert not accepts(schema, {"seed": [wrong]}), wrong
