"""Which content types are worth reading: globs against the Content-Type of an answer.

Of several types the last valid one counts, as where the answer is read.

It decides from the head alone. Invariant: an answer that does not say what it is, or is not 2xx, is read.
"""

import re
from collections.abc import Sequence
from typing import Final

from crawler.core.media import mime_type
from crawler.core.values import Head

_REMEMBERED: Final = 1_024  # spellings of Content-Type whose verdict is kept; sites use a handful


class ContentTypes:
    """`globs` as in "text/*" or "application/*+xml", compared with type and subtype, in lower case."""

    def __init__(self, globs: Sequence[str]) -> None:
        alternatives = "|".join(re.escape(glob.lower()).replace(r"\*", r"[^;,\s]*") for glob in globs)
        self._pattern = re.compile(rf"(?:{alternatives})\Z")
        self._known: dict[str, bool] = {}

    def wants(self, head: Head) -> bool:
        """Whether to read the body."""
        if not 200 <= head.status_code < 300:
            return True
        value = head.content_type
        if not value:
            return True
        known = self._known.get(value)
        if known is None:
            mime = mime_type(value)
            known = not mime or self._pattern.match(mime) is not None
            if len(self._known) < _REMEMBERED:
                self._known[value] = known
        return known
