"""The files that are made of the keys: the example configuration and the JSON schema."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import certifi
import pytest

from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load
from crawler.settings.schema import example_text, json_schema, keys, schema_text
from crawler.settings.settings import Mode, Settings
from tests.support.commands import run

CONFIG = Path(__file__).resolve().parents[3] / "config"
_KEY_LINE = re.compile(r"^#(?=[a-z0-9_]+ = )", re.MULTILINE)


def test_the_example_file_is_current() -> None:
    """If not, run `make generated`."""
    assert (CONFIG / "crawler.toml").read_text(encoding="utf-8") == example_text()


def test_the_example_file_changes_nothing() -> None:
    """Every key in it is a comment."""
    assert load(CONFIG / "crawler.toml", [], {}, "crawl").settings == Settings()


def test_the_example_file_uncommented_gives_every_key_its_default(tmp_path: Path) -> None:
    """Except keys whose default follows from others, which have an example; files have to exist."""
    path = tmp_path / "crawler.toml"
    path.write_text(_KEY_LINE.sub("", example_text()), encoding="utf-8")
    secrets = tmp_path / "secrets.toml"
    secrets.touch(mode=0o600)
    loaded = load(path, [f"network.ca_file={certifi.where()}", f"identity.secrets={secrets}"], {}, "crawl")
    for dotted, key in keys().items():
        assert loaded.origins[dotted] != "default", dotted
        if not (key.default is None and key.derived):
            assert loaded.settings.get(dotted) == key.default, dotted


def test_the_example_file_is_printed_by_a_command() -> None:
    """On stdout, nothing else."""
    command = [sys.executable, "-m", "crawler", "config", "show", "--default"]
    run = subprocess.run(command, cwd=CONFIG.parent, capture_output=True, text=True, check=True, timeout=60)
    assert (run.stdout, run.stderr) == (example_text(), "")


@pytest.mark.parametrize("mode", ["crawl", "run"])
def test_the_development_file_allows_a_server_on_this_machine(mode: Mode) -> None:
    """It loads in both modes, has no delay, and may connect to loopback."""
    loaded = load(CONFIG / "dev.toml", ["crawl.seeds=localhost:8443"], {}, mode)
    assert loaded.warnings == []
    assert loaded.settings.politeness.delay == 0
    assert loaded.settings.network.allow_private == ("127.0.0.0/8", "::1/128")
    assert loaded.settings.tls.verify


SCHEMA = CONFIG / "crawler.schema.json"
_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """The part of JSON schema that ours uses; an unknown word in it is an error of the test."""
    return all(_holds(word, argument, schema, value) for word, argument in schema.items())


def _holds(word: str, argument: Any, schema: dict[str, Any], value: Any) -> bool:
    """One word of a schema, which judges values of its own type only."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match word:
        case "type":
            return any(_is(kind, value) for kind in (argument if isinstance(argument, list) else [argument]))
        case "enum":
            return value in argument
        case "const":
            return bool(value == argument)
        case "anyOf":
            return any(accepts(each, value) for each in argument)
        case "pattern":
            return not isinstance(value, str) or re.search(argument, value) is not None
        case "minLength":
            return not isinstance(value, str) or len(value) >= argument
        case "minimum":
            return not is_number or value >= argument
        case "exclusiveMinimum":
            return not is_number or value > argument
        case "maximum":
            return not is_number or value <= argument
        case "minItems":
            return not isinstance(value, list) or len(value) >= argument
        case "items":
            return not isinstance(value, list) or all(accepts(argument, item) for item in value)
        case "propertyNames":
            return not isinstance(value, dict) or all(accepts(argument, name) for name in value)
        case "properties":
            return not isinstance(value, dict) or all(accepts(argument.get(name, {}), value[name]) for name in value)
        case "additionalProperties":
            others = value.keys() - schema.get("properties", {}) if isinstance(value, dict) else ()
            return not others or (argument is not False and all(accepts(argument, value[name]) for name in others))
        case _:
            assert word in ("$schema", "title", "description", "default"), word
            return True


