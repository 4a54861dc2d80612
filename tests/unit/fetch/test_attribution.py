"""A response is never taken for that of another request, whatever a server sends, and when.

The server has a thread and a loop of its own. It answers each request with the nonce that the request carried, and
misbehaves on every tenth; what it pushes beyond an answer says EVIL or another nonce. One server sends whole TLS
records, the other cuts them anywhere. What neither can do here is push while a request is on its way: no client could
tell that from the answer.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter

import pytest
import uvloop

from crawler.core.models import Failed
from crawler.fetch.options import FetchOptions
from tests.support.fetching import client, until
from tests.support.scripted_server import Certificates, ok, serve
from tests.support.tls_records import DAMAGED, tls_script

EVIL = ok(b"EVIL")
KINDS = (
    "extra",
    "twice",
    "pushed",
    "pushed unread",
    "split",
    "split and extra",
    "late",
    "informational",
    "cut",
    "tail",
)
# The same below TLS: what is cut are records.
CUT_KINDS = (
    "pushed in two",
    "split",
    "tail in two",
    "ticket",
    "key update",
    "ticket in two",
    "alert",
    "damaged",
)
HOSTS = 12


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


def kind_of(nonce: int, kinds: tuple[str, ...]) -> str:
    """The kind of response to this request: one in ten is hostile, each kind in turn."""
    return kinds[nonce // 10 % len(kinds)] if nonce % 10 == 3 else "right"


def body_of(nonce: int) -> bytes:
    return b"nonce %d " % nonce * (nonce % 50 + 1)


def answer_to(nonce: int) -> bytes:
    """Half of the responses have a length, half are chunked."""
    body = body_of(nonce)
    if nonce // 10 % 2:
        return ok(body)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


class Hostile:
    """The server's script. If the moment matters, it calls `signal` in the client's loop."""

    kinds = KINDS

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.client_loop = asyncio.get_running_loop()
        self.reached: dict[int, asyncio.Event] = {}  # nonce → the server has come to the point that matters
        self.answered: Counter[str] = Counter()

    def signal(self, nonce: int) -> None:
        self.client_loop.call_soon_threadsafe(self.reached[nonce].set)

    async def __call__(self, a) -> None:
        while path := await a.request():
            nonce = int(path[1:])
            kind, answer = kind_of(nonce, KINDS), answer_to(nonce)
            self.answered[kind] += 1
            match kind:
                case "extra":
                    a.writer.write(answer + EVIL)
                case "twice":
                    a.writer.write(answer + answer)  # in one: between two the client may ask, and then cannot tell
                case "pushed" | "pushed unread":
                    await a.send(answer)
                    if await a.request() != f"/{nonce + 1}":  # asked only once this one was answered
                        return
                    await a.send(answer_to(nonce + 1), EVIL)
                    await a.arrived()  # what is under way, no client could tell from the answer to its next request
                    self.signal(nonce)
                case "split" | "split and extra":
                    if kind == "split and extra":
                        answer += EVIL
                    cut = sorted(self.rng.sample(range(1, len(answer_to(nonce))), 5))
                    for begin, end in zip([0, *cut], [*cut, len(answer)], strict=True):
                        await a.send(answer[begin:end])
                case "late":
                    self.signal(nonce)
                    await a.client_closed()
                    with contextlib.suppress(ConnectionError):
                        a.writer.write(answer)
                    return
                case "informational":
                    a.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + answer)
                case "cut":
                    await a.send(answer[:-3])
                    await a.cut()
                    return
                case "tail":
                    a.writer.write(answer + b"0\r\n\r\n")
                case _:
                    a.writer.write(answer)


class Cutting(Hostile):
    """The same over TLS with cut records."""

    kinds = CUT_KINDS

    def __init__(self, seed: int, tls) -> None:
        super().__init__(seed)
        self.script = tls_script(tls, self.serve)

    async def __call__(self, a) -> None:
        await self.script(a)

    def cut(self, records: bytes) -> tuple[bytes, bytes]:
        at = self.rng.choice([1, 5, self.rng.randrange(1, len(records)), len(records) - 1])
        return records[:at], records[at:]

    async def serve(self, s) -> None:
        while path := await s.request():
            nonce = int(path[1:])
            kind, records = kind_of(nonce, CUT_KINDS), s.encrypt(answer_to(nonce))
            self.answered[kind] += 1
            match kind:
                case "pushed in two" | "ticket in two":
                    begun, rest = self.cut(s.encrypt(EVIL) if kind == "pushed in two" else s.ticket())
                    await s.send(records)
                    await s.send(begun)
                    self.signal(nonce)
                    if await s.request():
                        await s.send(rest)
                    return
                case "tail in two":
                    begun, rest = self.cut(s.encrypt(EVIL))
                    await s.send(records + begun)
                    self.signal(nonce)
                    if await s.request():
                        await s.send(rest)
                    return
                case "split":
                    begun, rest = self.cut(records)
                    await s.send(begun, *self.cut(rest) if len(rest) > 1 else (rest,))
                case "ticket" | "key update":
                    await s.send(records)
                    await s.send(*self.cut(s.ticket() if kind == "ticket" else s.key_update()))
                    self.signal(nonce)
                case "alert" | "damaged":
                    await s.send(records + (s.alert() if kind == "alert" else DAMAGED))
                    return
                case _:
                    await s.send(records)


@contextlib.contextmanager
def in_a_thread(hostile: Hostile, tls):
    """Run the server in a loop of another thread; yields its port."""
    ready: list[int] = []
    started = threading.Event()
    loop = uvloop.new_event_loop()
    ended = asyncio.Event()

    async def main() -> None:
        async with serve(hostile, tls=tls) as server:
            ready.append(server.port)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(20)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def exchange(certificates, hostile: Hostile, tls, count: int) -> tuple[Counter[str], Counter[str]]:
    """Make `count` exchanges over HOSTS connections at a time. Returns their results, and the kinds of responses."""
    kinds = hostile.kinds
    numbers = iter(range(0, count, 10))
    ended: Counter[str] = Counter()

    def judge(nonce: int, result) -> None:
        if isinstance(result, Failed):
            ended["failed"] += 1
        elif result.truncated is not None:
            ended["truncated"] += 1
            assert body_of(nonce).startswith(result.payload.prefix(10_000))
        else:
            is_right = result.payload.prefix(10_000) == body_of(nonce)
            ended["right" if is_right else f"WRONG after {kind_of(nonce - 1, kinds)}"] += 1

    async def visitor(host: str) -> None:
        for first in numbers:  # ten nonces at a time, so that those that belong together come together
            for nonce in range(first, min(first + 10, count)):
                hostile.reached[nonce] = asyncio.Event()
                kind, before = kind_of(nonce, kinds), kind_of(nonce - 1, kinds)
                fetching = asyncio.ensure_future(c.get(f"https://{host}:{port}/{nonce}"))
                if kind == "late":
                    await hostile.reached[nonce].wait()
                    fetching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await fetching
                    ended["given up"] += 1
                    continue
                result = await fetching
                judge(nonce, result)
                if kind in CUT_KINDS and kind not in ("split", "alert", "damaged"):
                    await hostile.reached[nonce].wait()  # what it pushes is here before the next request leaves
                if before in (
                    "pushed",
                    "pushed unread",
                ):  # EVIL is on its way, or here and not read: the next request must not get it
                    await hostile.reached[nonce - 1].wait()
                    if before == "pushed":
                        await until(
                            lambda number=result.connection.id: all(
                                k.id != number for k in c.pool._connections if k.is_open
                            )
                        )

    with in_a_thread(hostile, tls) as port:
        async with client(ca_file=certificates.ca_file, fetch=FetchOptions(connections=HOSTS)) as c:
            await asyncio.gather(*(visitor(f"h{n}.hosts.test") for n in range(HOSTS)))
            closed = Counter(c.closings())
            assert c.address_limiter.is_balanced
    ended.update({f"closed: {reason}": number for reason, number in closed.items()})
    return ended, hostile.answered


def check(ended: Counter[str], answered: Counter[str], count: int) -> None:
    hostile = count // 10 // len(KINDS)  # of each kind
    assert ended["failed"] == 0
    assert ended["given up"] == answered["late"] == hostile
    assert ended["truncated"] == hostile
    assert ended["right"] == count - 2 * hostile
    assert ended["closed: unsolicited"] >= 5 * hostile  # extra, twice, both ways of pushing, split and extra, tail …
    assert all(answered[kind] >= hostile for kind in KINDS)


def check_cut(ended: Counter[str], answered: Counter[str], count: int) -> None:
    hostile = count // 10 // len(CUT_KINDS)
    assert ended["right"] == count
    assert ended["closed: unsolicited"] >= 3 * hostile  # in two: pushed, tail, ticket
    assert all(answered[kind] >= hostile for kind in CUT_KINDS)


def wrong(ended: Counter[str]) -> list[str]:
    """The exchanges whose body was another's."""
    return [what for what in ended if what.startswith("WRONG")]


