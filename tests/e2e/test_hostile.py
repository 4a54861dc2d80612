"""Hosts that do harm, beside hosts that do not: what they cost in memory and in the event loop's time, and that the
honest ones hardly notice.

The crawler is a process of its own. It is measured by its own peak memory, a meter on its event loop, and the server's
log. Every host has an address of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import Crawl, environment, running
from tests.support.hostile_hosts import FLOODS, MANNERS, Web, address_of, bombs, web_in_a_thread

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
SPARE_BYTES = 8 * MIB  # beside an honest body of the largest size
LONGEST_TURN_MS = 50.0
KEPT = 0.9  # of an honest host's rate
SLOWER = 1.2  # times what honest hosts take alone
LARGEST = 8 * MIB
PAGES = 20
FEW_PAGES = 4
HOSTILE = (*MANNERS, "flood-fields", "flood-chunks", "flood-length", "bomb-gzip")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Seen:
    """What a crawl of an honest host, and others beside it, took. `rate` is the honest host's, by the server's log."""

    peak_bytes: int
    longest_turn_ms: float
    rate: float
    others: tuple[tuple[str | None, str | None, str | None], ...]  # outcome, error_type, truncated of their pages


@dataclass
class Rig:
    """A web being served, and crawls of it."""

    directory: Path
    web: Web
    ca_file: str
    crawls: int = 0

    def crawl(self, hosts: Sequence[str], delay: str, **fetch: object) -> Crawl:
        self.crawls += 1
        directory = self.directory / f"crawl-{self.crawls}"
        directory.mkdir()
        keys = {
            "crawl": {"seeds": [self.web.url(host) for host in hosts], "linger": "0s"},
            "politeness": {"delay": delay, "adaptive": False, "key": "host", "address_delay": "0s"},
            "network": {
                "ca_file": self.ca_file,
                "allow_private": ["127.0.0.0/8"],
                "resolve": {host: [address_of(n)] for n, host in enumerate(hosts)},
            },
            "fetch": fetch,
            "engine": {"drain": "1s"},
            "output": {"min_free": 0},
        }
        return Crawl.of(directory, keys)

    def watch(self, *kinds: str) -> Seen:
        """Crawl an honest host, and one of each kind, to the end, metered."""
        self.web.asked.clear()
        made = self.crawl([f"{kind}-1.web.test" for kind in ("honest", *kinds)], "100ms", max_body=LARGEST)
        meter = made.output.parent / "meter.json"
        command = [sys.executable, "-m", "tests.support.loop_meter", *map(str, made.arguments())]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=110, check=False, cwd=ROOT,
            env=environment(METER_FILE=str(meter)),
        )  # fmt: skip
        assert ran.returncode in (0, 75), ran.stderr
        honest = self.web.times("honest")
        assert len(honest) == PAGES, ran.stderr
        others = tuple(
            (line["outcome"], line.get("error_type"), line.get("truncated"))
            for line in made.fetches()
            if "//honest" not in line["url_full"] and "robots.txt" not in line["url_full"]
        )
        rate = (PAGES - 1) / (honest[-1] - honest[0])
        longest_ms = json.loads(meter.read_text())["longest_ms"]
        return Seen(json.loads(ran.stdout)["max_rss_bytes"], longest_ms, rate, others)

    def honest_take_s(self, honest: int, hostile: int, delay: str) -> float:
        """How long until the honest hosts' few pages are all answered, with so many hostile hosts beside them."""
        self.web.asked.clear()
        hosts = [f"honest-{n}.web.test" for n in range(honest)]
        bad = [f"{HOSTILE[n % len(HOSTILE)]}-{n}.web.test" for n in range(hostile)]
        both = [host for pair in zip(hosts, bad, strict=False) for host in pair] + hosts[len(bad) :]
        made = self.crawl(both, delay, max_body=MIB)
        with running(*made.arguments()) as process:
            deadline = time.monotonic() + 300
            while len(self.web.times("honest")) < honest * FEW_PAGES:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, len(self.web.times("honest"))
                time.sleep(0.05)  # another process is at work; nothing here could be awaited
        honest_times = self.web.times("honest")
        assert len(honest_times) == honest * FEW_PAGES
        return honest_times[-1] - min(at for _, _, at in self.web.asked)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("hostile")
    line = b"<p>An honest line, with <a href=/robots.txt>a link</a>.</p>\n"
    web = Web(PAGES, (line * (LARGEST // len(line) + 1))[:LARGEST], bombs())
    with web_in_a_thread(directory, web) as ca_file:
        yield Rig(directory, web, ca_file)


@pytest.fixture(scope="module")
def largest(rig: Rig) -> Seen:
    """A crawl with an honest body of the largest size: what memory is measured against."""
    seen = rig.watch("largest")
    assert seen.others == (("ok", None, None),)
    return seen


@pytest.fixture(scope="module")
def alone(rig: Rig) -> Seen:
    """A crawl of the honest host by itself."""
    return rig.watch()


EXPECTED = {
    **dict.fromkeys(bombs(), ("error", "too_large", None)),
    **dict.fromkeys(FLOODS, ("error", "protocol_error", None)),
    **{name: ("truncated", None, "length") for name in FLOODS if name.endswith(("body", "length", "chunks", "tags"))},
}
FEW = ("bomb-gzip-twice", "flood-fields", "flood-chunks")


def hold(rig: Rig, largest: Seen, alone: Seen, kind: str) -> None:
    """The figures, for one kind of host. The rate, which a busy machine can spoil, is measured up to thrice."""
    for attempt in range(3):
        seen = rig.watch(kind)
        assert seen.others[0] == EXPECTED[kind]
        assert seen.peak_bytes - largest.peak_bytes <= SPARE_BYTES
        assert seen.longest_turn_ms <= LONGEST_TURN_MS
        if seen.rate >= KEPT * alone.rate:
            return
        alone = rig.watch()
        assert attempt < 2, (seen.rate, alone.rate)


@pytest.mark.parametrize("kind", FEW)
def test_a_bomb_or_flood_costs_little_and_holds_nobody_up(rig: Rig, largest: Seen, alone: Seen, kind: str) -> None:
    """Its outcome is its own; memory, the longest turn of the loop and the honest host's rate stay within bounds."""
    hold(rig, largest, alone, kind)


@pytest.mark.prove
@pytest.mark.parametrize("kind", sorted(set(EXPECTED) - set(FEW)))
def test_every_bomb_and_flood_costs_little_and_holds_nobody_up(rig: Rig, largest: Seen, alone: Seen, kind: str) -> None:
    """The same of every kind there is."""
    hold(rig, largest, alone, kind)


def among(rig: Rig, honest: int, hostile: int, delay: str) -> None:
    rig.web.pages = FEW_PAGES
    try:
        alone = rig.honest_take_s(honest, 0, delay)
        beside = rig.honest_take_s(honest, hostile, delay)
    finally:
        rig.web.pages = PAGES
    assert beside <= SLOWER * alone, (alone, beside)


def test_honest_hosts_hardly_notice_hostile_ones(rig: Rig) -> None:
    """As many hosts that do harm as hosts that do not: the honest ones are done in 1.2 times what they take alone."""
    among(rig, 20, 20, "1s")


@pytest.mark.prove
def test_five_hundred_hostile_hosts_among_a_thousand(rig: Rig) -> None:
    """The same with five hundred of each."""
    among(rig, 500, 500, "10s")