def _is(kind: str, value: Any) -> bool:
    return isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind == "boolean")


def test_the_schema_file_is_current() -> None:
    """If not, run `make generated`."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_written_by_a_command() -> None:
    """On stdout, nothing else."""
    command = [sys.executable, "-m", "crawler", "config", "schema"]
    ran = subprocess.run(command, cwd=CONFIG.parent, capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (schema_text(), "")


def test_every_key_is_described() -> None:
    """With its default, or what it stands for, and whether a reload is enough."""
    sections = json_schema()["properties"]
    del sections["override"], sections["seed"]  # arrays of tables, see test_overrides
    assert {f"{s}.{k}" for s, section in sections.items() for k in section["properties"]} == set(keys())
    for dotted, key in keys().items():
        section, _, name = dotted.partition(".")
        found = sections[section]["properties"][name]
        assert ("default" in found) is not (key.default is None and bool(key.derived)), dotted
        assert ("restart" in found["description"]) or ("reload" in found["description"]), dotted
        if "default" in found:
            assert accepts(found, found["default"]), dotted


def test_the_schema_accepts_the_example_file() -> None:
    """As it is and uncommented; with an unknown key it is refused."""
    schema = json_schema()
    assert accepts(schema, tomllib.loads(example_text()))
    everything = tomllib.loads(_KEY_LINE.sub("", example_text()))
    assert accepts(schema, everything)
    everything["fetch"]["bandwith"] = 1
    assert not accepts(schema, everything)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("politeness.delay", ["1s", "500ms", "1h30m", "1.5s", " 2 m ", "0", 0, 1.5, 3, "0s", "2h3m4s5ms", 86_400,
                              "", "1", "soon", "1s1s", "1s1m", "-1s", -1, 86_401, True, "1 h 30 m", "1hour", [1]]),
        ("fetch.connect_timeout", ["1s", 0, 0.1, "none"]),
        ("crawl.max_duration", ["none", "1h", "never"]),
        ("fetch.spool_over", ["1MiB", "1mb", "64B", 0, 7, "1.5KiB", "1K", "MiB", -1, 1.5, "", "1 MB", True]),
        ("fetch.bandwidth", ["none", "1MB", 1, 0, "no"]),
        ("scope.max_depth", [0, 1, "none", -1, "1", 1.0]),
        ("engine.workers", [1, 0, 20_000, 20_001, "1", True]),
        ("scope.requisites", [True, False, "yes", 1]),
        ("politeness.robots", ["obey", "ignore", "Obey", ""]),
        ("scope.hosts", ["seed-hosts", ["a.test"], "a.test", [], [1]]),
        ("fetch.encodings", [[], ["br"], ["rot13"], "br"]),
        ("network.resolve", [{}, {"a.test": ["127.0.0.1"]}, {"a.test": "127.0.0.1"}, []]),
        ("fetch.headers", [{}, {"X-A": "b"}, {"X-A": 1}]),
        ("log.directory", ["/x", "", 1]),
        ("fetch.hours", [[], ["22:00-06:00"], "22:00-06:00", [22]]),
    ],
)  # fmt: skip
def test_the_schema_is_never_stricter_than_the_check(tmp_path: Path, key: str, values: list[Any]) -> None:
    """And as strict where a pattern can decide."""
    section, _, name = key.partition(".")
    schema = json_schema()["properties"][section]["properties"][name]
    for value in values:
        file = tmp_path / "crawler.toml"
        file.write_text(f"[{section}]\n{name} = {_toml(value)}\n")
        try:
            load(file, [], {}, "crawl")
            checked = True
        except ConfigurationError as error:
            checked = not any(key in problem.message for problem in error.problems)
        assert accepts(schema, value) is checked, (value, checked)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_config_schema_takes_no_argument() -> None:
    """It is refused as a usage error."""
    ran = run("config", "schema", "x")
    assert (ran.code, ran.stdout) == (2, "")
