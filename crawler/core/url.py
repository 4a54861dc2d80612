"""URLs: parsing by the URL standard, session identifiers, the key that finds duplicates, registrable domains."""

import re
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import ada_url
from publicsuffixlist import PublicSuffixList
from xxhash import xxh3_64_intdigest

from crawler.core.enums import DenyReason, TaskKind
from crawler.core.models import Origin

MAX_URL_BYTES: Final = 2_048  # the sitemap protocol's limit for <loc>; longer ones are traps far more often than pages
MAX_HOST_CHARS: Final = 253  # RFC 1035 §2.3.4 less the root dot
SLOTS: Final = 1_024
KEY_RULES: Final = 2  # version of the rules for what counts as the same URL: docs/decisions/0013-key-rules.md

# Fetch standard, "bad port": services that would accept an HTTP request as commands.
BLOCKED_PORTS: Final = frozenset(
    (0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
     109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526,
     530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045,
     4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)
)  # fmt: skip

_DEFAULT_PORT: Final = {"http": 80, "https": 443}
# Applied only to ada's output, in which an "@" within userinfo is percent-encoded.
_SERIALISED = re.compile(r"(https?)://(?:[^/@?#]*@)?(\[[^\]]+\]|[^/:?#]+)(?::(\d+))?(/[^#]*)")
_HOST = re.compile(r"\[.*\]|(?:[^.]{1,63}\.)*[^.]{1,63}\.?")
_DNS_NAME = re.compile(r"\[.*\]|[a-z0-9_.-]+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_USERINFO = re.compile(r"//[^/?#\s]*@")  # may hold a password: not for a message
# What the parser of the URL standard does not change: lists of seeds are millions of these. The last label begins with
# a letter (else it may be an IPv4 address), no label is Punycode, and no segment of the path begins with a dot.
_PLAIN_SEED = re.compile(
    r"(?:(https?)://)?((?:(?!xn--)[a-z0-9](?:[a-z0-9-]{0,62})\.){1,8}(?!xn--)[a-z](?:[a-z0-9-]{0,62}))"
    r"(/(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*/?)?)?",
    re.ASCII,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_COLON_MISSING = re.compile(r"https?/+", re.IGNORECASE)
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NO_SCHEME = re.compile(r"[^/?#]*://")


NOT_UTF_8: Final = "not UTF-8"  # message of an UrlError


class UrlError(ValueError):
    """A URL that is not fetched. `reason` is for the log, the message for people."""

    def __init__(self, reason: DenyReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse(text: str, base: str | None = None) -> tuple[str, Origin]:
    """Parse `text` (relative to `base`, an absolute URL) to the URL to fetch and its origin.

    The result has no fragment and no userinfo. Raises UrlError for text that is no URL, not http(s), longer than
    MAX_URL_BYTES, or on a blocked port. Source: URL standard §4.4, by ada-url.
    """
    try:
        href = ada_url.join_url(base, text) if base is not None else ada_url.normalize_url(text)
    except ValueError:
        raise UrlError(DenyReason.URL_INVALID, f"not a URL: {_USERINFO.sub('//***@', text[:200])!r}") from None
    return check_href(href)


def check_href(href: str) -> tuple[str, Origin]:
    """The second half of `parse`: check a URL that ada-url has serialised. Raises UrlError."""
    match = _SERIALISED.match(href)
    if match is None:
        scheme = href.partition(":")[0]
        raise UrlError(DenyReason.SCOPE_SCHEME, f"not http or https: {scheme[:40]}:")
    scheme, host, port_text, target = match.groups()
    port = int(port_text) if port_text else _DEFAULT_PORT[scheme]
    if port in BLOCKED_PORTS:
        raise UrlError(DenyReason.PORT_BLOCKED, f"port {port} is on the Fetch standard's block list")
    if not _HOST.fullmatch(host):  # ada allows both, a TLS server name neither (RFC 1035 §2.3.4)
        raise UrlError(DenyReason.URL_INVALID, "the host has an empty label, or one longer than 63 characters")
    if len(host) > MAX_HOST_CHARS:
        raise UrlError(DenyReason.URL_INVALID, f"host longer than {MAX_HOST_CHARS} characters")
    if match.end() != len(href) or match.start(2) != len(scheme) + 3:  # there is a fragment or userinfo
        href = f"{scheme}://{host}{f':{port_text}' if port_text else ''}{target}"
    if len(href) > MAX_URL_BYTES:  # ASCII: characters are bytes
        raise UrlError(DenyReason.URL_TOO_LONG, f"longer than {MAX_URL_BYTES} bytes")
    return href, Origin(scheme, host, port)


def parse_seed(text: str) -> tuple[str, Origin]:
    """Parse a URL that an operator names. Raises UrlError, also for a host that cannot be in DNS: the URL standard
    allows "h*" and "!!", which are mistakes here.
    """
    if (plain := _PLAIN_SEED.fullmatch(text)) is not None and len(text) <= MAX_HOST_CHARS:
        scheme, host, path = plain.groups()
        scheme = scheme or "https"
        return f"{scheme}://{host}{path or '/'}", Origin(scheme, host, _DEFAULT_PORT[scheme])
    url, origin = parse_typed(text)
    if not _DNS_NAME.fullmatch(origin.host):
        hint = ": a pattern cannot stand here" if "*" in origin.host else ""
        raise UrlError(DenyReason.URL_INVALID, f'"{origin.host}" is neither a host name nor an address{hint}')
    return url, origin


def parse_typed(text: str) -> tuple[str, Origin]:
    """Parse a URL that a person typed: without a scheme it is https, and an IPv6 address alone needs no brackets.
    Raises UrlError.
    """
    text = text.strip()
    if not is_utf_8(text):
        raise UrlError(DenyReason.URL_INVALID, NOT_UTF_8)
    if _is_ipv6(text):
        text = f"[{text}]"
    if _COLON_MISSING.match(text):  # it would be parsed as a host named "https"
        raise UrlError(DenyReason.URL_INVALID, 'the ":" after the scheme is missing')
    has_scheme = _HAS_SCHEME.match(text)
    if not has_scheme and _NO_SCHEME.match(text):
        raise UrlError(DenyReason.URL_INVALID, 'what stands before "://" is no scheme')
    # in "localhost:8443/x" the digits after the colon are a port
    if not has_scheme or ("//" not in text[: has_scheme.end() + 2] and text[has_scheme.end() :][:1].isdigit()):
        text = "https://" + text
    try:
        return parse(text)
    except UrlError as error:
        if error.reason is DenyReason.SCOPE_SCHEME and get_close_matches(text.partition(":")[0], ("http", "https")):
            raise UrlError(error.reason, f"{error}; did you mean http:// or https://?") from None
        raise


def is_utf_8(text: str) -> bool:
    """Whether a text has none of the characters by which Python represents bytes that are not UTF-8."""
    return _SURROGATE.search(text) is None


def _is_ipv6(text: str) -> bool:
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return False


def target_of(url: str) -> str:
    """The request target (RFC 9112 §3.2.1): path and query of a URL that `parse` returned."""
    return url[url.index("/", url.index("://") + 3) :]


def canonical(url: str, rules: int = KEY_RULES) -> str:
    """The canonical form, which duplicates share, of a URL that `parse` returned.

    Escapes of unreserved characters are decoded, other escapes are in upper case (RFC 3986 §6.2.2). Session identifiers
    and an empty query are removed. URLs that a server may treat differently stay different. `rules`: a version of the
    rules up to KEY_RULES.
    """
    if "%" in url:
        url = _ESCAPE.sub(_normalise_escape, url)
    if "=" in url:
        url = without_session(url) if rules == KEY_RULES else without_session_legacy(url)
    return url[:-1] if url.endswith("?") else url


def _normalise_escape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else f"%{match[1].upper()}"


def key_of(url: str) -> int:
    """The 64-bit signed key of a URL that `parse` returned, equal for duplicates."""
    if "%" in url or "?" in url or ";" in url:  # called for every link: most are canonical
        url = canonical(url)
    return _signed(xxh3_64_intdigest(url.encode()))


def respelled_key_of(url: str) -> int:
    """The key of the target of a redirect to another spelling of the same URL ("/%7Ejo" → "/~jo"). It has to be fetched
    although its ordinary key is known.
    """
    return _signed(xxh3_64_intdigest(url.encode(), seed=1))


def kind_key_of(url: str, kind: TaskKind) -> int:
    """The key of a URL for a kind of task: as a sitemap, say, it is stored beside the page with the same URL."""
    return key_of(url) if kind is TaskKind.PAGE else _kind_key(canonical(url), kind)


def every_key_of(url: str) -> tuple[int, ...]:
    """All keys that a URL that `parse` returned may have."""
    kinds = [kind_key_of(url, kind) for kind in TaskKind if kind is not TaskKind.PAGE]
    return (key_of(url), respelled_key_of(url), *kinds)


def legacy_key_of(url: str, kind: TaskKind) -> int | None:
    """The key of a URL by version 1 of the rules, None if it is still the same."""
    first = canonical(url, 1)
    if first == canonical(url):
        return None
    return _signed(xxh3_64_intdigest(first.encode())) if kind is TaskKind.PAGE else _kind_key(first, kind)


def _kind_key(known_as: str, kind: TaskKind) -> int:
    return _signed(xxh3_64_intdigest(f"{kind} {known_as}".encode(), seed=2))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


# -- session identifiers

# Parameters that servers set, and parameters that people use for other things too.
_SERVERS: Final = frozenset(("phpsessid", "jsessionid", "oscsid", "zenid"))
_COMMON: Final = frozenset(("session_id", "sessionid", "sess_id", "sessid", "session", "sess", "sid", "s"))
_ASP: Final = "aspsessionid"  # followed by letters for the application
SERVERS_LENGTH: Final = 12  # least length; Jetty's are the shortest
COMMON_LENGTH: Final = 26  # least length: PHP's; phpBB, vBulletin and Tomcat have 32
_ASP_LENGTH: Final = 20  # 24 capital letters
_MIXED: Final = 5  # at least one change between letter and digit in so many characters; words have fewer
_CFTOKEN: Final = re.compile(r"[0-9]{8,}|[0-9a-f]{12,}(?:-[0-9a-f]+)*", re.IGNORECASE)
_CFID: Final = re.compile(r"[0-9]+|[0-9a-f]{8}-[0-9a-f-]{20,}", re.IGNORECASE)

_ALPHABET: Final = re.compile(r"[0-9a-zA-Z.,_!~-]+")
_SEPARATORS: Final = re.compile(r"[.,_!~-]")
_CHANGE: Final = re.compile(r"[0-9](?=[a-zA-Z])|[a-zA-Z](?=[0-9])")
_NAMED: Final = re.compile(
    r"[?&](?:phpsessid|jsessionid|aspsessionid[a-z]*|oscsid|zenid|cftoken|sess(?:ion)?(?:_?id)?|sid|s)=", re.IGNORECASE
)
_IN_PATH: Final = re.compile(r";jsessionid=([^?;/]*)", re.IGNORECASE)

# The first version of these rules: any value of some parameters, eight characters with a digit of others.
_LEGACY: Final = re.compile(
    r"(?:(?:phpsessid|jsessionid|aspsessionid[a-z]*|session_?id|sess_?id|cfid|cftoken|oscsid|zenid)=[^&;#]*"
    r"|(?:sid|s|session|sess)=(?=[^&]*\d)[0-9a-zA-Z_-]{8,})",
    re.IGNORECASE,
)


def without_session(url: str) -> str:
    """`url`, in canonical form, without its session identifiers. An empty query may be left."""
    if ";" in url:
        url = _IN_PATH.sub(lambda match: "" if _is_mixed(match[1], SERVERS_LENGTH) else match[0], url)
    if _NAMED.search(url) is None:
        return url
    path, _, query = url.partition("?")
    parts = query.split("&")
    cut = _cut_of(parts)
    return f"{path}?{'&'.join(part for part in parts if part not in cut)}" if cut else url


def session_ids(url: str) -> list[str]:
    """The session identifiers that `without_session` removes, as written: "sid=…"."""
    found = [match[0][1:] for match in _IN_PATH.finditer(url) if _is_mixed(match[1], SERVERS_LENGTH)]
    cut = _cut_of(url.partition("?")[2].split("&"))
    return found + [part for part in url.partition("?")[2].split("&") if part in cut]


def without_session_legacy(url: str) -> str:
    """`without_session` by version 1 of the rules."""
    if ";" in url:
        url = re.sub(r"(?i);jsessionid=[^?;/]*", "", url)
    if "?" in url and _LEGACY.search(url):
        path, _, query = url.partition("?")
        url = f"{path}?{'&'.join(part for part in query.split('&') if not _LEGACY.fullmatch(part))}"
    return url


def _cut_of(parts: list[str]) -> set[str]:
    """The parts of a query that are session identifiers. Of ColdFusion's two, neither counts alone."""
    cut = set()
    tokens, ids = [], []
    for part in parts:
        name, _, value = part.partition("=")
        name = name.lower()
        if name == "cftoken" and _CFTOKEN.fullmatch(value):
            tokens.append(part)
        elif name == "cfid" and _CFID.fullmatch(value):
            ids.append(part)
        elif _is_session_id(name, value):
            cut.add(part)
    return cut.union(tokens, ids) if tokens and ids else cut


def _is_session_id(name: str, value: str) -> bool:
    if name in _COMMON:
        return value.isalnum() and _is_mixed(value, COMMON_LENGTH)
    if name.startswith(_ASP):
        return len(value) >= _ASP_LENGTH and value.isalpha() and value.isupper()
    return name in _SERVERS and _is_mixed(value, SERVERS_LENGTH)


def _is_mixed(value: str, length: int) -> bool:
    """Whether a value has at least `length` characters, with letters and digits mixed at random."""
    if len(value) < length or _ALPHABET.fullmatch(value) is None:
        return False
    value = _SEPARATORS.sub("", value)
    return len(_CHANGE.findall(value)) * _MIXED >= len(value)


# -- domains


class _Suffixes(PublicSuffixList):
    """The Public Suffix List."""

    def __init__(self) -> None:
        super().__init__()
        rules = self._publicsuffix
        self._ruled = frozenset(rule.lstrip("!*.") for rule in rules)  # names that a rule is about
        self._plain = frozenset(rule for rule in rules if rule[0] not in "!*" and f"*.{rule}" not in rules)

    def domain_of(self, name: str) -> str | None:
        """The registrable domain of a name of several labels, in lower case; None if it is a public suffix."""
        domain = name if ".." not in name else ""
        while domain and domain not in self._ruled:
            above = domain[domain.find(".") + 1 :]
            if above in self._plain:
                return domain
            if above == domain:
                break
            domain = above
        return self.privatesuffix(name)  # by other rules than plain ones, or by none


@lru_cache(maxsize=1)
def _suffixes() -> _Suffixes:
    return _Suffixes()


@lru_cache(maxsize=65_536)
def registrable_domain(host: str) -> str:
    """The registrable domain of a host: "a.b.example.co.uk" → "example.co.uk".

    An IP literal, a single label or a public suffix is its own domain. Source: the Public Suffix List.
    """
    if host.startswith("[") or "." not in host or is_ipv4(host):
        return host
    domain = _suffixes().domain_of(host.rstrip("."))
    return domain if domain is not None else host


def is_public_suffix(host: str) -> bool:
    """Whether names below `host` belong to different owners: "co.uk", "github.io", and every single label.

    Source: the Public Suffix List, its private part too.
    """
    return _suffixes().publicsuffix(host.rstrip(".")) == host.rstrip(".")


def is_ipv4(host: str) -> bool:
    """Whether a serialised host is an IPv4 address (the URL standard writes them all as four decimal numbers)."""
    if not host[-1:].isdigit():
        return False
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def name_hash(name: str) -> int:
    """The 64-bit signed hash of a name: the id of a politeness key in the store."""
    return _signed(xxh3_64_intdigest(name.encode()))


def slot_of(domain: str) -> int:
    """The slot, of SLOTS, that a registrable domain hashes to. The agent that owns the slot owns the domain."""
    return xxh3_64_intdigest(domain.encode()) % SLOTS
