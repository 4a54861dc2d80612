"""What the shape of a URL says: impossible paths, and the template that URLs of one making share.

A template is a target with what varies replaced: numbers, dates, long identifiers, the values of parameters, and names
in folders that have very many. It is what novelty is counted for (`core.novelty`). Nothing here knows what pages hold.

Invariant: a template has at most MAX_TEMPLATE characters, and a `TemplateTree` remembers at most MAX_NAMES names.
"""

import re
from enum import StrEnum
from typing import Final

from crawler.core.options import TrapOptions
from crawler.core.value import dataclass
from crawler.core.values import Denied
from crawler.core.vocabulary import DenyReason

MAX_TEMPLATE: Final = 300
WIDE: Final = 32  # names in one folder; where there are more they are taken for values
BRANCHES: Final = 96  # folders below a first one; where there are more they are not told apart
DEEP: Final = 4  # folders in a row whose names vary
MAX_NAMES: Final = 4_096  # remembered of one host
MAX_WALKED: Final = 256  # folders of one host whose template is kept at hand

_DATE: Final = re.compile(
    r"(?<!\d)(?:1[89]|2\d)\d\d(?:[-/_.](?:0?[1-9]|1[0-2])(?:[-/_.](?:0?[1-9]|[12]\d|3[01]))?)(?!\d)"
)
# Sixteen hexadecimal digits or more, or twenty-four letters and figures mixed, as sessions, hashes and keys have.
_IDENTIFIER: Final = re.compile(
    r"(?=[A-Za-z-]*\d)[0-9A-Fa-f-]{16,}|(?=[A-Za-z_-]*\d)(?=[0-9_-]*[A-Za-z])[0-9A-Za-z_-]{24,}"
)
_NUMBER: Final = re.compile(r"\d+")
_DATE_NAMES: Final = frozenset(("date", "day", "month", "year", "week", "y", "m", "d", "yr", "mon"))


class TrapKind(StrEnum):
    """The sign of having no end that a template shows; PLAIN: none."""

    CALENDAR = "calendar"  # its URLs hold dates
    FACETS = "facets"  # several parameters are combined
    DEEP = "deep"  # folders within folders, of names that vary
    IDENTIFIER = "identifier"  # long identifiers, as sessions have
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Template:
    """`text` as operators see it: "/calendar/{date}", "/search?…". `combination` has the names of the parameters."""

    text: str
    kind: TrapKind
    combination: str = ""


def impossible_path(target: str, options: TrapOptions) -> Denied | None:
    """Refuse what no site means: folders repeated over and over, dozens of parameters.

    Source: Heritrix's PathologicalPathDecideRule and TooManyPathSegmentsDecideRule.
    """
    if target.count("/") > options.max_repeats:
        segments = target.partition("?")[0].strip("/").split("/")
        if len(segments) > options.max_path_segments:
            return Denied(DenyReason.TRAP_PATH, f"traps.max_path_segments = {options.max_path_segments}")
        if len(set(segments)) <= len(segments) - options.max_repeats and _repeats(segments, options.max_repeats):
            return Denied(DenyReason.TRAP_PATH, f"traps.max_repeats = {options.max_repeats}")
    if "&" in target and target.count("&") >= options.max_parameters:
        return Denied(DenyReason.TRAP_PATH, f"traps.max_parameters = {options.max_parameters}")
    return None


