"""Where pages are read: small ones on the event loop, large ones in a thread, few of those at once."""

import gzip
import threading
from concurrent.futures import Executor
from typing import Any

import pytest

from crawler.core.body import BytesBody
from crawler.core.enums import StoppedBy, TaskKind
from crawler.core.models import Task
from crawler.engine.options import ContentOptions, EngineConfiguration
from crawler.engine.pages.recent_urls import RecentKeys
from crawler.engine.pages.response_processor import LARGE_AT_ONCE, LARGE_BYTES, ResponseProcessor
from tests.support.engine import AT_ONCE, Harness
from tests.support.scripted_web import page, response
from tests.support.virtual_time import run

ROOT = "https://a.test/"


@pytest.mark.parametrize(
    ("body", "fields", "in_thread"),
    [
        (b"x" * LARGE_BYTES, {}, False),
        (b"x" * (LARGE_BYTES + 1), {}, True),
        (gzip.compress(b"x" * 10_000_000, mtime=0), {"content_encoding": "gzip"}, False),
        (gzip.compress(bytes(range(256)) * 100, 0, mtime=0), {"content_encoding": "gzip"}, True),
    ],
    ids=["small", "large", "coded, small", "coded, large inside"],
)
def test_a_large_page_is_read_in_a_thread(body: bytes, fields: dict[str, str], in_thread: bool) -> None:
    """The event loop has other connections to serve; what is coded counts for more than it looks."""

    async def main() -> None:
        engine = Harness(ROOT, politeness=AT_ONCE, web={ROOT: response(200, body, **fields)})
        read, threads = engine.processor.process, []

        def noting(task: Task, outcome: Any, *, on_loop: bool = True) -> Any:
            if task.kind is TaskKind.PAGE:
                threads.append(threading.current_thread() is not threading.main_thread())
            return read(task, outcome, on_loop=on_loop)

        engine.processor.process = noting  # type: ignore[method-assign]
        assert await engine.run() is StoppedBy.EMPTY
        assert threads == [in_thread]

    run(main())


def test_only_so_many_large_pages_are_read_at_once() -> None:
    """Each costs ten times its size while it is read."""

    async def main() -> None:
        large = page("/x") + b" " * LARGE_BYTES
        urls = [f"https://h{n}.test/" for n in range(12)]
        engine = Harness(*urls, politeness=AT_ONCE, web={url: response(200, large) for url in urls})
        call, now, most = engine.loop.run_in_executor, 0, 0

        def ended(_: object) -> None:
            nonlocal now
            now -= 1

        def counting(executor: Executor | None, *args: Any) -> Any:
            nonlocal now, most
            future = call(executor, *args)
            if executor is None:  # the committer has a thread of its own
                now += 1
                most = max(most, now)
                future.add_done_callback(ended)
            return future

        engine.loop.run_in_executor = counting  # type: ignore[assignment]
        assert await engine.run() is StoppedBy.EMPTY
        assert len(engine.settled) >= 12
        assert most == LARGE_AT_ONCE

    run(main())


def test_a_page_is_parsed_up_to_max_html() -> None:
    """A link at the limit's edge is cut with it; what is beyond is neither parsed nor counted, but its size is told."""
    head = b'<title>t</title><a href="/before">'
    text = head + b" " * 1_000 + b'<a href="/after">'
    for max_html, expected in ((len(text), ["/before", "/after"]), (1_000, ["/before"]), (20, [])):
        processor = ResponseProcessor(
            EngineConfiguration(content=ContentOptions(max_html=max_html)), recent_keys=RecentKeys(10)
        )
        task = Task(1, ROOT)
        processed, links = processor.process(task, response(200, text))
        assert [link.url.removeprefix("https://a.test") for link in links] == expected
        assert processed.page is not None
        assert processed.page.content_size == len(text)


def test_max_html_counts_decoded_bytes() -> None:
    """A megabyte of blanks in a kilobyte is a megabyte to the parser."""
    text = b'<a href="/before">' + b" " * 1_000_000 + b'<a href="/after">'
    compressed = response(200, gzip.compress(text, mtime=0), content_encoding="gzip")
    assert isinstance(compressed.payload, BytesBody)
    assert compressed.payload.size < 2_000
    options = EngineConfiguration(content=ContentOptions(max_html=5_000))
    processor = ResponseProcessor(options, recent_keys=RecentKeys(10))
    processed, links = processor.process(Task(1, ROOT), compressed)
    assert [link.url for link in links] == [ROOT + "before"]
    assert processed.page is not None
    assert processed.page.content_size == len(text)
