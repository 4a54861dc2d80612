"""The real command, killed at a named point: the nth write, fsync, rename … of its output files, or around a commit.

One process imports the program once and forks for each run, so that hundreds of kills take a minute. Run as a script
it is that process; tests use it through `KillPoints`. It patches `sinks.disk.Disk` and the transactions of the store.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support.commands import environment

CALLS = ("create", "write", "sync", "sync_folder", "rename")
COMMITS = ("before commit", "after commit")
POINTS = (*CALLS, *COMMITS)


class KillPoints:
    """Runs the command, each time in a process of its own."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.kill_points", str(self._scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=30)

    def run(self, arguments: Sequence[object], point: str = "", nth: int = 0, *, slice_urls: int | None = None) -> int:
        """Run the command, killed at the nth `point`, or to its end without one. `slice_urls`: of a transaction that
        queues known URLs. Returns the exit code, below 0 for a signal.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"arguments": [str(one) for one in arguments], "point": point, "nth": nth, "slice": slice_urls}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    @property
    def stdout(self) -> str:
        """The output of the last run."""
        return (self._scratch / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """The errors of the last run."""
        return (self._scratch / "stderr").read_text()


def _arm(point: str, nth: int) -> None:
    from crawler.frontier.sqlite.database import Database
    from crawler.sinks.disk import Disk

    seen = 0

    def reached() -> bool:
        nonlocal seen
        seen += 1
        return seen == nth

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if point in CALLS:
        call: Callable[..., Any] = getattr(Disk, point)

        def struck(self: Disk, *arguments: Any) -> Any:
            if reached():
                if point == "write":  # half of it is written
                    descriptor, data = arguments
                    call(self, descriptor, data[: len(data) // 2])
                die()
            return call(self, *arguments)

        setattr(Disk, point, struck)
        return
    transaction = Database.transaction

    @contextmanager
    def committing(self: Database) -> Iterator[None]:
        with transaction(self):
            yield
            if point == "before commit" and reached():
                die()
        if point == "after commit" and reached():
            die()

    Database.transaction = committing  # type: ignore[assignment, method-assign]


def _serve(scratch: Path) -> None:
    import crawler.app  # imported once, for all forked processes
    from crawler.cli import main
    from crawler.frontier.sqlite import writer

    assert crawler.app
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if order["slice"]:
                writer.REQUEUE_SLICE = order["slice"]  # type: ignore[misc]
            if order["point"]:
                _arm(order["point"], order["nth"])
            sys.argv = ["crawler", *order["arguments"]]
            main()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
