"""Seed files: one URL a line.

Reads and checks them; which files there are is `crawl.seed_files`. Invariant: a seed that is returned is one that
`core.url.seed` accepts.
"""

import re
from pathlib import Path
from typing import Final

from crawler.core import url
from crawler.settings.configuration_errors import Problem, is_utf_16

_COMMENT: Final = re.compile(r"(?:^\s*|[ \t])#.*")
MAX_PROBLEMS: Final = 20  # shown of one file: the wrong file would otherwise fill the screen


def read_seed_file(path: Path) -> tuple[list[str], list[Problem]]:
    """The seeds of a file, and what is wrong with it line by line. Raises OSError.

    Blank lines count for nothing, nor does "#" with what follows it, at the beginning of a line or after a blank.
    """
    seeds: list[str] = []
    problems: list[Problem] = []
    content = path.read_bytes()
    if is_utf_16(content):
        return [], [Problem(str(path), 0, 0, "not UTF-8 but UTF-16", "", "save it as UTF-8")]
    lines = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        text = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if not text:
            continue
        try:
            url.seed(text)
        except url.UrlError as error:
            if len(problems) == MAX_PROBLEMS:
                problems.append(Problem(str(path), number, 1, "more lines are no seeds"))
                break
            column = len(line) - len(line.lstrip()) + 1
            problems.append(Problem(str(path), number, column, f"no seed: {error}", line.rstrip("\r")))
        else:
            seeds.append(text)
    return seeds, problems
