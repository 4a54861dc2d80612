"""pages/: one JSON line a page."""

from pathlib import Path

import orjson

from crawler.core.models import PageInfo, RecordLocation
from crawler.sinks.pages import page_line
from tests.support.sinks import make_pages, make_record

PAGE = PageInfo(
    canonical="https://example.org/a",
    content_type="text/html",
    charset="utf-8",
    title="Über 日本 \N{PILE OF POO}\nand\u2028on",
    language="de",
    links_count=7,
    content_size=20,
    tags=("manuals", "größe"),
)


def test_a_line_holds_every_field() -> None:
    """In this order, with one line feed, at the end."""
    record = make_record("https://example.org/b", page=PAGE, via="https://example.org/", depth=2)
    line = page_line(record, PAGE, RecordLocation("crawl-x.warc.gz", 409))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert list(orjson.loads(line).items()) == [
        ("url", "https://example.org/b"),
        ("canonical", "https://example.org/a"),
        ("via", "https://example.org/"),
        ("depth", 2),
        ("tags", ["manuals", "größe"]),
        ("status", 200),
        ("content_type", "text/html"),
        ("charset", "utf-8"),
        ("title", PAGE.title),
        ("language", "de"),
        ("digest", record.payload_digest),
        ("simhash", None),
        ("links", 7),
        ("fetched_at", "2026-11-23T09:00:00.123456Z"),
        ("warc_file", "crawl-x.warc.gz"),
        ("warc_offset", 409),
    ]


def test_without_a_warc_its_location_is_null() -> None:
    """`output.warc` may be off."""
    line = orjson.loads(page_line(make_record(page=PAGE), PAGE, None))
    assert (line["warc_file"], line["warc_offset"]) == (None, None)


def test_half_a_surrogate_pair_does_not_stop_the_crawl() -> None:
    """It becomes a question mark; the other fields stay."""
    page = PageInfo(title="a\ud800b", language="en")
    line = orjson.loads(page_line(make_record(page=page), page, None))
    assert (line["title"], line["language"], line["links"]) == ("a?b", "en", 0)


def test_only_pages_are_written(tmp_path: Path) -> None:
    """Other records have no line; the returned locations are the begins of lines."""
    sink = make_pages(tmp_path)
    sink.open([])
    records = [make_record(f"https://example.org/{n}", page=PAGE if n % 2 else None) for n in range(4)]
    warc = [RecordLocation("w.warc.gz", n) for n in range(4)]
    first, second, third, fourth = sink.write(records, warc)
    assert (first, third) == (None, None)
    assert second is not None
    assert fourth is not None
    [file] = sink.sync()
    data = (tmp_path / "pages" / f"{file.name}.open").read_bytes()
    for place, n in ((second, 1), (fourth, 3)):
        line = orjson.loads(data[place.offset :].split(b"\n")[0])
        assert (line["url"], line["warc_offset"]) == (f"https://example.org/{n}", n)
    assert data.count(b"\n") == 2
