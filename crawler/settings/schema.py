"""The list of all keys, their values as TOML, and the files made of the list: config/crawler.toml, the annotated
example, and config/crawler.schema.json.

Reads the models of `sections`. `make generated` writes the files, tests keep them
current. Editors complete and check the configuration by the JSON schema: it says what a value looks like, not what
`crawler check` finds beyond that (two keys that contradict each other, a file that does not exist).
Invariants: each key of each section is one ConfigurationKey, in the order of the file; with the "#" before each key
removed, the example gives every key and loads; whatever the schema refuses, `crawler check` refuses as well.
"""

import json
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast, get_args, get_type_hints

import tomli
from pydantic.fields import FieldInfo

from crawler.core.scope import SEED_MODES
from crawler.settings import sections
from crawler.settings.configuration_errors import did_you_mean
from crawler.settings.validators import NO_LIMIT
from crawler.settings.value_types import KeyKind, number_text

OVERRIDE: Final = "override"
SEED: Final = "seed"
TABLES: Final[dict[str, type[sections.Section]]] = {OVERRIDE: sections.OverrideSection, SEED: sections.SeedSection}
SECTIONS: Final[dict[str, type[sections.Section]]] = get_type_hints(sections.Sections)


@dataclass(frozen=True, slots=True)
class ConfigurationKey:
    """One key. `attribute` is its name in the model, `name` in the file; they differ where `name` is a Python keyword.

    `most` is the largest value of a number, None for other kinds. `derived` describes the value of a key that is not
    set, "" where None means no limit; `example` is TOML for such a key.
    """

    section: str
    name: str
    attribute: str
    kind: KeyKind
    description: str
    default: object
    most: float | None
    restart: bool
    derived: str
    example: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"


@cache
def keys() -> dict[str, ConfigurationKey]:
    """Every key by "section.key"."""
    return {str(key): key for section, model in SECTIONS.items() for key in _keys_of(section, model)}


@cache
def table_keys(table: str) -> dict[str, ConfigurationKey]:
    """The keys of one [[override]] or [[seed]], by their names."""
    return {key.name: key for key in _keys_of(table, TABLES[table])}


def _keys_of(section: str, model: type[sections.Section]) -> list[ConfigurationKey]:
    return [
        ConfigurationKey(
            section=section,
            name=field.alias or attribute,
            attribute=attribute,
            kind=_kind(field),
            description=field.description or "",
            default=field.default,
            **cast("dict[str, Any]", field.json_schema_extra),
        )
        for attribute, field in model.model_fields.items()
    ]


def _kind(field: FieldInfo) -> KeyKind:
    """The outermost KeyKind of a type; for `X | None` that of X."""
    inner = (item for part in get_args(field.annotation) for item in getattr(part, "__metadata__", ()))
    return [item for item in (*inner, *field.metadata) if isinstance(item, KeyKind)][-1]


def unknown_key(section: str, name: str) -> tuple[str, str] | None:
    """Message and hint if there is no such key; None if there is one."""
    dotted = f"{section}.{name}"
    if dotted in keys():
        return None
    if section not in SECTIONS:
        return unknown_section(section)
    elsewhere = [str(key) for key in keys().values() if key.name == name]
    own = [key.name for key in keys().values() if key.section == section]
    hint = f'did you mean "{elsewhere[0]}"?' if len(elsewhere) == 1 else did_you_mean(name, own)
    return f'unknown key "{name}" in [{section}]', hint or f"its keys are {', '.join(own)}"


def unknown_table_key(table: str, name: str) -> tuple[str, str]:
    """Message and hint about a key that [[override]] or [[seed]] does not have."""
    homes = [str(key) for key in keys().values() if key.name == name]
    for_what = "some hosts or URLs" if table == OVERRIDE else "one seed"
    hint = f"{homes[0]} cannot be set for {for_what} only" if homes else did_you_mean(name, table_keys(table))
    return f'unknown key "{name}" in [[{table}]]', hint or f"its keys are {', '.join(table_keys(table))}"


def unknown_section(name: str) -> tuple[str, str]:
    """Message and hint about a section that there is not."""
    if name in TABLES:
        return f"[[{name}]] can be given in a file only", "write it into the configuration or a file of conf.d"
    return f'unknown section "{name}"', did_you_mean(name, SECTIONS) or f"the sections are {', '.join(SECTIONS)}"


def toml_text(key: ConfigurationKey, value: object) -> str:
    """A value of `key`, as the models hold it, as TOML that reads back as the same value."""
    match value:
        case None:
            return f'"{NO_LIMIT}"'
        case float() | int() if key.kind in (KeyKind.DURATION, KeyKind.SIZE):
            return f'"{number_text(key.kind, value)}"'
        case (word,) if key.kind is KeyKind.HOSTS and word in SEED_MODES:
            return plain_toml(word)
        case _:
            return plain_toml(value)


