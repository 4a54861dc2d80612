"""Responses as the web sends them: each is read whole, byte by byte and split at every position."""

import pytest

from crawler.core.enums import ErrorType, TruncatedReason
from crawler.core.models import Head
from crawler.fetch.http1.message import RemoteProtocolError
from crawler.fetch.http1.wire import ResponseReader
from crawler.fetch.spool import BodySink
from tests.support.response_cases import BY_NAME, CASES, CHUNKED, OK, SMALL, Case
from tests.support.responses import LIMITS, Reading, read, single_bytes, split_at, whole_by_h11


def check(case: Case, reading: Reading) -> None:
    ignored = {"tainted", "closes"} if reading.error is not None else set()
    assert frozenset(case.words.split()) == reading.words - ignored
    assert (reading.error is not None) == ("protocol_error" in case.words)
    if case.payload is None:
        assert reading.head is None
        assert reading.raw_body == b""
    else:
        assert reading.head is not None
        assert case.status == reading.head.status_code
        assert case.payload == reading.payload


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_response_is_read_the_same_however_its_bytes_are_split(case: Case) -> None:
    """Whole, byte by byte, in two at every position and, if short, in three: one result, that of the table."""
    whole = read([case.data], eof=case.eof, limits=case.limits)
    check(case, whole)
    expected = whole.independent_of_pieces()
    splits = [single_bytes(case.data)]
    splits += [split_at(case.data, place) for place in range(len(case.data) + 1)]
    if len(case.data) <= 45:
        splits += [split_at(case.data, a, b) for a in range(len(case.data)) for b in range(a + 1, len(case.data))]
    for pieces in splits:
        assert expected == read(pieces, eof=case.eof, limits=case.limits).independent_of_pieces()


def test_the_names_of_the_cases_are_unique() -> None:
    """The lists of differences below refer to cases by name."""
    assert len(CASES) == len(BY_NAME)


# Where h11 0.16 says otherwise, and why we keep to ours. "Refuses" includes waiting for ever and calling it cut.
NOT_AS_H11 = {
    "chunk extensions": "h11 refuses space before the semicolon; RFC 9112 §7.1.1 has it there as BWS, to be accepted",
    "chunked among empty elements": "h11 compares the whole value; RFC 9110 §5.6.1 bids us ignore empty elements",
    "end before the trailers' end": "h11 calls it cut; RFC 9112 §8: incomplete only without the last chunk",
    "end inside the trailers": "the same",
    "NUL in a chunk extension": "h11 reads past anything in an extension; no grammar allows it",
    "CR in a chunk extension": "the same; a bare CR makes the message invalid (RFC 9112 §2.2)",
    "bad length beside chunked": "h11 checks a length that Transfer-Encoding overrides; we taint (RFC 9112 §6.3)",
    "until close, cut off": "h11 is not told that the end was unclean (RFC 9112 §9.8)",
    "nine informational": "h11 has no cap on 1xx",
    "an empty line after 100": "h11 refuses; llhttp and browsers pass over it, so do we, tainted",
    "control character in a value": "h11 refuses; RFC 9110 §5.5 lets them stand, and they cannot move a boundary",
    "an empty line first": "h11 refuses; llhttp and browsers pass over it, so do we, tainted",
    "two empty lines first": "the same",
    **dict.fromkeys(
        (
            "chunked twice",
            "chunked twice in one field",
            "chunked twice beside a length",
            "chunked twice, and so coded",
            "identity and chunked",
            "chunked and identity",
            "coding empty",
            "coding identity",
            "coding identity until close",
            "space in a name",
            "no name",
            "no colon",
            "no colon, folded",
            "no colon, chunked",
            "name in latin-1",
            "name with a control character",
            "trailer not a field",
        ),
        "h11 refuses; browsers read it, so do we, tainted, where the body's end is beyond doubt",
    ),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.limits is LIMITS], ids=lambda case: case.name)
def test_h11_finds_the_same_complete_responses(case: Case) -> None:
    """h11 and we find the same status and payload, or both none, except for the cases of the list."""
    reading = read([case.data], eof=case.eof)
    whole = reading.error is None and not any(w == "incomplete" or w.startswith("cut:") for w in reading.words)
    ours = (reading.head.status_code, reading.payload) if whole and reading.head is not None else None
    assert (ours != whole_by_h11(case.data, case.eof)) == (case.name in NOT_AS_H11)


def test_the_list_of_differences_names_cases_that_exist() -> None:
    """Each reason is for an existing case."""
    assert set(NOT_AS_H11) <= set(BY_NAME)


