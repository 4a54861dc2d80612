"""The control socket over a real socket: what well-behaved, clumsy and hostile clients get."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crawler.admin import control_socket, unix_socket
from crawler.admin.control_socket import Arguments, Caller, Control, ControlServer, NotAllowed, Unreachable
from crawler.admin.unix_socket import CommandRefused, Malformed


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ctl") as name:
        yield Path(name)


async def echo(arguments: Arguments) -> object:
    return {"given": dict(arguments)}


async def refuse(_: Arguments) -> object:
    raise CommandRefused("not now", 75, {"why": "tested"})


class Heard:
    def __init__(self) -> None:
        self.commands: list[tuple[str, str | None]] = []
        self.callers: list[Caller] = []

    def __call__(self, name: str, _: Arguments, caller: Caller, refusal: str | None) -> None:
        self.commands.append((name, refusal))
        self.callers.append(caller)


@asynccontextmanager
async def serving(
    path: Path, heard: Heard | None = None, **more: Callable[[Arguments], Awaitable[object]]
) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, {"echo": echo, "refuse": refuse} | more, on_command=heard or Heard())
    server.open()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.run())
        try:
            await asyncio.sleep(0)
            yield server
        finally:
            running.cancel()
            server.close()


async def in_thread(path: Path, work: Callable[[Control], Any]) -> Any:
    def call() -> Any:
        with Control(path) as client:
            return work(client)

    return await asyncio.to_thread(call)


async def raw(path: Path, *sent: bytes) -> list[dict[str, Any]]:
    """What a client that sends just this, then nothing, is answered."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
    for part in sent:
        writer.write(part)
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


async def test_a_response_is_one_line(folder: Path) -> None:
    """Several in a row over one connection, in order; the kernel says who asked."""
    heard = Heard()
    async with serving(folder / "c", heard):
        answers = await in_thread(folder / "c", lambda client: [client.call("echo", {"n": n}) for n in range(3)])
    assert answers == [{"given": {"n": n}} for n in range(3)]
    assert heard.commands == [("echo", None)] * 3
    assert heard.callers[0] == Caller(os.getpid(), os.getuid())


async def test_a_refusal_brings_words_and_an_exit_code(folder: Path) -> None:
    """What cannot be done comes out as Refused at the other end, with its details."""
    heard = Heard()
    async with serving(folder / "c", heard):
        with pytest.raises(CommandRefused, match="not now") as caught:
            await in_thread(folder / "c", lambda client: client.call("refuse"))
    assert (caught.value.exit_code, caught.value.details) == (75, {"why": "tested"})
    assert heard.commands == [("refuse", "not now")]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"\x16\x03\x01\x02\x00\n", "not a line of JSON"),
        (b"GET / HTTP/1.1\r\n", "not a line of JSON"),
        (b"\n", "not a line of JSON"),
        (b"[1]\n", "a request is"),
        (b'{"command": 7}\n', "a request is"),
        (b'{"command": "echo", "arguments": [1]}\n', "must be an object"),
        (b'{"command": "launch"}\n', 'no command "launch"'),
    ],
)
async def test_garbage_is_refused_in_words_and_harms_nothing(folder: Path, sent: bytes, words: str) -> None:
    """The same connection goes on being served."""
    async with serving(folder / "c"):
        answers = await raw(folder / "c", sent, b'{"command": "echo"}\n')
    assert [answer["ok"] for answer in answers] == [False, True]
    assert words in answers[0]["message"]


async def test_a_line_without_end_is_cut_off(folder: Path) -> None:
    """A request is bounded: the client gets a refusal and is disconnected, the next one is served."""
    async with serving(folder / "c"):
        answers = await raw(folder / "c", b"x" * (unix_socket.MAX_REQUEST + 10))
        assert "bytes at most" in answers[0]["message"]
        assert await raw(folder / "c", b'{"command": "echo"}\n')


async def test_half_a_line_is_no_request(folder: Path) -> None:
    """A client that disconnects within a line gets no response."""
    async with serving(folder / "c"):
        assert await raw(folder / "c", b'{"command": "echo"}') == []


async def test_silent_clients_make_room_for_others(folder: Path) -> None:
    """With MAX_CLIENTS idle ones, the one that is idle longest is disconnected for a new one."""
    async with serving(folder / "c"):
        silent = [await asyncio.open_unix_connection(str(folder / "c")) for _ in range(control_socket.MAX_CLIENTS + 3)]
        assert len(await raw(folder / "c", b'{"command": "echo"}\n')) == 1
        assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()


