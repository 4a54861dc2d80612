"""The types of the keys: what each accepts, how it is written, and what is said of a value that it refuses.

pydantic checks the values and makes their JSON schema; the checks that it does not have are in `readers`. The Kind is
how overrides, `config show` and the annotated file know how to read and write a key; pydantic passes it by. Invariant:
the type of every key has a Kind, the outermost one counts.
"""

import re
from enum import Enum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import ErrorDetails

from crawler.settings import quantities, readers
from crawler.settings.problems import RefusedValue, did_you_mean, shown

_T = TypeVar("_T")


class Kind(Enum):
    """How a value is written; the text names it in the annotated file."""

    FLAG = "true or false"
    COUNT = "number"
    DURATION = "duration"
    SIZE = "size in bytes"
    TEXT = "text"
    PATH = "path"
    LIST = "list"
    HOSTS = "word or list"
    TABLE = "table"


def number_text(kind: Kind, value: float) -> str:
    """A number as a person writes it."""
    match kind:
        case Kind.DURATION:
            return quantities.format_duration(value)
        case Kind.SIZE:
            return quantities.format_size(int(value))
        case _:
            return f"{value:.0f}"


# In a JSON schema, a pattern judges texts only, and a minimum numbers only.
_DURATION: Final = {"type": ["string", "number"], "pattern": quantities.DURATION}
_SIZE: Final = {"type": ["string", "integer"], "pattern": quantities.SIZE}

Flag = Annotated[bool, Field(strict=True), Kind.FLAG]
Count = Annotated[int, Field(strict=True, ge=1), Kind.COUNT]
CountOrZero = Annotated[int, Field(strict=True, ge=0), Kind.COUNT]
Duration = Annotated[
    float, BeforeValidator(quantities.parse_duration), WithJsonSchema(_DURATION | {"minimum": 0}), Kind.DURATION
]
PositiveDuration = Annotated[Duration, Field(gt=0), WithJsonSchema(_DURATION | {"exclusiveMinimum": 0})]
Size = Annotated[int, BeforeValidator(quantities.parse_size), WithJsonSchema(_SIZE | {"minimum": 0}), Kind.SIZE]
PositiveSize = Annotated[Size, Field(gt=0), WithJsonSchema(_SIZE | {"exclusiveMinimum": 0})]
OrNoLimit = Annotated[_T | None, BeforeValidator(readers.none_for_no_limit)]

_NOT_EMPTY: Final = WithJsonSchema({"type": "string", "minLength": 1})
Text = Annotated[str, Field(min_length=1), AfterValidator(readers.printable), Kind.TEXT]
FileNamePart = Annotated[Text, AfterValidator(readers.file_name_part)]
UserAgent = Annotated[Text, AfterValidator(readers.user_agent)]
RobotsToken = Annotated[Text, AfterValidator(readers.robots_token)]
Mailbox = Annotated[Text, AfterValidator(readers.mailbox)]
Address = Annotated[Text, AfterValidator(readers.ip)]
Ciphers = Annotated[Text, AfterValidator(readers.ciphers)]
Listen = Annotated[Text, AfterValidator(readers.listen)]
Seed = Annotated[Text, AfterValidator(readers.seed)]
Pattern = Annotated[str, AfterValidator(readers.url_pattern)]
Network = Annotated[Text, AfterValidator(readers.network)]
Nameserver = Annotated[Text, AfterValidator(readers.nameserver)]
ContentType = Annotated[Text, AfterValidator(readers.content_type)]
Window = Annotated[Text, AfterValidator(readers.window)]
HostPattern = Annotated[Text, AfterValidator(readers.host_pattern)]
# Not a Text, for pydantic measures UTF-8 only, and a path may be of other bytes.
Path = Annotated[str, AfterValidator(readers.printable), AfterValidator(readers.path_of), _NOT_EMPTY, Kind.PATH]
# Never quoted in a message: it may be, or hold, a password.
Secret = Annotated[str, BeforeValidator(readers.unquoted)]
Proxy = Annotated[Secret, AfterValidator(readers.proxy), _NOT_EMPTY, Kind.TEXT]

ListOf = Annotated[tuple[_T, ...], Kind.LIST]
Encodings = Annotated[ListOf[Literal["gzip", "deflate", "br", "zstd"]], AfterValidator(readers.distinct)]
Hosts = Annotated[
    tuple[HostPattern, ...],
    BeforeValidator(readers.hosts_or_word),
    AfterValidator(readers.not_both),
    WithJsonSchema(
        {"anyOf": [{"enum": readers.SEED_WORDS}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
    ),
    Kind.HOSTS,
]
Resolve = Annotated[dict[HostPattern, tuple[Address, ...]], Kind.TABLE]
Importance = Annotated[dict[Pattern, Annotated[float, BeforeValidator(readers.factor)]], Kind.TABLE]
Headers = Annotated[
    dict[Annotated[Text, AfterValidator(readers.field_name)], Annotated[Secret, AfterValidator(readers.field_value)]],
    Kind.TABLE,
]

# What is said of a value that pydantic refuses, by the type of its error.
_REFUSALS: Final = {
    "bool_type": "must be true or false, not {value}",
    "int_type": "must be a whole number, not {value}",
    "string_type": "must be text in quotes, not {value}",
    "string_unicode": "must be UTF-8",
    "string_too_short": "must not be empty",
    "literal_error": "must be {expected}, not {value}",
    "tuple_type": "must be a list, not {value}",
    "dict_type": "must be a table, not {value}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than_equal": "must be at most {le}",
}


def refusal(error: ErrorDetails, kind: Kind) -> RefusedValue:
    """What is wrong with a value of a key of `kind`, for a person."""
    facts, value, hint = error.get("ctx", {}), error["input"], ""
    if isinstance(refused := facts.get("error"), RefusedValue):
        return refused
    if error["type"] == "literal_error":
        facts["expected"] = facts["expected"].replace("'", '"')
        words = re.findall('"(.*?)"', facts["expected"])
        hint = "write it in quotes" if str(value) in words else did_you_mean(str(value), words)
    elif error["type"] == "tuple_type" and isinstance(value, str):
        hint = f"write [{shown(value)}]"
    elif "le" in facts:
        facts["le"] = number_text(kind, facts["le"])
    return RefusedValue(_REFUSALS[error["type"]].format(value=shown(value), **facts), hint)
