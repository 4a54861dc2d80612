"""Two kinds of picture, drawn when asked for, so that the demo ships no files."""

import struct
import zlib


def svg(n: int) -> str:
    """A lighthouse; its beam turns with `n`."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 120"><rect width="120" height="120" fill="#234"/>'
        f'<path d="M60 38 L120 {10 + 4 * n} L120 {40 + 4 * n} Z" fill="#fd8"/>'
        '<path d="M52 44 h16 l6 70 h-28 z" fill="#eee"/><rect x="52" y="32" width="16" height="12" fill="#a33"/></svg>'
    )


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A plain 8-bit RGB picture (PNG specification, third edition, §5)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
