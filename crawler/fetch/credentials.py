"""Per-origin request fields: credentials, cookies and proxy authorization.

The fetcher has an OriginCredentials only if there are any, so that they cost other crawls nothing. Cookies (RFC
6265bis) are kept in memory only, by registrable domain, which is as far as a cookie can be sent. SameSite is read only
to decide what may be stored: a crawler makes all requests on its own, so no page of another site can cause one.

Invariants: a field made here is sent to its own origin and to no other, also after redirects, because each request is
built for its own origin. A cookie is sent to the hosts that its Domain covers, and never to another tenant of a public
suffix. A Secure one is never sent over plain http. Number and bytes of cookies are bounded, for a domain and in all.
"""

import re
from base64 import b64encode
from calendar import timegm
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from crawler.core.clock import Clock
from crawler.core.models import Failed, Fetched, FetchResult, Origin, Task
from crawler.core.outcomes import is_permanent
from crawler.core.url import is_ipv4, is_public_suffix, registrable_domain, target_of
from crawler.fetch.net.dial import Proxy
from crawler.fetch.options import Secrets

MAX_FIELD_BYTES: Final = 16 * 1024  # of one Set-Cookie field with its attributes; browsers keep 4 KiB of it at most
MAX_PAIR_BYTES: Final = 4_096  # name and value (§5.6)
MAX_ATTRIBUTES: Final = 32  # eight are defined; a field with more than this is an attack
MAX_ATTRIBUTE_BYTES: Final = 1_024  # a longer attribute value is ignored (§5.6)
MAX_AGE_S: Final = 400 * 86_400.0  # a later expiry counts as this (§5.5)

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DELIMITERS: Final = re.compile(r"[\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME: Final = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})(?:\D|$)")
_DAY: Final = re.compile(r"(\d{1,2})(?:\D|$)")
_YEAR: Final = re.compile(r"(\d{2,4})(?:\D|$)")
_MAX_AGE: Final = re.compile(r"-?\d+")
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_MONTH_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class SetCookie:
    """One parsed Set-Cookie field. None: the attribute is missing, or not usable.

    `expires_at` is UTC; a time long past removes the cookie. `domain` is lower case without a leading dot.
    """

    name: str
    value: str
    domain: str | None = None
    path: str | None = None
    expires_at: float | None = None
    secure: bool = False
    same_site_none: bool = False

    @property
    def pair(self) -> str:
        """Name and value, as they are sent back."""
        return f"{self.name}={self.value}" if self.name else self.value


def parse_set_cookie(text: str, now: float) -> SetCookie | None:
    """Parse one field value. None: there is no usable cookie in it. Max-Age counts from `now`. Source: §5.6."""
    if len(text) > MAX_FIELD_BYTES or _CONTROL.search(text):
        return None
    pair, *attributes = text.split(";", MAX_ATTRIBUTES + 1)
    if len(attributes) > MAX_ATTRIBUTES:
        return None
    name, equals, value = pair.partition("=")
    if not equals:
        name, value = "", pair
    name, value = name.strip(" \t"), value.strip(" \t")
    if (not name and not value) or len(name) + len(value) > MAX_PAIR_BYTES:
        return None
    domain = path = max_age_at = expires_at = None
    secure = same_site_none = False
    for attribute in attributes:
        key, _, setting = attribute.partition("=")
        setting = setting.strip(" \t")
        if len(setting) > MAX_ATTRIBUTE_BYTES:
            continue
        match key.strip(" \t").lower():
            case "expires":
                moment = parse_cookie_date(setting)
                if moment is not None:
                    expires_at = min(moment, now + MAX_AGE_S)
            case "max-age":
                if _MAX_AGE.fullmatch(setting) is not None:
                    seconds = float(setting)
                    max_age_at = now + min(seconds, MAX_AGE_S) if seconds > 0 else 0.0
            case "domain":
                domain = setting.removeprefix(".").lower()
            case "path":
                path = setting if setting.startswith("/") else None
            case "secure":
                secure = True
            case "samesite":
                same_site_none = setting.lower() == "none"
    return SetCookie(
        name,
        value,
        domain or None,
        path,
        max_age_at if max_age_at is not None else expires_at,
        secure,
        same_site_none,
    )


