"""Lines of pages/ that a takedown blanks: found by their URL, overwritten where they stand.

A blanked line keeps its length, so every offset and the lengths in the store stay right, also while a crawl appends to
the file: `{"url":null,"forgotten":true}` and spaces. Only whole lines are looked at.

Invariant: a line is recognised until nothing of it is left. First all behind its URL is blanked, and made durable; then
its head is replaced. A kill in between leaves a line that is no JSON and ends in spaces: the next takedown finishes it.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

BLANK: Final = b'{"url":null,"forgotten":true}'
_HEAD: Final = re.compile(rb'\{"url":("(?:[^"\\]|\\.)*")')
_FILE: Final = re.compile(r".+\.jsonl(?:\.open|\.orphan(?:\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class PageLine:
    """`offset` and `length` in bytes, the line feed left out; `head` are the bytes that name it until it is blank.
    `url` is None for one that a kill cut short and whose URL is gone.
    """

    offset: int
    length: int
    head: bytes
    url: str | None


def files(folder: Path) -> list[Path]:
    """Those in pages/: complete, open, and set aside."""
    return [path for path in sorted(folder.iterdir()) if _FILE.fullmatch(path.name)] if folder.is_dir() else []


def find(path: Path, matches: Callable[[str], bool], problems: list[str]) -> list[PageLine]:
    """The lines whose URL `matches`, and those that were half blanked. What cannot be read is a problem, in words."""
    try:
        with path.open("rb") as file:
            return list(_lines(file, matches))
    except FileNotFoundError:  # renamed meanwhile: complete now
        whole = path.with_name(path.name.removesuffix(".open"))
        return find(whole, matches, problems) if whole != path else []
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return []


def _lines(file: Iterator[bytes], matches: Callable[[str], bool]) -> Iterator[PageLine]:
    offset = 0
    for line in file:
        head = _HEAD.match(line)
        if line.endswith(b"\n"):
            url = str(orjson.loads(head[1])) if head is not None else None
            length = len(line) - 1
            if url is not None and head is not None and matches(url):
                yield PageLine(offset, length, head[0], url)
            elif url is None and line.endswith(b" \n") and line.rstrip() != BLANK:
                yield PageLine(offset, length, b"", None)
        offset += len(line)


def blank(path: Path, lines: Sequence[PageLine], problems: list[str]) -> None:
    """Overwrite lines that `find` found."""
    if not lines:
        return
    for one in (path, path.with_name(path.name.removesuffix(".open"))):
        try:
            descriptor = os.open(one, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{one}: its lines of what was forgotten stay: {error.strerror or error}")
            return
        try:
            # A commit that failed meanwhile may have been cut off, and others written in its place.
            there = [line for line in lines if os.pread(descriptor, len(line.head), line.offset) == line.head]
            for line in there:
                kept = len(line.head)
                os.pwrite(descriptor, b" " * (line.length - kept), line.offset + kept)
            os.fsync(descriptor)
            for line in there:
                os.pwrite(descriptor, BLANK.ljust(line.length), line.offset)
            os.fsync(descriptor)
        except OSError as error:
            problems.append(f"{one}: its lines of what was forgotten stay: {error.strerror or error}")
        finally:
            os.close(descriptor)
        return
