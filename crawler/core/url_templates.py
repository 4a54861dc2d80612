"""URL templates, and whether the pages of one template differ from each other.

A template is a request target with placeholders for numbers, dates, long identifiers, names and the values of
parameters. Each URL has a few templates, from its own folder to the whole host.

The pages of a template are compared by the words of a sample. Pages are sampled by a hash of their request target, not
by the time of their fetch. The sample of a template is the SAMPLE pages with the smallest hashes. A page is alike if at
most OWN_WORDS of its words are on no other page of the sample. A template is alike if nearly all pages of its sample
are. Words of a page's own URL do not count (`content.html.fingerprint`).

Invariants: the templates and signs of a URL depend on the URL alone. The verdict on a template depends on the set of
its settled pages. Neither the order of a crawl nor a restart changes them.

Source: bottom-k sketches, Cohen and Kaplan 2007.
"""

import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest, xxh32_intdigest

from crawler.core.enums import DenyReason
from crawler.core.models import Denied
from crawler.core.options import TrapOptions

# -- templates of a URL

MAX_TEMPLATE: Final = 300  # characters
FOLDERS: Final = 3  # folders of a path in its most specific template
REPEATED: Final = 3  # times that a folder may occur in a path without being a sign
ERROR_PAGE_LINKS: Final = "(linked from error pages)"  # in place of a template: URLs found on soft 404 pages only

_DATE: Final = re.compile(
    r"(?<!\d)(?:1[89]|2\d)\d\d(?:[-/_.](?:0?[1-9]|1[0-2])(?:[-/_.](?:0?[1-9]|[12]\d|3[01]))?)(?!\d)"
)
# At least sixteen hexadecimal digits, or twenty-four mixed letters and digits, as in sessions, hashes and keys.
_IDENTIFIER: Final = re.compile(
    r"(?=[A-Za-z-]*\d)[0-9A-Fa-f-]{16,}|(?=[A-Za-z_-]*\d)(?=[0-9_-]*[A-Za-z])[0-9A-Za-z_-]{24,}"
)
_NUMBER: Final = re.compile(r"\d+")
_DATE_NAMES: Final = frozenset(("date", "day", "month", "year", "week", "y", "m", "d", "yr", "mon"))
_EXTENSION: Final = re.compile(r"\.[A-Za-z]{1,5}\Z")


def impossible_path(target: str, options: TrapOptions) -> Denied | None:
    """Refuse a URL that no site means: folders repeated again and again, or dozens of folders or parameters.

    Source: Heritrix's PathologicalPathDecideRule and TooManyPathSegmentsDecideRule.
    """
    if target.count("/") > min(options.max_repeats, options.max_path_segments):
        segments = target.partition("?")[0].strip("/").split("/")
        if len(segments) > options.max_path_segments:
            return Denied(DenyReason.TRAP_PATH, f"traps.max_path_segments = {options.max_path_segments}")
        if len(set(segments)) <= len(segments) - options.max_repeats and _repeats(segments, options.max_repeats):
            return Denied(DenyReason.TRAP_PATH, f"traps.max_repeats = {options.max_repeats}")
    if target.count("&") >= options.max_parameters and target.partition("?")[2].count("&") >= options.max_parameters:
        return Denied(DenyReason.TRAP_PATH, f"traps.max_parameters = {options.max_parameters}")
    return None


