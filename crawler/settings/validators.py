"""Checks of one value, for the types in `value_types`.

Each returns the value to keep, or raises RefusedValue with a message that continues the name of the key. Checks that
need two keys or the disk are in `checks`. Invariant: a check is idempotent: a value it returned passes unchanged.
"""

import re
import ssl
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationInfo

from crawler.core import url
from crawler.core.calendar_expression import CalendarError, parse_calendar
from crawler.core.clock import HoursError, spans
from crawler.core.enums import DenyReason
from crawler.core.scope import SEED_MODES, ScopePatternError, compile_pattern
from crawler.fetch.credentials import BadCredential, basic
from crawler.settings.configuration_errors import RefusedValue, did_you_mean, shown

_HOSTS_IN_SCOPE: Final = ", ".join(f'"{word}"' for word in SEED_MODES) + " or a list of hosts"
MAX_TAGS: Final = 16  # of a seed
NO_LIMIT: Final = "none"  # how a key that may be without a limit says so; TOML has no null
TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2

_MEDIA_RANGE = re.compile(r"[!#$&^_.+*0-9a-z-]+/[!#$&^_.+*0-9a-z-]+")  # RFC 6838 §4.2, and "*"
_HOST = re.compile(r"[^\s/?#@:\\*\[\]]+|\[[0-9A-Fa-f:.]+\]")
_SERVER = re.compile(r"\[(?P<v6>[^\]]+)\](?::(?P<port6>\d+))?|(?P<v4>[^:]+)(?::(?P<port4>\d+))?")


def none_for_no_limit(value: object) -> object:
    return None if value == NO_LIMIT else value