async def whole(certificates, count: int) -> list[str]:
    ended, answered = await exchange(certificates, Hostile(count), certificates.server("*.hosts.test"), count)
    check(ended, answered, count)
    return wrong(ended)


async def cut(certificates, count: int) -> list[str]:
    hostile = Cutting(count, certificates.server("*.hosts.test"))
    ended, answered = await exchange(certificates, hostile, None, count)
    check_cut(ended, answered, count)
    return wrong(ended)


async def test_no_response_goes_to_another_request(certificates) -> None:
    """3,000 exchanges, a tenth of them hostile: each body has the nonce of its own request."""
    assert await whole(certificates, 3_000) == []


async def test_no_response_goes_to_another_request_wherever_records_are_cut(certificates) -> None:
    """The same with records cut anywhere, and with alerts and damaged records after a response."""
    assert await cut(certificates, 3_200) == []


@pytest.mark.prove
async def test_none_of_100_000_responses_goes_to_another_request(certificates) -> None:
    """The same, a hundred thousand times."""
    assert await whole(certificates, 100_000) == []


@pytest.mark.prove
async def test_none_of_100_000_responses_in_cut_records_goes_to_another_request(certificates) -> None:
    """The same, a hundred thousand times."""
    assert await cut(certificates, 100_000) == []
