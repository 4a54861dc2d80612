"""Actions on the status page (`admin.actions`): some commands of the control socket over HTTP, for who has the token.

The token is new at each start and is in a file that only the daemon's user can read. A request is a POST that bears it
in `Authorization`, which no page elsewhere can make a browser send; there is no cookie, so that none can be misused.
Invariants: nothing is done without the token, nor for a request that a page of another origin made; each request is
logged, whether it was refused or not.
"""

import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from crawler.admin.control_server import Arguments, Command
from crawler.admin.unix_socket import CommandRefused

ACTIONS: Final = ("pause", "resume", "requeue", "release", "block", "unblock")


class PageActions:
    """`commands` are those of the control socket. `on_action` is called with the name, the arguments, and the reason if
    it was refused.
    """

    def __init__(
        self,
        token_file: Path,
        commands: Mapping[str, Command],
        on_action: Callable[[str, Arguments, str | None], None],
    ) -> None:
        self.token_file = token_file
        self._commands = {name: commands[name] for name in ACTIONS}
        self._on_action = on_action
        self._token = ""

    def open(self) -> None:
        """Write a new token. Raises OSError."""
        token = secrets.token_urlsafe(32)
        with suppress(FileNotFoundError):
            self.token_file.unlink()  # one of an earlier run, or a link that somebody put there
        descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        self._token = token

    def close(self) -> None:
        self._token = ""
        with suppress(OSError):
            self.token_file.unlink()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """`{"action": "block", "arguments": {"name": "example.org"}}`: its result as JSON, 409 if it cannot be done."""
        if problem := self._problem(request):
            raise self.refused(problem)
        name, arguments = await _read(request)
        command = self._commands.get(name)
        if command is None:
            self._on_action(name[:100], {}, "no such action")
            raise web.HTTPBadRequest(text=f"action is one of {', '.join(ACTIONS)}\n")
        try:
            result = await command(arguments)
        except CommandRefused as refused:
            self._on_action(name, arguments, str(refused))
            raise web.HTTPConflict(text=f"{refused}\n") from None
        self._on_action(name, arguments, None)
        return web.Response(body=orjson.dumps(result), content_type="application/json")

    def refused(self, problem: str) -> web.HTTPForbidden:
        """The response to a request that nothing is done for, which is logged."""
        self._on_action("action", {}, problem)
        return web.HTTPForbidden(text=f"{problem}\n")

    def _problem(self, request: web.Request) -> str:
        """Why a request is refused, "" if it is not."""
        own = (f"http://{request.host}", f"https://{request.host}")  # https: a proxy before a Unix socket
        is_own = request.headers.get("Origin") in own
        if not is_own or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return "the request was not made by the status page"
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._token or not hmac.compare_digest(token.encode(), self._token.encode()):
            return "the token is missing or wrong: `crawler status` shows it"
        return ""


async def _read(request: web.Request) -> tuple[str, Mapping[str, Any]]:
    """The name of an action and its arguments. Raises HTTPBadRequest."""
    try:
        found = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        found = None
    match found:
        case {"action": str(name), "arguments": dict(arguments)}:
            return name, arguments
    raise web.HTTPBadRequest(text='{"action": …, "arguments": {…}} is expected\n')
