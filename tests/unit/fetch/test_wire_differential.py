"""Generated responses, to the letter and off it, read by us, by h11 and by httptools (llhttp): who differs, and why.

A response is put together from parts, each with a name; most are sound, some deviate. Where another parser accepts what
we refuse, refuses what we accept, or finds another payload, one of the parts must explain it: `WHY_H11` and
`WHY_HTTPTOOLS` list every part that does, with the reason, and a reason that explains nothing is stale and fails.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httptools
import pytest

from tests.support.responses import read, whole_by_h11

Verdict = tuple[int, bytes] | None  # status and payload of a whole response, or None: refused, or not found whole

BODY = b"hello world"
SIZED = f"Content-Length: {len(BODY)}\r\n".encode()
CODED = b"Transfer-Encoding: chunked\r\n"
IN_CHUNKS = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Part:
    """One choice for a part of a response. `value`: its bytes; `name`: empty for a valid, usual part."""

    name: str
    value: bytes


def parts(*sound: bytes, **deviating: bytes) -> list[Part]:
    return [Part("", each) for each in sound] + [Part(name.replace("_", " "), each) for name, each in deviating.items()]


STATUS_LINES = parts(
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 404 Not Found\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 299 \r\n",
    no_reason=b"HTTP/1.1 200\r\n",
    status_999=b"HTTP/1.1 999 No\r\n",
    latin_reason=b"HTTP/1.1 200 Pass\xe9\r\n",
    version_1_2=b"HTTP/1.2 200 OK\r\n",
    version_2_0=b"HTTP/2.0 200 OK\r\n",
    version_0_9=b"HTTP/0.9 200 OK\r\n",
    two_spaces=b"HTTP/1.1  200 OK\r\n",
    lower_case=b"http/1.1 200 OK\r\n",
    status_of_two_digits=b"HTTP/1.1 20 OK\r\n",
    status_of_four_digits=b"HTTP/1.1 2000 OK\r\n",
    bare_LF_after_the_status=b"HTTP/1.1 200 OK\n",
    empty_line_first=b"\r\nHTTP/1.1 200 OK\r\n",
    ICY=b"ICY 200 OK\r\n",
    continue_first=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    nine_hints_first=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + b"HTTP/1.1 200 OK\r\n",
)
FIELDS = parts(
    b"",
    b"Server: x\r\nX-Empty:\r\n",
    b"X-Tab:\ta\tb\t\r\n",
    b"X-Latin: \xe9\r\n",
    folded=b"X-A: b\r\n c\r\n",
    fold_first=b" X-A: b\r\n",
    bare_LF_after_a_field=b"X-A: b\n",
    space_before_the_colon=b"X-A : b\r\n",
    space_in_a_name=b"X A: b\r\n",
    no_colon=b"X-A\r\n",
    no_name=b": b\r\n",
    latin_name=b"X-\xe9: b\r\n",
    NUL_in_a_value=b"X-A: b\x00c\r\n",
    control_in_a_value=b"X-A: b\x01c\r\n",
    CR_in_a_value=b"X-A: b\rc\r\n",
)
FRAMINGS = parts(
    SIZED + b"\r\n" + BODY,
    CODED + b"\r\n" + IN_CHUNKS,
    CODED + b"\r\nb;a=b\r\nhello world\r\n0\r\nDigest: x\r\n\r\n",
    SIZED + b"Connection: close\r\n\r\n" + BODY,
    length_twice=SIZED + SIZED + b"\r\n" + BODY,
    length_twice_in_one_field=b"Content-Length: 11, 11\r\n\r\n" + BODY,
    lengths_differ=SIZED + b"Content-Length: 12\r\n\r\n" + BODY,
    length_with_a_plus=b"Content-Length: +11\r\n\r\n" + BODY,
    length_negative=b"Content-Length: -1\r\n\r\n" + BODY,
    length_empty=b"Content-Length:\r\n\r\n" + BODY,
    length_of_40_digits=b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    length_hexadecimal=b"Content-Length: 0xb\r\n\r\n" + BODY,
    length_and_chunked=SIZED + CODED + b"\r\n" + IN_CHUNKS,
    coding_unknown=b"Transfer-Encoding: gzip\r\n\r\n" + IN_CHUNKS,
    chunked_not_last=b"Transfer-Encoding: chunked, gzip\r\n\r\n" + IN_CHUNKS,
    chunked_behind_gzip=b"Transfer-Encoding: gzip, chunked\r\n\r\n" + IN_CHUNKS,
    chunked_twice=CODED + CODED + b"\r\n" + IN_CHUNKS,
    chunked_in_an_empty_list=b"Transfer-Encoding: , chunked\r\n\r\n" + IN_CHUNKS,
    too_little=b"Content-Length: 12\r\n\r\n" + BODY,
    too_much=b"Content-Length: 10\r\n\r\n" + BODY,
    no_last_chunk=CODED + b"\r\n5\r\nhello\r\n",
    no_end_of_trailers=CODED + b"\r\n5\r\nhello\r\n0\r\n",
    chunk_without_CR_LF=CODED + b"\r\n5\r\nhelloX\r\n0\r\n\r\n",
    chunk_ended_by_LF=CODED + b"\r\n5\nhello\r\n0\r\n\r\n",
    chunk_size_padded=CODED + b"\r\n5  \r\nhello\r\n0\r\n\r\n",
    chunk_size_negative=CODED + b"\r\n-5\r\nhello\r\n0\r\n\r\n",
    chunk_size_with_0x=CODED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    chunk_size_of_17_digits=CODED + b"\r\n00000000000000005\r\nhello\r\n0\r\n\r\n",
    chunk_extension_spaced=CODED + b"\r\n5 ; a = b\r\nhello\r\n0\r\n\r\n",
    chunk_extension_empty=CODED + b"\r\n5;\r\nhello\r\n0\r\n\r\n",
    chunk_extension_with_NUL=CODED + b"\r\n5;\x00\r\nhello\r\n0\r\n\r\n",
    trailer_folded=CODED + b"\r\n5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    trailer_not_a_field=CODED + b"\r\n5\r\nhello\r\n0\r\nA\r\n\r\n",
    bytes_after_the_chunks=CODED + b"\r\n" + IN_CHUNKS + b"HTTP/1.1 200 OK\r\n",
    until_close=b"\r\n" + BODY,
    bare_LF_for_the_empty_line=SIZED + b"\n" + BODY,
)


class _Collector:
    def __init__(self) -> None:
        self.body = bytearray()
        self.status = 0
        self.is_whole = False
        self.parser: httptools.HttpResponseParser | None = None

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if not self.is_whole:
            self.body += data

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.is_whole = True


def by_httptools(data: bytes) -> Verdict:
    """What llhttp finds before the stream ends. A body that ends with the stream is incomplete."""
    collector = _Collector()
    collector.parser = parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        if not collector.is_whole:  # what is wrong behind a whole response is not the response's fault
            return None
    return (collector.status, bytes(collector.body)) if collector.is_whole else None


def by_h11(data: bytes) -> Verdict:
    return whole_by_h11(data, True)


def by_us(data: bytes) -> Verdict:
    """A complete response, framed strictly or not; a cut or refused one is None."""
    reading = read([data], eof=True)
    if reading.error is not None or reading.head is None or any(word.startswith("cut:") for word in reading.words):
        return None
    return reading.head.status_code, reading.payload


STRICTER = "refused there; tolerated here on a connection that is not used again (tainted), as browsers do"
AS_BROWSERS = (
    "refused there; browsers ignore the line or the second coding, and the body's end is beyond doubt (tainted)"
)
WHY_H11 = {
    "space in a name": AS_BROWSERS,
    "no colon": AS_BROWSERS,
    "no name": AS_BROWSERS,
    "latin name": AS_BROWSERS,
    "chunked twice": AS_BROWSERS,
    "trailer not a field": AS_BROWSERS,
    "version 2 0": "h11 takes any digits for a version; what is no HTTP/1 is read by no rule of HTTP/1 (RFC 9112 §2.3)",
    "version 0 9": "the same",
    "empty line first": STRICTER,
    "nine hints first": "h11 and llhttp have no cap on 1xx",
    "chunked in an empty list": "h11 compares the whole value; RFC 9110 §5.6.1 bids us ignore empty elements",
    "no end of trailers": "h11 calls it cut; RFC 9112 §8: it is incomplete only without the last chunk (tainted here)",
    "chunk size of 17 digits": "a size may have any number of leading zeros; 16 digits are enough for 2^64 and a cap",
    "chunk extension spaced": "h11 refuses space before the semicolon; RFC 9112 §7.1.1 has it there as BWS",
    "chunk extension with NUL": "h11 reads past anything in an extension; no grammar allows it",
}
WHY_HTTPTOOLS = {
    "space in a name": AS_BROWSERS,
    "no colon": AS_BROWSERS,
    "no name": AS_BROWSERS,
    "latin name": AS_BROWSERS,
    "trailer not a field": AS_BROWSERS,
    "version 1 2": "llhttp knows 1.0 and 1.1 only; RFC 9110 §2.5 bids us read a higher minor version as 1.1",
    "version 2 0": "llhttp takes 0.9 and 2.0 for versions of HTTP/1; see above",
    "version 0 9": "the same",
    "bare LF after the status": STRICTER,
    "bare LF after a field": STRICTER,
    "bare LF for the empty line": STRICTER,
    "folded": STRICTER,
    "control in a value": "refused there; RFC 9110 §5.5 lets them stand, and they cannot move a boundary (tainted)",
    "nine hints first": "h11 and llhttp have no cap on 1xx",
    "length twice": "llhttp refuses; RFC 9110 §8.6 lets one number said twice be one number",
    "length twice in one field": "the same",
    "length and chunked": "llhttp refuses; RFC 9112 §6.3: chunked wins (tainted here, and closed)",
    "chunked behind gzip": "llhttp leaves gzip on the payload; we never send TE, so nobody may send it (RFC 9112 §7.4)",
    "no end of trailers": "llhttp waits for the end; RFC 9112 §8: it is incomplete only without the last chunk",
    "chunk size padded": STRICTER,
    "chunk size of 17 digits": "a size may have any number of leading zeros; 16 digits are enough for 2^64 and a cap",
    "chunk extension spaced": "llhttp refuses space around an extension; RFC 9112 §7.1.1 has it there as BWS",
    "chunk extension empty": STRICTER,
    "trailer folded": STRICTER,
    "until close": "llhttp is not told that the stream ended (httptools has no call for it); we and h11 are",
}


def generated(count: int, seed: int) -> list[tuple[tuple[str, ...], bytes]]:
    """Responses with the names of their unusual parts: each part alone, then random combinations."""
    rng = random.Random(seed)
    places = (STATUS_LINES, FIELDS, FRAMINGS)
    usual = tuple(choices[0] for choices in places)
    made = [(*usual[:n], part, *usual[n + 1 :]) for n, choices in enumerate(places) for part in choices]
    made += [tuple(rng.choice(choices) for choices in places) for _ in range(count)]
    return [
        (tuple(part.name for part in response if part.name), b"".join(part.value for part in response))
        for response in made
    ]


def differences(other: Callable[[bytes], Verdict], why: dict[str, str], count: int) -> Counter[str]:
    """Assert that a part explains each difference. Returns how often each reason was needed alone."""
    needed: Counter[str] = Counter()
    for names, data in generated(count, 7):
        ours, theirs = by_us(data), other(data)
        if ours == theirs:
            continue
        explained = [name for name in names if name in why]
        assert explained, f"not listed: {names or 'a sound response'}: ours {ours}, theirs {theirs}: {data!r}"
        if len(names) == 1:
            needed[names[0]] += 1
    return needed


@pytest.mark.parametrize(("other", "why"), [(by_h11, WHY_H11), (by_httptools, WHY_HTTPTOOLS)], ids=["h11", "httptools"])
def test_every_disagreement_is_listed_and_justified(other: Callable[[bytes], Verdict], why: dict[str, str]) -> None:
    """For thousands of responses there is no difference without a reason, and no reason without a difference."""
    needed = differences(other, why, 4_000)
    assert set(needed) == set(why)


def test_all_parsers_find_the_same_payload() -> None:
    """If all three find a complete response, it is the same one: no server can make us read another."""
    for names, data in generated(4_000, 11):
        found = {verdict for verdict in (by_us(data), by_h11(data), by_httptools(data)) if verdict is not None}
        assert len(found) <= 1, (names, data, found)
