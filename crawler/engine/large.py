"""Which answers take long enough to read that they are read in a thread, and how many of those at once.

It does not know what reading is. Invariant: it judges by the answer's size and header alone, before anything is read.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from crawler.core.media_types import XHTML, mime_type
from crawler.core.models import Outcome
from crawler.core.outcomes import response_of

T = TypeVar("T")

# A page of this size takes 2 ms to parse: larger ones are read in a thread, so that the loop is never held for long.
READ_IN_THREAD_OVER: Final = 512 * 1024
# Between being read and being handed to the committer a large page costs ten times its size (text, links, discoveries);
# more at once than there are cores would only cost memory.
LARGE_AT_ONCE: Final = 2
_XML_FACTOR: Final = 8  # pages in XML take so much longer
# Pages compress to a fifth, some to a thirtieth: a coded one this small decodes to no more than a plain large one.
_CODED_FACTOR: Final = 32


async def off_loop_if_large(outcome: Outcome, work: Callable[[], T]) -> T:
    """The result of `work`, which reads `outcome`."""
    return await asyncio.to_thread(work) if is_large(outcome) else work()


def is_large(outcome: Outcome, *, is_listing: bool = False) -> bool:
    """Whether reading takes long enough for a thread. What is coded may be many times as large as it looks; a sitemap
    takes five times as long as HTML, and may be gzip without saying so.
    """
    response = response_of(outcome)
    if response is None or response.payload.size <= READ_IN_THREAD_OVER // _CODED_FACTOR:
        return False
    if is_listing or response.head.get("content-encoding") is not None:
        return True
    is_xml = mime_type(response.head.content_type) == XHTML
    return response.payload.size > (READ_IN_THREAD_OVER // _XML_FACTOR if is_xml else READ_IN_THREAD_OVER)
