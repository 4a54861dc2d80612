"""Removes the content codings of a payload (RFC 9110 §8.4), as a stream in bounded memory.

Every layer has the same limits, so a gzip of a gzip costs no more memory than one gzip. Invariants: it raises for no
input, and the result depends on the bytes alone. If a layer finds damage, the body is read again from the start, in
smaller steps at that position, and the bytes that were returned before are skipped.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from crawler.content.codings import NAMES, BrokenError, Layer, RestartDecoding
from crawler.core.body import Body
from crawler.core.enums import CodingFault
from crawler.core.models import dataclass

MAX_LAYERS: Final = 5  # as curl allows (MAX_ENCODE_STACK)
FREE_EXPANSION: Final = 1024 * 1024  # up to this size no ratio is checked: small pages of one letter compress 1000:1


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded payload."""

    data: bytes  # the first bytes, up to the requested number
    size: int  # number of all decoded bytes
    fault: CodingFault | None = None
    bomb: bool = False  # a limit was exceeded and reading stopped (`too_large` in the log)
    error: str | None = None  # the fault or the exceeded limit, as text for people


class _BombError(Exception):
    """The output exceeds a limit, which the message names."""


class DecodedPieces:
    """The decoded bytes of a payload, piece by piece. Iterate once.

    The attributes are those of `Decoded`, for the pieces so far.
    """

    def __init__(self, payload: Body, codings: Sequence[str], *, max_decoded: int, max_expansion: int) -> None:
        """See `decode`."""
        self.size = 0
        self.fault: CodingFault | None = None
        self.bomb = False
        self.error: str | None = None
        self._payload = payload
        names = _names(codings) if codings else []
        self._layers: list[Layer] = []
        self._limit = min(max_decoded, max(FREE_EXPANSION, max_expansion * payload.size))
        self.is_coded = bool(names)
        unknown = [name for name in names if name not in NAMES]
        if unknown and payload.size:
            self._fail(CodingFault.UNKNOWN, f"unknown content coding: {unknown[0][:40]}")
        elif len(names) > MAX_LAYERS and payload.size:
            self._fail(CodingFault.UNKNOWN, f"more than {MAX_LAYERS} content codings")
        elif not unknown:
            self._layers = [
                Layer(name) for name in reversed(names)
            ]  # the field lists them in the order in which they were applied

    def _fail(self, fault: CodingFault | None, error: str) -> None:
        self.fault, self.error = fault, error

    def __iter__(self) -> Iterator[bytes]:
        while True:
            given = self.size
            try:
                for piece in self._pieces():
                    fresh = piece[given:] if given else piece
                    given -= len(piece) - len(fresh)
                    if fresh:
                        self.size += len(fresh)
                        yield fresh
                for layer in self._layers:
                    if layer.not_coded:
                        self._fail(CodingFault.NOT_CODED, f"not {layer.name}")
                    elif layer.trailing and self.fault is None:
                        self._fail(CodingFault.TRAILING, f"more bytes behind the end of {layer.name}")
            except RestartDecoding:
                continue
            except _BombError as hit:
                self.bomb = True
                self._fail(None, str(hit))
            except BrokenError as broken:
                self._fail(broken.fault, str(broken))
            return

    def _pieces(self) -> Iterator[bytes]:
        """The output of the layers, from the beginning."""
        pieces = self._payload.chunks()
        if not self._layers:
            return _bounded(pieces, self._limit)
        for layer in self._layers:
            pieces = _bounded(layer.read(pieces), self._limit)
        return pieces


def decode(payload: Body, codings: Sequence[str], *, keep: int, max_decoded: int, max_expansion: int) -> Decoded:
    """Decode `payload` by the values of its Content-Encoding fields, in their order.

    The first `keep` decoded bytes are returned; the others are only counted. Decoding stops after `max_decoded` bytes,
    and, beyond 1 MiB, after `max_expansion` decoded bytes for each coded byte. Both limits apply to every layer.
    """
    if not codings or not payload.size:
        return Decoded(payload.prefix(keep), payload.size)
    pieces = DecodedPieces(payload, codings, max_decoded=max_decoded, max_expansion=max_expansion)
    if not pieces.is_coded or pieces.error is not None:
        return Decoded(payload.prefix(keep), payload.size, pieces.fault, error=pieces.error)
    kept: list[bytes] = []
    missing = keep
    for piece in pieces:
        if missing > 0:
            kept.append(piece if len(piece) <= missing else piece[:missing])
            missing -= len(kept[-1])
    data = kept[0] if len(kept) == 1 else b"".join(kept)
    return Decoded(data, pieces.size, pieces.fault, pieces.bomb, pieces.error)


def _names(codings: Sequence[str]) -> list[str]:
    """The codings in all fields, lower case, without identity."""
    names = (name.strip().lower() for field in codings for name in field.split(","))
    return [name for name in names if name not in ("", "identity")]


def _bounded(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Pass on at most `limit` bytes, then raise _BombError."""
    room = limit
    for piece in pieces:
        if len(piece) > room:
            if room:
                yield piece[:room]
            raise _BombError(f"more than {limit} bytes decoded")
        room -= len(piece)
        yield piece
