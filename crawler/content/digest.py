"""The digest that names a payload, as WARC files write it (WARC 1.1 §5.8)."""

from hashlib import sha256

from crawler.core.body import Body
from crawler.core.digest import digest_text


def payload_digest(payload: Body) -> str:
    """Return "sha256:" and the digest in base 32, upper case and padded, as warcio and fastwarc verify it."""
    digest = sha256()
    for chunk in payload.chunks():
        digest.update(chunk)
    return digest_text(digest.digest())
