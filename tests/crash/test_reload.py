"""kill -9 while stored URLs are judged by a new scope: the next start goes on with it."""

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from crawler.admin.control_socket import Control
from tests.support.commands import Crawl, ended, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, sections, wait_until

pytestmark = pytest.mark.e2e

COUNT = 20_000


def configured(server: Nginx, directory: Path, *exclude: str) -> Crawl:
    output = directory / "out"
    keys: dict[str, dict[str, object]] = {
        "identity": {"user_agent": "tested/1.0 (+https://example.org/bot)"},
        "output": {"directory": output},
        "politeness": {"delay": "60s"},  # nothing is fetched meanwhile but the seed and robots.txt
        "scope": {"exclude": list(exclude)},
    }
    return Crawl.of(directory, sections(server, OTHER, **keys), output=output)


@contextmanager
def daemon(crawl: Crawl) -> Iterator[subprocess.Popen[str]]:
    with running("run", "-c", crawl.config) as process:
        yield process


def counts(crawl: Crawl) -> dict[str, int]:
    """URLs under /more/ by state, as another process sees the store."""
    with closing(sqlite3.connect(f"file:{crawl.output}/frontier.db?mode=ro", uri=True, timeout=10)) as store:
        return dict(store.execute("SELECT state, count(*) FROM url WHERE target LIKE '/more/%' GROUP BY state"))


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_kill_in_the_middle_of_a_sweep_loses_nothing_of_it(server: Nginx, tmp_path: Path) -> None:
    """Denied by a reload, killed half-way, finished by the next start; let in again by a file that changed while nobody
    ran, killed half-way, finished again. Nothing of it is asked for meanwhile.
    """
    crawl = configured(server, tmp_path)
    urls = tmp_path / "urls"
    urls.write_text("".join(f"{server.url(OTHER, f'/more/{n}')}\n" for n in range(COUNT)))
    with daemon(crawl) as process:
        assert wait_until((crawl.output / "control.sock").exists, process), ended(process).stderr
        assert run("add", "--from", urls, "--output", crawl.output).code == 0
        assert counts(crawl) == {"queued": COUNT}
        configured(server, tmp_path, "/more/**")
        with Control(crawl.output / "control.sock") as control:
            control.call("reload", {"dry_run": False}, timeout_s=60)
        assert wait_until(lambda: counts(crawl).get("denied", 0) > 0, process)
        kill(process)
    half = counts(crawl)
    assert 0 < half["denied"] < COUNT, "it was killed too late to show anything"
    with daemon(crawl) as process:
        assert wait_until(lambda: counts(crawl) == {"denied": COUNT}, process)
        kill(process)
    configured(server, tmp_path)
    with daemon(crawl) as process:
        assert wait_until(lambda: counts(crawl).get("queued", 0) > 0, process)
        kill(process)
    assert 0 < counts(crawl).get("denied", 0) < COUNT, "it was killed too late to show anything"
    with daemon(crawl) as process:
        assert wait_until(lambda: counts(crawl) == {"queued": COUNT}, process)
        process.send_signal(signal.SIGTERM)
        assert ended(process).code in (0, 75)
    assert not any(target.startswith("/more/") for _, target in server.places())
