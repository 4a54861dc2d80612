"""Crawls of real sites, whole and interrupted, held against the links that an independent follower finds."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.commands import Crawl, Ran, command, ended, environment
from tests.support.interrupted import wait_for_requests
from tests.support.nginx import Nginx
from tests.support.realsites import closure, folder, host_of

TIMEOUT_S = 1_200.0
# The command with caches of 2^10 keys: a large site is then asked about far more often than it has room for.
_SMALL_CACHES = (
    "import sys; import crawler.engine.pages.recent_urls as seen; seen.RecentKeys.__init__.__defaults__ = (10,); "
    "seen.MAX_URLS = 1_024; from crawler.cli import main; sys.argv[0] = 'crawler'; main()"
)


def crawl_of(server: Nginx, directory: Path, *sites: str, workers: int | None = None) -> Crawl:
    """A configuration that crawls these sites without a delay."""
    hosts = [host_of(site) for site in sites]
    directory.mkdir(parents=True, exist_ok=True)
    return Crawl.of(
        directory,
        {
            "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
            "engine": {} if workers is None else {"workers": workers},
            "politeness": {"delay": 0, "connections_per_host": 8},
            "network": {
                "allow_private": ["127.0.0.0/8"],
                "ca_file": server.ca_file,
                "resolve": {host: ["127.0.0.1"] for host in hosts},
            },
        },
    )


def run_small(crawl: Crawl) -> Ran:
    """Run a crawl to its end with small caches of recent keys."""
    arguments = [sys.executable, "-c", _SMALL_CACHES, *map(str, crawl.arguments())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment())
    return Ran(done.returncode, done.stdout, done.stderr)


def interrupt(server: Nginx, crawl: Crawl, *, requests: int, number: signal.Signals, delay_s: float = 0.0) -> bool:
    """Run a crawl until so many more requests were answered, then send it a signal and wait for its end. False: it
    ended before.
    """
    asked = server.count()
    with subprocess.Popen(
        command(*crawl.arguments()), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            if not wait_for_requests(server, process, asked + requests):
                return False
            time.sleep(delay_s)
            process.send_signal(number)
            ended(process, timeout=TIMEOUT_S)
            return True
        finally:
            process.kill()


def interrupted(
    server: Nginx, crawl: Crawl, pages: int, numbers: Sequence[signal.Signals], rng: random.Random
) -> tuple[int, Ran]:
    """Run a crawl with one interruption for each signal, at random moments, then to its end. Returns how many of the
    interruptions came before it, and how it ended.
    """
    made = 0
    for number in numbers:
        made += interrupt(
            server, crawl, requests=rng.randrange(1, max(2, pages // len(numbers))), number=number,
            delay_s=rng.uniform(0, 0.2),
        )  # fmt: skip
    return made, crawl.run(timeout=TIMEOUT_S)


def missing(server: Nginx, site: str) -> set[str]:
    """Pages of the site that links lead to and that the server was not asked for, or answered otherwise than 200."""
    host = host_of(site)
    served = {request.target for request in server.requests() if request.host == host and request.status == 200}
    return set(closure(folder(site))) - served
