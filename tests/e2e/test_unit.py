"""The service as systemd runs it: the unit is sound and tight, the program works under its restrictions, the watchdog
finds a loop that stands still.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import TIMEOUT_S, Crawl, ended, environment, run
from tests.support.nginx import Nginx
from tests.support.site_crawls import OTHER, sections, wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "crawler.service"
UNITS = (UNIT, *(ROOT / "systemd" / name for name in ("crawler@.service", "crawler-again@.service")))
EXPOSURE = 1.5

# Every module with machine code that the service's dependencies have, and what they do when used.
IMPORT_ALL = """
import importlib, importlib.metadata, pathlib, re, sys
names = {re.match(r"[a-z0-9_-]+", line)[0] for line in open(sys.argv[1]) if re.match(r"[a-z0-9]", line)}
loaded = []
for name in sorted(names - {"editables", "hatchling"}):
    for path in importlib.metadata.files(name) or ():
        match = re.fullmatch(r"(.+?)\\.(?:cpython-[^/]+|abi3)\\.so", str(path))
        if match and not path.parts[0].startswith(".."):
            module = match[1].removesuffix("/__init__").replace("/", ".")
            importlib.import_module(module)
            loaded.append(module)
print(len(loaded), *loaded)
"""


@contextmanager
def unit_that_can_start(folder: Path, unit: Path) -> Iterator[str]:
    """A copy whose program exists, so that only the unit itself is judged; an instance for a template."""
    text = unit.read_text().replace("/opt/crawler/.venv/bin/crawler", "/bin/true")
    (folder / unit.name).write_text(text)
    yield str(folder / unit.name.replace("@.", "@news."))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_is_sound(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say: unknown keys and values would be warnings."""
    with unit_that_can_start(tmp_path, unit) as path:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_is_tight(unit: Path, tmp_path: Path) -> None:
    """Exposure as `systemd-analyze security` reckons it: nginx and postgresql, as Debian ships them, have 9.6."""
    with unit_that_can_start(tmp_path, unit) as path:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", path],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]
    assert "Overall exposure level" in done.stdout


def sandboxed(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command under the unit's restrictions."""
    arguments = [sys.executable, "-m", "tests.support.sandbox", str(UNIT), *map(str, command)]
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **more
    )  # type: ignore[call-overload, no-any-return]  # the keywords of subprocess.run


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import mmap; mmap.mmap(-1, 4096, prot=7)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "not supported"),
        ("import os; os.chroot('/')", "PermissionError"),
        ("import os; os.nice(-5)", "PermissionError"),
    ],
)
def test_the_restrictions_of_these_tests_restrict(code: str, words: str) -> None:
    """Memory that is written and run, other address families, privileged calls and priorities are refused."""
    done = sandboxed(sys.executable, "-c", code)
    assert done.returncode == 1
    assert words in done.stderr


def test_every_compiled_dependency_loads_under_the_units_restrictions() -> None:
    """System-call filter, no memory both written and run, three address families."""
    done = sandboxed(sys.executable, "-c", IMPORT_ALL, ROOT / "requirements.lock")
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout.split()[0]) >= 25


def test_a_crawl_is_done_under_the_units_restrictions(server: Nginx, tmp_path: Path) -> None:
    """Names asked for over DNS (nobody answers), TLS, every coding, threads, the store, the socket, the status page."""
    with socket.socket() as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        sock.bind(("127.0.0.1", 0))
        deaf.bind(("127.0.0.1", 0))
        port, nameserver = sock.getsockname()[1], f"127.0.0.1:{deaf.getsockname()[1]}"
        keys = sections(
            server, OTHER,
            admin={"listen": f"127.0.0.1:{port}"},
            network={"nameservers": [nameserver]},
            crawl={"linger": "0s"},
            scope={"hosts": [OTHER, "nowhere.test"]},
        )  # fmt: skip
        sock.close()
        crawl = Crawl.of(tmp_path, keys)
        more = "--output", crawl.output, "--json", f"https://nowhere.test:{server.port}/", server.url(OTHER)
        done = sandboxed(sys.executable, "-m", "crawler", "crawl", "-c", crawl.config, *more)
    assert done.returncode in (0, 75), done.stderr[-2_000:]
    summary = json.loads(done.stdout)
    assert summary["pages"] > 80
    assert set(server.places()) >= server.site.wanted(OTHER)
    failed = [line for line in crawl.fetches() if line["outcome"] == "error"]
    assert {line["error_type"] for line in failed} <= {"dns_timeout"}
    assert failed


