"""What the fuzzers start from: the responses of the table, those of llhttp's suite where it is at hand, coded pages."""

import gzip
import os
import re
import zlib
from pathlib import Path

import brotli
import zstandard

from tests.fuzz.properties import CODINGS, pack_coded, pack_response
from tests.support.response_cases import CASES

_FENCED = re.compile(r"^```http\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_PAGE = b"<!doctype html><title>coded</title>" + b"".join(b"<p>line %d</p>" % n for n in range(40))

# Inputs that once broke a property, and what each showed. Those of the reader are better off in `response_cases`.
CRASHED_RESPONSES: dict[str, bytes] = {}
CRASHED_CODED: dict[str, bytes] = {
    # brotli's decoder refuses bytes behind a stream's end if they come with it, and ignores them if they come later
    "an empty brotli stream with more behind it": bytes.fromhex("10013f000006000000"),
}


def responses() -> list[bytes]:
    """Inputs for `check_response`. llhttp's requests are seeds too: garbage of the right kind."""
    found = [pack_response(case.data, eof=case.eof) for case in CASES]
    folder = Path(os.environ.get("VECTORS_DIR", "/nonexistent")) / "http"
    for path in sorted(folder.glob("*.md")):
        for text in _FENCED.findall(path.read_text()):
            data = text.replace("\n", "").replace("\\r", "\r").replace("\\n", "\n").encode("latin-1", "replace")
            found.append(pack_response(data, eof=True))
    return [*found, *CRASHED_RESPONSES.values()]


def coded() -> list[bytes]:
    """Inputs for `check_coded`: a page in every coding, one in two, a bomb, and each with a byte or its end missing."""
    raw = zlib.compressobj(wbits=-15)
    encoded = {
        ("gzip",): [gzip.compress(_PAGE), gzip.compress(_PAGE) + gzip.compress(b"second"), gzip.compress(bytes(2**21))],
        ("deflate",): [zlib.compress(_PAGE), raw.compress(_PAGE) + raw.flush()],
        ("br",): [brotli.compress(_PAGE)],
        ("zstd",): [zstandard.ZstdCompressor(write_checksum=True).compress(_PAGE)],
        ("gzip", "gzip"): [gzip.compress(gzip.compress(_PAGE))],
        ("br, zstd",): [zstandard.ZstdCompressor().compress(brotli.compress(_PAGE))],
        ("deflate", "gzip"): [gzip.compress(zlib.compress(_PAGE))],
    }
    assert set(encoded) == set(CODINGS)
    found = []
    for codings, bodies in encoded.items():
        for body in [*bodies, _PAGE, b""]:
            damaged = body[: len(body) // 2] + b"\xff" + body[len(body) // 2 + 1 :]
            found += [pack_coded(each, codings) for each in (body, body[:-3], damaged)]
    return [*found, *CRASHED_CODED.values()]
