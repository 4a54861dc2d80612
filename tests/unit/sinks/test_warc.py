"""WARC files as read by warcio, its checker, and fastwarc."""

import base64
import gzip
import hashlib
import os
import uuid
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator
from warcio.checker import Checker

from crawler.core.body import digest_text
from crawler.core.enums import TruncatedReason
from crawler.core.models import PageHistory, Record, RecordLocation
from crawler.sinks.files import utc_text
from crawler.sinks.warc import STREAM_BYTES, RecordIds, mask_request, warcinfo_record
from tests.support.faulty_disk import FaultyDisk
from tests.support.sinks import ChunkedReads, chunk_framed, make_record, make_warc, read_warc

BIG = bytes(range(256)) * (3 * 4096)  # 3 MiB


def store(directory: Path, records: list[Record]) -> tuple[Path, list[RecordLocation]]:
    """Write records and close the file. Returns it with their locations."""
    sink = make_warc(directory)
    sink.open([])
    places = [place for place in sink.write(records, [None] * len(records)) if place is not None]
    sink.sync()
    sink.committed()
    [closed] = sink.close()
    return directory / "warc" / closed.name, places


def response_in(path: Path) -> dict[str, str]:
    [response] = [record for record in read_warc(path) if record["warc-type"] in ("response", "revisit")]
    return response


def one(directory: Path, record: Record) -> list[dict[str, str]]:
    """The records of a file with one visit, without the warcinfo."""
    return read_warc(store(directory, [record])[0])[1:]


def fast_digests(path: Path) -> list[tuple[str, bool, bool | None]]:
    """URL, and whether block digest and payload digest (None: there is none) are right, of each record, by fastwarc."""
    with path.open("rb") as stream:
        blocks = [record.verify_block_digest() for record in FastIterator(stream, parse_http=False)]
    with path.open("rb") as stream:
        payloads = [
            record.verify_payload_digest() if "WARC-Payload-Digest" in record.headers else None
            for record in FastIterator(stream)
        ]
    with path.open("rb") as stream:
        uris = [record.headers.get("WARC-Target-URI", "") for record in FastIterator(stream, parse_http=False)]
    return list(zip(uris, blocks, payloads, strict=True))


VISITS = {
    "small": make_record(payload=b"<p>hello"),
    "empty": make_record(payload=b""),
    "404": make_record(payload=b"gone", status_code=404),
    "3 MiB": make_record(payload=BIG),
    "3 MiB from a spool": make_record(payload=BIG, streamed=True),
    "just under the streaming size": make_record(payload=BIG[:STREAM_BYTES], streamed=True),
    "just over the streaming size": make_record(payload=BIG[: STREAM_BYTES + 1], streamed=True),
    "not modified": make_record(payload=b"", status_code=304, etag='"a"'),
    "truncated": make_record(payload=b"half a pa", truncated=TruncatedReason.DISCONNECT),
    "unicode URL": make_record("https://example.org/café/日本", b"x"),
    "IPv6": make_record(peer_address="2001:db8::1"),
}