def test_the_head_is_kept_raw_and_parsed() -> None:
    """Names in lower case, values without outer white space, folds as one space; the raw bytes are unchanged."""
    head = b"Empty:\r\nContent-Length: 1\r\n\r\n"
    head = b"HTTP/1.1 404 Not \xe9ound \r\nX-A:  one \r\n  two\t\r\n\tthree\r\nx-a: \xff:\r\n" + head
    reading = read([b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n\r\n" + head + b"x"])
    assert head == reading.raw_head
    assert reading.head == Head(
        404,
        "Not \xe9ound",
        "1.1",
        (("x-a", "one two three"), ("x-a", "\xff:"), ("empty", ""), ("content-length", "1")),
    )


def test_strict_and_tolerant_parsing_agree() -> None:
    """Both parsers of a head find the same status line and fields."""
    strict = b"HTTP/1.0 200 A  b\r\nA:\t b : c \r\nB:\r\n\r\n"
    tolerated = strict.replace(b"\r\n", b"\n")
    assert read([strict]).head == read([tolerated]).head == Head(200, "A  b", "1.0", (("a", "b : c"), ("b", "")))


def test_the_raw_body_keeps_the_chunks() -> None:
    """It has the chunk framing, extensions and trailers, and no byte that came after them."""
    body = b"5;a=b\r\nhello\r\n0\r\nDigest: x\r\n\r\n"
    reading = read([CHUNKED + body + b"HTTP"])
    assert (body, b"hello") == (reading.raw_body, reading.payload)
    assert not reading.one_object
    assert not read([CHUNKED + b"0\r\n\r\n"]).one_object


def test_a_read_may_have_any_number_of_size_lines() -> None:
    """More different size lines than one read remembers, and some of them twice."""
    sizes = [*range(16, 116), 16, 115]
    body = b"".join(b"%x\r\n%b\r\n" % (size, bytes(size)) for size in sizes)
    assert len(read([CHUNKED + body + b"0\r\n\r\n"]).payload) == sum(sizes)


def test_a_body_that_is_not_chunked_is_one_object_with_its_payload() -> None:
    """Without a transfer coding no byte is kept twice."""
    assert read([OK + b"Content-Length: 5\r\n\r\nhello"]).one_object


def test_bytes_before_a_fault_are_kept() -> None:
    """After a RemoteProtocolError the sink holds the chunks read so far and the bytes that were faulty."""
    reading = read([CHUNKED + b"5\r\nhello\r\n", b"3\r\nabcX\r\n"])
    assert reading.payload == b"helloabc"
    assert reading.raw_body == b"5\r\nhello\r\n3\r\nabcX\r\n"
    assert reading.error == r'no CR LF after a chunk but "X\r\n"'


@pytest.mark.parametrize(
    ("fields", "timeout_s", "limit"),
    [
        (b"Keep-Alive: timeout=5, max=100\r\n", 5.0, 100),
        (b"Keep-Alive: max=0\r\n", None, 0),
        (b"Keep-Alive: Timeout = 15\r\n", 15.0, None),
        (b'Keep-Alive: timeout="7"\r\nKeep-Alive: max=3\r\n', 7.0, 3),
        (b"Keep-Alive: 300\r\n", None, None),
        (b"Keep-Alive: timeout=\r\n", None, None),
        (b"Keep-Alive: timeout=-1, max=x\r\n", None, None),
        (b"Keep-Alive: timeout=99999999999999999999\r\n", None, None),
        (b"Keep-Alive: timeouts=5, xmax=4\r\n", None, None),
        (b"", None, None),
    ],
)
def test_keep_alive_hints_are_read(fields: bytes, timeout_s: float | None, limit: int | None) -> None:
    """timeout and max count if they are plain numbers; anything else is ignored."""
    assert read([OK + fields + b"Content-Length: 0\r\n\r\n"]).keep_alive == (timeout_s, limit)


def test_the_rest_of_a_body_cut_at_the_limit_is_not_extra() -> None:
    """It belongs to the body. A byte after a whole response is extra."""
    head = OK + b"Content-Length: 20\r\n\r\n"
    assert "extra" not in read([head + b"0123456789", b"abc"], limits=SMALL).words
    assert "extra" in read([OK + b"Content-Length: 1\r\n\r\nx", b"", b"y"], limits=SMALL).words


def test_an_end_of_stream_after_the_response_changes_nothing() -> None:
    """The response was complete; the connection handles the server's close."""
    assert read([OK + b"Content-Length: 1\r\n\r\nx"], eof=False).words == {"reusable"}


def test_a_body_over_the_limit_is_cut_and_no_error() -> None:
    """The response is complete as soon as no more of it is wanted."""
    reader = ResponseReader(SMALL, BodySink(1024))
    reader.feed(OK + b"Connection: close\r\nContent-Length: 11\r\n\r\n0123456789")
    assert (reader.complete, reader.truncated, reader.error_type) == (True, TruncatedReason.LENGTH, None)


def test_an_error_quotes_the_response() -> None:
    """The message quotes only the beginning of what the server sent."""
    reader = ResponseReader(LIMITS, BodySink(1024))
    with pytest.raises(RemoteProtocolError, match=r'^not an HTTP/1 response: begins with "<!doctype x{70}"$'):
        reader.feed(b"<!doctype " + b"x" * 70_000)
    assert reader.error_type is ErrorType.PROTOCOL_ERROR
