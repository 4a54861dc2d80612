"""The command's standard streams: data for stdout, and what happens where a stream is closed.

It does not know what is written. Invariant: a reader that has had enough, or none at all, is no error of ours.
"""

import os
import sys


class ReaderGone(Exception):
    """Whoever read our output has had enough. No OSError: click would make exit code 1 of it."""


def occupy() -> None:
    """Put /dev/null where a standard stream was closed (`crawler … >&-`): the event loop aborts the process when a
    socket of its own gets a number below 3, and Python leaves None where the stream should be.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def write_data(data: bytes) -> None:
    """Write to stdout, at once. Raises OSError where it cannot take it (a full disk)."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered must not fail again at exit
        if not isinstance(error, BrokenPipeError):
            raise


def write_lines(held: list[bytes]) -> None:
    """Write lines, without their newlines, to stdout and empty the list. Raises ReaderGone when nobody reads any more:
    whoever has a gigabyte of lines left should stop.
    """
    if not held:
        return
    held.append(b"")
    try:
        sys.stdout.buffer.write(b"\n".join(held))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered must not fail at exit
        raise ReaderGone from None
    held.clear()
