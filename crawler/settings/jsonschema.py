"""Writes config/crawler.schema.json, by which editors complete and check the configuration.

`python -m crawler.settings.jsonschema > config/crawler.schema.json`; a test keeps the file in step. It says what a
value looks like; what `crawler check` finds beyond that (two keys that do not fit, a file that is not there) it does
not know. Invariant: whatever this refuses, `crawler check` refuses as well.
"""

import json
import sys
import tomllib
import typing
from typing import Any, Final

from pydantic import BeforeValidator

from crawler.settings.kinds import Kind
from crawler.settings.readers import (
    NO_LIMIT,
    SEED_WORDS,
    OneOf,
    OrDerived,
    OrNoLimit,
    WholeNumber,
    positive_duration,
    positive_size,
)
from crawler.settings.schema import SECTIONS, Key, keys, toml_text

Schema = dict[str, Any]

# As `quantities` reads them, but for what a pattern cannot say: that they are not too large.
_NUMBER: Final = r"\d+(\.\d+)?\s*"
_UNITS: Final = "".join(rf"({_NUMBER}{unit}\s*)?" for unit in ("d", "h", "m", "s", "ms"))
_DURATION: Final = rf"^\s*(?=\S){_UNITS}$|^\s*0\s*$"
_SIZE: Final = rf"^\s*{_NUMBER}([kKmMgGtT][iI]?[bB]|[bB])?\s*$"


def json_schema() -> Schema:
    """The whole schema, of draft 7: what editors for TOML understand."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of the crawler",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _section(name) for name in SECTIONS},
    }


def _section(name: str) -> Schema:
    return {
        "description": _plain(SECTIONS[name].__doc__ or ""),
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _key(key) for key in keys().values() if key.section == name},
    }


def _key(key: Key) -> Schema:
    field = SECTIONS[key.section].model_fields[key.attribute]
    checks = [item.func for item in field.metadata if isinstance(item, BeforeValidator)]
    found = _value(key.kind, checks[0] if checks else None, field.annotation)
    for number in (found, *found.get("anyOf", ())):
        if number.get("type") in ("integer", "number"):
            number["maximum"] = key.most
    force = "A reload brings it into force." if not key.restart else "Needs a restart."
    derived = f" Not set: {key.derived}." if key.default is None and key.derived else ""
    found["description"] = f"{_plain(key.description)}{derived} {force}"
    if not (key.default is None and key.derived):
        found["default"] = tomllib.loads(f"x = {toml_text(key, key.default)}")["x"]
    return found


def _value(kind: Kind, check: object, annotation: Any) -> Schema:
    if isinstance(check, OrNoLimit):
        inner = _value(kind, check.check, annotation)
        return {"anyOf": [*inner.get("anyOf", [inner]), {"const": NO_LIMIT}]}
    if isinstance(check, OrDerived):
        return _value(kind, check.check, annotation)
    match kind:
        case Kind.FLAG:
            return {"type": "boolean"}
        case Kind.COUNT:
            return {"type": "integer"} | ({"minimum": check.least} if isinstance(check, WholeNumber) else {})
        case Kind.DURATION:
            number = {"exclusiveMinimum": 0} if check is positive_duration else {"minimum": 0}
            return {"anyOf": [{"type": "string", "pattern": _DURATION}, {"type": "number"} | number]}
        case Kind.SIZE:
            number = {"exclusiveMinimum": 0} if check is positive_size else {"minimum": 0}
            return {"anyOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer"} | number]}
        case Kind.TEXT:
            return {"type": "string"} | ({"enum": list(check.words)} if isinstance(check, OneOf) else {"minLength": 1})
        case Kind.PATH:
            return {"type": "string", "minLength": 1}
        case Kind.LIST | Kind.PATHS:
            return {"type": "array", "items": _item(annotation)}
        case Kind.HOSTS:
            return {"anyOf": [{"enum": list(SEED_WORDS)}, {"type": "array", "minItems": 1, "items": _STRING}]}
        case Kind.TABLE:
            return {"type": "object", "additionalProperties": _item(annotation)}
        case _:
            typing.assert_never(kind)


_STRING: Final[Schema] = {"type": "string"}


def _item(annotation: Any) -> Schema:
    """What a list or a table holds: texts, those of a closed set, or lists of them."""
    arguments = [part for part in typing.get_args(annotation) if part is not Ellipsis]
    inner = arguments[-1] if arguments else str
    metadata = getattr(inner, "__metadata__", ())
    checks = [item.func for item in metadata if isinstance(item, BeforeValidator)]
    if checks and isinstance(checks[0], OneOf):
        return {"enum": list(checks[0].words)}
    bare = typing.get_args(inner)[0] if metadata else inner
    if bare is float:
        return {"type": "number"}
    if typing.get_origin(bare) is tuple:
        return {"type": "array", "items": dict(_STRING)}
    return dict(_STRING)


def _plain(text: str) -> str:
    return " ".join(text.split())


def schema_text() -> str:
    """The file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
