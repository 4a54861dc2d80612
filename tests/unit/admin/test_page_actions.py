"""Actions over HTTP: for who has the token and is on the page, and for nobody else; all of it is logged."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crawler.admin.status_page import ACTIONS, PageActions, WebServer
from crawler.admin.unix_socket import CommandRefused
from crawler.engine.engine import SystemClock
from tests.support.sockets import free_port
from tests.unit.admin.test_status_page import StubCrawl


@dataclass
class Acted:
    port: int
    token_file: Path
    done: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    logged: list[tuple[str, Mapping[str, Any], str | None]] = field(default_factory=list)

    async def post(self, body: bytes = b'{"action":"pause","arguments":{}}', **fields: str | None) -> tuple[int, str]:
        """A request as the page makes it; a field that is None is left out."""
        own = {
            "Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}",
            "Authorization": f"Bearer {self.token_file.read_text().strip()}", "Sec-Fetch-Site": "same-origin",
        }  # fmt: skip
        method = fields.pop("method", "POST")
        named = own | {name.replace("_", "-"): value for name, value in fields.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value is not None)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{method} /api/action HTTP/1.1\r\n{head}{length}".encode(errors="surrogateescape") + body)
        response, _, text = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(response.split()[1]), text.decode()


@asynccontextmanager
async def acting(folder: Path) -> AsyncIterator[Acted]:
    acted = Acted(free_port(), folder / "status-page.token")

    async def command(name: str, arguments: Mapping[str, Any]) -> object:
        if arguments.get("name") == "unknown.test":
            raise CommandRefused("unknown.test is not blocked")
        acted.done.append((name, arguments))
        return {"changed": True}

    commands = {name: lambda arguments, name=name: command(name, arguments) for name in (*ACTIONS, "stop", "forget")}
    actions = PageActions(acted.token_file, commands, lambda *logged: acted.logged.append(logged))
    server = WebServer(f"127.0.0.1:{acted.port}", StubCrawl(), SystemClock(), actions)
    await server.open()
    try:
        yield acted
    finally:
        await server.close()


async def test_the_page_acts_with_the_token(tmp_path: Path) -> None:
    """What is done, and what cannot be, is said and logged."""
    async with acting(tmp_path) as acted:
        assert acted.token_file.stat().st_mode & 0o777 == 0o600
        assert await acted.post() == (200, '{"changed":true}')
        block = {"action": "block", "arguments": {"name": "a.test"}}
        assert (await acted.post(json.dumps(block).encode()))[0] == 200
        unblock = {"action": "unblock", "arguments": {"name": "unknown.test"}}
        assert await acted.post(json.dumps(unblock).encode()) == (409, "unknown.test is not blocked\n")
        assert acted.done == [("pause", {}), ("block", {"name": "a.test"})]
        assert [(name, refusal) for name, _, refusal in acted.logged] == [
            ("pause", None), ("block", None), ("unblock", "unknown.test is not blocked"),
        ]  # fmt: skip
    assert not acted.token_file.exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Authorization": None}, "token"),
        ({"Authorization": "Bearer "}, "token"),
        ({"Authorization": "Bearer x"}, "token"),
        ({"Authorization": "Bearer \u00e9"}, "token"),
        ({"Authorization": "Bearer \udcff\udcfe"}, "token"),  # no UTF-8
        ({"Origin": "http://\udcff"}, "not made by the status page"),
        ({"Origin": None}, "not made by the status page"),
        ({"Origin": "null"}, "not made by the status page"),
        ({"Origin": "https://evil.example"}, "not made by the status page"),
        ({"Origin": "http://127.0.0.1:1"}, "not made by the status page"),
        ({"Sec_Fetch_Site": "cross-site"}, "not made by the status page"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, "loopback"),  # DNS rebinding
    ],
)
async def test_all_others_are_refused_and_logged(fields: dict[str, str | None], words: str, tmp_path: Path) -> None:
    """Whatever else is right about the request."""
    async with acting(tmp_path) as acted:
        status, text = await acted.post(**fields)
        assert (status, acted.done) == (403, [])
        assert words in text
        assert [refusal for _, _, refusal in acted.logged] == [text.strip()]


async def test_a_flood_of_refused_requests_is_a_line_for_each_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one with the number of the others: after a while, or at the end."""
    async with acting(tmp_path) as acted:
        for _ in range(30):
            await acted.post(Authorization="Bearer x")
            await acted.post(Origin="null")
        assert len(acted.logged) == 2
        assert await acted.post() == (200, '{"changed":true}')
        assert acted.logged[-1] == ("pause", {}, None)
    after = [refusal for _, _, refusal in acted.logged[3:]]
    assert after == [f"{refusal} (29 other requests within 1 min)" for _, _, refusal in acted.logged[:2]]
    monkeypatch.setattr("crawler.admin.status_page.REFUSALS_S", 0.0)
    acted.logged.clear()
    async with acting(tmp_path) as acted:
        for _ in range(3):
            await acted.post(Origin="null")
        assert len(acted.logged) == 3


