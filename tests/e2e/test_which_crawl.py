"""How a command finds the crawl: from a configuration that is wrong or names another place by now, and in a copy."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Crawl, Ran, ended, environment, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import WWW, sections, wait_for_requests, wait_until

pytestmark = pytest.mark.e2e
LOOKING = (
    ("status",),
    ("hosts",),
    ("logs", "-n", "1"),
    ("report",),
    ("top", "-n", "1", "--json"),
    ("export", "hosts"),
    ("block", "--list"),
    ("block", "other.test"),
    ("unblock", "other.test"),
    ("pause",),
    ("resume",),
)
MISTAKE = '[politeness]\ndelay = "soon"\nhaste = true\n'


class Steered:
    """A daemon, its configuration, and commands that learn of it by `-c` alone."""

    def __init__(self, server: Nginx, directory: Path) -> None:
        identity: dict[str, object] = {"user_agent": "tested/1.0 (+https://example.org/bot)"}
        self.output = directory / "out"
        keys = sections(server, WWW, identity=identity, output={"directory": self.output})
        keys["politeness"] = {"delay": "50ms", "adaptive": False}
        self.crawl = Crawl.of(directory, keys, output=self.output)
        self.text = self.crawl.config.read_text()
        self.runtime = directory / "runtime"
        self.runtime.mkdir(mode=0o700)
        self.env = environment(XDG_RUNTIME_DIR=str(self.runtime))

    def write(self, text: str) -> None:
        self.crawl.config.write_text(text)

    def tell(self, *arguments: object, **more: Any) -> Ran:
        return run(*arguments, "-c", self.crawl.config, **({"env": self.env} | more))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.crawl.events() if line["event"] == name]


@pytest.fixture
def steered(server: Nginx, tmp_path: Path) -> Iterator[tuple[Steered, subprocess.Popen[str]]]:
    one = Steered(server, tmp_path)
    with running("run", "-c", one.crawl.config, env=one.env) as process:
        assert wait_until(lambda: (one.output / "control.sock").exists(), process), ended(process).stderr
        assert wait_for_requests(server, process, 3)
        yield one, process


def test_a_mistake_in_the_file_locks_nobody_out(steered: tuple[Steered, subprocess.Popen[str]]) -> None:
    """Commands that look or steer say what is wrong, once, and do what they were asked; a reload is refused, and the
    daemon's log says so; where the place itself cannot be read, the daemon is found by its link, or --output is named.
    """
    one, process = steered
    one.write(one.text.replace('delay = "50ms"', 'delay = "soon"') + "haste = true\n")
    line = one.text[: one.text.index("delay =")].count("\n") + 1
    (url,) = [text for text in one.text.split('"') if text.startswith("https://www")][:1]
    for command in (*LOOKING, ("why", url)):
        done = one.tell(*command)
        assert done.code == 0, (command, done.stderr)
        assert done.stderr.count("\n") == 1, (command, done.stderr)
        assert f"warning: {one.crawl.config}:{line}:" in done.stderr, command
        assert "and 1 mistake more" in done.stderr, command
    assert one.tell("check").code == 78
    refused = one.tell("reload")
    assert (refused.code, refused.stdout) == (78, "")
    assert f"{one.crawl.config}:{line}:" in refused.stderr
    assert "the current configuration stays" in refused.stderr
    assert wait_until(lambda: len(one.events("reload_failed")) == 2, process)  # a line for each mistake
    assert one.events("reload_failed")[0]["line"] == line
    one.write(one.text + "[broken\n")
    for command in (("status",), ("pause",), ("resume",), ("hosts",)):
        done = one.tell(*command)
        assert (done.code, done.stderr.count("\n")) == (0, 1), (command, done.stderr)
    assert one.tell("reload").code == 78
    assert wait_until(lambda: len(one.events("reload_failed")) == 3, process)
    (one.runtime / "other").mkdir(mode=0o700)
    elsewhere = one.tell("status", env=one.env | {"XDG_RUNTIME_DIR": str(one.runtime / "other")})
    assert (elsewhere.code, elsewhere.stdout) == (78, "")
    assert "not TOML" in elsewhere.stderr
    assert "--output DIR" in elsewhere.stderr
    assert one.tell("status", "--output", one.output, env=environment()).code == 0
    one.write(one.text)
    assert one.tell("stop", "--wait").code == 0
    assert ended(process, timeout=30).code == 0
    assert list((one.runtime / "crawler").iterdir()) == []
    one.write(MISTAKE)
    assert one.tell("reload").code == 78  # nobody else is there to refuse it


def test_another_directory_in_the_file_needs_a_restart(steered: tuple[Steered, subprocess.Popen[str]]) -> None:
    """The daemon is found where it is, whether the new directory is there, or holds a crawl, or not."""
    one, process = steered
    other = one.output.with_name("other")
    one.write(one.text.replace(json.dumps(str(one.output)), json.dumps(str(other))))
    for _ in range(2):
        done = one.tell("reload")
        assert (done.code, done.stderr) == (0, "")
        assert "needs a restart: output.directory" in done.stdout
        status = one.tell("status")
        assert (status.code, f"output       {one.output}" in status.stdout) == (0, True)
        assert f"names {other}; the crawler that was started with it is in {one.output}" in status.stderr
        other.mkdir(exist_ok=True)
        shutil.copy(one.output / "run.json", other)
    named = one.tell("status", "-o", f"output.directory={other}")
    assert named.code == 69
    process.send_signal(signal.SIGTERM)
    assert ended(process, timeout=30).code == 0


def test_a_copy_of_the_directory_is_not_the_crawl(steered: tuple[Steered, subprocess.Popen[str]]) -> None:
    """Whatever version wrote its run.json: commands act on the copy's store, or on nothing."""
    one, process = steered
    copy = one.output.with_name("copy")
    assert one.tell("backup", one.output.with_name("copy.db")).code == 0
    shutil.copytree(one.output, copy, ignore=shutil.ignore_patterns("*.sock", "frontier.db*"))
    shutil.copy(one.output.with_name("copy.db"), copy / "frontier.db")
    for older in (False, True):
        if older:
            said = json.loads((copy / "run.json").read_text())
            (copy / "run.json").write_text(json.dumps({k: v for k, v in said.items() if k not in ("output", "inode")}))
        for command in ("stop", "pause", "status"):
            assert run(command, "--output", copy, env=one.env).code == 69, command
        assert run("block", f"of-the-copy-{older}.test", "--output", copy, env=one.env).code == 0
    assert "of-the-copy" not in one.tell("block", "--list").stdout
    assert run("block", "--list", "--output", copy, env=one.env).stdout.count("of-the-copy") == 2
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process, timeout=30).code == 0
