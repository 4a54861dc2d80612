"""The status page of a running crawl, as a browser shows it; its metrics, as a scraper reads them."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.support.commands import Crawl, ended, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, WWW, sections, wait_until

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def shown(url: str, *options: str) -> str:
    """The page's elements as they are when it has loaded: nothing is waited for that comes later."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium") as profile:
        done = subprocess.run(
            [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *options, "--dump-dom", url],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    return done.stdout


def assert_shows_the_crawl(dom: str, host: str) -> None:
    assert re.search(r'<span id="state" class="state good">\w+</span>', dom)
    assert re.search(r'<p id="sentence"[^>]*>[^<]*held back by a limit of scope', dom)
    assert "waiting for the first status" not in dom
    assert re.search(r"<dt>HTTP errors</dt><dd><b>\d+</b>", dom)
    assert re.search(r'id="attention"[^>]*><li class="warn">', dom)
    assert re.search(r"\d+ of \d+ hosts? shown", dom)
    assert dom.count("<canvas") == 6
    assert host in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)  # drawn, not only delivered


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_crawl(server: Nginx, tmp_path: Path) -> None:
    """State, figures, plots, hosts; and the same numbers in the metrics, which agree with the server's log."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    page = f"http://127.0.0.1:{port}"
    output = tmp_path / "out"
    identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
    keys = sections(
        server, WWW, OTHER,
        admin={"listen": f"127.0.0.1:{port}"}, identity=identity, output={"directory": output},
        scope={"max_urls": 60},
    )  # fmt: skip
    crawl = Crawl.of(tmp_path, keys, output=output)
    with running("run", "-c", crawl.config) as process:
        assert wait_until(lambda: (output / "control.sock").exists(), process)
        assert wait_until(lambda: "limit of scope" in json.loads(fetched(f"{page}/api/status"))["sentence"], process)
        assert fetched(f"{page}/healthz") == "ok\n"
        assert wait_until(lambda: len(json.loads(fetched(f"{page}/api/history"))["at"]) > 0, process)
        looks = [shown(f"{page}/?still", f"--window-size={width},1000") for width in (1200, 1200, 390)]
        metrics = fetched(f"{page}/metrics")
        process.terminate()
        assert ended(process, timeout=30).code == 0
    for dom in looks:
        assert_shows_the_crawl(dom, f"{WWW}:{server.port}")
    asked = len([request for request in server.requests() if request.target != "/robots.txt"])
    pages = {line: int(n) for line, n in re.findall(r'crawler_fetches_total\{outcome="(\w+)"\} (\d+)', metrics)}
    robots = len(server.requests()) - asked
    assert sum(pages.values()) - pages["denied"] == asked + robots
    assert 'crawler_frontier_urls{state="queued"}' in metrics
