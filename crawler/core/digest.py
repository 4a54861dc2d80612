"""How a digest is written: as WARC files hold it (WARC 1.1 §5.8)."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE32_PAIRS = tuple(high + low for high in _BASE32 for low in _BASE32)
_PAIR_SHIFTS = tuple(range(250, -1, -10))


def digest_text(digest: bytes) -> str:
    """A SHA-256 digest as "sha256:" and base 32, upper case and padded (RFC 4648 §6). Two letters at a time:
    base64.b32encode takes twice as long, and this runs four times a visit.
    """
    bits = int.from_bytes(digest) << 4  # 256 bits are 25 pairs of letters and 6 bits
    return "sha256:" + "".join([_BASE32_PAIRS[bits >> shift & 1023] for shift in _PAIR_SHIFTS]) + "===="
