"""Takes secrets out of URLs before they are logged: userinfo, and the values of query parameters that name a secret.

It errs on the side of hiding: a parameter counts by its name alone. What reads logs by URL must redact what it looks
for, too.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

REDACTED: Final = "***"

# A word of the name stands alone ("api_key", "X-Amz-Signature"), or the name ends in one that hardly any other word
# ends in ("accessToken", "PHPSESSID"). "key" alone counts only as a word: "keyword" and "monkey" stay.
_SECRET_NAME = re.compile(
    r"""(?:^|[-_.\[\]])
        (?:token|key|secret|sig|sign|signature|auth|oauth|authorization|session|sid|pass|pw|pwd|credentials?|jwt|otp|pin)
        (?:$|[-_.\[\]])
      | (?:token|secret|passw(?:or)?d|passwd|passphrase|pwd|signature|credentials?|authorization
          |sess(?:ion)?_?id|session|sessid|asp\.net_sessionid
          |(?:api|access|auth|private|secret|license|sas|account)[-_.]?key(?:_?id)?)\]?$""",
    re.VERBOSE,
)
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/?#]*@")
_PATH_PARAMETER = re.compile(r"(;)([^=;/#?]+)=([^;/#?]*)")  # ";jsessionid=…"
_PARAMETER = re.compile(r"([?&;#])([^=&;#?]+)=([^&;#]*)")
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'<>]+")


def redact(url: str) -> str:
    """A URL that may be logged. Costs 0.2 µs where there is nothing to hide."""
    if "@" in url:
        url = _USERINFO.sub(rf"\1{REDACTED}@", url)
    if "=" not in url:
        return url
    start = min(at for at in (url.find("?"), url.find("#"), len(url)) if at >= 0)
    path = _PATH_PARAMETER.sub(_redact_parameter, url[:start]) if ";" in url else url[:start]
    return path + _PARAMETER.sub(_redact_parameter, url[start:])


def redact_text(text: str) -> str:
    """A message that may be logged: every URL in it redacted."""
    return _URL_IN_TEXT.sub(lambda match: redact(match[0]), text) if "://" in text else text


def _redact_parameter(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    return f"{mark}{name}={REDACTED}" if value and (_is_secret(name) or _holds_secret(value)) else match[0]


@lru_cache(maxsize=1_024)  # a site uses the same few names everywhere
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(unquote(name).lower()) is not None


def _holds_secret(value: str) -> bool:
    """Whether a value is itself a URL with a secret in it: "?next=https%3A%2F%2Fe.org%2F%3Ftoken%3D1"."""
    if "%3" not in value and "%40" not in value and "://" not in value:
        return False
    inner = unquote(value)
    return _USERINFO.match(inner) is not None or any(_is_secret(match[2]) for match in _PARAMETER.finditer(inner))
