"""What one run of a program costs: wall time, CPU time and peak memory of its process tree."""

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Seconds; MiB of the largest process."""

    wall_s: float
    cpu_s: float
    rss_mib: float


def run(command: Sequence[str], cwd: Path, *, env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end, its output thrown away."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    ) as process:
        _, status, own = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return Cost(wall_s, cpu_s, own.ru_maxrss / 1024)


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
