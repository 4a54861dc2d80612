"""The files that are made of the keys: config/crawler.toml, the annotated example, and config/crawler.schema.json.

`make generated` writes them; tests keep them in step. By the JSON schema editors complete and check the configuration;
it says what a value looks like, not what `crawler check` finds beyond that (two keys that do not fit, a file that is
not there). Invariants: with the "#" before each key taken away, the example gives every key, and loads; whatever the
schema refuses, `crawler check` refuses as well.
"""

import json
import textwrap
import tomllib
from typing import Any, Final

from crawler.settings.schema import SECTIONS, ConfigurationKey, keys, toml_text
from crawler.settings.validators import NO_LIMIT
from crawler.settings.value_types import number_text

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


def annotated() -> str:
    """The text of config/crawler.toml: every key with its meaning, unit and default, each commented out."""
    return _HEAD + "".join(_example_section(name) for name in SECTIONS)


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
        del found[name]["title"]  # the name of our class
    for key in keys().values():
        _complete(found[key.section]["properties"][key.name], key)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of the crawler",
        "type": "object",
        "additionalProperties": False,
        "properties": found,
    }


def _complete(found: Schema, key: ConfigurationKey) -> None:
    """Add what only we know of a key to what pydantic makes of its type."""
    for name in ("title", "most", "restart", "derived", "example"):
        del found[name]
    match found.get("anyOf"):
        case [value, {"type": "null"}]:  # TOML has no null: such a key is left out, or says that there is no limit
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
        found["default"] = tomllib.loads(f"x = {toml_text(key, key.default)}")["x"]


def schema_text() -> str:
    """The text of config/crawler.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
