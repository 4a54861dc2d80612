"""How many connections the process's file descriptors have room for.

Invariant: a pool that keeps to what is said here leaves enough for the store, the output, the logs and the sockets of
the crawler itself, so that connections kept for later never stop what has been fetched from being stored.
"""

import resource
from contextlib import suppress
from typing import Final

# Of the store and its readers, output files, logs, DNS, control and metrics some 30 were counted; the rest is for
# spooled bodies and the connections of a client that is being replaced.
RESERVED: Final = 96


def raise_limit(connections: int) -> None:
    """Raise the soft limit as far as so many connections need it and the hard limit lets it: shells and service
    managers keep it low for the sake of select(2), which is not used here (systemd, file-descriptor limits).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with suppress(OSError, ValueError):  # a sandbox may forbid it: then the pool is the narrower one
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """The soft limit; -1: none."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_within(limit: int, connections: int) -> int:
    """As many of these connections as a limit has room for: at least 1, and half of a limit too low for the reserve."""
    if limit == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, max(limit - RESERVED, limit // 2)))
