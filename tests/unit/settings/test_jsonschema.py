"""The schema for editors: in step with the models, and never stricter than `crawler check`."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.generated_files import annotated, json_schema, schema_text
from crawler.settings.loading import load
from crawler.settings.schema import keys
from tests.support.commands import run

FILE = Path(__file__).resolve().parents[3] / "config" / "crawler.schema.json"
_KEY_LINE = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
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


def test_the_file_is_what_the_models_say() -> None:
    """Write it anew with `make generated`."""
    assert FILE.read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_written_by_a_command() -> None:
    """On stdout, nothing else."""
    command = [sys.executable, "-m", "crawler", "config", "schema"]
    ran = subprocess.run(command, cwd=FILE.parents[1], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == (schema_text(), "")


def test_every_key_is_described() -> None:
    """With its default, or what it stands for, and whether a reload is enough."""
    sections = json_schema()["properties"]
    assert {f"{s}.{k}" for s, section in sections.items() for k in section["properties"]} == set(keys())
    for dotted, key in keys().items():
        section, _, name = dotted.partition(".")
        found = sections[section]["properties"][name]
        assert ("default" in found) is not (key.default is None and bool(key.derived)), dotted
        assert ("restart" in found["description"]) or ("reload" in found["description"]), dotted
        if "default" in found:
            assert accepts(found, found["default"]), dotted


def test_the_annotated_file_is_accepted() -> None:
    """As it is and uncommented, and refused with a key it does not know."""
    schema = json_schema()
    assert accepts(schema, tomllib.loads(annotated()))
    everything = tomllib.loads(_KEY_LINE.sub("", annotated()))
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
def test_it_is_never_stricter_than_the_check(tmp_path: Path, key: str, values: list[Any]) -> None:
    """And where a pattern can tell, as strict."""
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
    """A mistake is told."""
    ran = run("config", "schema", "x")
    assert (ran.code, ran.stdout) == (2, "")
