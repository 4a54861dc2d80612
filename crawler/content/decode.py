"""Take the content codings off a payload (RFC 9110 §8.4): streamed, in bounded memory, whatever the server sent.

Every layer is held to the same limits, so a gzip of a gzip costs no more memory than one. It does not know what is in a
coding (`codings`), why a response was coded, nor what becomes of a bomb. Invariant: it never raises for what the bytes
are.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from crawler.content.codings import LAYERS, BrokenError, Faults
from crawler.core.body import Body
from crawler.core.value import dataclass
from crawler.core.vocabulary import CodingFault

MAX_LAYERS: Final = 5  # as curl allows (MAX_ENCODE_STACK)
FREE_EXPANSION: Final = 1024 * 1024  # up to here no ratio is judged: small pages of one letter compress 1000:1


@dataclass(frozen=True, slots=True)
class Decoded:
    """`data`: the first bytes, as many as were asked for; `size`: how many there were in all, as far as was read.

    `truncated`: the coding ended early or broke, what came before is kept. `not_coded`: a header promised a coding that
    the bytes do not have, they are kept as they came. `bomb`: a limit was hit and reading stopped. `error`: in words.
    """

    data: bytes
    size: int
    truncated: bool = False
    not_coded: bool = False
    bomb: bool = False
    error: str | None = None

    @property
    def fault(self) -> CodingFault | None:
        """The log's word for what was wrong; None also for a bomb, which has a word of its own (`too_large`)."""
        if self.error is None or self.bomb:
            return None
        if self.truncated:
            return CodingFault.TRUNCATED
        return CodingFault.NOT_CODED if self.not_coded else CodingFault.UNKNOWN


class _BombError(Exception):
    """More came out than may. The message says which limit was hit."""


class DecodedPieces:
    """The decoded bytes of a payload, piece by piece. Iterate once; the attributes are as of what was read so far.

    They are those of `Decoded`; `data` is what came out of the iteration.
    """

    def __init__(self, payload: Body, codings: Sequence[str], *, max_decoded: int, max_expansion: int) -> None:
        """See `decode`."""
        self.size = 0
        self.truncated = False
        self.bomb = False
        self.error: str | None = None
        self._payload = payload
        self._names = _names(codings) if codings else []
        self._faults = Faults()
        self._limit = min(max_decoded, max(FREE_EXPANSION, max_expansion * payload.size))
        unknown = [name for name in self._names if name not in LAYERS]
        if unknown and payload.size:
            self.error = f"unknown content coding: {unknown[0][:40]}"
        elif len(self._names) > MAX_LAYERS and payload.size:
            self.error = f"more than {MAX_LAYERS} content codings"

    @property
    def is_coded(self) -> bool:
        return bool(self._names)

    @property
    def not_coded(self) -> bool:
        return self._faults.not_coded is not None

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._payload.chunks()
        if not self._names:
            pieces = _bounded(pieces, self._limit)
        elif self.error is None:
            for name in reversed(self._names):  # listed in the order they were applied
                pieces = _bounded(LAYERS[name](pieces, self._faults), self._limit)
        try:
            for piece in pieces:
                self.size += len(piece)
                yield piece
        except _BombError as hit:
            self.bomb, self.error = True, str(hit)
        except BrokenError as broken:
            self.truncated, self.error = True, str(broken)
        self.error = self.error or self._faults.not_coded


def decode(payload: Body, codings: Sequence[str], *, keep: int, max_decoded: int, max_expansion: int) -> Decoded:
    """Decode `payload` by the values of its Content-Encoding fields, in the order they came.

    `keep` decoded bytes are kept; the rest is decoded to learn its size, up to `max_decoded` bytes, and beyond 1 MiB up
    to `max_expansion` decoded bytes for each coded one; both hold for every layer.
    """
    if not codings or not payload.size:
        return Decoded(payload.prefix(keep), payload.size)
    pieces = DecodedPieces(payload, codings, max_decoded=max_decoded, max_expansion=max_expansion)
    if not pieces.is_coded or pieces.error is not None:
        return Decoded(payload.prefix(keep), payload.size, error=pieces.error)
    kept: list[bytes] = []
    missing = keep
    for piece in pieces:
        if missing > 0:
            kept.append(piece if len(piece) <= missing else piece[:missing])
            missing -= len(kept[-1])
    data = kept[0] if len(kept) == 1 else b"".join(kept)
    return Decoded(data, pieces.size, pieces.truncated, pieces.not_coded, pieces.bomb, pieces.error)


def _names(codings: Sequence[str]) -> list[str]:
    """The codings named in all fields, lower case, without identity."""
    names = (name.strip().lower() for field in codings for name in field.split(","))
    return [name for name in names if name not in ("", "identity")]


def _bounded(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _BombError(f"more than {limit} bytes decoded")
        yield piece
