"""The `crawler` command; `python -m crawler` is the same.

Invariant: nothing of weight is imported before a daemon is safe from SIGHUP, which would end it while it starts.
"""

import signal
import sys


def main() -> int:
    """Run the command line and exit with its code."""
    if sys.argv[1:2] == ["run"]:
        # Nothing is lost: the configuration is read later, when `daemon.note_hangups` has taken over.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from crawler.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    main()
