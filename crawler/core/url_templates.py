"""What the form of a URL shows: impossible paths, signs of an endless part of a site, and the URL's templates.

A template is a request target with placeholders for numbers, dates, long identifiers, names and the values of
parameters. Each URL has a few templates, from its own folder to the whole host. Pages of one template are compared with
each other (`core.novelty`).

Invariant: all results depend on the URL alone, so neither the order of a crawl nor a restart changes them.
"""

import re
from typing import Final

from crawler.core.enums import DenyReason
from crawler.core.models import Denied
from crawler.core.options import TrapOptions

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