async def test_a_body_that_is_no_action_is_logged(tmp_path: Path) -> None:
    """Also one that is too large, or not coded as it says."""
    async with acting(tmp_path) as acted:
        assert (await acted.post(b"[]"))[0] == 400
        assert (await acted.post(b"[" * 2_000))[0] == 413
        assert (await acted.post(b"x" * 20, Content_Encoding="gzip"))[0] == 400
        refusals = [refusal for _, _, refusal in acted.logged]
        assert refusals == ['{"action": …, "arguments": {…}} is expected', "the request is too large"]


async def test_the_token_is_never_logged(tmp_path: Path) -> None:
    """It was pasted into the field of a host."""
    async with acting(tmp_path) as acted:
        token = acted.token_file.read_text().strip()
        block = {"action": "block", "arguments": {"name": token}}
        assert await acted.post(json.dumps(block).encode()) == (400, "the token is no argument\n")
        assert (acted.done, [refusal for *_, refusal in acted.logged]) == ([], ["the token is no argument"])


@pytest.mark.parametrize("authorization", [None, "Bearer x"])
async def test_broken_requests_are_no_faults_of_ours(
    authorization: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is cut off, or not coded as it says: no traceback in the log."""
    async with acting(tmp_path) as acted:
        await acted.post(b"x" * 20, Content_Encoding="gzip", Authorization=authorization)
        _, writer = await asyncio.open_connection("127.0.0.1", acted.port)
        own = {"Host": f"127.0.0.1:{acted.port}", "Origin": f"http://127.0.0.1:{acted.port}"}
        own["Authorization"] = authorization or f"Bearer {acted.token_file.read_text().strip()}"
        head = "".join(f"{name}: {value}\r\n" for name, value in own.items())
        writer.write(f"POST /api/action HTTP/1.1\r\n{head}Content-Length: 900\r\n\r\n{{".encode())
        await writer.drain()
        writer.transport.abort()
        await acted.post()  # what was sent before is read by now
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_but_a_post_acts(method: str, tmp_path: Path) -> None:
    """A link, an image or a preflight from elsewhere does nothing."""
    async with acting(tmp_path) as acted:
        assert (await acted.post(method=method))[0] == 405
        assert acted.done == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"action":"stop","arguments":{}}', b'{"action":"forget","arguments":{}}',
             b'{"action":"pause"}', b'{"action":["pause"],"arguments":{}}', b'{"action":"pause","arguments":[]}'],
)  # fmt: skip
async def test_only_some_commands_are_actions(body: bytes, tmp_path: Path) -> None:
    """Stopping a crawl and taking down are not."""
    async with acting(tmp_path) as acted:
        assert (await acted.post(body))[0] == 400
        assert acted.done == []


async def test_a_link_in_the_place_of_the_token_is_not_followed(tmp_path: Path) -> None:
    """The token is new at each start."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "status-page.token").symlink_to(victim)
    async with acting(tmp_path) as acted:
        first = acted.token_file.read_text()
        assert not acted.token_file.is_symlink()
    assert victim.read_text() == "kept"
    async with acting(tmp_path) as acted:
        assert acted.token_file.read_text() != first


async def test_without_the_key_there_is_no_action(tmp_path: Path) -> None:
    """The page is read-only by default."""
    server = WebServer(f"127.0.0.1:{(port := free_port())}", StubCrawl(), SystemClock())
    await server.open()
    (token := tmp_path / "token").write_text("x")
    assert (await Acted(port, token).post())[0] == 404
    await server.close()
