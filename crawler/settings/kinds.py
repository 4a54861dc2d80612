"""The types of the keys: what a check of `readers` accepts, and the Kind that says how such a value is written.

The Kind is how overrides, `config show` and the annotated file know how to read and write a key; pydantic passes it
by. Invariant: every type used for a key carries exactly one Kind.
"""

from enum import Enum
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator

from crawler.settings import readers
from crawler.settings.quantities import format_duration, format_size, parse_duration, parse_size
from crawler.settings.readers import or_derived, or_no_limit, whole_number

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
    PATHS = "list of paths"
    HOSTS = "word or list"
    TABLE = "table"


def number_text(kind: Kind, value: float) -> str:
    """A number as a person writes it."""
    match kind:
        case Kind.DURATION:
            return format_duration(value)
        case Kind.SIZE:
            return format_size(int(value))
        case _:
            return f"{value:.0f}"


Flag = Annotated[bool, BeforeValidator(readers.flag), Kind.FLAG]
FlagOrDerived = Annotated[bool | None, BeforeValidator(or_derived(readers.flag)), Kind.FLAG]

Count = Annotated[int, BeforeValidator(whole_number(1)), Kind.COUNT]
CountOrNoLimit = Annotated[int | None, BeforeValidator(or_no_limit(whole_number(1))), Kind.COUNT]
CountOrZeroOrNoLimit = Annotated[int | None, BeforeValidator(or_no_limit(whole_number(0))), Kind.COUNT]
CountOrDerived = Annotated[int | None, BeforeValidator(or_derived(whole_number(1))), Kind.COUNT]
CountOrZero = Annotated[int, BeforeValidator(whole_number(0)), Kind.COUNT]

Duration = Annotated[float, BeforeValidator(parse_duration), Kind.DURATION]
DurationOrDerived = Annotated[float | None, BeforeValidator(or_derived(parse_duration)), Kind.DURATION]
PositiveDuration = Annotated[float, BeforeValidator(readers.positive_duration), Kind.DURATION]
PositiveDurationOrNoLimit = Annotated[
    float | None, BeforeValidator(or_no_limit(readers.positive_duration)), Kind.DURATION
]

Size = Annotated[int, BeforeValidator(parse_size), Kind.SIZE]
PositiveSize = Annotated[int, BeforeValidator(readers.positive_size), Kind.SIZE]
PositiveSizeOrNoLimit = Annotated[int | None, BeforeValidator(or_no_limit(readers.positive_size)), Kind.SIZE]

FileNamePart = Annotated[str, BeforeValidator(readers.file_name_part), Kind.TEXT]
UserAgent = Annotated[str, BeforeValidator(readers.user_agent), Kind.TEXT]
RobotsTokenOrDerived = Annotated[str | None, BeforeValidator(or_derived(readers.robots_token)), Kind.TEXT]
MailboxOrNone = Annotated[str | None, BeforeValidator(or_derived(readers.mailbox)), Kind.TEXT]
AddressOrNone = Annotated[str | None, BeforeValidator(or_derived(readers.ip)), Kind.TEXT]
CiphersOrDerived = Annotated[str | None, BeforeValidator(or_derived(readers.ciphers)), Kind.TEXT]
ProxyOrNone = Annotated[str | None, BeforeValidator(or_derived(readers.proxy)), Kind.TEXT]
PathOrDerived = Annotated[str | None, BeforeValidator(or_derived(readers.path_of)), Kind.PATH]

ListenOrNone = Annotated[str | None, BeforeValidator(or_derived(readers.listen)), Kind.TEXT]

ListOf = Annotated[tuple[_T, ...], BeforeValidator(readers.sequence), Kind.LIST]
Paths = Annotated[
    tuple[Annotated[str, BeforeValidator(readers.path_of)], ...], BeforeValidator(readers.sequence), Kind.PATHS
]
Seed = Annotated[str, BeforeValidator(readers.seed)]
Pattern = Annotated[str, BeforeValidator(readers.url_pattern)]
Address = Annotated[str, BeforeValidator(readers.ip)]
Network = Annotated[str, BeforeValidator(readers.network)]
Nameserver = Annotated[str, BeforeValidator(readers.nameserver)]
Encoding = Annotated[str, BeforeValidator(readers.one_of("gzip", "deflate", "br", "zstd"))]
Encodings = Annotated[
    tuple[Encoding, ...], BeforeValidator(readers.sequence), AfterValidator(readers.distinct), Kind.LIST
]
ContentType = Annotated[str, BeforeValidator(readers.content_type)]
Window = Annotated[str, BeforeValidator(readers.window)]
HostPattern = Annotated[str, BeforeValidator(readers.host_pattern)]
Hosts = Annotated[
    tuple[HostPattern, ...], BeforeValidator(readers.hosts_or_word), AfterValidator(readers.not_both), Kind.HOSTS
]
Resolve = Annotated[
    dict[HostPattern, Annotated[tuple[Address, ...], BeforeValidator(readers.sequence)]],
    BeforeValidator(readers.mapping),
    Kind.TABLE,
]
Importance = Annotated[
    dict[Pattern, Annotated[float, BeforeValidator(readers.factor)]], BeforeValidator(readers.mapping), Kind.TABLE
]
Headers = Annotated[
    dict[Annotated[str, BeforeValidator(readers.field_name)], Annotated[str, BeforeValidator(readers.field_value)]],
    BeforeValidator(readers.mapping),
    Kind.TABLE,
]
