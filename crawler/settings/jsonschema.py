"""Writes config/crawler.schema.json, by which editors complete and check the configuration.

`python -m crawler.settings.jsonschema > config/crawler.schema.json`; a test keeps the file in step. It says what a
value looks like; what `crawler check` finds beyond that (two keys that do not fit, a file that is not there) it does
not know. Invariant: whatever this refuses, `crawler check` refuses as well.
"""

import json
import sys
import tomllib
from typing import Any

from crawler.settings.schema import SECTIONS, ConfigurationKey, keys, toml_text
from crawler.settings.validators import NO_LIMIT

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The whole schema, of draft 7: what editors for TOML understand."""
    found: Schema = {name: model.model_json_schema() for name, model in SECTIONS.items()}
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
    """What pydantic makes of a key, and what only we know of it."""
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
    """The file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
