"""Actions on the status page (`admin.actions`): some commands of the control socket over HTTP, for who has the token.

The token is new at each start and is in a file that only the daemon's user can read. A request is a POST that bears it
in `Authorization`, which no page elsewhere can make a browser send; there is no cookie, so that none can be misused.
Invariants: nothing is done without the token, nor for a request that a page of another origin made; each action is
logged, and so are refused requests, those of one reason at most twice in REFUSALS_S, with their number. The token is
never logged.
"""

import asyncio
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
from crawler.core.formatting import count, duration

REFUSALS_S: Final = 60.0  # refused requests after the first of a reason are logged together after so long
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
        self._refusals: dict[str, int] = {}  # since the first of a reason was logged; the reasons are few
        self._timers: dict[str, asyncio.TimerHandle] = {}

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
        for problem in list(self._refusals):
            self._log_refusals(problem)
        with suppress(OSError):
            self.token_file.unlink()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """`{"action": "block", "arguments": {"name": "example.org"}}`: its result as JSON, 409 if it cannot be done."""
        if problem := self._problem(request):
            raise self.refused(problem)
        try:
            name, arguments = await self._read(request)
        except web.HTTPRequestEntityTooLarge:
            self._note_refusal("the request is too large")
            raise
        except web.HTTPBadRequest as malformed:
            self._note_refusal((malformed.text or "").strip())
            raise
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
        self._note_refusal(problem)
        return web.HTTPForbidden(text=f"{problem}\n")

    def _note_refusal(self, problem: str) -> None:
        """Log the first refusal of a reason, and count others until REFUSALS_S are over: anybody can cause thousands a
        second.
        """
        if problem in self._refusals:
            self._refusals[problem] += 1
            return
        self._on_action("action", {}, problem)
        self._refusals[problem] = 0
        loop = asyncio.get_running_loop()
        self._timers[problem] = loop.call_later(REFUSALS_S, self._log_refusals, problem)

    def _log_refusals(self, problem: str) -> None:
        """Log how many refusals came after the first of a reason."""
        self._timers.pop(problem).cancel()
        if number := self._refusals.pop(problem):
            more = f"{count(number, 'other request')} within {duration(REFUSALS_S)}"
            self._on_action("action", {}, f"{problem} ({more})")

    def _problem(self, request: web.Request) -> str:
        """Why a request is refused, "" if it is not."""
        own = (f"http://{request.host}", f"https://{request.host}")  # https: a proxy before a Unix socket
        is_own = request.headers.get("Origin") in own
        if not is_own or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            return "the request was not made by the status page"
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self._token or not hmac.compare_digest(_bytes(token), self._token.encode()):
            return "the token is missing or wrong: `crawler status` shows it"
        return ""

    async def _read(self, request: web.Request) -> tuple[str, Mapping[str, Any]]:
        """The name of an action and its arguments. Raises HTTPBadRequest, HTTPRequestEntityTooLarge."""
        try:
            body = await request.read()
            found = orjson.loads(body)
        except (orjson.JSONDecodeError, web.RequestPayloadError):
            body, found = b"", None
        if self._token.encode() in body:  # pasted into the wrong field: its arguments are logged
            raise web.HTTPBadRequest(text="the token is no argument\n")
        match found:
            case {"action": str(name), "arguments": dict(arguments)}:
                return name, arguments
        raise web.HTTPBadRequest(text='{"action": …, "arguments": {…}} is expected\n')


def _bytes(field: str) -> bytes:
    """The bytes of a field, also of one that is no UTF-8."""
    return field.encode(errors="surrogateescape")
