"""A DNS server on a loopback port, in the test's event loop, with the answers of the test.

    async with nameserver({"a.test": Zone(["192.0.2.1", "2001:db8::1"], ttl=60)}) as ns:
        ... ns.address ("127.0.0.1:5353"), ns.queries

An answer is a Zone, a response code (RFC 1035 §4.1.1: 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED), None for silence, or a
function of name and family (4 or 6) that returns one of these for each query. "*.test" is for every name below. A name
without an answer does not exist.
"""

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
_QUERY_TYPES = {1: 4, 28: 6}


@dataclass(frozen=True)
class Zone:
    """Addresses of both families. Queries for a family of `mute` get no answer."""

    addresses: Sequence[str] = ()
    ttl: int = 60
    mute: frozenset[int] = frozenset()


Answer = Zone | int | None
Answers = Mapping[str, Answer | Callable[[str, int], Answer]]


class NameServer(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.queries: list[tuple[str, int]] = []  # name and family (0: of another type)
        self.address = ""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] - uvloop's do not derive from asyncio's
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        name, family = ".".join(labels), _QUERY_TYPES.get(kind, 0)
        self.queries.append((name, family))
        answer = self._answer(name, family)
        if answer is None or (isinstance(answer, Zone) and family in answer.mute):
            return
        code, ttl, found = (answer, 0, []) if isinstance(answer, int) else (0, answer.ttl, list(answer.addresses))
        packed = [ip.packed for ip in map(ipaddress.ip_address, found) if ip.version == family]
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(packed), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(p)) + p for p in packed)
        assert self._transport is not None
        self._transport.sendto(head + data[12 : at + 5] + body, address)

    def _answer(self, name: str, family: int) -> Answer:
        parents = name.split(".")
        names = [name, *(".".join(("*", *parents[n:])) for n in range(1, len(parents)))]
        found = next((n for n in names if n in self.answers), None)
        if found is None:
            return NXDOMAIN
        answer = self.answers[found]
        return answer(name, family) if callable(answer) else answer


@contextlib.asynccontextmanager
async def nameserver(answers: Answers) -> AsyncIterator[NameServer]:
    """A server on a free UDP port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(answers), local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
