"""The README's commands do what it says: each is run as it stands, on a site served here under the README's name."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.demo.message import Answer, Request
from crawler.demo.server import ADDRESS, DemoServer
from tests.support.interrupted import wait_until

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PORT = 443


def blocks(language: str, heading: str) -> list[str]:
    """The fenced blocks of one language under one heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def respond(request: Request) -> Answer:
    links = "".join(f'<a href="/{n}">{n}</a>' for n in range(5)) + '<a href="/private/x">x</a><a href="/gone">y</a>'
    if request.target == "/" or request.target[1:].isdigit():
        return Answer(body=f"<title>{request.target}</title>{links}".encode(), content_type="text/html")
    return Answer(status=404, body=b"no", content_type="text/plain")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """example.org, served on this machine; the commands learn of it by environment alone."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, PORT))
        except OSError as error:
            pytest.skip(f"port {PORT} of {ADDRESS} cannot be used here ({error.strerror}): the README's URLs have it")
    home = tmp_path_factory.mktemp("readme")
    with DemoServer(respond, hosts=["example.org"], port=PORT) as server:
        yield {
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "CRAWLER_NETWORK__RESOLVE": f'{{"example.org" = ["{ADDRESS}"]}}',
            "CRAWLER_NETWORK__ALLOW_PRIVATE": '["127.0.0.0/8"]',
            "CRAWLER_NETWORK__CA_FILE": server.ca_file,
            "CRAWLER_POLITENESS__DELAY": "10ms",
        }


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def test_the_configuration_is_ten_lines_and_right(tmp_path: Path) -> None:
    """The ten-line example passes `crawler check` without a warning."""
    (example,) = blocks("toml", "Use it")
    assert len([line for line in example.splitlines() if not line.startswith("[")]) <= 10
    (tmp_path / "site.toml").write_text(example)
    environment = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    done = run("crawler check -c site.toml", tmp_path, environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_of_use_it_and_look_inside(tmp_path: Path, environment: dict[str, str]) -> None:
    """Every line of these sections runs in the order given, and the crawl finds the site's pages."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed: the README reads the logs with it")
    (tmp_path / "site.toml").write_text(blocks("toml", "Use it")[0])
    commands = [line for text in (*blocks("sh", "Use it"), *blocks("sh", "Look inside")) for line in text.splitlines()]
    assert len(commands) >= 8
    outputs = {}
    for command in commands:
        done = run(command, tmp_path, environment)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        outputs[command] = done.stdout
    counted = next(text for command, text in outputs.items() if "uniq -c" in command)
    assert re.search(r"\b6 ok\b", counted), counted  # the front page and five others
    refused = next(text for command, text in outputs.items() if "url_skipped" in command)
    assert "scope_exclude" in refused


def test_make_run_with_a_url(tmp_path: Path, environment: dict[str, str]) -> None:
    """`make run URL=…` crawls that site."""
    (command,) = [line for line in "".join(blocks("sh", "Try it")).splitlines() if "URL=" in line]
    done = run(f"{command} ARGS='--output {tmp_path}/out --json'", ROOT, environment)
    assert done.returncode == 0, done.stderr
    assert '"pages":6' in done.stdout


def test_make_run_without_a_url(tmp_path: Path, environment: dict[str, str]) -> None:
    """`make run` alone needs no network."""
    plain = {name: value for name, value in environment.items() if not name.startswith("CRAWLER_")}
    done = run(f"make run ARGS='--output {tmp_path}/out --json'", ROOT, plain)
    assert done.returncode == 0, done.stderr
    assert '"stopped_by":"empty"' in done.stdout


def test_every_make_target_that_is_named_exists() -> None:
    """A target that the README speaks of is one that make knows."""
    targets = set(re.findall(r"`make ([a-z]+)", README)) | set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"run", "test", "venv", "quick", "prove"} <= targets
    for target in sorted(targets):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (target, done.stderr)


def test_the_service_is_installed_from_files_that_exist(tmp_path: Path) -> None:
    """The install commands run against a root of their own; what systemd itself is asked is only read."""
    (tmp_path / "site.toml").write_text(blocks("toml", "Use it")[0])
    text, _ = blocks("sh", "Install the service")
    for command in text.splitlines():
        if command.endswith("/crawler install-service"):
            done = run(
                f"{sys.executable} -m crawler install-service --root root", tmp_path, {"PATH": os.environ["PATH"]}
            )
            assert done.returncode == 0, done.stderr
        elif command.startswith("install "):
            moved = (
                command.replace("/opt/crawler", str(ROOT)).replace(" /usr", " root/usr").replace(" /etc", " root/etc")
            )
            done = run(moved, tmp_path, {"PATH": os.environ["PATH"]})
            assert done.returncode == 0, (moved, done.stderr)
        else:
            assert command.split()[0] in ("make", "systemd-sysusers", "systemctl"), command
    unit = (tmp_path / "root/etc/systemd/system/crawler.service").read_text()
    assert "/crawler run -c /etc/crawler/crawler.toml" in unit
    assert (tmp_path / "root/etc/crawler/crawler.toml").read_text() == (tmp_path / "site.toml").read_text()


def test_a_running_daemon_is_steered(tmp_path: Path, environment: dict[str, str]) -> None:
    """The commands for an installed service, told to one that runs here."""
    config = tmp_path / "crawler.toml"
    config.write_text(blocks("toml", "Use it")[0])
    _, text = blocks("sh", "Install the service")
    environment = {**environment, "CRAWLER_OUTPUT__DIRECTORY": str(tmp_path / "var")}  # as the unit sets it
    commands = text.replace("/var/lib/crawler", str(tmp_path / "var")).splitlines()
    assert len(commands) == 4
    daemon = subprocess.Popen(
        [sys.executable, "-m", "crawler", "run", "-c", str(config)], cwd=tmp_path, env=environment
    )
    try:
        assert wait_until(lambda: (tmp_path / "var/control.sock").exists(), daemon)
        del environment["CRAWLER_OUTPUT__DIRECTORY"]  # an operator's shell knows nothing of the unit
        for command in commands:
            done = run(command, tmp_path, environment)
            assert (done.returncode, done.stderr) == (0, ""), command
        assert "paused" in run(commands[0], tmp_path, environment).stdout
    finally:
        daemon.terminate()
        daemon.wait(30)


def test_links_lead_somewhere() -> None:
    """Every file that the README links to is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