def _repeats(segments: list[str], most: int) -> bool:
    """Whether a name stands in the path more than `most` times, or a run of names that often one behind the other.
    Short numbers may: dates, the tiles of a map.
    """
    if any(not (name.isdigit() and len(name) < 4) and segments.count(name) > most for name in set(segments)):
        return True
    for period in range(2, len(segments) // (most + 1) + 1):
        for start in range(len(segments) - period * (most + 1) + 1):
            end = start + period * most
            if segments[start:end] == segments[start + period : end + period]:
                return True
    return False


# How a path has been read so far: the folder that its template has, how many names in a row vary, and whether ever as
# many as in a path that is DEEP.
_Walked = tuple[str, int, bool]


class TemplateTree:
    """Turns targets of one host into templates. It learns which folders are wide from what it is shown."""

    __slots__ = ("_below", "_names", "_size", "_walked")

    def __init__(self) -> None:
        self._names: dict[str, set[str] | None] = {}  # by folder, in which names are replaced as well; None: it is wide
        self._below: dict[str, int | None] = {}  # folders below each first one; None: too many to tell apart
        self._size = 0
        self._walked: dict[str, _Walked] = {}  # by folder as it is written, until another folder turns out to be wide

    def widen(self, template: str) -> None:
        """Know from now on what a template of this host says: which folders are wide."""
        self._walked.clear()
        folder = ""
        for part in template.partition("?")[0].split("/")[1:]:
            if part in ("*", "**"):
                self._names[folder] = None
            if part == "**":
                if folder.count("/") == 1:
                    self._below[folder[1:]] = None
                self._names[f"{folder}/*"] = self._names[f"{folder}/**"] = None
            folder += f"/{part}"

    def restore(self, template: str) -> None:
        """Know what a template of this host says that was counted before a restart: its names, and its wide folders."""
        self.widen(template)
        folder = ""
        for part in template.partition("?")[0].split("/")[1:]:
            if part[:1] in "{*" and part:
                break
            self._is_name(folder, part, learns=True)
            folder += f"/{part}"

    def template_of(self, target: str, *, learns: bool = False) -> Template:
        """`learns`: the URL was fetched, its names count."""
        path, _, query = target.partition("?")
        kind = TrapKind.PLAIN
        if _NUMBER.search(path) is not None:
            dated = _DATE.sub("{date}", path)
            if len(dated) != len(path) or "{date}" in dated:
                kind = TrapKind.CALENDAR
            path = _IDENTIFIER.sub("{id}", dated)
            if path != dated:
                kind = TrapKind.IDENTIFIER
            path = _NUMBER.sub("{n}", path)
        first, _, rest = path[1:].partition("/")
        if "/" in rest and self._below.get(first, 0) is None:
            folder, is_deep = f"/{first}/**", True
        else:
            above, _, last = path.rpartition("/")
            walked = self._walked.get(above)
            if walked is None:
                walked = self._walk(above, learns=learns)
            folder, _, is_deep = self._step(walked, last, learns=learns)
        if is_deep and kind is TrapKind.PLAIN:
            kind = TrapKind.DEEP
        if query:
            return _with_query(folder, query, kind)
        return Template(folder[:MAX_TEMPLATE], kind)

    def _walk(self, path: str, *, learns: bool) -> _Walked:
        walked: _Walked = ("", 0, False)
        for name in path.split("/")[1:]:
            walked = self._step(walked, name, learns=learns)
        if learns and self._size < MAX_NAMES and len(walked[0]) <= MAX_TEMPLATE:  # what is known now stays true
            if len(self._walked) >= MAX_WALKED:
                self._walked.clear()
            self._walked[path] = walked
        return walked

    def _step(self, walked: _Walked, name: str, *, learns: bool) -> _Walked:
        folder, run, is_deep = walked
        varies = name in ("{n}", "{id}") or not self._is_name(folder, name, learns=learns)
        run = run + 1 if varies else 0
        if run < 2:
            folder += f"/{'*' if varies and name[:1] != '{' else name}"
        elif run == 2:
            folder = f"{folder[: folder.rindex('/')]}/**"
        return folder, run, is_deep or run >= DEEP

    def _is_name(self, folder: str, name: str, *, learns: bool) -> bool:
        """Whether a name is one of few in its folder; otherwise it is one value of very many."""
        if folder not in self._names:
            if not learns or self._size >= MAX_NAMES or len(folder) > MAX_TEMPLATE:
                return self._size < MAX_NAMES
            self._names[folder] = set()
            self._count_below(folder)
        known = self._names[folder]
        if known is None:
            return False
        if name in known or not learns:
            return True
        known.add(name)
        self._size += 1
        if len(known) > WIDE or self._size > MAX_NAMES:
            self._names[folder] = None
            self._size -= len(known)
            self._walked.clear()
            return False
        return True

    def _count_below(self, folder: str) -> None:
        first = folder[1:].partition("/")[0]
        below = self._below.get(first, 0)
        if below is not None and len(self._below) < MAX_NAMES:
            self._below[first] = below + 1 if below < BRANCHES else None
            if below >= BRANCHES:
                self._walked.clear()


def _with_query(folder: str, query: str, kind: TrapKind) -> Template:
    values = dict(part.partition("=")[::2] for part in query.split("&") if part)
    names = sorted(values)
    if all(name.lower() in _DATE_NAMES for name in names) or any(_DATE.search(value) for value in values.values()):
        kind = TrapKind.CALENDAR
    elif len(names) > 1:
        kind = TrapKind.FACETS
    elif any(_IDENTIFIER.search(value) for value in values.values()):
        kind = TrapKind.IDENTIFIER
    words = "…" if len(names) > 1 else "&".join(names)
    return Template(f"{folder}?{words}"[:MAX_TEMPLATE], kind, "&".join(names)[:MAX_TEMPLATE])
