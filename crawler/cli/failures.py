"""What a person is told of each expected failure, and the exit code that goes with it.

The one table from exceptions to exit codes (docs/OPERATIONS.md). What is not in it is a bug and keeps its traceback.
"""

import errno
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from crawler.core.enums import Exit
from crawler.core.formatting import count


def say(message: str) -> None:
    """Tell a person, on stderr."""
    print(f"crawler: {message}", file=sys.stderr)  # noqa: T201 - messages of the command line


def not_written(problems: Iterable[str], *, unstored: int = 0, gone: Sequence[Path] = ()) -> int:
    """Say what could not be written, and how it goes on; returns the exit code. `unstored` visits were made and not
    stored, `gone` is what was stored and is not there any more.
    """
    for problem in problems:
        say(f"could not be written: {problem}")
    if gone:
        for path in gone:
            say(f"{path} is gone: it was deleted or moved away while the crawl ran")
        say("what was stored in it is lost unless it is put back as it was, or a backup in its place")
        return Exit.IO
    if unstored:
        one = "the last visit was not stored: its URL is"
        more = f"the last {count(unstored)} visits were not stored: their URLs are"
        say(f"{one if unstored == 1 else more} still queued, and will be fetched again")
    say("what was committed is safe; the same command goes on from there")
    return Exit.IO


def exit_for(error: BaseException) -> int | None:
    """Report an expected failure and return its exit code; None if it is none of ours."""
    # Imported here: a command that fails early must not pay for all rooms.
    from crawler.cli.output import ReaderGone
    from crawler.core.url import UrlError
    from crawler.settings.configuration_errors import ConfigurationError

    if isinstance(error, ConfigurationError):
        print(error, file=sys.stderr)  # noqa: T201 - file:line:column: message, for editors to parse
        return Exit.CONFIGURATION
    if isinstance(error, UrlError):
        say(str(error))
        return Exit.USAGE
    if isinstance(error, BrokenPipeError | ReaderGone):
        return Exit.OK  # whoever read our output has had enough
    found = _of_a_crawl(error)
    if found is not None:
        return found
    if isinstance(error, OSError):
        return _of_the_system(error)
    return None


def _of_a_crawl(error: BaseException) -> int | None:
    from crawler.admin.control_client import NotAllowed, Unreachable
    from crawler.admin.protocol import CommandRefused, Malformed
    from crawler.admin.socket_path import SocketTaken
    from crawler.daemon import EndedAtOnce
    from crawler.fetch.http1.message import LocalProtocolError
    from crawler.frontier.base import FrontierError, FrontierFull, FrontierLocked
    from crawler.frontier.sqlite.store_reader import StoreUnreadable
    from crawler.output_directory import OutputUnusable, StoreLost
    from crawler.sinks.base import SinkCorrupt, SinkForeign

    if isinstance(error, EndedAtOnce):
        say(f"{error}: ended at once; what was committed is safe, the same command goes on from there")
        return 128 + error.number
    if isinstance(error, CommandRefused):
        say(str(error))
        return error.exit_code
    codes: list[tuple[type[BaseException], int]] = [
        (Unreachable, Exit.UNREACHABLE),
        (Malformed, Exit.UNREACHABLE),
        (NotAllowed, Exit.PERMISSION),
        (SocketTaken, Exit.CONFIGURATION),
        (OutputUnusable, Exit.CONFIGURATION),
        (LocalProtocolError, Exit.CONFIGURATION),
        (FrontierLocked, Exit.WAITING),
        (FrontierFull, Exit.IO),
        (StoreUnreadable, Exit.PERMISSION),
        (FrontierError, Exit.STATE_CORRUPT),
        (SinkCorrupt, Exit.STATE_CORRUPT),
        (SinkForeign, Exit.STATE_CORRUPT),
        (StoreLost, Exit.STATE_CORRUPT),
    ]
    for kind, code in codes:
        if isinstance(error, kind):
            say(str(error))
            return code
    return None


def _of_the_system(error: OSError) -> int:
    place = f"{error.filename}: " if error.filename else ""
    say(f"{place}{error.strerror or error}")
    return Exit.PERMISSION if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else Exit.IO
