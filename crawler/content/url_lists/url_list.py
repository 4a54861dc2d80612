"""What a list of URLs comes to: its entries, within bounds. Shared by the readers of the formats (`sitemap`, `feeds`).

It does not know the formats, nor whether an entry may be followed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from crawler.content.html.resolution import ReferenceResolver, clean
from crawler.content.url_lists.xml_stream import StopReading
from crawler.core.clock import http_date
from crawler.core.models import Origin
from crawler.core.url import UrlError

MAX_ENTRIES: Final = 50_000  # sitemaps.org: of one file
MAX_BYTES: Final = 50 * 1024 * 1024  # sitemaps.org: of one file, uncompressed
MAX_TEXTS: Final = 64  # elements of one name in an entry; of more the last counts
MAX_VALUE: Final = 4_096  # characters kept of a value: twice the longest URL


class UrlListKind(StrEnum):
    """What a document is, by its content."""

    URLS = "urls"  # a sitemap
    INDEX = "index"  # a list of sitemaps
    FEED = "feed"


class UrlListEntry(NamedTuple):
    """One URL of a list: absolute, http(s), without fragment.

    `nested`: what it leads to is itself such a list. `modified_at` (UTC) and `priority` (0 to 1) are as the list says,
    None where it says nothing that can be used.
    """

    url: str
    origin: Origin
    nested: bool
    modified_at: float | None
    priority: float | None


@dataclass(frozen=True, slots=True)
class UrlList:
    """What was read. `kind` None: it is no list. `error` says in words what is wrong with it; then the entries before
    the fault are there, or, where it was refused as harmful, none. `capped`: there was more than is read of one list.
    """

    kind: UrlListKind | None
    entries: tuple[UrlListEntry, ...] = ()
    capped: bool = False
    error: str | None = None
    size: int = 0  # bytes, decoded


class Texts:
    """The texts of an entry's elements by their names, those of one name apart; MAX_VALUE characters of each."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def begin(self, name: str) -> None:
        """What is added to `name` from now on is another text."""
        texts = self._texts.setdefault(name, [])
        if len(texts) >= MAX_TEXTS:
            texts.pop()
        texts.append("")

    def add(self, name: str, text: str) -> None:
        texts = self._texts[name]
        texts[-1] = (texts[-1] + text[:MAX_VALUE])[:MAX_VALUE] if texts[-1] else text[:MAX_VALUE]

    def of(self, name: str) -> list[str]:
        """Those that are not empty."""
        return [stripped for text in self._texts.get(name, ()) if (stripped := text.strip())]

    def first(self, name: str) -> str:
        texts = self._texts.get(name)
        if texts is None:
            return ""
        return texts[0].strip() or next(iter(self.of(name)), "")


class Collector:
    """Gathers entries of the list found at `url`; each URL once, as it stands first."""

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
        """Note a URL as it is written. Raises Enough when there are as many as are kept."""
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
    """A point in time as lists write it, in UTC epoch seconds; None if it cannot be told.

    W3C date and time down to a year ("2005", "2005-01", "2005-01-31T08:00+01:00"), or the date of an e-mail, as RSS has
    it. Without an offset it is UTC; without a time its day begins.
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
    """A sitemap's priority, between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None
