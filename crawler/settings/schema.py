"""The keys as a list: what there is, what a name may have meant, and how a value is written as TOML.

Reads the models of `sections`; knows nothing of files or of values given. Invariant: each key of each section is one
ConfigurationKey, in the order of the file.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast, get_args, get_type_hints

from pydantic.fields import FieldInfo

from crawler.settings import sections
from crawler.settings.configuration_errors import did_you_mean
from crawler.settings.validators import NO_LIMIT, SEED_WORDS
from crawler.settings.value_types import KeyKind, number_text

SECTIONS: Final[dict[str, type[sections.Section]]] = get_type_hints(sections.Sections)


@dataclass(frozen=True, slots=True)
class ConfigurationKey:
    """One key. `attribute` is its name in the model, `name` in the file; they differ where `name` is a Python keyword.

    `most` is the largest value of a number, None for other kinds. `derived` says in words what None means, "" where it
    means no limit; `example` is TOML for such a key.
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
    found = {}
    for section, model in SECTIONS.items():
        for attribute, field in model.model_fields.items():
            key = ConfigurationKey(
                section=section,
                name=field.alias or attribute,
                attribute=attribute,
                kind=_kind(field),
                description=field.description or "",
                default=field.default,
                **cast("dict[str, Any]", field.json_schema_extra),
            )
            found[str(key)] = key
    return found


def _kind(field: FieldInfo) -> KeyKind:
    """The outermost KeyKind of a type; for `X | None` that of X."""
    inner = (item for part in get_args(field.annotation) for item in getattr(part, "__metadata__", ()))
    return [item for item in (*inner, *field.metadata) if isinstance(item, KeyKind)][-1]


def complaint_about(section: str, name: str) -> tuple[str, str] | None:
    """Message and hint if there is no such key; None if there is."""
    dotted = f"{section}.{name}"
    if dotted in keys():
        return None
    if section not in SECTIONS:
        return f'unknown section "{section}"', did_you_mean(section, SECTIONS)
    elsewhere = [str(key) for key in keys().values() if key.name == name]
    own = [key.name for key in keys().values() if key.section == section]
    hint = f'did you mean "{elsewhere[0]}"?' if len(elsewhere) == 1 else did_you_mean(name, own)
    return f'unknown key "{name}" in [{section}]', hint


def toml_text(key: ConfigurationKey, value: object) -> str:
    """A value of `key`, as the models hold it, as TOML that reads back as the same value."""
    match value:
        case None:
            return f'"{NO_LIMIT}"'
        case float() | int() if key.kind in (KeyKind.DURATION, KeyKind.SIZE):
            return f'"{number_text(key.kind, value)}"'
        case (word,) if key.kind is KeyKind.HOSTS and word in SEED_WORDS:
            return _plain_toml(word)
        case _:
            return _plain_toml(value)


def _plain_toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped as well.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            pairs = ", ".join(f"{_plain_toml(name)} = {_plain_toml(item)}" for name, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(_plain_toml, value))}]"
        case _:
            return str(value)
