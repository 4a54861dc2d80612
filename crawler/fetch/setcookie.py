"""Reads the Set-Cookie field: text in, one cookie or None out, by the user agent's rules of RFC 6265bis §5.

Decides nothing about who may set which cookie (`cookies`) and reads no clock. Invariant: it never raises, and what it
returns has no character that could end a header line.
"""

import re
from calendar import timegm
from dataclasses import dataclass
from typing import Final

MAX_FIELD_BYTES: Final = 16 * 1024  # of one Set-Cookie field, attributes and all; browsers keep 4 KiB of it at most
MAX_PAIR_BYTES: Final = 4_096  # name and value (§5.6)
MAX_ATTRIBUTES: Final = 32  # there are eight; a field with more is made to keep its reader busy
MAX_ATTRIBUTE_BYTES: Final = 1_024  # a longer attribute value is ignored (§5.6)
MAX_AGE_S: Final = 400 * 86_400.0  # a later expiry counts as this (§5.5)

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DELIMITERS: Final = re.compile(r"[\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME: Final = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\D|$)")
_DAY: Final = re.compile(r"(\d{1,2})(?:\D|$)")
_YEAR: Final = re.compile(r"(\d{2,4})(?:\D|$)")
_MAX_AGE: Final = re.compile(r"-?\d+")
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_MONTH_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class SetCookie:
    """One Set-Cookie field as it was read. None: the attribute was not there, or not usable.

    `expires_at` is UTC; a time long past asks for the cookie's removal. `domain` is lower case without a leading dot.
    """

    name: str
    value: str
    domain: str | None = None
    path: str | None = None
    expires_at: float | None = None
    secure: bool = False
    same_site_none: bool = False

    @property
    def pair(self) -> str:
        """As it is sent back."""
        return f"{self.name}={self.value}" if self.name else self.value


def parse_set_cookie(text: str, now: float) -> SetCookie | None:
    """Read one field value. None: nothing in it can be kept. `now` is what Max-Age counts from. Source: §5.6."""
    if len(text) > MAX_FIELD_BYTES or _CONTROL.search(text):
        return None
    pair, *attributes = text.split(";", MAX_ATTRIBUTES + 1)
    if len(attributes) > MAX_ATTRIBUTES:
        return None
    name, equals, value = pair.partition("=")
    if not equals:
        name, value = "", pair
    name, value = name.strip(" \t"), value.strip(" \t")
    if (not name and not value) or len(name) + len(value) > MAX_PAIR_BYTES:
        return None
    domain = path = max_age_at = expires_at = None
    secure = same_site_none = False
    for attribute in attributes:
        key, _, said = attribute.partition("=")
        said = said.strip(" \t")
        if len(said) > MAX_ATTRIBUTE_BYTES:
            continue
        match key.strip(" \t").lower():
            case "expires":
                moment = parse_cookie_date(said)
                if moment is not None:
                    expires_at = min(moment, now + MAX_AGE_S)
            case "max-age":
                if _MAX_AGE.fullmatch(said) is not None:
                    seconds = float(said)
                    max_age_at = now + min(seconds, MAX_AGE_S) if seconds > 0 else 0.0
            case "domain":
                domain = said.removeprefix(".").lower()
            case "path":
                path = said if said.startswith("/") else None
            case "secure":
                secure = True
            case "samesite":
                same_site_none = said.lower() == "none"
    return SetCookie(
        name,
        value,
        domain or None,
        path,
        max_age_at if max_age_at is not None else expires_at,
        secure,
        same_site_none,
    )


def parse_cookie_date(text: str) -> float | None:
    """A date as servers write it, in whatever order its parts come; None if a part is missing. Source: §5.1.1."""
    time = day = month = year = None
    for token in _DELIMITERS.split(text):
        if time is None and (match := _TIME.match(token)):
            time = (int(match[1]), int(match[2]), int(match[3]))
        elif day is None and (match := _DAY.match(token)):
            day = int(match[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS[token[:3].lower()]
        elif year is None and (match := _YEAR.match(token)):
            year = int(match[1])
    if time is None or day is None or month is None or year is None:
        return None
    if 70 <= year <= 99:
        year += 1900
    elif year <= 69:
        year += 2000
    hour, minute, second = time
    if year < 1601 or hour > 23 or minute > 59 or second > 59 or not 1 <= day <= _MONTH_DAYS[month - 1]:
        return None
    if (month, day) == (2, 29) and (year % 4 or (not year % 100 and year % 400)):
        return None
    return float(timegm((year, month, day, hour, minute, second)))
