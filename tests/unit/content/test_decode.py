"""Content codings: the decoded bytes, and that no bytes make it raise or use much memory."""

import gzip
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.decode import MAX_LAYERS, Decoded, decode
from crawler.core.body import BytesBody
from crawler.core.enums import CodingFault

MIB = 1024 * 1024
STEPS = [None, 1, 7, 300, 70_000]  # how a body is cut
PAGE = b"<!DOCTYPE html><title>codings</title>" + b"".join(b"<p>line %d of it</p>" % n for n in range(3000))


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", lambda data: brotli.compress(data, quality=5)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd, checked, size unknown": (
        "zstd",
        lambda data: (lambda coder: coder.compress(data) + coder.flush())(
            zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compressobj()
        ),
    ),
}


class Chunked:
    """A body in pieces of one size, like a spool file."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step

    @property
    def size(self) -> int:
        return len(self._data)

    def prefix(self, limit: int) -> bytes:
        return self._data[:limit]

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), self._step):
            yield self._data[start : start + self._step]


def run(data: bytes, *codings: str, step: int | None = None, keep: int = 2 * MIB, **limits: int) -> Decoded:
    body = BytesBody(data) if step is None else Chunked(data, step)
    return decode(body, codings, **{"keep": keep, "max_decoded": 256 * MIB, "max_expansion": 100, **limits})


@pytest.mark.parametrize("step", [None, 1, 7, 70_000])
@pytest.mark.parametrize("coder", CODERS)
def test_every_coding_is_removed(coder: str, step: int | None) -> None:
    """A coded page decodes to the page, however it is cut."""
    name, encode = CODERS[coder]
    assert Decoded(PAGE, len(PAGE)) == run(encode(PAGE), name, step=step)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.binary(max_size=3000), st.lists(st.sampled_from(sorted(CODERS)), min_size=1, max_size=5), st.integers(1, 5000)
)
def test_layers_of_codings_are_removed(data: bytes, coders: list[str], step: int) -> None:
    """A body that was coded several times is decoded as often, from the last coding to the first."""
    coded = data
    for coder in coders:
        coded = CODERS[coder][1](coded)
    assert Decoded(data, len(data)) == run(coded, *(CODERS[coder][0] for coder in coders), step=step)


def test_an_uncoded_body_is_not_copied() -> None:
    """Without a coding the stored bytes are returned."""
    data = bytes(1000)
    assert run(data).data is data
    assert run(data, "identity", " ").data is data
    assert Decoded(data[:10], 1000) == run(data, keep=10)


@pytest.mark.parametrize("value", ["gzip, GZIP", " gzip ,identity, gzip,"])
def test_codings_are_read_from_a_list(value: str) -> None:
    """One field may name several codings, in any case."""
    assert run(gzip.compress(gzip.compress(PAGE)), value).data == PAGE


def test_all_members_of_a_gzip_file_count() -> None:
    """Members in a row are one text."""
    coded = gzip.compress(PAGE) + gzip.compress(b"second")
    for step in STEPS:
        assert Decoded(PAGE + b"second", len(PAGE) + 6) == run(coded, "gzip", step=step)


@pytest.mark.parametrize("flags", range(32))
def test_a_gzip_header_may_have_any_of_its_parts(flags: int) -> None:
    """Extra field, name, comment and header checksum, cut anywhere (RFC 1952 §2.3)."""
    header = b"\x1f\x8b\x08" + bytes((flags,)) + b"\0\0\0\0\0\x03"
    header += (6).to_bytes(2, "little") + b"AP\2\0xy" if flags & 4 else b""
    header += b"name.html\0" if flags & 8 else b""
    header += b"a comment\0" if flags & 16 else b""
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
    coded = header + gzip.compress(PAGE, mtime=0)[10:]
    for step in (None, *range(1, len(header) + 3)):
        assert run(coded * 2, "gzip", step=step) == Decoded(PAGE * 2, 2 * len(PAGE)), step
        assert run(header[:-1], "gzip", step=step) == Decoded(b"", 0, CodingFault.TRUNCATED, error="gzip ends early")
    unknown = coded[:3] + bytes((flags | 0x40,)) + coded[4:]
    assert (
        run(unknown, "gzip")
        == run(unknown, "gzip", step=3)
        == Decoded(unknown, len(unknown), CodingFault.NOT_CODED, error="not gzip")
    )


def test_a_gzip_header_without_an_end_is_refused() -> None:
    """Its name is read up to a limit."""
    beginning = b"\x1f\x8b\x08\x08" + b"n" * 90_000
    for endless in (beginning * 3, beginning + gzip.compress(PAGE)[9:]):
        for step in (None, 300, 70_000):
            assert run(endless, "gzip", step=step).fault is CodingFault.NOT_CODED


SKIPPABLE = b"\x5a\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + bytes(range(250)) * 280


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("has_size", [False, True])
def test_all_frames_of_a_zstd_stream_count(checksum: bool, has_size: bool) -> None:
    """Frames in a row are one text, without skippable frames, wherever those are."""
    encode = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=has_size).compress
    frames = (
        SKIPPABLE,
        encode(PAGE),
        encode(b""),
        SKIPPABLE[:4] + bytes(4),
        encode(b"second"),
        encode(b"x" * 300_000),
        SKIPPABLE,
    )
    text = PAGE + b"second" + b"x" * 300_000
    for step in STEPS:
        assert Decoded(text, len(text)) == run(b"".join(frames), "zstd", step=step), step
    assert Decoded(b"", 0) == run(SKIPPABLE, "zstd")


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("trailing", [b"\r\n", b"\0", b"\0" * 100_000, b"<p>more</p>" * 20, b"\x1f\x8b"])
def test_bytes_after_the_end_are_ignored_and_reported(coder: str, trailing: bytes) -> None:
    """As in browsers, however the body is cut."""
    name, encode = CODERS[coder]
    for step in STEPS:
        found = run(encode(PAGE) + trailing, name, step=step)
        if found.fault is CodingFault.TRUNCATED:  # the beginning of another member
            assert (trailing, found.data) == (b"\x1f\x8b", PAGE)
            continue
        assert found == Decoded(PAGE, len(PAGE), CodingFault.TRAILING, error=f"more bytes behind the end of {name}")


@pytest.mark.parametrize("coder", ["gzip", "zlib", "zstd, checked, size unknown"])
def test_a_wrong_checksum_loses_no_text(coder: str) -> None:
    """All text is kept, and the fault is reported."""
    name, encode = CODERS[coder]
    coded = bytearray(encode(PAGE))
    coded[-5 if coder == "gzip" else -2] ^= 0x10
    for step in STEPS:
        found = run(bytes(coded), name, step=step)
        assert (found.data == PAGE, found.fault) == (True, CodingFault.DAMAGED), step


@pytest.mark.parametrize("coder", CODERS)
def test_a_cut_coding_keeps_its_beginning(coder: str) -> None:
    """If the coding ends early, the bytes before are kept and the fault is reported."""
    name, encode = CODERS[coder]
    text = random.Random(1).randbytes(400_000).hex().encode()  # long enough for several blocks of every coding
    coded = encode(text)
    found = run(coded[: len(coded) * 2 // 3], name)
    assert (found.fault, found.bomb) == (CodingFault.TRUNCATED, False)
    assert text.startswith(found.data)
    assert found.size == len(found.data) > 100_000
    assert found.error is not None


@pytest.mark.parametrize("coder", ["gzip", "zlib"])  # a bare stream has no checksum: damage may go unseen
def test_a_damaged_coding_keeps_what_came_before(coder: str) -> None:
    """The text before a damaged byte is kept, although the library returns nothing for that call."""
    name, encode = CODERS[coder]
    text = random.Random(2).randbytes(20_000).hex().encode()
    coded = bytearray(encode(text))
    middle = len(coded) // 2
    coded[middle : middle + 40] = b"\xff" * 40
    found = run(bytes(coded), name)
    assert found.fault is CodingFault.DAMAGED
    assert text[:15_000] == found.data[:15_000]


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("raw", [PAGE, b"{}", b"<", b"\x89PNG\r\n\x1a\n" + bytes(300), "schön".encode() * 40])
def test_a_wrong_content_encoding_loses_nothing(name: str, raw: bytes) -> None:
    """A body that is not coded as its header says is kept as it came, and the fault is reported."""
    found = run(raw, name)
    if (
        found.fault is not CodingFault.TRUNCATED
    ):  # what begins like a stream of the coding cannot be told from a cut one
        assert (raw, len(raw), CodingFault.NOT_CODED) == (found.data, found.size, found.fault)
    assert raw != PAGE or found.fault is CodingFault.NOT_CODED


def test_only_the_missing_layer_is_passed_through() -> None:
    """If the header names two codings and the body has one, that one is removed."""
    found = run(gzip.compress(PAGE), "gzip, gzip")
    assert (found.data, found.fault) == (PAGE, CodingFault.NOT_CODED)


@pytest.mark.parametrize(
    ("codings", "error"),
    [
        (["utf-8"], "unknown content coding: utf-8"),
        (["gzip", "aws-chunked"], "unknown content coding: aws-chunked"),
        (["gzip"] * (MAX_LAYERS + 1), "more than 5 content codings"),
        (["gzip, gzip, gzip", "gzip, gzip, gzip"], "more than 5 content codings"),
    ],
)
def test_undecoded_bodies_are_kept_raw(codings: list[str], error: str) -> None:
    """With an unknown coding or too many codings the bytes stay as they are, with the reason."""
    assert Decoded(b"raw", 3, CodingFault.UNKNOWN, error=error) == run(b"raw", *codings)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_an_empty_body_is_no_fault(name: str) -> None:
    """An empty body cannot be coded wrongly."""
    assert Decoded(b"", 0) == run(b"", name)


def test_all_decoded_bytes_are_counted() -> None:
    """Only `keep` bytes are returned; the size is that of the whole."""
    assert Decoded(PAGE[:100], len(PAGE)) == run(gzip.compress(PAGE), "gzip", keep=100)


def bombs() -> dict[str, tuple[bytes, str]]:
    zeros = bytes(32 * MIB)
    coder = zstandard.ZstdCompressor().compressobj()
    return {
        "gzip": (gzip.compress(zeros), "gzip"),
        "gzip of gzip": (gzip.compress(gzip.compress(zeros)), "gzip, gzip"),
        "deflate": (zlib.compress(zeros), "deflate"),
        "br": (brotli.compress(zeros, quality=1), "br"),
        "zstd": (coder.compress(zeros) + coder.flush(), "zstd"),
        "zstd of br": (zstandard.ZstdCompressor().compress(brotli.compress(zeros, quality=1)), "br, zstd"),
    }


def test_bombs_stop_early_in_little_memory() -> None:
    """32 MiB of zeros in a few bytes end at a limit, in a few MiB of memory, at every layer."""
    for name, (coded, codings) in bombs().items():
        tracemalloc.start()
        found = run(coded, codings, keep=1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.bomb, name
        assert found.size <= max(MIB, 100 * len(coded)), name
        assert peak < 4 * MIB, (name, peak)
        assert "more than" in (found.error or ""), name


def test_the_ratio_is_not_checked_up_to_a_mebibyte() -> None:
    """A small page of one letter is no bomb; max_decoded holds at any ratio."""
    assert not run(gzip.compress(bytes(MIB)), "gzip").bomb
    assert run(gzip.compress(bytes(MIB + 1)), "gzip").bomb
    noise = os.urandom(3000)
    assert run(gzip.compress(noise), "gzip", max_decoded=2999).bomb
    assert not run(gzip.compress(noise), "gzip", max_decoded=3000).bomb


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    """A frame that needs more memory than RFC 9659 allows is kept as it came."""
    options = zstandard.ZstdCompressionParameters(window_log=24)
    coder = zstandard.ZstdCompressor(compression_params=options).compressobj()
    coded = coder.compress(PAGE) + coder.flush()
    found = run(coded, "zstd")
    assert (coded, CodingFault.NOT_CODED) == (found.data, found.fault)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.sampled_from(sorted(CODERS)),
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.booleans(),
)
def test_damage_never_raises(coder: str, data: bytes, changes: list[tuple[int, int]], is_coded: bool) -> None:
    """For any bytes and header there is a result, of at most the requested size."""
    name, encode = CODERS[coder]
    coded = bytearray(encode(data) if is_coded else data)
    for position, byte in changes:
        if position < len(coded):
            coded[position] = byte
    found = run(bytes(coded), name, keep=50)
    assert len(found.data) <= 50
    assert found.size >= len(found.data)


def damaged(coded: bytes, rng: random.Random) -> bytes:
    """The same with one fault: cut, extended, changed, with bytes missing or inserted."""
    place = rng.randrange(len(coded) + 1)
    match rng.randrange(6):
        case 0:
            return coded[:place]
        case 1:
            return coded + rng.choice(
                [b"\r\n", b"\0" * rng.randrange(1, 400), rng.randbytes(30), coded[: rng.randrange(1, 9)]]
            )
        case 2:
            return coded[:place] + rng.randbytes(rng.randrange(1, 5)) + coded[place:]
        case 3:
            return coded[:place] + coded[place + rng.randrange(1, 300) :]
        case 4 if coded:
            place = rng.choice([rng.randrange(len(coded)), max(0, len(coded) - rng.randrange(1, 12))])
            return coded[:place] + bytes((coded[place] ^ 1 << rng.randrange(8),)) + coded[place + 1 :]
        case _:
            return coded


def once_coded(text: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Coded once, in one member or several."""
    name, encode = CODERS[rng.choice(sorted(CODERS))]
    members = rng.randrange(1, 4) if name in ("gzip", "x-gzip", "zstd") else 1
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(members - 1))
    parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    between = rng.choice([b"", SKIPPABLE[:4] + b"\3\0\0\0abc"]) if name == "zstd" else b""
    return name, between.join([b"", *map(encode, parts)]) if between else b"".join(map(encode, parts))


@pytest.mark.parametrize("seed", range(150))
def test_the_result_depends_on_the_bytes_alone(seed: int) -> None:
    """With up to three codings, valid or damaged at any layer: the same text and fault however the body is
    cut; of one that is damaged, all that comes out byte by byte.
    """
    rng = random.Random(seed)
    text = rng.randbytes(rng.choice([0, 5, 400, 5_000, 90_000]))
    text = text.hex().encode() if rng.random() < 0.7 else text
    names, coded = [], text
    for _ in range(rng.choice([1, 1, 2, 3])):
        name, coded = once_coded(coded, rng)
        names.append(name)
        if rng.random() < 0.5:
            coded = damaged(coded, rng)
    expected = run(coded, *names)
    steps = [1, 2, rng.randrange(3, 40), rng.randrange(40, 900), len(coded) // 2 + 1, max(1, len(coded) - 2)]
    for step in steps if len(coded) < 60_000 else steps[2:]:
        assert run(coded, *names, step=step) == expected, (names, step)
    assert (expected.fault is None) == (expected.error is None)
