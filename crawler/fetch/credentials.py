"""Values of the Authorization and Proxy-Authorization fields: what may stand in them and how it is written.

Knows no files (`settings.secrets` reads them) and sends nothing. Invariant: no message of this file quotes any part of
a secret.
"""

import re
from base64 import b64encode
from typing import Final

_TOKEN68: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class BadCredential(ValueError):
    """A credential that HTTP cannot carry; the message goes on from its name."""


def basic(username: str, password: str) -> str:
    """The value for a user and a password, in UTF-8. Source: RFC 7617 §2."""
    if ":" in username:
        raise BadCredential('username must not contain ":"')
    for name, text in (("username", username), ("password", password)):
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise BadCredential(f"{name} must not contain control characters")
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


def bearer(token: str) -> str:
    """The value for a token. Source: RFC 6750 §2.1."""
    if _TOKEN68.fullmatch(token) is None:
        raise BadCredential('bearer must be letters, digits and "-._~+/", then "=" if at all')
    return f"Bearer {token}"
