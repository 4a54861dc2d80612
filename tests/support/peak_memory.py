"""How much a step adds to this process's resident memory at its peak, whatever the process held at some time before."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RESET_PEAK = "5"  # proc(5), /proc/[pid]/clear_refs: set VmHWM to what is resident now


@dataclass(slots=True)
class PeakGrowth:
    """`in_bytes` is set when the step is over."""

    in_bytes: int = 0


@contextmanager
def peak_growth() -> Iterator[PeakGrowth]:
    """Measure the step inside. ru_maxrss would not do: it never falls, and a new process begins with its parent's."""
    growth = PeakGrowth()
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = _peak()
    yield growth
    growth.in_bytes = _peak() - before


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
