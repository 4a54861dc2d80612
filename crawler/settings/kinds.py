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

from crawler.settings import quantities, validators
from crawler.settings.configuration_errors import RefusedValue, did_you_mean, shown
from crawler.settings.validators import TOKEN, matching

_T = TypeVar("_T")


class KeyKind(Enum):
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


def number_text(kind: KeyKind, value: float) -> str:
    """A number as a person writes it."""
    match kind:
        case KeyKind.DURATION:
            return quantities.format_duration(value)
        case KeyKind.SIZE:
            return quantities.format_size(int(value))
        case _:
            return f"{value:.0f}"


# In a JSON schema, a pattern judges texts only, and a minimum numbers only.
_DURATION: Final = {"type": ["string", "number"], "pattern": quantities.DURATION}
_SIZE: Final = {"type": ["string", "integer"], "pattern": quantities.SIZE}

Flag = Annotated[bool, Field(strict=True), KeyKind.FLAG]
Count = Annotated[int, Field(strict=True, ge=1), KeyKind.COUNT]
CountOrZero = Annotated[int, Field(strict=True, ge=0), KeyKind.COUNT]
Duration = Annotated[
    float, BeforeValidator(quantities.parse_duration), WithJsonSchema(_DURATION | {"minimum": 0}), KeyKind.DURATION
]
PositiveDuration = Annotated[Duration, Field(gt=0), WithJsonSchema(_DURATION | {"exclusiveMinimum": 0})]
Size = Annotated[int, BeforeValidator(quantities.parse_size), WithJsonSchema(_SIZE | {"minimum": 0}), KeyKind.SIZE]
PositiveSize = Annotated[Size, Field(gt=0), WithJsonSchema(_SIZE | {"exclusiveMinimum": 0})]
OrNoLimit = Annotated[_T | None, BeforeValidator(validators.none_for_no_limit)]

_NOT_EMPTY: Final = WithJsonSchema({"type": "string", "minLength": 1})
Text = Annotated[str, Field(min_length=1), AfterValidator(validators.printable), KeyKind.TEXT]
FileNamePart = Annotated[
    Text,
    AfterValidator(
        matching(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            'letters, digits, ".", "_" and "-", 64 at most, a letter or digit first',
        )
    ),
]
UserAgent = Annotated[
    Text,
    AfterValidator(matching(rf"{TOKEN}[ -~]*", 'ASCII text that begins with a product, as in "mybot/1.0"')),
    AfterValidator(str.strip),
]
RobotsToken = Annotated[
    Text, AfterValidator(matching(rf"(?!\*$){TOKEN}", 'one product name without version, as in "mybot"'))
]
Mailbox = Annotated[Text, AfterValidator(matching(r"(?=[ -~]*$).*[^@].*@.*[^@].*", "an e-mail address"))]
Address = Annotated[Text, AfterValidator(validators.ip)]
Ciphers = Annotated[Text, AfterValidator(validators.ciphers)]
Listen = Annotated[Text, AfterValidator(validators.listen)]
Seed = Annotated[Text, AfterValidator(validators.seed)]
Pattern = Annotated[str, AfterValidator(validators.url_pattern)]
Network = Annotated[Text, AfterValidator(validators.network)]
Nameserver = Annotated[Text, AfterValidator(validators.nameserver)]
ContentType = Annotated[Text, AfterValidator(validators.content_type)]
Window = Annotated[Text, AfterValidator(validators.window)]
HostPattern = Annotated[Text, AfterValidator(validators.host_pattern)]
# Not a Text, for pydantic measures UTF-8 only, and a path may be of other bytes.
Path = Annotated[
    str, AfterValidator(validators.printable), AfterValidator(validators.path_of), _NOT_EMPTY, KeyKind.PATH
]
# Never quoted in a message: it may be, or hold, a password.
Secret = Annotated[str, BeforeValidator(validators.unquoted)]
Proxy = Annotated[Secret, AfterValidator(validators.proxy), _NOT_EMPTY, KeyKind.TEXT]

ListOf = Annotated[tuple[_T, ...], KeyKind.LIST]
Encodings = Annotated[ListOf[Literal["gzip", "deflate", "br", "zstd"]], AfterValidator(validators.distinct)]
Hosts = Annotated[
    tuple[HostPattern, ...],
    BeforeValidator(validators.hosts_or_word),
    AfterValidator(validators.not_both),
    WithJsonSchema(
        {"anyOf": [{"enum": validators.SEED_WORDS}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
    ),
    KeyKind.HOSTS,
]
Resolve = Annotated[dict[HostPattern, tuple[Address, ...]], KeyKind.TABLE]
Importance = Annotated[dict[Pattern, Annotated[float, BeforeValidator(validators.factor)]], KeyKind.TABLE]
FieldName = Annotated[Text, AfterValidator(matching(TOKEN, "a header name")), AfterValidator(validators.not_our_own)]
Headers = Annotated[
    dict[FieldName, Annotated[Secret, AfterValidator(validators.field_value)]],
    KeyKind.TABLE,
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


def refusal(error: ErrorDetails, kind: KeyKind) -> RefusedValue:
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