BLOCKS_ITS_LOOP = """
import sys, time
from crawler import service
beats = 0
good = service.Service.sample
async def beat(self):
    global beats
    beats += 1
    if beats == 3:
        time.sleep(600)  # this line holds the loop
    await good(self)
service.Service.sample = beat
from crawler.cli import main
main(sys.argv[1:])
"""


def test_the_watchdog_finds_a_loop_that_stands_still(server: Nginx, tmp_path: Path) -> None:
    """As systemd does: no WATCHDOG=1 within WATCHDOG_USEC brings SIGABRT; the traceback names the line, and the next
    start goes on. All of it takes less than half a minute.
    """
    identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
    output = tmp_path / "out"
    slow: dict[str, object] = {"delay": "100ms", "adaptive": False}
    keys = sections(server, OTHER, identity=identity, output={"directory": output}, politeness=slow)
    crawl = Crawl.of(tmp_path, keys, output=output)
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = f"\0crawler-stuck-{os.getpid()}"
        told.bind(address)
        told.settimeout(5.0)
        env = environment(NOTIFY_SOCKET="@" + address[1:], WATCHDOG_USEC="2000000")
        command = [sys.executable, "-c", BLOCKS_ITS_LOOP, "run", "-c", str(crawl.config)]
        with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
            beats = 0
            told.settimeout(20.0)
            while True:
                try:
                    beats += told.recv(4096) == b"WATCHDOG=1"
                except TimeoutError:
                    break
                if beats:
                    told.settimeout(2.0)  # WATCHDOG_USEC
            process.send_signal(signal.SIGABRT)
            stuck = ended(process, timeout=20)
    assert beats >= 1
    assert stuck.code == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in stuck.stderr
    assert 'File "<string>", line 10 in beat' in stuck.stderr
    again = subprocess.Popen(
        [sys.executable, "-m", "crawler", "run", "-c", str(crawl.config)], cwd=ROOT, env=environment(),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with again:
        before = server.count()
        assert wait_until(lambda: server.count() > before + 3, again)
        assert time.monotonic() - began < 30
        again.send_signal(signal.SIGTERM)
        assert ended(again, timeout=30).code == 0


def test_reloading_by_the_units_command(server: Nginx, tmp_path: Path) -> None:
    """ExecReload returns when the new configuration is in force; a refused one fails with its reason, and the service
    goes on.
    """
    (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecReload=")]
    _, *arguments = line.partition("=")[2].split()
    identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
    output = tmp_path / "out"
    keys = sections(server, OTHER, identity=identity, output={"directory": output})
    crawl = Crawl.of(tmp_path, keys, output=output)
    assert "/etc/crawler/crawler.toml" in arguments
    arguments = [str(crawl.config) if word == "/etc/crawler/crawler.toml" else word for word in arguments]
    with subprocess.Popen(
        [sys.executable, "-m", "crawler", "run", "-c", str(crawl.config)], cwd=ROOT, env=environment(),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert wait_until(lambda: (output / "control.sock").exists(), process)
        assert run(*arguments).code == 0
        crawl.config.write_text("[crawl]\nseeds = 3\n")
        refused = run(*arguments)
        assert refused.code == 78
        assert "crawler.toml:2:9: crawl.seeds must be a list" in refused.stderr
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert ended(process, timeout=30).code == 0
