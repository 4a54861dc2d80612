"""A URL list and its entries, collected within bounds by the readers of all formats."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from crawler.content.html.links import ReferenceResolver, clean
from crawler.content.url_lists.xml_stream import StopReading
from crawler.core.clock import http_date
from crawler.core.models import Origin
from crawler.core.url import UrlError

MAX_ENTRIES: Final = 50_000  # sitemaps.org: of one file
MAX_BYTES: Final = 50 * 1024 * 1024  # sitemaps.org: of one file, uncompressed
MAX_TEXTS: Final = 64  # elements with one name in an entry; a further one replaces the last
MAX_VALUE: Final = 4_096  # characters of a value: twice the longest URL


class UrlListKind(StrEnum):
    """The kind of a URL list, by its content."""

    URLS = "urls"  # a sitemap
    INDEX = "index"  # a list of sitemaps
    FEED = "feed"


class UrlListEntry(NamedTuple):
    """One URL of a list."""

    url: str  # absolute, http(s), without fragment
    origin: Origin
    nested: bool  # it is the URL of another list
    modified_at: float | None  # UTC; None without a usable value
    priority: float | None  # 0 to 1; None without a usable value


@dataclass(frozen=True, slots=True)
class UrlList:
    """A URL list as it was read."""

    kind: UrlListKind | None  # None: it is no list
    entries: tuple[UrlListEntry, ...] = ()  # those before an error; none if it was refused as harmful
    capped: bool = False  # it has more entries than are read of one list
    error: str | None = None  # what is wrong with it
    size: int = 0  # decoded bytes


class Texts:
    """The texts of an entry's elements by name, MAX_VALUE characters of each."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def begin(self, name: str) -> None:
        """Begin another text of this name."""
        texts = self._texts.setdefault(name, [])
        if len(texts) >= MAX_TEXTS:
            texts.pop()
        texts.append("")

    def add(self, name: str, text: str) -> None:
        texts = self._texts[name]
        texts[-1] = (texts[-1] + text[:MAX_VALUE])[:MAX_VALUE] if texts[-1] else text[:MAX_VALUE]

    def of(self, name: str) -> list[str]:
        """The texts of this name that are not empty."""
        return [stripped for text in self._texts.get(name, ()) if (stripped := text.strip())]

    def first(self, name: str) -> str:
        texts = self._texts.get(name)
        if texts is None:
            return ""
        return texts[0].strip() or next(iter(self.of(name)), "")


class Collector:
    """Collects the entries of the list at `url`; of equal URLs the first counts."""

    def __init__(self, url: str) -> None:
        self._own = ReferenceResolver(url)
        self._entries: dict[str, UrlListEntry] = {}
        self.capped = False

    @property
    def entries(self) -> tuple[UrlListEntry, ...]:
        return tuple(self._entries.values())

    def add(
        self,
        written: str,
        *,
        nested: bool = False,
        modified_at: float | None = None,
        priority: float | None = None,
        base: ReferenceResolver | None = None,
    ) -> None:
        """Add a URL as written. Raises StopReading after MAX_ENTRIES."""
        reference = clean(written)
        if not reference:
            return
        try:
            url, origin = (base or self._own).resolve(reference)
        except UrlError:
            return
        if url in self._entries:
            return
        if len(self._entries) >= MAX_ENTRIES:
            self.capped = True
            raise StopReading
        self._entries[url] = UrlListEntry(url, origin, nested, modified_at, priority)

    def base(self, written: str, outer: ReferenceResolver | None) -> ReferenceResolver | None:
        """The base that an xml:base sets; without a usable value the outer one stays."""
        url = (outer or self._own).absolute(written)
        return outer if url is None else ReferenceResolver(url)


def date_at(text: str) -> float | None:
    """Parse a date of a list to UTC epoch seconds; None for an invalid one.

    It takes W3C dates from the year on ("2005", "2005-01", "2005-01-31T08:00+01:00") and the dates of e-mail, as in
    RSS. Without an offset a date is UTC, without a time it is the begin of the day.
    """
    text = text.strip()
    if len(text) > 64 or len(text) < 4:
        return None
    try:
        if text[:4].isdigit() and text[4:5] in ("", "-"):
            padded = text + "-01" * (2 - text.count("-")) if len(text) < 8 else text
            when = datetime.fromisoformat(padded)
            return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
        return http_date(text)
    except (ValueError, OverflowError):
        return None


def priority_of(text: str) -> float | None:
    """The priority in a sitemap, 0 to 1; None for an invalid one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None
