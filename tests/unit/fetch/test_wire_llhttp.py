"""The responses of llhttp's test suite: what that strict parser accepts we accept, or a reason stands here."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.responses import read, single_bytes

FOLDER = Path(os.environ.get("VECTORS_DIR", "/nonexistent")) / "http"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="VECTORS_DIR has no http/ folder")
TITLE = re.compile(r"^#{1,3} (.+)$", re.MULTILINE)
META = re.compile(r"^<!-- meta=(\{.*\}) -->$", re.MULTILINE)
FENCED = re.compile(r"^```(http|log)\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "f": "\f"}


@dataclass(frozen=True)
class Vector:
    """`strict`: llhttp ran without any of its lenient flags. `body` is the first response's, as llhttp saw it."""

    name: str
    data: bytes
    strict: bool
    accepted: bool
    body: bytes


def unescaped(text: str) -> bytes:
    """The bytes of an http block: lines end with CR LF unless the line end is escaped (llhttp's md-test.ts)."""
    text = re.sub(r"\\\n", "", text).replace("\n", "\r\n")
    return re.sub(r"\\([rntf])", lambda match: ESCAPES[match[1]], text).encode()


def body_of(log: str) -> bytes:
    """The body spans of the first message that is not informational."""
    final = re.split(r"^off=\d+ headers complete status=(?!1)", log, maxsplit=1, flags=re.MULTILINE)[-1]
    first = re.split(r"^off=\d+ (?:message complete|reset)$", final, maxsplit=1, flags=re.MULTILINE)[0]
    words = {"cr": b"\r", "lf": b"\n"}
    spans = re.findall(r'^off=\d+ len=\d+ span\[body\]=(?:"(.*)"|(cr|lf))$', first, re.MULTILINE)
    return b"".join(words[word] if word else text.encode() for text, word in spans)


def load() -> list[Vector]:
    vectors = []
    for path in sorted(FOLDER.glob("*.md")):
        # "## title", prose, the meta comment, the http block, the log block; then the next
        for section in re.split(r"^(?=#{1,3} )", path.read_text(), flags=re.MULTILINE):
            title, meta_text, fenced = TITLE.search(section), META.search(section), dict(FENCED.findall(section))
            if title is None or meta_text is None:  # the file's own title
                continue
            meta = json.loads(meta_text[1])
            if "skipBody" in meta:  # the answer to HEAD, which we never send
                continue
            name = f"{path.stem.removeprefix('llhttp-')}: {title[1]}"
            strict = meta["type"] in ("response", "response-finish")
            accepted = " error code=" not in fenced["log"]
            vectors.append(Vector(name, unescaped(fenced["http"]), strict, accepted, body_of(fenced["log"])))
    return vectors


VECTORS = load()
NOT_HTTP = "OUTCOMES: another protocol is a protocol_error"
NOT_CHUNKED = "llhttp reads to the end of the stream (RFC 9112 §6.3); OUTCOMES: a coding we cannot undo is refused"
TOLERATED = "tolerable: tainted, and the connection never used again"
REFUSED_BY_US = {
    "sample: RTSP response": NOT_HTTP,
    "sample: ICE response": NOT_HTTP,
    "sample: HTTP version 0.9": NOT_HTTP,
    "transfer-encoding: `chunked` before other transfer-encoding": NOT_CHUNKED,
    "transfer-encoding: `chunkedchunked` transfer-encoding does not enable chunked enconding": NOT_CHUNKED,
}
READ_AS_CHUNKED = {  # and what came is not, so nothing of it is content (docs/decisions/0015)
    "transfer-encoding: multiple transfer-encoding where chunked is not the last one",
}
ACCEPTED_BY_US = {
    "connection: HTTP/1.1 with keep-alive disabled and 204 status": "the response stands, the bytes after it close",
    "connection: HTTP/1.1 with keep-alive disabled, content-length": "the response stands, the bytes after it close",
    "invalid: Only LFs present and no body": TOLERATED,
    "invalid: Only LFs present": TOLERATED,
    "sample: No carriage ret": TOLERATED,
    "sample: Spaces in header name": TOLERATED,
    "transfer-encoding: Trailing space on chunked body": TOLERATED,
    "transfer-encoding: No extension after semicolon": TOLERATED,
    "transfer-encoding: Unbalanced chunk extensions quoting": TOLERATED,
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_vector_gives_one_result_however_it_is_split(vector: Vector) -> None:
    """Whole or byte by byte, only RemoteProtocolError is raised."""
    whole = read([vector.data], eof=True)
    assert whole.independent_of_pieces() == read(single_bytes(vector.data), eof=True).independent_of_pieces()


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.strict], ids=lambda vector: vector.name)
def test_bodies_are_those_of_llhttp(vector: Vector) -> None:
    """The verdict and body of strict llhttp, or a reason above; the connection is never reused if llhttp refuses."""
    reading = read([vector.data], eof=True)
    accepted = reading.error is None and reading.head is not None
    assert (vector.accepted and not accepted) == (vector.name in REFUSED_BY_US)
    assert (accepted and not vector.accepted) == (vector.name in ACCEPTED_BY_US)
    if vector.accepted and accepted:
        assert reading.payload == (b"" if vector.name in READ_AS_CHUNKED else vector.body)
    if not vector.accepted:
        assert "reusable" not in reading.words


def test_every_vector_was_found() -> None:
    """The files have as many http blocks as were read, without the responses to HEAD."""
    blocks = sum(path.read_text().count("```http\n") for path in FOLDER.glob("*.md"))
    skipped = sum(path.read_text().count('"skipBody"') for path in FOLDER.glob("*.md"))
    assert len(VECTORS) == blocks - skipped
