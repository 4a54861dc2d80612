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

from crawler.demo.server import ADDRESS, DemoServer
from crawler.demo.site import DemoRequest, DemoResponse
from tests.support.site_crawls import wait_until

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PORT = 443


def blocks(language: str, heading: str) -> list[str]:
    """The fenced blocks of one language under one heading."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def respond(request: DemoRequest) -> DemoResponse:
    links = "".join(f'<a href="/{n}">{n}</a>' for n in range(5)) + '<a href="/private/x">x</a><a href="/gone">y</a>'
    if request.target == "/" or request.target[1:].isdigit():
        return DemoResponse(body=f"<title>{request.target}</title>{links}".encode(), content_type="text/html")
    return DemoResponse(status=404, body=b"no", content_type="text/plain")


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


def run(
    command: str, folder: Path, environment: dict[str, str], *, terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    """`terminal`: below script(1), which gives it one."""
    shell = ["script", "-qec", command, "/dev/null"] if terminal else ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(
        shell,
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


def shape(text: str) -> list[list[str]]:
    """The words of each line, with "#" for what differs from run to run: numbers, times, durations."""
    text = re.sub(r"\(fetched [^)]*\)|last request .*", "#", text)
    text = re.sub(r"\d[\d.,:TZ/-]*( (ms|s|min|h|d)\b)*", "#", text)
    return [re.sub(r"(# ?)+", "# ", line).split() for line in text.splitlines()]


def test_the_samples_are_what_a_terminal_shows(tmp_path: Path, environment: dict[str, str]) -> None:
    """Of `why` and `hosts`, after a crawl of the demo's site."""
    plain = {name: value for name, value in environment.items() if not name.startswith("CRAWLER_")}
    demo = [sys.executable, "-m", "crawler.demo", "-o", "politeness.delay=0"]
    done = subprocess.run(demo, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "crawl/demo/logs/fetch.jsonl").read_text().splitlines()
    port = next(found[1] for line in lines if (found := re.search(r"www\.demo\.test:(\d+)", line)))
    (samples,) = re.findall(r"^```\n(\$ crawler why.*?)^```", README, re.MULTILINE | re.DOTALL)
    for sample in samples.split("$ ")[1:]:
        command, _, expected = sample.partition("\n")
        there = re.sub(r"demo\.test:\d+", f"demo.test:{port}", command)
        shown = run(f"stty cols 200; {there}", tmp_path, plain | {"NO_COLOR": "1"}, terminal=True).stdout
        assert shape(shown) == shape(expected), command


def test_every_make_target_that_is_named_exists() -> None:
    """A target that the README speaks of is one that make knows."""
    targets = set(re.findall(r"`make ([a-z]+)", README)) | set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert {"run", "test", "venv", "quick", "prove"} <= targets
    for target in sorted(targets):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (target, done.stderr)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The service as the README has it installed, below a root of its own; its configuration edited as it says."""
    text, _ = blocks("sh", "Install the service")
    root = tmp_path / "root"
    for command in text.splitlines():
        if command.endswith("/crawler install-service"):
            done = run(
                f"{sys.executable} -m crawler install-service --root {root}", tmp_path, {"PATH": os.environ["PATH"]}
            )
            assert done.returncode == 0, done.stderr
        elif command.startswith("${EDITOR"):
            assert command.split()[1] == "/etc/crawler/crawler.toml"
            edit(root / "etc/crawler/crawler.toml")
        elif command.startswith("crawler "):
            moved = command.replace("/etc/", f"{root}/etc/")
            done = run(moved, tmp_path, {"PATH": f"{root}/usr/local/bin:{os.environ['PATH']}"})
            assert (done.returncode, done.stderr) == (0, ""), moved
            assert "output /var/lib/crawler" in done.stdout
        else:
            assert command.split()[0] in ("make", "systemd-sysusers", "systemctl"), command
    return root


def edit(configuration: Path) -> None:
    """The two keys that are left to the operator."""
    text = configuration.read_text()
    for key, value in (
        ("user_agent", '"mybot/1.0 (+https://example.org/bot; bot@example.org)"'),
        ("seeds", '["https://example.org/"]'),
    ):
        text, count = re.subn(rf"^#{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
        assert count == 1, key
    configuration.write_text(text)


def test_the_service_is_installed_from_files_that_exist(installed: Path) -> None:
    """The install commands run against a root of their own; what systemd itself is asked is only read."""
    unit = (installed / "etc/systemd/system/crawler.service").read_text()
    assert "/crawler run -c /etc/crawler/crawler.toml" in unit
    assert "Environment=" not in unit  # what the file says is what holds


def test_install_service_prints_the_steps_of_the_readme(tmp_path: Path) -> None:
    """Step by step; without a root of its own the command is called by its name."""
    text, _ = blocks("sh", "Install the service")
    from crawler.cli.service.planned_files import next_steps, plan

    files = plan(root=tmp_path, instance=None, program=Path("/opt/x"), completions=str, man_page="")
    assert next_steps(None, files, Path("/etc/crawler/crawler.toml"), "crawler") == text.splitlines()[2:]


def test_a_running_daemon_is_steered(installed: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """The commands for an installed service, told to one that runs here as the unit starts it: with the environment
    that systemd gives it and an operator's shell does not have.
    """
    config = installed / "etc/crawler/crawler.toml"
    text = config.read_text()
    for place in ("/var/lib/crawler", "/var/log/crawler"):
        text = text.replace(f'"{place}"', f'"{installed}{place}"')
        (installed / place[1:]).mkdir(parents=True)
    config.write_text(text)
    runtime = installed / "run/crawler"
    runtime.mkdir(parents=True)
    of_the_unit = {
        "STATE_DIRECTORY": f"{installed}/var/lib/crawler",
        "LOGS_DIRECTORY": f"{installed}/var/log/crawler",
        "RUNTIME_DIRECTORY": str(runtime),
        "CONFIGURATION_DIRECTORY": str(config.parent),
    }
    _, steer = blocks("sh", "Install the service")
    commands = re.sub(r" /(var|etc)/", rf" {installed}/\1/", steer).splitlines()
    assert len(commands) == 4
    daemon = subprocess.Popen(
        [sys.executable, "-m", "crawler", "run", "-c", str(config)], cwd=tmp_path, env=environment | of_the_unit
    )
    try:
        assert wait_until(lambda: (installed / "var/lib/crawler/control.sock").exists(), daemon)
        assert (installed / "var/log/crawler/events.jsonl").exists()
        for command in commands:
            done = run(command, tmp_path, environment)
            assert (done.returncode, done.stderr) == (0, ""), command
        assert "paused" in run(commands[0], tmp_path, environment).stdout
    finally:
        daemon.terminate()
        daemon.wait(30)
