"""A machine with a real systemd (tests/systemd/boot.sh), as a test sees it: commands run on it, files put on it.

It knows nothing of the crawler. Invariant: commands run on that machine, and change nothing on this one.
"""

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_BOOT: Final = ROOT / "tests" / "systemd" / "boot.sh"
_LACKING: Final = 3  # exit code of boot.sh
_KEPT_IN: Final = Path(os.environ.get("CRAWLER_TESTS_CACHE", "/var/tmp/crawler-tests"))  # the root outlives a run
_BUILD_S: Final = 1_200.0
_START_S: Final = 600.0
COMMAND_S: Final = 60.0


@dataclass(frozen=True)
class Machine:
    """A running machine. Commands run as root by default."""

    directory: Path

    def run(
        self, *command: object, user: str | None = None, stdin: bytes | str = b"", timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, successful or not."""
        before = [] if user is None else ["runuser", "-u", user, "--"]
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [_BOOT, "run", self.directory, *before, *map(str, command)],
            input=data, capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def must(self, *command: object, user: str | None = None, timeout: float = COMMAND_S) -> str:
        """Run a command that has to succeed. Returns its stdout."""
        done = self.run(*command, user=user, timeout=timeout)
        assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def shell(self, script: str) -> str:
        """Run a shell script whose commands all have to succeed."""
        return self.must("bash", "-euo", "pipefail", "-c", script)

    def put(self, path: str, content: str, mode: int = 0o644) -> None:
        """Write a file owned by root, and make its directory if need be."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode, entry.size = mode, len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
        self._unpack(packed.getvalue(), "/")

    def put_tree(self, directory: Path, path: str) -> None:
        """Copy the content of a directory of this machine, readable by everyone."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(directory, arcname=".", filter=_for_everyone)
        self._unpack(packed.getvalue(), path)

    def _unpack(self, packed: bytes, path: str) -> None:
        self.must("mkdir", "-p", path)
        done = self.run(
            "tar", "--extract", "--no-same-owner", "--no-overwrite-dir", f"--directory={path}", stdin=packed
        )
        assert done.returncode == 0, done.stderr

    def read(self, path: str) -> str:
        return self.must("cat", path)

    def property_of(self, unit: str, name: str) -> str:
        """A property of a unit, from `systemctl show`."""
        return self.must("systemctl", "show", "--value", "-p", name, unit).rstrip("\n")

    def journal(self, unit: str) -> str:
        """The journal of a unit: its own lines and those of systemd about it."""
        self.must("journalctl", "--sync")
        return self.must("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def wait_until(self, is_so: Callable[[], bool], what: str, timeout: float = COMMAND_S) -> None:
        deadline = time.monotonic() + timeout
        while not is_so():
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
            time.sleep(0.05)


def _for_everyone(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode |= 0o555 if entry.isdir() else 0o444
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def debian_base() -> Path:
    """The root file system of a Debian that runs nowhere, made once. Skips the test if that is impossible."""
    _KEPT_IN.mkdir(parents=True, exist_ok=True)
    base = _KEPT_IN / "systemd-base"
    _boot("build", base, timeout=_BUILD_S)
    return base


@contextmanager
def booted(project: Path) -> Iterator[Machine]:
    """Boot a machine with the project in /opt/crawler. Skips the test if that is impossible."""
    if os.geteuid() != 0:
        pytest.skip("a systemd in namespaces of its own needs root")
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("unshare and nsenter (util-linux) are not installed")
    base = debian_base()
    for left in _KEPT_IN.glob("systemd-run-*"):  # by a run that was killed
        if not Path(f"/proc/{left.name.split('-')[2]}").exists():
            _boot("stop", left, timeout=COMMAND_S)
    run = Path(mkdtemp(prefix=f"systemd-run-{os.getpid()}-", dir=_KEPT_IN))
    run.chmod(0o755)  # the root of the machine is in it
    try:
        _boot("start", base, run, project, timeout=_START_S)
        yield Machine(run)
    finally:
        _boot("stop", run, timeout=COMMAND_S)


def _boot(*arguments: object, timeout: float) -> None:
    done = subprocess.run(
        [_BOOT, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    if done.returncode == _LACKING:
        pytest.skip(f"no systemd in namespaces of its own: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
