"""Runs a fuzzer: `python -m tests.fuzz wire 60` for a minute on one target, from the seeds, with atheris.

A crash ends the run with the input in `--artifacts` and exit code 77 (libFuzzer's); it then becomes a row,
in `response_cases` or `seeds`. With `--corpus DIR` what was found interesting is kept there
for the next time.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["crawler"]):
    from crawler.content import decode as _decode  # noqa: F401 - instrumented as it is imported
    from crawler.fetch.http1 import (
        wire,  # noqa: F401 - likewise
    )

from tests.fuzz import seeds
from tests.fuzz.properties import check_coded, check_response

_MEMORY = 1 << 30  # bytes; an input that needs more ends the run with MemoryError
_TARGETS = {"wire": (check_response, seeds.responses, 4_096), "decode": (check_coded, seeds.coded, 8_192)}


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=_TARGETS)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path())
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0: a new one each time")
    given = parser.parse_args()
    check, make_seeds, max_bytes = _TARGETS[given.target]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        start = Path(name)
        for number, seed in enumerate(make_seeds()):
            (start / f"{number:04}").write_bytes(seed)
        corpora = [str(start)]
        if given.corpus is not None:
            given.corpus.mkdir(parents=True, exist_ok=True)
            corpora.insert(0, str(given.corpus))  # libFuzzer writes to the first
        given.artifacts.mkdir(parents=True, exist_ok=True)
        arguments = [
            sys.argv[0],
            f"-max_total_time={given.seconds}",
            f"-max_len={max_bytes}",
            f"-artifact_prefix={given.artifacts}/{given.target}-",
            f"-seed={given.seed}",
            "-timeout=10",
            "-rss_limit_mb=0",  # it counts ru_maxrss, with which a process begins at its parent's peak
            "-print_final_stats=1",
            *corpora,
        ]
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        atheris.Setup(arguments, check)
        atheris.Fuzz()


main()
