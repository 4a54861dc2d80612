"""An attacker with names and their name server: each query for a name may have another answer.

    async with rebinding(seed=7) as net:
        ... net.nameserver.address, net.port, net.reached()

Names below flip.test resolve at random to addresses of 127.0.1.0/24 (which a client may be allowed), of 127.0.2.0/24
and ::1 (which it is not), to both, or to IPv6 forms of the forbidden ones; with a TTL of 0. Every address has a
listener on the same port. The allowed ones serve pages, robots.txt and sitemaps that lead to other names. The
forbidden ones count connections and close them.
"""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator

from tests.support.nameserver import SERVFAIL, NameServer, Zone, nameserver
from tests.support.scripted_server import Accepted, Server, ok

ALLOWED_NETWORK = "127.0.1.0/24"
ALLOWED = tuple(f"127.0.1.{n}" for n in range(1, 5))
FORBIDDEN = tuple(f"127.0.2.{n}" for n in range(1, 5))
FORBIDDEN_V6 = (
    "::1",
    "::ffff:127.0.2.1",  # a socket of the other family leads to the same listener
    "::127.0.2.1",
    "64:ff9b::7f00:201",
    "64:ff9b:1::7f00:201",
    "2002:7f00:201::1",
    "2001:0:7f00:201::",
    "fe80::1",
    "fd00::1",
)
HOSTS = 60


class Net:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._listeners: list[socket.socket] = []
        self.nameserver: NameServer | None = None
        self.port = 0
        self.reached_forbidden = 0
        self.asked: Counter[str] = Counter()  # paths requested from the allowed servers
        self.answered: Counter[str] = Counter()  # kinds of DNS answers given

    def url(self, n: int, path: str = "/") -> str:
        return f"http://h{n}.flip.test:{self.port}{path}"

    def reached(self) -> int:
        """How many connections reached a forbidden address so far, those that nobody accepted yet included."""
        for listener in self._listeners:
            self._accept(listener)
        return self.reached_forbidden

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                connection.close()
                self.reached_forbidden += 1

    def listen(self) -> None:
        """Listen on every forbidden address, at the port of the allowed ones."""
        for address in (*FORBIDDEN, "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, self.port))
            listener.listen(4_096)
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def close(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def answer(self, name: str, family: int) -> Zone | int:
        """The random answer to one query; each family has queries of its own. An answer without addresses would be
        cached for a while, whatever its TTL; a failure is not.
        """
        rng = self._rng
        if family == 6:
            kind, addresses = rng.choice((("none", []), ("none", []), ("forbidden6", [rng.choice(FORBIDDEN_V6)])))
        else:
            kind = rng.choice(("allowed", "allowed", "forbidden", "both", "none"))
            good, bad = rng.sample(ALLOWED, 2), rng.sample(FORBIDDEN, 2)
            addresses = {"allowed": good, "forbidden": bad, "both": rng.sample(good + bad, 4), "none": []}[kind]
        self.answered[kind] += 1
        return Zone(addresses, ttl=0) if addresses else SERVFAIL

    async def script(self, c: Accepted) -> None:
        """A page with links, a redirect, a robots.txt; one connection in three is closed after its response."""
        while path := await c.request():
            self.asked[path.partition("?")[0]] += 1
            close = ("Connection: close",) if self._rng.random() < 1 / 3 else ()
            there = self.url(self._rng.randrange(HOSTS), "/")
            if path.startswith("/redirect"):
                await c.send(ok(b"", f"Location: {there}", *close, status="302 Found"))
            elif path == "/robots.txt":
                named = self.url(self._rng.randrange(HOSTS), "/sitemap.xml")
                await c.send(
                    ok(f"User-agent: *\nAllow: /\nSitemap: {named}\n".encode(), "Content-Type: text/plain", *close)
                )
            elif path == "/sitemap.xml":
                entries = [self.url(self._rng.randrange(HOSTS), f"/s{self._rng.randrange(9)}") for _ in range(2)]
                body = "".join(f"<url><loc>{entry}</loc></url>" for entry in entries)
                await c.send(ok(f"<urlset>{body}</urlset>".encode(), "Content-Type: application/xml", *close))
            else:
                links = [
                    self.url(self._rng.randrange(HOSTS), f"/{w}{self._rng.randrange(9)}") for w in ("p", "redirect")
                ]
                body = "".join(f'<a href="{link}">x</a>' for link in links).encode()
                await c.send(ok(body, "Content-Type: text/html", *close))
            if close:
                return


@contextlib.asynccontextmanager
async def rebinding(*, seed: int) -> AsyncIterator[Net]:
    """The attacker's network, in this event loop."""
    net = Net(seed)
    server = Server(net.script)
    listeners: list[asyncio.Server] = []
    try:
        async with nameserver({"*.flip.test": net.answer}) as ns:
            net.nameserver = ns
            for address in ALLOWED:
                listener = await asyncio.start_server(server, address, net.port, backlog=1_024)
                listeners.append(listener)
                net.port = listener.sockets[0].getsockname()[1]
            net.listen()
            yield net
    finally:
        for listener in listeners:
            listener.close()
        await server.end()
        net.close()
