"""Session identifiers in URLs: what a site adds to every link, for each visitor anew, and what is no part of a page's
address.

An identifier is told by its name and by what it looks like: a page number, a date or a search word under one of these
names is content, and two URLs that differ in it are two pages. After Heritrix's StripSessionIDs and StripSessionCFIDs,
which ask for 32 characters. It does not know what is done about them (`url.canonical`).
"""

import re
from typing import Final

# Names that servers make up, and names that people use for other things too.
_SERVERS: Final = frozenset(("phpsessid", "jsessionid", "oscsid", "zenid"))
_COMMON: Final = frozenset(("session_id", "sessionid", "sess_id", "sessid", "session", "sess", "sid", "s"))
_ASP: Final = "aspsessionid"  # followed by letters that name the application
SERVERS_LENGTH: Final = 12  # Jetty's are the shortest
COMMON_LENGTH: Final = 26  # PHP's; phpBB, vBulletin and Tomcat have 32
_ASP_LENGTH: Final = 20  # 24 capital letters
_MIXED: Final = 5  # letters and figures change places at least once in so many characters; in words they do not
_CFTOKEN: Final = re.compile(r"[0-9]{8,}|[0-9a-f]{12,}(?:-[0-9a-f]+)*", re.IGNORECASE)
_CFID: Final = re.compile(r"[0-9]+|[0-9a-f]{8}-[0-9a-f-]{20,}", re.IGNORECASE)

_ALPHABET: Final = re.compile(r"[0-9a-zA-Z.,_!~-]+")
_SEPARATORS: Final = re.compile(r"[.,_!~-]")
_CHANGE: Final = re.compile(r"[0-9](?=[a-zA-Z])|[a-zA-Z](?=[0-9])")
_NAMED: Final = re.compile(
    r"[?&](?:phpsessid|jsessionid|aspsessionid[a-z]*|oscsid|zenid|cftoken|sess(?:ion)?(?:_?id)?|sid|s)=", re.IGNORECASE
)
_IN_PATH: Final = re.compile(r";jsessionid=([^?;/]*)", re.IGNORECASE)

# The first version of these rules: any value under some names, eight characters with a figure under others.
_FIRST: Final = re.compile(
    r"(?:(?:phpsessid|jsessionid|aspsessionid[a-z]*|session_?id|sess_?id|cfid|cftoken|oscsid|zenid)=[^&;#]*"
    r"|(?:sid|s|session|sess)=(?=[^&]*\d)[0-9a-zA-Z_-]{8,})",
    re.IGNORECASE,
)


def without_session(url: str) -> str:
    """`url`, in canonical spelling, without its session identifiers; a "?" with nothing behind it may be left."""
    if ";" in url:
        url = _IN_PATH.sub(lambda match: "" if _is_mixed(match[1], SERVERS_LENGTH) else match[0], url)
    if _NAMED.search(url) is None:
        return url
    path, _, query = url.partition("?")
    parts = query.split("&")
    cut = _cut_of(parts)
    return f"{path}?{'&'.join(part for part in parts if part not in cut)}" if cut else url


def session_ids(url: str) -> list[str]:
    """The identifiers that `without_session` cuts, as they are written: "sid=…"."""
    found = [match[0][1:] for match in _IN_PATH.finditer(url) if _is_mixed(match[1], SERVERS_LENGTH)]
    cut = _cut_of(url.partition("?")[2].split("&"))
    return found + [part for part in url.partition("?")[2].split("&") if part in cut]


def without_session_at_first(url: str) -> str:
    """The same by version 1 of the rules."""
    if ";" in url:
        url = re.sub(r"(?i);jsessionid=[^?;/]*", "", url)
    if "?" in url and _FIRST.search(url):
        path, _, query = url.partition("?")
        url = f"{path}?{'&'.join(part for part in query.split('&') if not _FIRST.fullmatch(part))}"
    return url


def _cut_of(parts: list[str]) -> set[str]:
    """Those parts of a query that are session identifiers. ColdFusion's come in two, and neither counts alone."""
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
    """Whether letters and figures are mixed as by chance, in so many characters at least."""
    if len(value) < length or _ALPHABET.fullmatch(value) is None:
        return False
    value = _SEPARATORS.sub("", value)
    return len(_CHANGE.findall(value)) * _MIXED >= len(value)
