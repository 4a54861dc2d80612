"""URLs on their way to the agent that owns their slot, as the table `inbox` has them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import orjson

from crawler.core.enums import Source, TaskKind
from crawler.core.models import Discovered, Origin, SitemapHint

INBOX_AT_ONCE: Final = 256  # rows of one transaction, of which each has the URLs that one transaction found in a slot
Found = tuple[int, int | None, float, Discovered]  # a number, the id of the page, when it was found, the URL


def inbox_rows(found: Iterable[tuple[int, Found]]) -> list[tuple[int, int, bytes]]:
    """URLs with their slots as rows: slot, number of URLs, and these."""
    by_slot: defaultdict[int, list[Sequence[object]]] = defaultdict(list)
    for slot, (_, via, at, one) in found:
        hint = None if one.hint is None else (one.hint.priority, one.hint.lastmod)
        by_slot[slot].append(
            (via, at, one.url, one.origin.scheme, one.origin.host, one.origin.port, one.key, one.depth, one.hop_path,
             one.source.value, one.priority, one.redirects, one.kind.value, hint, one.legacy_url)
        )  # fmt: skip
    return [(slot, len(urls), orjson.dumps(urls)) for slot, urls in by_slot.items()]


def inbox_urls(text: bytes) -> Iterator[Found]:
    """The URLs of a row."""
    for (
        via,
        at,
        url,
        scheme,
        host,
        port,
        key,
        depth,
        hop_path,
        source,
        priority,
        redirects,
        kind,
        hint,
        legacy,
    ) in orjson.loads(text):
        yield (
            0,
            via,
            at,
            Discovered(
                url, Origin(scheme, host, port), key, depth, hop_path, Source(source), priority, redirects,
                TaskKind(kind), None if hint is None else SitemapHint(*hint), legacy,
            ),
        )  # fmt: skip