def parse_cookie_date(text: str) -> float | None:
    """Parse a date, whatever the order of its parts; None if a part is missing. Source: §5.1.1."""
    time = day = month = year = None
    for token in _DELIMITERS.split(text):
        if time is None and (match := _TIME.match(token)):
            time = (int(match[1]), int(match[2]), int(match[3]))
        elif day is None and (match := _DAY.match(token)):
            day = int(match[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS[token[:3].lower()]
        elif year is None and (match := _YEAR.match(token)):
            year = int(match[1])
    if time is None or day is None or month is None or year is None:
        return None
    if 70 <= year <= 99:
        year += 1900
    elif year <= 69:
        year += 2000
    hour, minute, second = time
    if year < 1601 or hour > 23 or minute > 59 or second > 59 or not 1 <= day <= _MONTH_DAYS[month - 1]:
        return None
    if (month, day) == (2, 29) and (year % 4 or (not year % 100 and year % 400)):
        return None
    return float(timegm((year, month, day, hour, minute, second)))


_COOKIE_OVERHEAD_BYTES: Final = 400  # of the objects that hold one


@dataclass(frozen=True, slots=True)
class CookieLimits:
    """Bounds; beyond them the least recently used cookie is dropped. RFC 6265bis §6.1 asks for at least 50 cookies a
    domain. The bytes of a domain keep the Cookie field below the size that servers accept for a whole head (8 KiB,
    nginx and Apache).
    """

    per_domain: int = 50
    bytes_per_domain: int = 6 * 1024
    domains: int = 65_536
    bytes_total: int = 32 * 1024 * 1024
    per_response: int = 64  # Set-Cookie fields read of one response


@dataclass(slots=True, eq=False)
class _Cookie:
    pair: str
    name: str
    domain: str
    host_only: bool
    path: str
    secure: bool
    expires_at: float | None
    created: int  # order of creation, and of last use
    used: int

    @property
    def key(self) -> tuple[str, str, bool, str]:
        return self.name, self.domain, self.host_only, self.path

    @property
    def held_bytes(self) -> int:
        return len(self.pair) + len(self.domain) + len(self.path) + _COOKIE_OVERHEAD_BYTES


@dataclass(slots=True, eq=False)
class _Jar:
    """The cookies of one registrable domain."""

    cookies: dict[tuple[str, str, bool, str], _Cookie] = field(default_factory=dict)
    held_bytes: int = 0
    pair_bytes: int = 0

    def put(self, cookie: _Cookie) -> None:
        self.drop(cookie.key)
        self.cookies[cookie.key] = cookie
        self.held_bytes += cookie.held_bytes
        self.pair_bytes += len(cookie.pair)

    def drop(self, key: tuple[str, str, bool, str]) -> None:
        cookie = self.cookies.pop(key, None)
        if cookie is not None:
            self.held_bytes -= cookie.held_bytes
            self.pair_bytes -= len(cookie.pair)


class CookieJar:
    """The cookies of one crawl. `now` is UTC in epoch seconds."""

    def __init__(self, limits: CookieLimits = CookieLimits()) -> None:
        self._limits = limits
        self._jars: OrderedDict[str, _Jar] = OrderedDict()
        self._held_bytes = 0
        self._ticks = 0

    @property
    def held_bytes(self) -> int:
        """The bytes held, about."""
        return self._held_bytes

    @property
    def limit_bytes(self) -> int:
        """The most that `held_bytes` may be."""
        return self._limits.bytes_total

    def __len__(self) -> int:
        return sum(len(jar.cookies) for jar in self._jars.values())

    def receive(self, origin: Origin, target: str, fields: Iterable[str], now: float) -> bool:
        """Store the cookies that a response to a request for `target` (path and query) sets, if it may set them.

        Returns whether the same request would now carry a cookie that it did not carry before.
        """
        domain = registrable_domain(origin.host)
        jar = self._jars.get(domain) or _Jar()
        before = jar.held_bytes
        known = set(jar.cookies)
        for number, text in enumerate(fields):
            if number == self._limits.per_response:
                break
            given = parse_set_cookie(text, now)
            if given is not None:
                self._set(jar, origin, target, given, now)
        self._keep(domain, jar, before)
        path = target.partition("?")[0]
        began = any(
            _covers(cookie, origin.host) and _path_covers(cookie.path, path)
            for key, cookie in jar.cookies.items()
            if key not in known
        )
        while len(self._jars) > self._limits.domains or self._held_bytes > self._limits.bytes_total:
            _, oldest = self._jars.popitem(last=False)
            self._held_bytes -= oldest.held_bytes
        return began

    def field(self, origin: Origin, target: str, now: float) -> str | None:
        """The value of the Cookie field of a request; None: it has none. Source: §5.8.3."""
        domain = registrable_domain(origin.host)
        jar = self._jars.get(domain)
        if jar is None:
            return None
        before = jar.held_bytes
        self._expire(jar, now)
        self._keep(domain, jar, before)
        path = target.partition("?")[0]
        secure = origin.scheme == "https"
        sent = [
            cookie
            for cookie in jar.cookies.values()
            if _covers(cookie, origin.host) and _path_covers(cookie.path, path) and (secure or not cookie.secure)
        ]
        if not sent:
            return None
        sent.sort(key=lambda cookie: (-len(cookie.path), cookie.created))
        self._ticks += 1
        for cookie in sent:
            cookie.used = self._ticks
        return "; ".join(cookie.pair for cookie in sent)

    def _keep(self, domain: str, jar: _Jar, before_bytes: int) -> None:
        """Update the totals for a jar that may have changed. An empty jar is dropped."""
        self._held_bytes += jar.held_bytes - before_bytes
        if jar.cookies:
            self._jars[domain] = jar
            self._jars.move_to_end(domain)
        else:
            self._jars.pop(domain, None)

    def _set(self, jar: _Jar, origin: Origin, target: str, given: SetCookie, now: float) -> None:
        """Store, replace, remove or ignore one cookie. Source: §5.7."""
        found = _domain_of(origin.host, given)
        path = given.path if given.path is not None else _default_path(target)
        if found is None or not _may_set(origin, given, host_only=found[1], path=path):
            return
        domain, host_only = found
        self._ticks += 1
        cookie = _Cookie(
            given.pair,
            given.name,
            domain,
            host_only,
            path,
            given.secure,
            given.expires_at,
            self._ticks,
            self._ticks,
        )
        if origin.scheme != "https" and any(_shadows(cookie, kept) for kept in jar.cookies.values()):
            return  # plain http may not push a Secure cookie aside (§5.7 step 16)
        known = jar.cookies.get(cookie.key)
        if known is not None:
            cookie.created = known.created
        if given.expires_at is not None and given.expires_at <= now:
            jar.drop(cookie.key)
            return
        jar.put(cookie)
        self._expire(jar, now)
        limits = self._limits
        while len(jar.cookies) > limits.per_domain or jar.pair_bytes > limits.bytes_per_domain:
            # cookies that are not Secure go first (§5.7): anybody on the network path can make them up
            jar.drop(min(jar.cookies.values(), key=lambda kept: (kept.secure, kept.used)).key)

    def _expire(self, jar: _Jar, now: float) -> None:
        gone = [
            key for key, cookie in jar.cookies.items() if cookie.expires_at is not None and cookie.expires_at <= now
        ]
        for key in gone:
            jar.drop(key)


def _domain_of(host: str, given: SetCookie) -> tuple[str, bool] | None:
    """The domain a cookie belongs to, and whether to that host alone; None if this host may not set it.

    Source: §5.7 steps 8 to 10, §5.1.3.
    """
    domain = given.domain
    if domain is None or domain == host:
        # a public suffix, a single label and an address have no subdomains of their own
        return host, domain is None or is_public_suffix(host) or _is_address(host)
    if not domain.isascii() or _is_address(host) or not host.endswith(f".{domain}") or is_public_suffix(domain):
        return None
    return domain, False


def _may_set(origin: Origin, given: SetCookie, *, host_only: bool, path: str) -> bool:
    """Whether the cookie keeps the rules of its own attributes and name prefix. Source: §5.7 steps 12 to 22."""
    if given.secure and origin.scheme != "https":
        return False
    if given.same_site_none and not given.secure:
        return False
    label = (given.name or given.value).lower()  # a cookie without a name may not look like one with a prefix
    if label.startswith("__secure-"):
        return given.secure and bool(given.name)
    if label.startswith("__host-"):
        return given.secure and bool(given.name) and host_only and given.domain is None and given.path == path == "/"
    return True


def _covers(cookie: _Cookie, host: str) -> bool:
    return host == cookie.domain or (not cookie.host_only and host.endswith(f".{cookie.domain}"))


def _path_covers(cookie_path: str, path: str) -> bool:
    """Path-match (§5.1.4)."""
    if not path.startswith(cookie_path):
        return False
    return len(path) == len(cookie_path) or cookie_path.endswith("/") or path[len(cookie_path)] == "/"


def _default_path(target: str) -> str:
    """The directory of the request's path (§5.1.4)."""
    path = target.partition("?")[0]
    return path[: path.rfind("/")] or "/"


def _shadows(cookie: _Cookie, kept: _Cookie) -> bool:
    """Whether storing `cookie` would hide a Secure one of the same name."""
    return (
        kept.secure
        and kept.name == cookie.name
        and (
            cookie.domain == kept.domain
            or cookie.domain.endswith(f".{kept.domain}")
            or kept.domain.endswith(f".{cookie.domain}")
        )
        and _path_covers(kept.path, cookie.path)
    )


def _is_address(host: str) -> bool:
    return host.startswith("[") or is_ipv4(host)


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