def _repeats(segments: list[str], most: int) -> bool:
    """Whether a run of folders occurs more than `most` times in a row. A run of one short number does not count: dates,
    the tiles of a map.
    """
    for period in range(1, len(segments) // (most + 1) + 1):
        for start in range(len(segments) - period * (most + 1) + 1):
            end = start + period * most
            if segments[start:end] != segments[start + period : end + period]:
                continue
            if period > 1 or not (segments[start].isdigit() and len(segments[start]) < 4):
                return True
    return False


def is_suspicious(target: str) -> bool:
    """Whether a URL has a sign of an endless part of a site: a date, a long identifier, several parameters, or a folder
    that occurs again and again.
    """
    path, _, query = target.partition("?")
    if query.count("&") or _is_dated(query) or (path.count("/") > REPEATED and _comes_again(path.split("/"))):
        return True
    if _NUMBER.search(target) is None:
        return False
    return _DATE.search(path) is not None or _IDENTIFIER.search(target) is not None


def templates_of(target: str) -> tuple[str, ...]:
    """The templates of a target, the most specific first and the whole host last.

    "/shop/red/2026/11/x.html" has "/shop/red/{date}/*.html", "/shop/**{date}" and "/**{date}". URLs with a sign or a
    query never share a template with those without.
    """
    path, _, query = target.partition("?")
    sign = ""
    if _NUMBER.search(path) is not None:
        marked = _DATE.sub("{date}", path)
        sign = "{date}" if "{date}" in marked else ""
        path = _IDENTIFIER.sub("{id}", marked)
        sign = sign or ("{id}" if "{id}" in path else "")
        path = _NUMBER.sub("{n}", path)
    *folders, name = path[1:].split("/")
    if len(folders) > REPEATED and _comes_again(folders):
        sign = sign or "{again}"
    if query:
        values = dict(part.partition("=")[::2] for part in query.split("&") if part)
        sign = "{date}" if _is_dated(query) else sign
        names = "&".join(sorted(values))
        specific = [f"{path}?{names}", f"{path}?…"]
        sign = f"?…{sign}"
    else:
        below = "/".join(folders[:FOLDERS])
        specific = [f"/{below}/{'**/' if len(folders) > FOLDERS else ''}{_name_shape(name)}".replace("//", "/")]
    first = [f"/{folders[0]}/**{sign}"] if folders and not folders[0].startswith("{") else []
    return tuple(dict.fromkeys(text[:MAX_TEMPLATE] for text in (*specific, *first, f"/**{sign}")))


def general_templates_of(target: str) -> tuple[str, ...]:
    """The last two of `templates_of`, the whole host last. Cheap: it is called for every page of a large host."""
    if "?" not in target and _NUMBER.search(target) is None:
        folders = target[1:].split("/")
        if len(folders) > 1 and len(folders) - len(set(folders)) < REPEATED:
            return (f"/{folders[0]}/**"[:MAX_TEMPLATE], "/**")
    return templates_of(target)[-2:]


def _name_shape(name: str) -> str:
    """The template of the last part of a path: its placeholder, or "*", with the extension of a file."""
    if not name:
        return ""
    extension = _EXTENSION.search(name)
    for mark in ("{date}", "{id}", "{n}"):
        if mark in name:
            return mark + (extension[0] if extension else "")
    return "*" + (extension[0] if extension else "")


def _comes_again(folders: list[str]) -> bool:
    if len(folders) - len(set(folders)) < REPEATED:
        return False
    return any(
        folders.count(name) > REPEATED for name in set(folders) if name and name[0] != "{" and not name.isdigit()
    )


def _is_dated(query: str) -> bool:
    if not query:
        return False
    names = [part.partition("=")[0].lower() for part in query.split("&") if part]
    return (bool(names) and all(name in _DATE_NAMES for name in names)) or _DATE.search(query) is not None


# -- samples of pages

SAMPLE: Final = 32  # pages of a template that are compared
LEAST: Final = 16  # pages needed for a verdict …
FEW: Final = 4  # … and for a first impression (`seems_different`)
WORDS: Final = 64  # words of each page: those with the smallest hashes
OWN_WORDS: Final = 2  # that an alike page may have: the name of a month, a counter in words
ALIKE_SHARE: Final = 0.8  # of the sample
LEARNED: Final = 65_536  # words of trials that are remembered; after that no word counts as new
PAIRS: Final = 4  # pairs of equal pages in a sample: they show that few contents have many URLs …
COPIES: Final = 4  # … at least so many each on average
PLAIN_BITS: Final = 4  # one in 2^4 pages is sampled …
SUSPICIOUS_BITS: Final = 2  # … and one in 2^2 of those with a suspicious URL (`is_suspicious`)


class PageSample(NamedTuple):
    """A sampled page: the hash that it is sampled by, and the 32-bit hashes of its words, WORDS at most."""

    rank: int
    words: "array[int]"


def rank_of(target: str) -> int:
    """The hash that a page is sampled by."""
    return xxh3_64_intdigest(target.encode())


def is_sampled(rank: int, *, suspicious: bool) -> bool:
    """Whether a page with this hash is sampled."""
    return rank & ((1 << (SUSPICIOUS_BITS if suspicious else PLAIN_BITS)) - 1) == 0


def sketch(words: Iterable[bytes]) -> "array[int]":
    """The WORDS smallest hashes of a page's distinct words."""
    return array("I", sorted(hashes_of(words))[:WORDS])


def hashes_of(words: Iterable[bytes]) -> list[int]:
    """The 32-bit hashes of words."""
    return list(map(xxh32_intdigest, words))


class TemplateSample:
    """The sample of one template and its verdict."""

    __slots__ = ("_counts", "_is_alike", "_learned", "_pairs", "_seems_different", "pages", "seen")

    def __init__(self) -> None:
        self.pages: list[PageSample] = []
        self.seen = 0  # sampled pages so far, also those no longer in the sample
        self._is_alike: bool | None = False  # None: to be computed anew
        self._seems_different: bool | None = None  # None: to be computed anew
        self._pairs = 0  # pairs of pages with the same words, at the last verdict
        self._learned: set[int] = set()
        self._counts: Counter[int] = Counter()  # word → pages that have it; kept from the LEAST-th page on

    def add(self, page: PageSample) -> bool:
        """Add a page if it belongs to the sample. Returns whether the sample changed."""
        pages = self.pages
        at = bisect_left(pages, (page.rank,))
        if at < len(pages) and pages[at].rank == page.rank:  # known already
            return False
        self.seen += 1
        if len(pages) == SAMPLE:
            if page.rank >= pages[-1].rank:
                if self._pairs >= PAIRS:
                    self._is_alike = None  # `seen` has grown
                return False
            self._counts.subtract(pages.pop().words)
        pages.insert(at, page)
        self._seems_different = None
        if len(pages) < LEAST:
            return True
        for one in pages if len(pages) == LEAST else (page,):
            self._counts.update(one.words)
        self._is_alike = None
        return True

    @property
    def has_verdict(self) -> bool:
        return len(self.pages) >= LEAST

    @property
    def seems_different(self) -> bool:
        """Whether the first few pages differ. No verdict, but enough not to be judged by a more general template."""
        if self._seems_different is None:
            pages = self.pages
            counts = Counter(word for page in pages for word in page.words)
            alike = sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in pages)
            self._seems_different = FEW <= len(pages) < LEAST and 2 * alike < len(pages)
        return self._seems_different

    @property
    def is_alike(self) -> bool:
        """Whether the pages of the template are alike, as far as the sample shows."""
        if self._is_alike is None:
            self._is_alike = self._says_the_same or self._has_copies
        return self._is_alike

    @property
    def _says_the_same(self) -> bool:
        """Whether `alike_count` is at least ALIKE_SHARE of the sample. If pages differ, the first few decide."""
        counts = self._counts
        others = len(self.pages) - ALIKE_SHARE * len(self.pages)
        for page in self.pages:
            if sum([counts[word] == 1 for word in page.words]) > OWN_WORDS:
                others -= 1
                if others < 0:
                    return False
        return True

    @property
    def _has_copies(self) -> bool:
        """Whether few contents have many URLs, as with a session in the path. Estimates the number of contents from the
        pairs of equal pages in the sample (birthday problem).
        """
        same = Counter(page.words.tobytes() for page in self.pages)
        self._pairs = pairs = sum(n * (n - 1) // 2 for n in same.values())
        if pairs < PAIRS:
            return False
        contents = len(self.pages) * (len(self.pages) - 1) / 2 / pairs
        return COPIES * contents < self.seen << SUSPICIOUS_BITS

    @property
    def alike_count(self) -> int:
        """Pages of the sample with at most OWN_WORDS words of their own."""
        counts = self._counts
        return sum(sum([counts[word] == 1 for word in page.words]) <= OWN_WORDS for page in self.pages)

    def learns_one(self, content: bytes) -> bool:
        """Remember a content without words. Returns whether it is new."""
        before = len(self._learned)
        if before < LEARNED:
            self._learned.add(xxh32_intdigest(content))
        return len(self._learned) > before

    def learns(self, words: Sequence[int]) -> bool:
        """Remember the words of a page; the verdict stays. Returns whether more than OWN_WORDS of them are new."""
        counts, learned = self._counts, self._learned
        new = [word for word in words if not counts[word] and word not in learned]
        if len(learned) + len(new) > LEARNED:
            return False
        learned.update(new)
        return len(new) > OWN_WORDS


def alike_template(
    templates: Sequence[str], samples: Mapping[str, TemplateSample], alike: Container[str]
) -> str | None:
    """The template that a URL is a suspect of; None: of none. `alike`: the templates whose pages are alike.

    The most specific template with a verdict decides. The suspects then belong to the most general template up to which
    all are alike, so that the parts of a trap share one budget. The template of the whole host is left out.
    """
    decided: list[str] = []
    for one in templates:
        known = samples.get(one)
        if known is not None and known.has_verdict:
            decided.append(one)
        elif known is not None and not decided and known.seems_different:
            return None
    if not decided or decided[0] not in alike:
        return None
    parts = decided[:1] + [one for one in decided[1:] if one != templates[-1]]
    *_, last = takewhile(alike.__contains__, parts)
    return last
