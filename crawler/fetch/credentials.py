"""Per-origin request fields: credentials, cookies and proxy authorization.

The fetcher has an OriginCredentials only if there are any, so that they cost other crawls nothing.

Invariant: a field made here is sent to its own origin and to no other, also after redirects, because each request is
built for its own origin.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.models import Failed, Fetched, FetchResult, Origin, Task
from crawler.core.outcomes import is_permanent
from crawler.core.url import target_of
from crawler.fetch.cookies import CookieJar
from crawler.fetch.net.dial import Proxy
from crawler.fetch.options import Secrets

_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class BadCredential(ValueError):
    """A credential that HTTP cannot transfer. The message begins with its name: "password must not …"."""


def basic(username: str, password: str) -> str:
    """The value of Authorization for a user and a password, in UTF-8. Source: RFC 7617 §2."""
    if ":" in username:
        raise BadCredential('username must not contain ":"')
    for name, text in (("username", username), ("password", password)):
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise BadCredential(f"{name} must not contain control characters")
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


def bearer(token: str) -> str:
    """The value of Authorization for a token. Source: RFC 6750 §2.1."""
    if _TOKEN68.fullmatch(token) is None:
        raise BadCredential('bearer must be letters, digits and "-._~+/", then "=" if at all')
    return f"Bearer {token}"


Fields = list[tuple[str, str]]


class OriginCredentials:
    """Adds the fields of one origin to its requests, and reads its responses. `of` makes one if it is needed."""

    def __init__(self, secrets: Secrets, cookies: CookieJar | None, proxy: Proxy | None, clock: Clock) -> None:
        self._authorization = secrets.authorization
        self._cookies = cookies
        self._proxy = proxy
        self._clock = clock

    @classmethod
    def of(
        cls, secrets: Secrets, *, cookies: CookieJar | None, proxy: Proxy | None, clock: Clock
    ) -> "OriginCredentials | None":
        """None if there are no credentials, no cookies and no proxy."""
        if not secrets.authorization and cookies is None and proxy is None:
            return None
        return cls(secrets, cookies, proxy, clock)

    def request(self, origin: Origin, target: str, fields: Sequence[tuple[str, str]]) -> tuple[str, Fields]:
        """The request target and the fields to send. A field for this origin replaces the configured one that goes to
        every host.
        """
        own: Fields = []
        authorization = self._authorization.get(origin)
        if authorization is not None:
            own.append(("Authorization", authorization))
        if self._cookies is not None:
            cookie = self._cookies.field(origin, target, self._clock.now())
            if cookie is not None:
                own.append(("Cookie", cookie))
        replaced = {name.lower() for name, _ in own}
        sent = [field for field in fields if field[0].lower() not in replaced] if replaced else list(fields)
        if self._proxy is not None and origin.scheme == "http":
            target = f"{origin}{target}"  # absolute-form: RFC 9112 §3.2.2
            own += self._proxy.authorization
        return target, sent + own

    def received(self, origin: Origin, task: Task, result: FetchResult) -> FetchResult:
        """Keep the cookies of a response. A response that the proxy made itself becomes a failure."""
        if not isinstance(result, Fetched):
            return result
        head = result.head
        if self._proxy is not None and origin.scheme == "http":
            failure = self._proxy.failure(head)
            if failure is not None:
                error_type, detail = failure
                return Failed(
                    error_type,
                    detail,
                    retryable=not is_permanent(error_type),
                    timings=result.timings,
                    connection=result.connection,
                    started_at=result.started_at,
                    resend_count=result.resend_count,
                )
        if self._cookies is not None:
            set_cookies = head.get_all("set-cookie")
            if set_cookies:
                began = self._cookies.receive(origin, target_of(task.url), set_cookies, self._clock.now())
                if began and 300 <= head.status_code < 400:
                    return replace(result, session_began=True)
        return result
