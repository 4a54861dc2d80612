"""Crawls of several agents that share a database, on a site of many domains, and what must hold of them by the
server's log and their files.
"""

import itertools
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commands import Crawl, command, environment
from tests.support.nginx import Nginx, Request
from tests.support.warcs import records

LEASE_S = 3.0


def domains(number: int) -> list[str]:
    """Hosts of as many registrable domains."""
    return [f"www.site{n}.test" for n in range(number)]


@dataclass
class Agents:
    """Agents a1, a2 … of one crawl, each with a configuration, a directory and an address of its own."""

    server: Nginx
    crawls: list[Crawl]
    delay_s: float

    @classmethod
    def of(
        cls, folder: Path, server: Nginx, dsn: str, number: int, *, delay_s: float = 0.05, **keys: dict[str, object]
    ) -> "Agents":
        """`dsn` may have "{}" for the number of the agent."""
        hosts = list(server.site.hosts)
        crawls = []
        for n in range(1, number + 1):
            (folder / f"a{n}").mkdir()
            base: dict[str, dict[str, object]] = {
                "crawl": {"seeds": [server.url(hosts[0])], "linger": "5s"},
                "scope": {"hosts": ["*.test"]},
                "identity": {"user_agent": "tests/1 (+https://example.org/tests)"},
                "politeness": {"delay": f"{delay_s:.3f}s", "adaptive": False, "address_delay": 0,
                               "connections_per_address": 64},
                "network": {"allow_private": ["127.0.0.0/8"], "ca_file": server.ca_file, "bind_address": address_of(n),
                            "resolve": {host: [f"127.0.0.{1 + m % 8}"] for m, host in enumerate(hosts)}},
                "frontier": {"store": "postgresql", "dsn": dsn.replace("{}", str(n)), "agent": f"a{n}",
                             "lease": f"{LEASE_S:.0f}s"},
                "output": {"directory": str(folder / f"a{n}" / "out")},
            }  # fmt: skip
            sections = {name: base.get(name, {}) | keys.get(name, {}) for name in base | keys}
            crawls.append(Crawl.of(folder / f"a{n}", sections))
        return cls(server, crawls, delay_s)

    def start(self, number: int, *, verb: str = "crawl") -> "subprocess.Popen[str]":
        """Start agent `number`, from 1."""
        crawl = self.crawls[number - 1]
        more = ("--json",) if verb == "crawl" else ()
        return subprocess.Popen(
            command(verb, "-c", crawl.config, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip

    def stored(self) -> Counter[str]:
        """URL → how often it is in the archives of all agents, without robots.txt."""
        found = Counter(
            record.url
            for crawl in self.crawls
            for path in crawl.warcs()
            for record in records(path)
            if record.kind in ("response", "revisit")
        )
        return Counter({url: n for url, n in found.items() if not url.endswith("/robots.txt")})

    def wanted(self) -> set[str]:
        return {self.server.url(*place) for place in self.server.site.wanted()}


def address_of(number: int) -> str:
    return f"127.0.1.{number}"


def breaches(requests: Sequence[Request], delay_s: float) -> list[tuple[Any, ...]]:
    """Pairs of requests to one host of which the second began within its delay after the first. (Times of the log are
    whole milliseconds.)
    """
    by_host: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        by_host[request.host].append(request)
    found = []
    for host, ours in by_host.items():
        ours.sort(key=lambda one: one.begin_ms)
        for first, second in itertools.pairwise(ours):
            if second.begin_ms - first.begin_ms < delay_s * 1000 - 3:
                found.append((host, second.begin_ms - first.begin_ms, first.address, second.address))
    return found