def plain_toml(value: object) -> str:
    """A text, a flag, a number, or a list or table of them, as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped as well.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            pairs = ", ".join(f"{plain_toml(name)} = {plain_toml(item)}" for name, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(plain_toml, value))}]"
        case _:
            return str(value)


Schema = dict[str, Any]
_WIDTH: Final = 100
_HEAD: Final = """\
#:schema ./crawler.schema.json
# Configuration of the crawler. Every key is here with its default; uncomment what you change.
#
# `crawler run` needs three: identity.user_agent with a way to reach you, crawl.seeds (or seed_files), output.directory.
#
# Durations: "500ms", "1s", "1h30m" (units d, h, m, s, ms) or a number of seconds. Sizes: "32MiB", "1GB" or a number of
# bytes. "none": no limit. Relative paths are taken from the directory of the file they stand in.
# Files of conf.d/ beside this one are read after it, in the order of their names; then the environment,
# CRAWLER_SECTION__KEY; then -o section.key=value. Each replaces a key whole.
# "live": a reload brings the key into force; "restart": only a restart does.
"""


def example_text() -> str:
    """The text of config/crawler.toml: every key with its meaning, unit and default, each commented out."""
    return _HEAD + "".join(_example_section(name) for name in SECTIONS) + _EXAMPLE_TABLES


_EXAMPLE_TABLES: Final = """

# Some hosts may have their own delay, max_crawl_delay, connections_per_host, robots, adaptive, max_urls and headers,
# timeouts, min_rate, max_body, content_types and bandwidth_per_host, or be switched off; some URLs may be included or
# excluded; both may have their own max_depth, requisites, recrawl, min_interval and max_interval. Of several overrides
# that give a key, the one with the most specific pattern decides.
# live
#
#   [[override]]
#   hosts = ["example.org", "*.example.org"]
#   delay = "5s"
#
#   [[override]]
#   hosts = ["old.example.org"]
#   enabled = false
#
#   [[override]]
#   urls = ["example.org/archive/**"]
#   exclude = true


# Seeds with options of their own. live
#
#   [[seed]]
#   url = "https://example.org/docs/"
#   tags = ["manuals"]
#   max_depth = 3
#   scope = "seed-prefix"
"""


def _example_section(name: str) -> str:
    about = _comment(SECTIONS[name].__doc__ or "")
    return f"\n\n{about}[{name}]\n" + "".join(_example_key(key) for key in keys().values() if key.section == name)


def _example_key(key: ConfigurationKey) -> str:
    value = key.example if key.derived else toml_text(key, key.default)
    kind = key.kind.value
    force = "restart" if key.restart else "live"
    if key.most is not None:
        kind += f", at most {number_text(key.kind, key.most)}"
    return f"\n{_comment(key.description)}# {kind}; default: {key.derived or value}; {force}\n#{key.name} = {value}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH, break_long_words=False))


def json_schema() -> Schema:
    """The whole schema, of draft 7: what editors for TOML understand."""
    found: Schema = {}
    for name, model in SECTIONS.items():
        found[name] = model.model_json_schema()
        del found[name]["title"]  # it is the name of our class
    for key in keys().values():
        _complete(found[key.section]["properties"][key.name], key)
    for name in TABLES:
        found[name] = {"type": "array", "items": _table_schema(name)}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of the crawler",
        "type": "object",
        "additionalProperties": False,
        "properties": found,
    }


_NONE_IS_NO_LIMIT: Final = frozenset(("max_urls", "max_depth", "min_rate", "bandwidth_per_host"))


def _table_schema(table: str) -> Schema:
    found: Schema = TABLES[table].model_json_schema()
    del found["title"]
    for key in table_keys(table).values():
        properties = found["properties"][key.name]
        _complete(properties, key)
        if key.name != "hosts":  # what is not given is as in the crawl
            properties.pop("default", None)
            if key.name not in _NONE_IS_NO_LIMIT and "anyOf" in properties:
                properties |= properties.pop("anyOf")[0]
    return found


def _complete(found: Schema, key: ConfigurationKey) -> None:
    """Add the facts of a key to the schema that pydantic makes of its type."""
    for name in ("title", "most", "restart", "derived", "example"):
        del found[name]
    match found.get("anyOf"):
        case [value, {"type": "null"}]:  # TOML has no null: the key is left out, or is "none"
            del found["anyOf"]
            value.pop("le", None)
            found |= value if key.derived else {"anyOf": [value, {"const": NO_LIMIT}]}
    if key.most is not None:
        found["maximum"] = key.most
    found["description"] = " ".join(
        (
            key.description,
            *([f"Not set: {key.derived}."] if key.derived else []),
            "Needs a restart." if key.restart else "A reload brings it into force.",
        )
    )
    if key.derived:
        del found["default"]
    else:
        found["default"] = tomli.loads(f"x = {toml_text(key, key.default)}")["x"]


def schema_text() -> str:
    """The text of config/crawler.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