async def test_a_client_that_does_not_read_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer is dropped after a while; others are served meanwhile."""
    monkeypatch.setattr(control_socket, "RESPONSE_S", 0.05)

    async def large(_: Arguments) -> object:
        return "x" * 8_000_000

    async with serving(folder / "c", large=large) as server:
        reader, writer = await asyncio.open_unix_connection(str(folder / "c"), limit=1 << 10)
        writer.write(b'{"command": "large"}\n' * 4)
        assert len(await raw(folder / "c", b'{"command": "echo"}\n')) == 1
        async with asyncio.timeout(20):
            while server._clients:
                await asyncio.sleep(0.01)
            assert len(await reader.read()) < 8_000_000
        writer.close()


async def test_a_bug_in_a_command_is_not_swallowed(folder: Path) -> None:
    """It ends the server, and with it the process."""

    async def broken(_: Arguments) -> object:
        raise ZeroDivisionError

    server = ControlServer(folder / "c", {"broken": broken}, on_command=Heard())
    server.open()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.run())
            group.create_task(raw(folder / "c", b'{"command": "broken"}\n'))

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    server.close()
    assert caught.group_contains(ZeroDivisionError)


async def test_only_owner_and_group_may_connect(folder: Path) -> None:
    """Mode 0660 from the first instant, and the socket is taken away at the end."""
    async with serving(folder / "c"):
        assert stat.S_IMODE((folder / "c").stat().st_mode) == 0o660
    assert not (folder / "c").exists()


async def test_a_path_too_long_for_the_kernel_works_all_the_same(folder: Path) -> None:
    """sun_path has 107 bytes; output directories are often deeper."""
    deep = folder / ("d" * 120)
    deep.mkdir()
    async with serving(deep / "control.sock"):
        assert await in_thread(deep / "control.sock", lambda client: client.call("echo")) == {"given": {}}


async def test_a_stale_socket_is_replaced(folder: Path) -> None:
    """One that a killed daemon left behind is in nobody's way."""
    unix_socket.listen(folder / "c", mode=0o660, key="admin.socket").close()
    assert (folder / "c").exists()
    with pytest.raises(Unreachable, match="nobody listens"):
        Control(folder / "c")
    async with serving(folder / "c"):
        assert await in_thread(folder / "c", lambda client: client.call("echo"))


async def test_what_is_not_ours_is_not_removed(folder: Path) -> None:
    """A file at the socket's path, or a socket that somebody listens on, stays as it is."""
    (folder / "file").write_text("precious")
    with pytest.raises(unix_socket.SocketTaken, match="is no socket"):
        unix_socket.listen(folder / "file", mode=0o660, key="admin.socket")
    assert (folder / "file").read_text() == "precious"
    with (
        unix_socket.listen(folder / "c", mode=0o660, key="admin.socket"),
        pytest.raises(unix_socket.SocketTaken, match="another program listens"),
    ):
        unix_socket.listen(folder / "c", mode=0o660, key="admin.socket")


def test_a_missing_daemon_is_reported(folder: Path) -> None:
    """No socket, and a file that is none."""
    with pytest.raises(Unreachable, match="no crawler is running here"):
        Control(folder / "c")
    (folder / "file").write_text("")
    with pytest.raises(Unreachable, match="nobody listens"):
        Control(folder / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_socket_of_somebody_else_is_named(folder: Path) -> None:
    """Who owns it and which group may use it."""
    folder.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from crawler.admin.control_socket import Control, NotAllowed\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: Control(Path(sys.argv[1]))\n"
        "except NotAllowed as error: print(error)"
    )
    with unix_socket.listen(folder / "c", mode=0o660, key="admin.socket"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder / "c")], capture_output=True, text=True, timeout=60, check=False
        )
    assert "belongs to user root" in done.stdout, done.stderr
    assert NotAllowed is not Unreachable


def test_a_daemon_that_does_not_respond_is_given_up(folder: Path) -> None:
    """It listens and says nothing, as a process that was stopped does."""
    with (
        unix_socket.listen(folder / "c", mode=0o660, key="admin.socket"),
        Control(folder / "c") as client,
        pytest.raises(Unreachable, match=r"has not responded for 0\.05 seconds"),
    ):
        client.call("status", timeout_s=0.05)


@pytest.mark.parametrize("answer", [b"hello\n", b"[]\n", b'{"ok": "yes"}\n'])
def test_a_response_of_another_protocol_is_reported(folder: Path, answer: bytes) -> None:
    """Something else listens at the path."""
    with unix_socket.listen(folder / "c", mode=0o660, key="admin.socket") as listening, Control(folder / "c") as client:
        listening.setblocking(True)
        peer: socket.socket = listening.accept()[0]
        with peer:
            peer.sendall(answer)
            with pytest.raises(Malformed):
                client.call("status")


def test_a_request_that_is_too_long_is_not_sent() -> None:
    """The limit holds at both ends."""
    with pytest.raises(Malformed):
        unix_socket.encode_request("add", {"urls": ["x" * unix_socket.MAX_REQUEST]})


def test_an_argument_that_is_no_utf8_is_refused() -> None:
    """Python holds its bytes as half surrogate pairs; the command line says so and ends with 2."""
    with pytest.raises(CommandRefused, match="not UTF-8") as caught:
        unix_socket.encode_request("block", {"host": b"\xff".decode("utf-8", "surrogateescape")})
    assert caught.value.exit_code == 2
