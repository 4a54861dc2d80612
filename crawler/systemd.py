"""What systemd is told, and what it tells us: sd_notify(3) and the journal's stream.

Without systemd (no NOTIFY_SOCKET) every call does nothing. It never raises: a service manager that does not listen is
no reason to stop crawling.
"""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the socket that systemd named in the environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" marks the abstract namespace (sd_notify(3)); anything but that or a path is no address for us
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if not address.startswith(("/", "@")):
            self._address = ""
        usec = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec_is_set = usec.isascii() and usec.isdigit() and int(usec) > 0  # 0 would be a beat without end
        self.watchdog_s = int(usec) / 1e6 if usec_is_set and is_ours else None

    def send(self, *states: str) -> None:
        """Lines such as "READY=1" or "STATUS=…"."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError:
            return


def is_journal_stream(environ: Mapping[str, str], fd: int) -> bool:
    """Whether `fd` is the journal's own stream (systemd.exec(5), JOURNAL_STREAM: device:inode)."""
    try:
        device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
        stat = os.fstat(fd)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (ValueError, OSError):
        return False
