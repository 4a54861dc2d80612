"""The effective configuration as a person sees it."""

import json
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner

from crawler.cli import cli
from crawler.settings.loading import load
from crawler.settings.schema import keys, toml_text
from crawler.settings.settings import Settings, ShownKey
from crawler.settings.settings import masked as view_of


def shown(*overrides: str) -> dict[str, ShownKey]:
    return {item.key: item for item in load(None, overrides, {}, "crawl").masked()}


def test_every_key_is_shown_with_value_and_origin() -> None:
    """In the order of the file."""
    view = shown("politeness.delay=90s")
    assert list(view) == list(keys())
    delay = view["politeness.delay"]
    assert (delay.value, delay.text, delay.origin, delay.restart) == (90.0, '"1m30s"', "-o politeness.delay", False)
    workers = view["engine.workers"]
    assert (workers.value, workers.text, workers.origin, workers.restart) == (256, "256", "default", True)
    json.dumps([item.value for item in view.values()])


def test_what_follows_from_other_keys_is_shown_worked_out() -> None:
    """With a note that says from what; what cannot be worked out here has the note alone."""
    view = shown("output.directory=/o")
    assert {key: (view[key].text, view[key].note) for key in (
        "frontier.path", "log.directory", "admin.socket", "output.directory", "identity.robots_token",
        "politeness.address_delay", "scope.max_urls",
    )} == {
        "frontier.path": ('"/o/frontier.db"', "<output>/frontier.db"),
        "log.directory": ('"/o/logs"', "<output>/logs"),
        "admin.socket": ('"/o/control.sock"', "<output>/control.sock"),
        "output.directory": ('"/o"', ""),
        "identity.robots_token": ('"crawlerd"', "the first product in user_agent"),
        "politeness.address_delay": ("", "250ms, or delay if that is shorter"),
        "scope.max_urls": ('"none"', ""),
    }  # fmt: skip


def test_header_values_are_masked_but_for_harmless_ones() -> None:
    """Any header may be a credential."""
    view = shown("fetch.headers={Authorization = 'Bearer s3', X-Anything = 's3', Accept-Language = 'de'}")
    assert view["fetch.headers"].value == {"Authorization": "***", "X-Anything": "***", "Accept-Language": "de"}
    assert "s3" not in repr(view)


@pytest.mark.parametrize(
    ("seed", "masked"),
    [
        ("https://user:s3@e.org/a@b", "https://***@e.org/a@b"),
        ("https://user:s3@x@e.org/", "https://***@e.org/"),
        ("user:s3@e.org/", "user:***@e.org/"),
        ("https://e.org/a@b", "https://e.org/a@b"),
        ("https://e.org?a@b", "https://e.org?a@b"),
    ],
)
def test_userinfo_of_a_seed_is_masked(seed: str, masked: str) -> None:
    """Up to the last "@" before path and query."""
    crawl = Settings().crawl.model_copy(update={"seeds": (seed,)})
    assert next(item for item in view_of(Settings(crawl=crawl), {}) if item.key == "crawl.seeds").value == [masked]


def test_toml_text_reads_back_as_the_value() -> None:
    """Whatever the text holds; so `config show` can be saved and used."""
    nasty = 'a "b" \\ # é 漢 ]'
    overrides = [
        "scope.include=" + json.dumps([nasty], ensure_ascii=False),
        "scope.hosts=['e.org', '*.f.org']",
        "network.resolve={'*.a.test' = ['9.9.9.9'], 'b.test' = []}",
        "fetch.headers={X-Y = 'a\\b'}",
        "fetch.max_body=1GB",
        "fetch.max_head=1500",
        "politeness.delay=1h1s500ms",
        "scope.max_depth=none",
    ]
    settings = load(None, overrides, {}, "crawl").settings
    for dotted, key in keys().items():
        value = settings.get(dotted)
        if value is None and key.derived:
            continue
        text = f"{key.section}.{key.name} = {toml_text(key, value)}"
        tomli.loads(text)
        assert load(None, [text.replace(" = ", "=", 1)], {}, "crawl").settings.get(dotted) == value


def test_a_shown_key_has_its_origin(tmp_path: Path) -> None:
    """File and line for a file."""
    path = tmp_path / "crawler.toml"
    path.write_text("\n[crawl]\nname = 'x'\n")
    view = {item.key: item.origin for item in load(path, [], {}, "crawl").masked()}
    assert (view["crawl.name"], view["crawl.linger"]) == ("crawler.toml:3", "default")


def test_what_is_shown_is_a_configuration() -> None:
    """It can be saved and edited: what is not set stands as a comment."""
    done = CliRunner().invoke(cli, ["config", "show", "-o", 'crawl.seeds=["https://e.test/"]'])
    assert done.exit_code == 0
    values = tomli.loads(done.stdout)
    assert values["crawl"]["seeds"] == ["https://e.test/"]
    assert "from" not in values["identity"]
