"""Content codings: what comes out, and that nothing a server sends makes it raise or grow."""

import gzip
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.decode import MAX_LAYERS, Decoded, decode
from crawler.core.body import BytesBody

MIB = 1024 * 1024
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
    """A body that comes in pieces of one size, as a spool file does."""

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
def test_every_coding_comes_off(coder: str, step: int | None) -> None:
    """A coded page decodes to itself, however it is cut."""
    name, encode = CODERS[coder]
    assert Decoded(PAGE, len(PAGE)) == run(encode(PAGE), name, step=step)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.binary(max_size=3000), st.lists(st.sampled_from(sorted(CODERS)), min_size=1, max_size=5), st.integers(1, 5000)
)
def test_codings_come_off_in_layers(data: bytes, coders: list[str], step: int) -> None:
    """What was coded several times is decoded as often, from the last coding to the first."""
    coded = data
    for coder in coders:
        coded = CODERS[coder][1](coded)
    assert Decoded(data, len(data)) == run(coded, *(CODERS[coder][0] for coder in coders), step=step)


def test_an_uncoded_body_is_not_copied() -> None:
    """Without a coding the stored bytes themselves come back."""
    data = bytes(1000)
    assert run(data).data is data
    assert run(data, "identity", " ").data is data
    assert Decoded(data[:10], 1000) == run(data, keep=10)


@pytest.mark.parametrize("value", ["gzip, GZIP", " gzip ,identity, gzip,"])
def test_codings_are_read_from_a_list(value: str) -> None:
    """One field may name several codings, in any case."""
    assert run(gzip.compress(gzip.compress(PAGE)), value).data == PAGE


def test_all_members_of_a_gzip_file_count() -> None:
    """Members one behind the other are one text; what follows them and is none is ignored."""
    coded = gzip.compress(PAGE) + gzip.compress(b"second") + b"\0\0\0 padding"
    assert Decoded(PAGE + b"second", len(PAGE) + 6) == run(coded, "gzip")
    assert Decoded(PAGE + b"second", len(PAGE) + 6) == run(coded, "gzip", step=1)


def test_all_frames_of_a_zstd_stream_count() -> None:
    """Frames one behind the other are one text."""
    encode = zstandard.ZstdCompressor().compress
    assert run(encode(PAGE) + encode(b"second"), "zstd", step=5).data == PAGE + b"second"


@pytest.mark.parametrize("coder", CODERS)
def test_a_cut_coding_keeps_its_beginning(coder: str) -> None:
    """Where the coding ends early, what came before is kept and the fault is flagged."""
    name, encode = CODERS[coder]
    text = random.Random(1).randbytes(400_000).hex().encode()  # long enough for several blocks of every coding
    coded = encode(text)
    found = run(coded[: len(coded) * 2 // 3], name)
    assert (found.truncated, found.not_coded, found.bomb) == (True, False, False)
    assert text.startswith(found.data)
    assert found.size == len(found.data) > 100_000
    assert found.error is not None


@pytest.mark.parametrize("coder", ["gzip", "zlib"])  # a bare stream has no checksum: damage may go unseen
def test_a_damaged_coding_keeps_what_came_before(coder: str) -> None:
    """A damaged byte in the middle costs what follows, not what came before, though the library gives nothing then."""
    name, encode = CODERS[coder]
    text = random.Random(2).randbytes(20_000).hex().encode()
    coded = bytearray(encode(text))
    middle = len(coded) // 2
    coded[middle : middle + 40] = b"\xff" * 40
    found = run(bytes(coded), name)
    assert found.truncated
    assert text[:15_000] == found.data[:15_000]


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("raw", [PAGE, b"{}", b"<", b"\x89PNG\r\n\x1a\n" + bytes(300), "schön".encode() * 40])
def test_a_header_that_lies_costs_nothing(name: str, raw: bytes) -> None:
    """What is not coded despite its header is kept as it came, and flagged."""
    found = run(raw, name)
    if not found.truncated:  # bytes that begin like a stream of the coding cannot be told from a cut one
        assert (raw, len(raw), True) == (found.data, found.size, found.not_coded)
    assert raw != PAGE or found.not_coded


def test_only_the_layer_that_lies_is_passed_through() -> None:
    """Where two codings are promised and one is there, that one comes off."""
    found = run(gzip.compress(PAGE), "gzip, gzip")
    assert (found.data, found.not_coded, found.truncated) == (PAGE, True, False)


@pytest.mark.parametrize(
    ("codings", "error"),
    [
        (["utf-8"], "unknown content coding: utf-8"),
        (["gzip", "aws-chunked"], "unknown content coding: aws-chunked"),
        (["gzip"] * (MAX_LAYERS + 1), "more than 5 content codings"),
        (["gzip, gzip, gzip", "gzip, gzip, gzip"], "more than 5 content codings"),
    ],
)
def test_what_is_not_decoded_is_kept_raw(codings: list[str], error: str) -> None:
    """An unknown coding and too many of them leave the bytes alone and say why."""
    assert Decoded(b"raw", 3, error=error) == run(b"raw", *codings)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_an_empty_body_is_no_fault(name: str) -> None:
    """A response without content has no coding to be wrong."""
    assert Decoded(b"", 0) == run(b"", name)


def test_what_is_not_kept_is_counted() -> None:
    """Only `keep` bytes are held, the size is that of the whole."""
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
    """32 MiB of zeros in a few bytes end at a limit, with a few MiB of memory, at every layer."""
    for name, (coded, codings) in bombs().items():
        tracemalloc.start()
        found = run(coded, codings, keep=1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.bomb, name
        assert found.size <= max(MIB, 100 * len(coded)), name
        assert peak < 4 * MIB, (name, peak)
        assert "more than" in (found.error or ""), name


def test_the_ratio_is_not_judged_up_to_a_mebibyte() -> None:
    """A small page of one letter is no bomb, and max_decoded holds whatever the ratio."""
    assert not run(gzip.compress(bytes(MIB)), "gzip").bomb
    assert run(gzip.compress(bytes(MIB + 1)), "gzip").bomb
    noise = os.urandom(3000)
    assert run(gzip.compress(noise), "gzip", max_decoded=2999).bomb
    assert not run(gzip.compress(noise), "gzip", max_decoded=3000).bomb


def test_a_zstd_window_over_8_mib_is_refused() -> None:
    """A frame that wants more memory than RFC 9659 allows is kept as it came."""
    options = zstandard.ZstdCompressionParameters(window_log=24)
    coder = zstandard.ZstdCompressor(compression_params=options).compressobj()
    coded = coder.compress(PAGE) + coder.flush()
    found = run(coded, "zstd")
    assert (coded, True) == (found.data, found.not_coded)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.sampled_from(sorted(CODERS)),
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.booleans(),
)
def test_damage_never_raises(coder: str, data: bytes, changes: list[tuple[int, int]], is_coded: bool) -> None:
    """Whatever bytes come under whatever header, something comes back, no more of it than was asked for."""
    name, encode = CODERS[coder]
    coded = bytearray(encode(data) if is_coded else data)
    for position, byte in changes:
        if position < len(coded):
            coded[position] = byte
    found = run(bytes(coded), name, keep=50)
    assert len(found.data) <= 50
    assert found.size >= len(found.data)