@pytest.mark.parametrize("visit", VISITS)
def test_other_readers_accept_it(tmp_path: Path, visit: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`warcio check` finds no problem, and fastwarc finds every digest right."""
    path, _ = store(tmp_path, [VISITS[visit]])
    assert Checker(Namespace(inputs=[str(path)], verbose=False)).process_all() == 0
    assert capsys.readouterr().out == ""
    digests = fast_digests(path)
    assert len(digests) == 4
    assert all(block and payload is not False for _, block, payload in digests)


def test_readers_disagree_only_about_the_digest_of_a_chunked_payload(tmp_path: Path) -> None:
    """Ours is without transfer coding, as WARC 1.1 §6.3.2 says; both readers include the framing."""
    path, _ = store(tmp_path, [make_record(payload=b"a" * 3_000, chunked=True), make_record("https://example.org/2")])
    records = read_warc(path)
    assert [record for record in records if record["problems"]] == [records[1]]
    [problem] = records[1]["problems"]
    assert problem.startswith("payload digest failed")
    assert [url for url, block, payload in fast_digests(path) if not block or payload is False] == [
        "https://example.org/"
    ]
    assert all(block for _, block, _ in fast_digests(path))


def test_chunk_framing_is_kept(tmp_path: Path) -> None:
    """The block has the bytes as they came."""
    record = make_record(payload=b"a" * 3_000, chunked=True)
    response = one(tmp_path, record)[0]
    assert response["block"] == record.fetched.raw_head + chunk_framed(b"a" * 3_000)
    assert response["warc-payload-digest"] == record.payload_digest


def test_every_field_of_a_visit(tmp_path: Path) -> None:
    """The three records in full, except identifiers and digests."""
    record = make_record("https://example.org/b", b"hi", via="https://example.org/", hop_path="L")
    [response, request, metadata] = one(tmp_path, record)
    for made in (response, request, metadata):
        assert made.pop("warc-record-id").startswith("<urn:uuid:")
        assert made.pop("warc-warcinfo-id").startswith("<urn:uuid:")
        assert made.pop("warc-block-digest").startswith("sha256:")
        assert made.pop("problems") == []
        assert made.pop("warc-target-uri") == "https://example.org/b"
        assert made.pop("warc-date") == "2026-11-23T09:00:00.123456Z"
        assert int(made.pop("content-length")) == len(made["block"])
    assert request.pop("warc-concurrent-to") == metadata.pop("warc-concurrent-to")
    assert response == {
        "warc-type": "response",
        "warc-ip-address": "192.0.2.1",
        "warc-payload-digest": record.payload_digest,
        "warc-protocol": "tls/1.3",
        "content-type": "application/http;msgtype=response",
        "block": b"HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
    }
    assert request == {
        "warc-type": "request",
        "warc-ip-address": "192.0.2.1",
        "content-type": "application/http;msgtype=request",
        "block": record.fetched.request_bytes,
    }
    assert metadata == {
        "warc-type": "metadata",
        "content-type": "application/warc-fields",
        "block": b"via: https://example.org/\r\nhopsFromSeed: L\r\nsource: link\r\nkind: page\r\nfetchTimeMs: 23\r\n",
    }


def test_a_response_framed_leniently_is_marked(tmp_path: Path) -> None:
    """The metadata record says so, for readers with a strict parser."""
    lenient, strict = one(tmp_path, make_record(tainted=True))[2], one(tmp_path / "2", make_record())[2]
    assert lenient["block"] == strict["block"] + b"framing: lenient\r\n"


def test_records_of_a_visit_refer_to_each_other(tmp_path: Path) -> None:
    """Request and metadata refer to their response, all to the warcinfo before them; identifiers are unique."""
    path, _ = store(tmp_path, [make_record(), make_record("https://example.org/2")])
    info, *records = read_warc(path)
    assert {record["warc-warcinfo-id"] for record in records} == {info["warc-record-id"]}
    for response, request, metadata in (records[:3], records[3:]):
        assert request["warc-concurrent-to"] == metadata["warc-concurrent-to"] == response["warc-record-id"]
    assert len({record["warc-record-id"] for record in (info, *records)}) == 7


def test_the_warcinfo_record(tmp_path: Path) -> None:
    """It has the fields given to the sink, and the file's final name."""
    path, _ = store(tmp_path, [make_record()])
    info = read_warc(path)[0]
    assert (info["warc-type"], info["warc-filename"]) == ("warcinfo", path.name)
    assert info["block"].split(b"\r\n")[:4] == [
        b"software: crawler/test",
        b"robots: obey",
        b"http-header-user-agent: test (+https://example.org)",
        b"format: WARC File Format 1.1",
    ]


def test_every_file_begins_with_a_warcinfo_record(tmp_path: Path) -> None:
    """Also the next file, and no visit is split between two files."""
    sink = make_warc(tmp_path, limit=3_000)
    sink.open([])
    places = sink.write([make_record(f"https://example.org/{n}") for n in range(10)], [None] * 10)
    sink.sync()
    sink.committed()
    sink.close()
    paths = sorted((tmp_path / "warc").iterdir())
    assert len(paths) > 2
    assert {place.name for place in places if place} == {path.name for path in paths}
    for path in paths:
        kinds = [record["warc-type"] for record in read_warc(path)]
        assert kinds == ["warcinfo", *["response", "request", "metadata"] * (len(kinds) // 3)]


def test_a_continued_file_gets_another_warcinfo_record(tmp_path: Path) -> None:
    """After a restart records refer to a warcinfo record of their own process."""
    first = make_warc(tmp_path)
    first.open([])
    first.write([make_record()], [None])
    known = first.sync()
    second = make_warc(tmp_path)
    second.open(known)
    second.write([make_record("https://example.org/2")], [None])
    second.sync()
    second.committed()
    [closed] = second.close()
    records = read_warc(tmp_path / "warc" / closed.name)
    assert [record["warc-type"] for record in records] == ["warcinfo", "response", "request", "metadata"] * 2
    assert records[5]["warc-warcinfo-id"] == records[4]["warc-record-id"] != records[0]["warc-record-id"]


def test_a_truncated_file_gets_another_warcinfo_record(tmp_path: Path) -> None:
    """`reset` may remove the warcinfo record that later records would refer to."""
    first = make_warc(tmp_path)
    first.open([])
    first.write([make_record()], [None])
    known = first.sync()
    second = make_warc(tmp_path)
    second.open(known)
    for _ in range(2):
        second.reset()
        second.write([make_record("https://example.org/2")], [None])
    second.sync()
    second.committed()
    [closed] = second.close()
    records = read_warc(tmp_path / "warc" / closed.name)
    assert [record["warc-type"] for record in records] == ["warcinfo", "response", "request", "metadata"] * 2
    assert {record["warc-warcinfo-id"] for record in records[5:]} == {records[4]["warc-record-id"]}


def test_the_locations_of_a_thousand_visits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both readers find each response at its returned location; the checker accepts the file."""
    records = [make_record(f"https://example.org/{n}", b"page %d " % n * (n % 50)) for n in range(1_000)]
    path, places = store(tmp_path, records)
    assert Checker(Namespace(inputs=[str(path)], verbose=False)).process_all() == 0
    assert capsys.readouterr().out == ""
    with path.open("rb") as stream:
        for record, place in list(zip(records, places, strict=True))[::37]:
            stream.seek(place.offset)
            found = next(iter(ArchiveIterator(stream)))
            assert found.rec_type == "response"
            assert found.rec_headers.get_header("WARC-Target-URI") == record.task.url
            assert found.content_stream().read() == record.fetched.payload.prefix(10_000)
            stream.seek(place.offset)
            fast = next(iter(FastIterator(stream)))
            assert fast.record_type == WarcRecordType.response
            assert fast.headers["WARC-Target-URI"] == record.task.url
            assert fast.reader.read() == record.fetched.payload.prefix(10_000)
    with path.open("rb") as stream:
        offsets = [
            record.stream_pos for record in FastIterator(stream) if record.record_type == WarcRecordType.response
        ]
    assert offsets == [place.offset for place in places]


def test_each_record_is_a_gzip_member(tmp_path: Path) -> None:
    """At every offset that a reader reports begins a member with one whole record."""
    path, _ = store(tmp_path, [make_record(), make_record(payload=BIG)])
    data = path.read_bytes()
    with path.open("rb") as stream:
        starts = [record.stream_pos for record in FastIterator(stream, parse_http=False)]
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        record = gzip.decompress(data[start:end])
        assert record.startswith(b"WARC/1.1\r\n")
        assert record.count(b"WARC/1.1\r\n") == 1
        assert record.endswith(b"\r\n\r\n")


def test_a_large_body_is_never_in_memory_whole(tmp_path: Path) -> None:
    """It is read in chunks, once for the digest and once for the record."""

    class Watched(FaultyDisk):
        largest = 0

        def write(self, descriptor: int, data: memoryview) -> int:
            self.largest = max(self.largest, len(data))
            return super().write(descriptor, data)

    noise = make_record(payload=b"".join(n.to_bytes(4, "big") * 2 for n in range(2_000_000)), streamed=True)  # 16 MB
    body = noise.fetched.raw_body
    assert isinstance(body, ChunkedReads)
    disk = Watched()
    sink = make_warc(tmp_path, disk=disk)
    sink.open([])
    sink.write([noise], [None])
    [file] = sink.sync()
    assert (body.largest_prefix, body.passes) == (0, 2)
    assert file.committed_bytes > 2 * disk.largest


def test_large_and_spooled_bodies_are_not_buffered(tmp_path: Path) -> None:
    """They are read piece by piece, in the thread that may wait for the disk."""
    sink = make_warc(tmp_path)
    sink.open([])
    sink.write([make_record()], [None])
    assert sink.can_buffer(make_record())
    assert not sink.can_buffer(make_record(streamed=True))
    assert not sink.can_buffer(make_record(payload=bytes(STREAM_BYTES + 1)))


def test_a_truncated_body_is_marked(tmp_path: Path) -> None:
    """WARC-Truncated has the reason; a whole body has no such field."""
    assert one(tmp_path / "a", VISITS["truncated"])[0]["warc-truncated"] == "disconnect"
    assert "warc-truncated" not in one(tmp_path / "b", VISITS["small"])[0]


def test_a_304_to_a_conditional_request_is_a_revisit(tmp_path: Path) -> None:
    """It has the profile of WARC 1.1 §6.7.3 and the head as it came."""
    record = VISITS["not modified"]
    revisit = one(tmp_path, record)[0]
    assert revisit["warc-type"] == "revisit"
    assert revisit["warc-profile"] == "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
    assert revisit["warc-refers-to-target-uri"] == record.task.url
    assert revisit["block"] == record.fetched.raw_head
    assert "warc-payload-digest" not in revisit


def seen_before(record: Record, *, digest: str | None = None, visits: int = 1) -> Record:
    """The record of a revisit whose payload was captured a day before."""
    history = PageHistory(changed_at=record.fetched.started_at - 86_400)
    known = digest if digest is not None else record.payload_digest
    return replace(record, task=replace(record.task, visits=visits, digest=known, history=history))


def test_a_304_has_the_capture_time_of_the_content(tmp_path: Path) -> None:
    """If it is known."""
    record = seen_before(VISITS["not modified"])
    response = one(tmp_path / "first", replace(record, task=replace(record.task, digest=None)))[0]
    assert response["warc-refers-to-date"] < response["warc-date"]
    assert response["warc-refers-to-date"][11:] == response["warc-date"][11:]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_stored_payload_is_not_stored_again(tmp_path: Path, streamed: bool, chunked: bool) -> None:
    """WARC 1.1 §6.7.2: the head, the digest and a reference to the payload. Other readers accept it."""
    record = seen_before(make_record(payload=BIG if streamed else b"<p>hello", streamed=streamed, chunked=chunked))
    path, _ = store(tmp_path, [record])
    revisit = read_warc(path)[1]
    assert revisit["warc-type"] == "revisit"
    assert revisit["warc-profile"] == "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
    assert revisit["warc-refers-to-target-uri"] == record.task.url
    assert revisit["warc-refers-to-date"][11:] == revisit["warc-date"][11:]
    assert revisit["warc-payload-digest"] == record.payload_digest
    assert revisit["block"] == record.fetched.raw_head
    assert [block for _, block, _ in fast_digests(path)] == [True] * 4


@pytest.mark.parametrize(
    "record",
    [
        seen_before(make_record(payload=b"<p>hello"), digest="sha256:OTHER"),
        seen_before(make_record(payload=b"<p>hello"), visits=0),
        seen_before(make_record(payload=b"<p>hello", status_code=404)),
        seen_before(make_record(payload=b"<p>hello", truncated=TruncatedReason.LENGTH)),
        seen_before(make_record(payload=b"")),
    ],
    ids=["other", "first visit", "an error page", "half a page", "empty"],
)
def test_payloads_that_are_stored_again(tmp_path: Path, record: Record) -> None:
    """A payload of which no whole copy is known."""
    assert one(tmp_path, record)[0]["warc-type"] == "response"


def test_a_304_to_an_unconditional_request_is_a_response(tmp_path: Path) -> None:
    """Without a condition it refers to no earlier record."""
    assert one(tmp_path, make_record(payload=b"", status_code=304))[0]["warc-type"] == "response"


def test_secrets_are_masked_in_the_stored_request(tmp_path: Path) -> None:
    """Lengths and digests are of the masked request; the response's cookies are not masked."""
    request = b"GET / HTTP/1.1\r\nhost: example.org\r\nCookie: id=hunter2\r\naccept: */*\r\n\r\n"
    path, _ = store(tmp_path, [make_record(request=request)])
    [_, _, stored, _] = read_warc(path)
    assert stored["block"] == request.replace(b"id=hunter2", b"masked")
    assert stored["content-length"] == str(len(stored["block"]))
    assert b"hunter2" not in gzip.decompress(path.read_bytes())


def test_a_unicode_url_is_stored_as_utf_8(tmp_path: Path) -> None:
    """WARC headers are UTF-8 (WARC 1.1 §4)."""
    path, _ = store(tmp_path, [VISITS["unicode URL"]])
    assert "WARC-Target-URI: https://example.org/café/日本\r\n".encode() in gzip.decompress(path.read_bytes())
    assert response_in(path)["warc-target-uri"] == "https://example.org/café/日本"


def test_a_plain_connection_names_no_tls_version(tmp_path: Path) -> None:
    """WARC-Protocol is there only with TLS."""
    assert one(tmp_path / "tls", make_record())[0]["warc-protocol"] == "tls/1.3"
    assert "warc-protocol" not in one(tmp_path / "plain", make_record("http://example.org/", tls_version=None))[0]


# -- wARC records as bytes


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256))])
def test_digests_are_base_32_with_padding(data: bytes) -> None:
    """As base64.b32encode makes them."""
    digest = hashlib.sha256(data).digest()
    assert digest_text(digest) == "sha256:" + base64.b32encode(digest).decode()


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32, b"\x00" * 31 + b"\x01", b"\x80" + b"\x00" * 31])
def test_digests_keep_every_bit(digest: bytes) -> None:
    """The first and the last bit too."""
    assert base64.b32decode(digest_text(digest).removeprefix("sha256:")) == digest


