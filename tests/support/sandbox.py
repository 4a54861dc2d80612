"""Runs a command under the restrictions of systemd/crawler.service, as far as a process can put them on itself.

    python -m tests.support.sandbox UNIT PROGRAM [ARGUMENT]…

The system-call filter is the unit's own, its sets expanded by `systemd-analyze syscall-filter` and loaded through
libseccomp; MemoryDenyWriteExecute and RestrictAddressFamilies are filters as systemd 252 makes them
(src/shared/seccomp-util.c). What needs a manager (namespaces, ProtectSystem, users) is not imitated. The filters
outlive exec; nothing lifts them.
"""

import ctypes
import errno
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NE, _MASKED_EQ = 1, 7
_PR_SET_NO_NEW_PRIVS = 38
_WRITE, _EXEC, _SHM_EXEC = 2, 4, 0o100000
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}


class _Argument(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


@cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_load.argtypes = [ctypes.c_void_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Argument),
    ]  # fmt: skip
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return found


def unit_values(unit: Path, key: str) -> list[str]:
    """The values of a key in the order in which they are written."""
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def expand(name: str) -> set[str]:
    """A system call, or those of a set, whatever sets it is made of."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    members = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(expand(member) for member in members))


def allowed_calls(unit: Path) -> set[str]:
    """What SystemCallFilter leaves: list by list, "~" takes away; @default is always allowed (systemd.exec(5))."""
    calls = expand("@default")
    for value in unit_values(unit, "SystemCallFilter"):
        named = set().union(*(expand(name) for name in value.removeprefix("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls


class _Filter:
    def __init__(self, default: int) -> None:
        self._context = library().seccomp_init(default)
        assert self._context

    def add(self, action: int, call: str, *arguments: _Argument) -> None:
        number = library().seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # not one of this architecture
            return
        array = (_Argument * len(arguments))(*arguments)
        done = library().seccomp_rule_add_array(self._context, action, number, len(arguments), array)
        assert done == 0, (call, done)

    def load(self) -> None:
        done = library().seccomp_load(self._context)
        assert done == 0, done


def restrict(unit: Path) -> None:
    """Put the unit's filters on this process and all that come after it."""
    assert ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if unit_values(unit, "MemoryDenyWriteExecute") == ["yes"]:
        refusing = _Filter(_ALLOW)
        denied = _ERRNO | errno.EPERM
        refusing.add(denied, "mmap", _Argument(2, _MASKED_EQ, _WRITE | _EXEC, _WRITE | _EXEC))
        refusing.add(denied, "mprotect", _Argument(2, _MASKED_EQ, _EXEC, _EXEC))
        refusing.add(denied, "pkey_mprotect", _Argument(2, _MASKED_EQ, _EXEC, _EXEC))
        refusing.add(denied, "shmat", _Argument(2, _MASKED_EQ, _SHM_EXEC, _SHM_EXEC))
        refusing.load()
    (families,) = unit_values(unit, "RestrictAddressFamilies")
    allowed = [_FAMILIES[name] for name in families.split()]
    sockets = _Filter(_ALLOW)
    for family in set(range(46)) - set(allowed):
        sockets.add(_ERRNO | errno.EAFNOSUPPORT, "socket", _Argument(0, 4, family, 0))
    sockets.load()
    calls = _Filter(_ERRNO | errno.EPERM)
    for call in sorted(allowed_calls(unit)):
        calls.add(_ALLOW, call)
    calls.load()


if __name__ == "__main__":
    restrict(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