def factor(value: object) -> float:
    """A factor from 0.001 to 1000."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1_000:
        raise RefusedValue(f"must be a number from 0.001 to 1000, not {shown(value)}")
    return float(value)


def printable(text: str) -> str:
    if not text.strip():
        raise RefusedValue("must not be empty")
    if re.search(r"[\0-\x1f\x7f]", text):
        raise RefusedValue("must not contain control characters")
    return text


def unquoted(value: object) -> str:
    """Text that may be a secret: an error of pydantic would quote it."""
    if not isinstance(value, str):
        raise RefusedValue("must be text in quotes")
    return value


def matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    """A check that text matches `pattern` as a whole; `what` describes such text."""

    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise RefusedValue(f"must be {what}, not {shown(text)}")
        return text

    return check


def ciphers(text: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(text)
    except (ssl.SSLError, ValueError):
        raise RefusedValue(
            f'must name a cipher that this OpenSSL has, as in "DEFAULT" (see openssl-ciphers(1)), not {shown(text)}'
        ) from None
    return text


def path_of(text: str, info: ValidationInfo) -> str:
    """A path; a relative one is resolved in the directory of its file, which is the context of the validation."""
    if text.startswith("~"):
        raise RefusedValue('must be complete: "~" is not expanded')
    if re.match(r"\$\{?[A-Za-z_]", text):
        raise RefusedValue(f"must be complete: variables such as {shown(text.partition('/')[0])} are not expanded")
    return str(info.context / text) if info.context else text


def hosts_or_word(value: object) -> object:
    if isinstance(value, str):
        if value in SEED_MODES:
            return (value,)
        hint = did_you_mean(value, SEED_MODES) or f"write [{shown(value)}]"
        raise RefusedValue(
            f'must be "seed-hosts", "seed-domains", "seed-prefix" or a list of hosts, not {shown(value)}', hint
        )
    return value


def not_both(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise RefusedValue("must not be empty: nothing would be in scope")
    if len(value) > 1 and any(word in SEED_MODES for word in value):
        raise RefusedValue(f"must be {_HOSTS_IN_SCOPE}, not both")
    return value


def host_pattern(text: str, urls_key: str = "scope.include") -> str:
    """A host name as the URL standard serialises it, with "*." before it for its subdomains. `urls_key` takes URLs."""
    bare = text.removeprefix("*.")
    if _HOST.fullmatch(bare) is None:
        hint = ""
        if "://" in bare or "/" in bare or ":" in bare:
            hint = f"a host stands without scheme, port and path; {urls_key} takes those"
        elif "*" in bare:
            hint = '"*." may stand at the beginning only'
        raise RefusedValue(f'must be a host name, or "*." and one, not {shown(text)}', hint)
    try:
        _, origin = url.parse(f"https://{bare}/")
    except url.UrlError as error:
        raise RefusedValue(f'must be a host name, or "*." and one, not {shown(text)}', str(error)) from None
    return f"*.{origin.host}" if text != bare else origin.host


def override_host(text: str) -> str:
    """A host pattern without the dot at the end of a name, which makes no difference for overrides."""
    return host_pattern(text, "[[override]] urls").rstrip(".")


def seed(text: str) -> str:
    try:
        url.parse_seed(text)
    except url.UrlError as error:
        hint = 'as in "https://example.org/"' if str(error).startswith("not ") else ""
        raise RefusedValue(f"must be a URL: {error}", hint) from None
    return text


def url_pattern(text: str) -> str:
    try:
        compile_pattern(text)
    except ScopePatternError as error:
        raise RefusedValue(f"must be a glob or a regular expression: {error}") from None
    return text


def content_type(text: str) -> str:
    """A media type without parameters, lower case; "*" stands for any characters in one of its two parts."""
    text = text.strip().lower()
    if _MEDIA_RANGE.fullmatch(text) is None:
        hint = "without parameters" if ";" in text else ""
        if "/" not in text and _MEDIA_RANGE.fullmatch(f"text/{text}"):
            hint = f'did you mean "{text}/*"?' if text in _TOP_LEVEL else f'did you mean "text/{text}"?'
        raise RefusedValue(f'must be a content type such as "text/html" or "text/*", not {shown(text)}', hint)
    return text


_TOP_LEVEL: Final = frozenset(
    ("application", "audio", "font", "image", "message", "model", "multipart", "text", "video")
)


def window(text: str) -> str:
    text = text.strip()
    try:
        spans(text)
    except HoursError as error:
        raise RefusedValue(f'must be a time of the week such as "22:00-06:00", not {shown(text)}', str(error)) from None
    return text


def calendar(text: str) -> str:
    text = text.strip()
    wanted = f'must be a calendar expression such as "daily" or "Mon..Fri 06:00", not {shown(text)}'
    try:
        zone = parse_calendar(text).zone
    except CalendarError as error:
        raise RefusedValue(wanted, str(error)) from None
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise RefusedValue(wanted, f'"{zone}" is no time zone of this machine') from None
    return text


def ip(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise RefusedValue(f"must be an IP address, not {shown(text)}") from None


def network(text: str) -> str:
    message = f'must be a network such as "127.0.0.0/8", not {shown(text)}'
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise RefusedValue(message) from None
    if ip_address(text.partition("/")[0]) != loose.network_address:
        raise RefusedValue(message, f'did you mean "{loose}"?')
    return str(loose)


def nameserver(text: str) -> str:
    if ":" in text and _is_address(text):
        return text
    match = _SERVER.fullmatch(text)
    host = match and (match["v6"] or match["v4"])
    port = match and (match["port6"] or match["port4"])
    if not host or not _is_address(host) or (port and not 0 < int(port[:6]) < 65_536):
        raise RefusedValue(f'must be an address such as "192.0.2.1:53" or "[2001:db8::1]:53", not {shown(text)}')
    return text


def proxy(text: str) -> str:
    """Never quoted in a message: it may hold a password."""
    scheme, _, rest = text.partition("://")
    if scheme.lower() != "http" or not rest:
        hint = "proxies over TLS and SOCKS proxies are not supported" if rest else ""
        raise RefusedValue('must be a URL such as "http://proxy.example.org:3128"', hint)
    userinfo, _, place = rest.rpartition("@")
    try:
        _, origin = url.parse(f"http://{place}")
    except url.UrlError as error:
        hint = str(error) if error.reason is DenyReason.PORT_BLOCKED else ""  # other errors quote the value
        raise RefusedValue("must be a URL of a host and a port", hint) from None
    if place.rstrip("/") not in (origin.host, f"{origin.host}:{origin.port}"):
        raise RefusedValue(f"must be a URL of a host and a port alone, as http://{origin.host}:{origin.port}")
    if not userinfo:
        return f"http://{origin.host}:{origin.port}"
    if ":" not in userinfo or re.search(r"[/?#\s\ud800-\udfff]", userinfo):
        raise RefusedValue("must have user and password as user:password@, special characters percent-encoded")
    try:
        proxy_authorization(userinfo)
    except BadCredential as error:
        raise RefusedValue(f"must have a user and password that can be sent: {error}") from None
    return f"http://{userinfo}@{origin.host}:{origin.port}"


def dsn(text: str) -> str:
    """Never quoted in a message: it may hold a password."""
    if not text.startswith(("postgresql://", "postgres://")) or re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", text):
        raise RefusedValue('must be a URI such as "postgresql://crawler@db.example.org/crawl"')
    if re.search(r"[?&]password=", text):
        raise RefusedValue("must have a password as user:password@", "or in the file of identity.secrets")
    return text


def proxy_authorization(userinfo: str) -> str:
    """The value of Proxy-Authorization for user and password as a URL has them. Raises BadCredential."""
    username, _, password = userinfo.partition(":")
    return basic(unquote(username), unquote(password))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


# Header fields that the client itself writes.
_OWN_FIELDS: Final = {
    "user-agent": "identity.user_agent sets it",
    "from": "identity.from sets it",
    "accept-encoding": "fetch.encodings sets it",
    "host": "",
    "connection": "",
    "content-length": "",
    "transfer-encoding": "",
    "te": "",
    "upgrade": "",
    "expect": "",
    "range": "",
    "if-none-match": "",
    "if-modified-since": "",
}


def not_our_own(text: str) -> str:
    if text.lower() in _OWN_FIELDS:
        raise RefusedValue(f"must not be {text}: the crawler sends it itself", _OWN_FIELDS[text.lower()])
    return text


def field_value(text: str) -> str:
    """Never quoted in a message: it may be a secret. Source: RFC 9110 §5.5."""
    if not text.isascii() or not text.replace("\t", " ").isprintable():
        raise RefusedValue("must be ASCII text without control characters")
    return text.strip(" \t")


def distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    for number, item in enumerate(value):
        if item in value[:number]:
            raise RefusedValue(f"must name {shown(item)} once")
    return value


def few(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MAX_TAGS:
        raise RefusedValue(f"must have {MAX_TAGS} entries at most, not {len(value)}")
    return value


_LOOPBACK: Final = ("127.0.0.1", "[::1]", "localhost")


def listen(text: str) -> str:
    """Address of the status page: a loopback address and a port, or an absolute path."""
    if text.startswith("/"):
        return text
    host, colon, port = text.rpartition(":")
    if re.fullmatch(r":?\d{1,5}", text):
        hint = f'did you mean "127.0.0.1:{text.removeprefix(":")}"?'
        raise RefusedValue(f'must be "127.0.0.1:PORT" or the path of a Unix socket, not {shown(text)}', hint)
    if not colon or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise RefusedValue(f'must be "127.0.0.1:PORT" or the path of a Unix socket, not {shown(text)}')
    if host.lower() not in _LOOPBACK:
        hint = "the page has no log-in: put a web server with one before it, and let that connect here"
        raise RefusedValue(f"must be a loopback address, not {shown(host)}", hint)
    return text