def test_record_ids_are_distinct_version_4_uuids() -> None:
    """More of them than one call for random bytes makes."""
    asked = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    ids = RecordIds(random_bytes)
    taken = [ids.take() for _ in range(600)]
    assert len(set(taken)) == 600
    assert asked == [4096] * 3
    for text in taken:
        assert text[0] + text[-1] == "<>"
        parsed = uuid.UUID(text[1:-1].removeprefix("urn:uuid:"))
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert text == f"<urn:uuid:{parsed}>"


HEAD = b"GET /?cookie:x HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "stored"),
    [
        (HEAD + b"\r\n", HEAD + b"\r\n"),
        (HEAD + b"cookie: a=1; b=2\r\n\r\n", HEAD + b"cookie: masked\r\n\r\n"),
        (HEAD + b"Authorization: Basic eDp5\r\n\r\n", HEAD + b"Authorization: masked\r\n\r\n"),
        (
            HEAD + b"AUTHORIZATION:Bearer x\r\naccept: */*\r\n\r\n",
            HEAD + b"AUTHORIZATION: masked\r\naccept: */*\r\n\r\n",
        ),
        (HEAD + b"Proxy-Authorization: Basic eDp5\r\n\r\n", HEAD + b"Proxy-Authorization: masked\r\n\r\n"),
        (HEAD + b"cookie: a\r\ncookie: b\r\n\r\n", HEAD + b"cookie: masked\r\ncookie: masked\r\n\r\n"),
        (HEAD + b"x-cookie: a\r\ncookies: b\r\n\r\n", HEAD + b"x-cookie: a\r\ncookies: b\r\n\r\n"),
    ],
)
def test_secret_values_are_masked(request_bytes: bytes, stored: bytes) -> None:
    """In any case of the name; everything else stays as sent."""
    assert mask_request(request_bytes) == stored


def test_a_request_without_secrets_is_not_copied() -> None:
    """A request without them, which is usual, is returned as it is."""
    request = HEAD + b"\r\n"
    assert mask_request(request) is request


def test_a_configured_value_cannot_add_fields() -> None:
    """A line break in a user agent becomes a space."""
    record = warcinfo_record(
        [("http-header-user-agent", "me\r\nrobots: ignore")], record_id="<urn:x>", file_name="f", date="d"
    )
    assert record.split(b"\r\n\r\n")[1] == b"http-header-user-agent: me robots: ignore"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_795_424_400.0, "2026-11-23T09:00:00.000000Z"),
        (1_795_424_400.123456, "2026-11-23T09:00:00.123456Z"),
    ],
)
def test_dates_have_microseconds(at: float, text: str) -> None:
    """They have six digits and are UTC."""
    assert utc_text(at) == text
