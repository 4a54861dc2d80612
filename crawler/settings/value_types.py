"""The types of the keys: the accepted values, how they are written, and the messages about refused values.

pydantic checks the values and makes their JSON schema; checks that it lacks are in `validators`. The KeyKind of a key
decides how overrides, `config show` and the example file read and write it; pydantic ignores it.
Invariants: the type of every key has a KeyKind; if it has several, the outermost counts. `parse_…` reads the text of
`format_…` as the same number.
"""

import math
import re
from enum import Enum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import ErrorDetails

from crawler.core.scope import SEED_MODES
from crawler.settings import validators
from crawler.settings.configuration_errors import FLAG_WORDS, RefusedValue, did_you_mean, shown
from crawler.settings.validators import TOKEN, matching

_T = TypeVar("_T")

# -- durations and sizes: "1h30m", "250ms", "32MiB", "1GB"

_NUMBER: Final = r"(\d+(?:\.\d+)?)\s*"
# The JSON schema uses the same patterns: they mean the same in its dialect of regular expressions.
DURATION_PATTERN: Final = (
    r"^\s*(?=\S)" + "".join(rf"(?:{_NUMBER}{unit}\s*)?" for unit in ("d", "h", "m", "s", "ms")) + r"$|^\s*0\s*$"
)
SIZE_PATTERN: Final = rf"^\s*{_NUMBER}([kKmMgGtT][iI]?[bB]|[bB])?\s*$"

_SIZE_UNITS: Final = "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"
_BYTES: Final[dict[str, int]] = {
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    "b": 1,
    "": 1,
}


def parse_duration(value: object) -> float:
    """Seconds for "500ms", "1.5s", "1h30m" (units d, h, m, s, ms; each once, the larger first) or a number of seconds.

    Raises RefusedValue.
    """
    message = 'must be a duration such as "500ms", "1s" or "1h30m"'
    if isinstance(value, str):
        if (match := re.fullmatch(DURATION_PATTERN, value)) is None:
            if value.strip().startswith("-"):
                raise RefusedValue(f"must not be negative, as {shown(value)} is")
            raise RefusedValue(f"{message}, not {shown(value)}", _duration_hint(value))
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
        # Milliseconds are divided, not multiplied: 0.001 is no binary fraction, and "300ms" has to be 0.3.
        return days * 86_400 + hours * 3_600 + minutes * 60 + seconds + milliseconds / 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedValue(message)
    if value < 0:
        raise RefusedValue("must not be negative")
    seconds = float(min(value, 1e18))  # a larger integer may be too large for a float
    if math.isnan(seconds):
        raise RefusedValue("must be a finite duration")
    return seconds


# Units as they are often written, with ours and its factor.
_UNITS: Final = {
    "": ("s", 1), "s": ("s", 1), "sec": ("s", 1), "second": ("s", 1), "m": ("m", 1), "min": ("m", 1),
    "minute": ("m", 1), "h": ("h", 1), "hr": ("h", 1), "hour": ("h", 1), "d": ("d", 1), "day": ("d", 1), "w": ("d", 7),
    "wk": ("d", 7), "week": ("d", 7), "msec": ("ms", 1), "millisecond": ("ms", 1),
}  # fmt: skip


def _duration_hint(text: str) -> str:
    found = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = None if found is None else _UNITS.get(found[2].lower()) or _UNITS.get(found[2].lower().removesuffix("s"))
    if found is None or unit is None:
        return "units: d, h, m, s, ms"
    number = float(found[1].replace(",", ".")) * unit[1]
    if found[1].isdigit() and not found[2]:
        return f'a unit is missing: "{number:g}ms" or "{number:g}s"'
    return f'did you mean "{number:g}{unit[0]}"?'


def parse_size(value: object) -> int:
    """Bytes for "32MiB" (powers of 1024), "1GB" (powers of 1000), "64B", or a whole number. Raises RefusedValue."""
    if isinstance(value, str):
        return _size_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedValue('must be a size such as "32MiB", "1GB" or a whole number of bytes')
    if value < 0:
        raise RefusedValue("must not be negative")
    return value


