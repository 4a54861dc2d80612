"""What systemd is told, over a socket that stands in for it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.systemd import Notifier, is_journal_stream


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET and the socket behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        name = str(tmp_path / "notify") if request.param == "path" else f"@crawler-test-{os.getpid()}"
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        yield name, sock


def test_states_go_out_as_one_datagram(manager: tuple[str, socket.socket]) -> None:
    """A line each."""
    name, sock = manager
    Notifier({"NOTIFY_SOCKET": name}).send("READY=1", "STATUS=crawling: 3 pages")
    assert sock.recv(4096) == b"READY=1\nSTATUS=crawling: 3 pages"


@pytest.mark.parametrize(
    "address", ["", "vsock:2:1234", "relative/path", "/nonexistent/notify", "@nobody-listens-here"]
)
def test_without_a_listener_nothing_happens(address: str) -> None:
    """No reason to stop crawling."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for environ in ({"NOTIFY_SOCKET": address}, {}):
        notifier = Notifier(environ)
        notifier.send("READY=1")
        assert notifier.watchdog_s is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # no socket is left behind


def test_a_manager_that_does_not_read_is_not_waited_for(manager: tuple[str, socket.socket]) -> None:
    """Its queue fills, and what does not fit is dropped."""
    name, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for n in range(2_000):
        notifier.send(f"STATUS={n}")
    assert sock.recv(4096) == b"STATUS=0"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_or_none(environ: dict[str, str], expected: float | None) -> None:
    """sd_watchdog_enabled(3): for this process, and a time above 0."""
    assert Notifier(environ).watchdog_s == expected


def test_the_journals_stream_is_known_by_device_and_inode(tmp_path: Path) -> None:
    """systemd.exec(5); a redirected stderr is not the journal's."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        stat = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}
        assert is_journal_stream(environ, stream.fileno())
        assert not is_journal_stream(environ, other.fileno())


@pytest.mark.parametrize("value", ["", "8", ":", "8:", "a:b", "8:9:10"])
def test_a_malformed_journal_stream_is_none(value: str) -> None:
    """Nor is a descriptor that is closed."""
    assert not is_journal_stream({"JOURNAL_STREAM": value}, 2)
    assert not is_journal_stream({"JOURNAL_STREAM": "8:9"}, 1_000_000)
