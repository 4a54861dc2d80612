"""The `crawler` command; `python -m crawler` is the same.

Invariant: no large module is imported before SIGHUP is ignored, which would end a daemon while it starts.
"""

import signal
import sys


def main() -> int:
    """Run the command line and exit with its code."""
    if sys.argv[1:2] == ["run"]:
        # The configuration is read later, when `daemon.defer_hangups` handles SIGHUP: no change of it is missed.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from crawler.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    main()
