"""Responses made at random: what was put in comes out, however the bytes are split, and h11 agrees."""

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.responses import read, single_bytes, split_at, whole_by_h11

TOKEN = st.text("abcxyzABC019-_!#$%&'*+.^`|~", min_size=1, max_size=12).map(lambda name: f"X-{name}")
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30).map(
    lambda value: value.strip(" \t")
)
SPACE = st.sampled_from(["", " ", "\t", "  "])
MANY = settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Made:
    """A response and its parts."""

    data: bytes
    raw_head: bytes
    raw_body: bytes
    payload: bytes
    status: int
    fields: tuple[tuple[str, str], ...]
    eof: bool | None
    persistent: bool


@st.composite
def chunked(draw: st.DrawFn, payload: bytes) -> bytes:
    """`payload` in chunks of random size, with or without extensions and trailers."""
    places = draw(st.lists(st.integers(0, len(payload)), max_size=6))
    out = bytearray()
    for piece in split_at(payload, *places):
        if piece:
            size = format(len(piece), draw(st.sampled_from(["x", "X", "04x"]))).encode()
            extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b;\\" c"', b";a;b=c"]))
            out += size + extension + b"\r\n" + piece + b"\r\n"
    trailers = draw(st.sampled_from([b"", b"Digest: x\r\n", b"A:\r\nB: c\r\n"]))
    return bytes(out) + b"0\r\n" + trailers + b"\r\n"


@st.composite
def responses(draw: st.DrawFn) -> Made:
    """A strictly valid response (RFC 9112), perhaps after informational ones."""
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    status = draw(st.one_of(st.sampled_from([200, 204, 304]), st.integers(200, 599)))
    fields = draw(st.lists(st.tuples(TOKEN, VALUE), max_size=6))
    connection = draw(st.sampled_from([None, "close", "keep-alive", "Keep-Alive, foo"]))
    if connection is not None:
        fields.append(("Connection", connection))
    payload = b"" if status in (204, 304) else draw(st.binary(max_size=200))
    framings = ["length", "close"] if version == "1.0" else ["length", "close", "chunked"]
    framing = "none" if status in (204, 304) else draw(st.sampled_from(framings))
    raw_body = payload
    if framing == "length":
        fields.insert(draw(st.integers(0, len(fields))), ("Content-Length", str(len(payload))))
    elif framing == "chunked":
        fields.insert(draw(st.integers(0, len(fields))), ("Transfer-Encoding", "chunked"))
        raw_body = draw(chunked(payload))
    lines = [f"HTTP/{version} {status} {draw(VALUE)}"]
    lines += [f"{name}:{draw(SPACE)}{value}{draw(SPACE)}" for name, value in fields]
    raw_head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    before = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 x\r\nLink: y\r\n\r\n" * 2]))
    said = (connection or "").lower()
    return Made(
        data=before + raw_head + raw_body,
        raw_head=raw_head,
        raw_body=raw_body,
        payload=payload,
        status=status,
        fields=tuple((name.lower(), value) for name, value in fields),
        eof=True if framing == "close" else None,
        persistent=framing != "close" and said != "close" and (version == "1.1" or said.startswith("keep-alive")),
    )


@MANY
@given(made=responses(), data=st.data())
def test_a_generated_response_is_read_back_however_it_is_split(made: Made, data: st.DataObject) -> None:
    """Head, raw bytes, payload and persistence are those of the generated response."""
    whole = read([made.data], eof=made.eof)
    assert whole.error is None
    assert whole.head is not None
    assert (made.status, made.fields) == (whole.head.status_code, whole.head.fields)
    assert (made.raw_head, made.raw_body, made.payload) == (whole.raw_head, whole.raw_body, whole.payload)
    assert whole.words == ({"reusable"} if made.persistent else {"closes"})
    places = data.draw(st.lists(st.integers(0, len(made.data)), max_size=12))
    assert whole == read(split_at(made.data, *places), eof=made.eof) == read(single_bytes(made.data), eof=made.eof)


@MANY
@given(made=responses())
def test_h11_reads_the_same(made: Made) -> None:
    """h11 finds the same status and payload of a strictly valid response."""
    assert whole_by_h11(made.data, made.eof) == (made.status, made.payload)


@MANY
@given(made=responses(), data=st.data())
def test_a_cut_response_is_never_complete(made: Made, data: st.DataObject) -> None:
    """Cut at any byte of a body with a known end: the connection is not reused, and the response is marked."""
    cut = data.draw(st.integers(0, len(made.data) - 1))
    reading = read([made.data[:cut]], eof=False)
    assert "reusable" not in reading.words
    assert "cut:disconnect" in reading.words or reading.payload == made.payload


@MANY
@given(
    made=responses(),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 2), st.binary(max_size=3)), min_size=1, max_size=4),
    data=st.data(),
)
def test_damaged_bytes_give_one_result_however_they_are_split(
    made: Made, edits: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    """Replaced, dropped and inserted bytes: only RemoteProtocolError is raised, and no split changes the result."""
    damaged = made.data
    for place, dropped, inserted in edits:
        at = place % (len(damaged) + 1)
        damaged = damaged[:at] + inserted + damaged[at + dropped :]
    whole = read([damaged], eof=True).independent_of_pieces()
    places = data.draw(st.lists(st.integers(0, len(damaged)), max_size=8))
    assert whole == read(split_at(damaged, *places), eof=True).independent_of_pieces()
    assert whole == read(single_bytes(damaged), eof=True).independent_of_pieces()
