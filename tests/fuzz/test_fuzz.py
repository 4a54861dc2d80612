"""Any bytes at all, for seconds: the fuzzers' properties hold of every seed, former crashes among them, and of what
a short run of atheris comes up with. `make fuzz TIME=…` runs them for longer.
"""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.properties import check_coded, check_response

SECONDS = 8  # of each fuzzer, of two
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("check", "given"), [(check_response, seeds.responses), (check_coded, seeds.coded)])
def test_every_seed_has_the_properties(check: Callable[[bytes], object], given: Callable[[], list[bytes]]) -> None:
    """What the fuzzers start from does not break them: a crash they report is then something new."""
    inputs = given()
    assert len(inputs) > 40
    for each in inputs:
        check(each)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("target", ["wire", "decode"])
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    """Seconds of mutated input, the same random numbers each time: no property breaks, nothing hangs or grows."""
    command = [sys.executable, "-m", "tests.fuzz", target, str(SECONDS), "--artifacts", str(tmp_path), "--seed", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr[-4_000:]
    assert list(tmp_path.iterdir()) == []
    executed = [line for line in ran.stderr.splitlines() if "number_of_executed_units" in line]
    assert int(executed[0].split()[-1]) > 500, ran.stderr[-2_000:]