def _size_of_text(text: str) -> int:
    if text.strip().startswith("-"):
        raise RefusedValue(f"must not be negative, as {shown(text)} is")
    message = f'must be a size such as "32MiB", "1GB" or a whole number of bytes, not {shown(text)}'
    match = re.fullmatch(rf"\s*{_NUMBER}([A-Za-z]*)\s*", text)
    if match is None:
        per_second = re.fullmatch(rf"\s*({_NUMBER}[A-Za-z]+)\s*/\s*s", text)
        raise RefusedValue(message, f'did you mean "{per_second[1]}"?' if per_second else "units: " + _SIZE_UNITS)
    number, unit = match.groups()
    scale = _BYTES.get(unit.lower())
    if scale is None:
        one_letter = unit.upper() in ("K", "M", "G", "T")
        hint = f'did you mean "{number}{unit.upper()}iB" (1024) or "{number}{unit.upper()}B" (1000)?'
        raise RefusedValue(message, hint if one_letter else "units: " + _SIZE_UNITS)
    if number.isdigit() and len(number) < 30:  # an exact result; a number with more digits is too large in any unit
        return int(number) * scale
    return round(min(float(number) * scale, 2.0**64))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as `seconds` (to the microsecond)."""
    if seconds == 0:
        return "0s"
    if seconds < 1:
        return f"{_plain(seconds * 1000)}ms"
    whole, rest = divmod(round(seconds, 6), 60)
    parts = []
    for unit, scale in (("d", 1_440), ("h", 60), ("m", 1)):
        count, whole = divmod(whole, scale)
        if count:
            parts.append(f"{int(count)}{unit}")
    if rest:
        parts.append(f"{_plain(rest)}s")
    return "".join(parts)


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def format_size(size: int) -> str:
    """The size in the largest unit that divides it, 1024-based before 1000-based; else in bytes."""
    for base, suffix in ((1024, "iB"), (1000, "B")):
        for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K" if base == 1024 else "k")):
            if size and size % base**power == 0:
                return f"{size // base**power}{letter}{suffix}"
    return f"{size}B"


# -- the types


class KeyKind(Enum):
    """The form of a value. The text of a member is its name in the example file."""

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
            return format_duration(value)
        case KeyKind.SIZE:
            return format_size(int(value))
        case _:
            return f"{value:.0f}"


# In a JSON schema, a pattern judges texts only, and a minimum numbers only.
_DURATION: Final = {"type": ["string", "number"], "pattern": DURATION_PATTERN}
_SIZE: Final = {"type": ["string", "integer"], "pattern": SIZE_PATTERN}

Flag = Annotated[bool, Field(strict=True), KeyKind.FLAG]
Count = Annotated[int, Field(strict=True, ge=1), KeyKind.COUNT]
CountOrZero = Annotated[int, Field(strict=True, ge=0), KeyKind.COUNT]
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION | {"minimum": 0}), KeyKind.DURATION
]
PositiveDuration = Annotated[Duration, Field(gt=0), WithJsonSchema(_DURATION | {"exclusiveMinimum": 0})]
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE | {"minimum": 0}), KeyKind.SIZE]
PositiveSize = Annotated[Size, Field(gt=0), WithJsonSchema(_SIZE | {"exclusiveMinimum": 0})]
OrNoLimit = Annotated[_T | None, BeforeValidator(validators.none_for_no_limit)]

_NOT_EMPTY: Final = WithJsonSchema({"type": "string", "minLength": 1})
Text = Annotated[str, Field(min_length=1), AfterValidator(validators.printable), KeyKind.TEXT]
FileNamePart = Annotated[
    Text,
    AfterValidator(
        matching(
            re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
            'letters, digits, ".", "_" and "-", 64 at most, a letter or digit first',
        )
    ),
]
UserAgent = Annotated[
    Text,
    AfterValidator(matching(re.compile(rf"{TOKEN}[ -~]*"), 'ASCII text that begins with a product, as in "mybot/1.0"')),
    AfterValidator(str.strip),
]
RobotsToken = Annotated[
    Text, AfterValidator(matching(re.compile(rf"(?!\*$){TOKEN}"), 'one product name without version, as in "mybot"'))
]
Mailbox = Annotated[
    Text,
    AfterValidator(
        matching(re.compile(r"(?=[ -~]*$).*[^@].*@.*[^@].*"), 'an e-mail address, as in "operator@example.org"')
    ),
]
Address = Annotated[Text, AfterValidator(validators.ip)]
Ciphers = Annotated[Text, AfterValidator(validators.ciphers)]
Listen = Annotated[Text, AfterValidator(validators.listen)]
Seed = Annotated[Text, AfterValidator(validators.seed)]
Tag = Annotated[Text, AfterValidator(matching(re.compile(r".{1,64}"), "a text of 64 characters at most"))]
Pattern = Annotated[str, AfterValidator(validators.url_pattern)]
Network = Annotated[Text, AfterValidator(validators.network)]
Nameserver = Annotated[Text, AfterValidator(validators.nameserver)]
ContentType = Annotated[Text, AfterValidator(validators.content_type)]
Window = Annotated[Text, AfterValidator(validators.window)]
Calendar = Annotated[Text, AfterValidator(validators.calendar)]
HostPattern = Annotated[Text, AfterValidator(validators.host_pattern)]
OverrideHost = Annotated[Text, AfterValidator(validators.override_host)]
# Not a Text, because pydantic measures UTF-8 only, and a path may have other bytes.
Path = Annotated[
    str, AfterValidator(validators.printable), AfterValidator(validators.path_of), _NOT_EMPTY, KeyKind.PATH
]
# Never quoted in a message: it may contain a password.
Secret = Annotated[str, BeforeValidator(validators.unquoted)]
Proxy = Annotated[Secret, AfterValidator(validators.proxy), _NOT_EMPTY, KeyKind.TEXT]
Dsn = Annotated[Secret, AfterValidator(validators.dsn), _NOT_EMPTY, KeyKind.TEXT]

ListOf = Annotated[tuple[_T, ...], KeyKind.LIST]
Tags = Annotated[ListOf[Tag], AfterValidator(validators.distinct), AfterValidator(validators.few)]
Encodings = Annotated[ListOf[Literal["gzip", "deflate", "br", "zstd"]], AfterValidator(validators.distinct)]
Hosts = Annotated[
    tuple[HostPattern, ...],
    BeforeValidator(validators.hosts_or_word),
    AfterValidator(validators.not_both),
    WithJsonSchema({"anyOf": [{"enum": SEED_MODES}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}),
    KeyKind.HOSTS,
]
Resolve = Annotated[dict[HostPattern, tuple[Address, ...]], KeyKind.TABLE]
Importance = Annotated[dict[Pattern, Annotated[float, BeforeValidator(validators.factor)]], KeyKind.TABLE]
FieldName = Annotated[
    Text,
    AfterValidator(matching(re.compile(TOKEN), "a header name")),
    AfterValidator(validators.not_our_own),
]
Headers = Annotated[
    dict[FieldName, Annotated[Secret, AfterValidator(validators.field_value)]],
    KeyKind.TABLE,
]

# -- messages about values that pydantic refuses, by the type of its error

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
    """The message about a refused value of a key of `kind`."""
    facts, value, hint = error.get("ctx", {}), error["input"], ""
    if isinstance(refused := facts.get("error"), RefusedValue):
        return RefusedValue(str(refused), _no_limit_hint(kind, value) or refused.hint)
    if error["type"] == "literal_error":
        facts["expected"] = facts["expected"].replace("'", '"')
        words = re.findall('"(.*?)"', facts["expected"])
        hint = "write it in quotes" if str(value) in words else did_you_mean(str(value), words)
    elif error["type"] == "tuple_type" and isinstance(value, str):
        hint = f"write [{shown(value)}]"
    elif error["type"] in ("int_type", "bool_type"):
        hint = _no_limit_hint(kind, value) or _plain_value_hint(error["type"], value)
    elif error["type"] == "string_type" and isinstance(value, int | float):
        hint = f'write "{shown(value)}"'
    elif error["type"] == "dict_type" or (error["type"] == "tuple_type" and isinstance(value, dict)):
        hint = "as in { NAME = VALUE }" if error["type"] == "dict_type" else 'as in ["a", "b"]'
    elif "le" in facts:
        facts["le"] = number_text(kind, facts["le"])
    return RefusedValue(_REFUSALS[error["type"]].format(value=shown(value), **facts), hint)


def _no_limit_hint(kind: KeyKind, value: object) -> str:
    """What to write for no limit, where something like it was written for a number."""
    if kind not in (KeyKind.COUNT, KeyKind.DURATION, KeyKind.SIZE) or not isinstance(value, str):
        return ""
    if value == validators.NO_LIMIT:
        return '"none" is for limits; this key needs a value'
    words = ("unlimited", "infinite", "infinity", "inf", "forever", "never", "no", "off", "all", "any")
    return 'no limit is "none"' if value.strip().lower() in words else ""


def _plain_value_hint(kind: str, value: object) -> str:
    """What to write instead of a value that is no number or flag."""
    text = str(value).strip().lower()
    if kind == "bool_type":
        flag = FLAG_WORDS.get(text)
        return f"write {flag}" if flag else ""
    if re.fullmatch(r"\d{1,18}(\.0+)?", text):
        return f"write {text.partition('.')[0]}"
    return ""
