"""The project as its users get it (sdist, wheel), and what has to work wherever it was installed from one.

Invariant: what is installed sees nothing of the checkout: it runs elsewhere, and with no variable of this process.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crawler import __version__
from crawler.demo.server import DemoServer
from crawler.demo.site import WWW
from tests.support.commands import toml

ROOT: Final = Path(__file__).parents[2]
COMMAND_S: Final = 600.0
LNAV: Final = ("crawler-events.lnav.json", "crawler-fetch.lnav.json")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Distributions:
    """What `make dist` would write, in a folder of a test's own."""

    sdist: Path
    wheel: Path


def build(directory: Path) -> Distributions:
    """Build the sdist of this checkout, and the wheel of what is in that sdist, as packagers do."""
    _hatch(ROOT, "sdist", directory)
    sdist = directory / f"crawlerd-{__version__}.tar.gz"
    checked(["tar", "--extract", "--gzip", f"--file={sdist}", f"--directory={directory}"])
    _hatch(directory / f"crawlerd-{__version__}", "wheel", directory)
    return Distributions(sdist, directory / f"crawlerd-{__version__}-py3-none-any.whl")


def _hatch(project: Path, target: str, directory: Path) -> None:
    checked([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory], cwd=project)


def checked(command: list[object], **more: object) -> str:
    """Run a command that succeeds; returns its standard output."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=COMMAND_S, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    found: str = done.stdout
    return found


def runner(program: Path, directory: Path) -> Run:
    """Runs an installed `crawler` in a directory, as from a shell in which nothing is set."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "LANG": "C.UTF-8"}

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program, *map(str, arguments)],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    return run


def check_generated(run: Run) -> None:
    """Version, example configuration, schema and completions are those of the checkout."""
    assert said_by(run("--version")).split()[-1] == __version__
    assert said_by(run("config", "show", "--default")) == (ROOT / "config/crawler.toml").read_text()
    assert said_by(run("config", "schema")) == (ROOT / "config/crawler.schema.json").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert "crawler" in said_by(run("completion", shell))


def check_service_files(run: Run, root: Path) -> None:
    """`install-service` finds all that it installs, and the unit names a program that is there."""
    said_by(run("install-service", "--root", root))
    unit = (root / "etc/systemd/system/crawler.service").read_text().splitlines()
    (program,) = [line.removeprefix("ExecStart=").split()[0] for line in unit if line.startswith("ExecStart=")]
    assert Path(program).is_file()
    for path in ("sysusers.d/crawler.conf", "crawler/crawler.toml", *(f"lnav/formats/crawler/{name}" for name in LNAV)):
        assert (root / "etc" / path).stat().st_size > 0
    assert (root / "usr/local/share/man/man1/crawler.1").read_text() == (ROOT / "docs/crawler.1").read_text()


def check_crawl(run: Run, directory: Path, seen_as: Path | None = None, archive: Path | None = None) -> None:
    """`check`, `fetch`, `crawl` and `verify` work on a site served here over TLS. The configuration goes to
    `directory`, which is `seen_as` by the crawler, and the output to `archive` as the crawler sees it, else beside it.
    """
    here = seen_as or directory
    archive = archive or here / "archive"
    with DemoServer() as server:
        (directory / "ca.pem").write_bytes(Path(server.ca_file).read_bytes())
        sections: dict[str, dict[str, object]] = {
            "crawl": {"seeds": [server.url(WWW)]},
            "identity": {"user_agent": "tested/1.0 (+https://example.org/bot; bot@example.org)"},
            "politeness": {"delay": 0},
            "network": {"resolve": dict(server.resolve_table()), "allow_private": ["127.0.0.0/8"],
                        "ca_file": here / "ca.pem"},
            "output": {"directory": archive},
        }  # fmt: skip
        (directory / "site.toml").write_text(toml(sections))
        configuration = ("-c", here / "site.toml")
        said_by(run("check", *configuration))
        fetched = json.loads(said_by(run("fetch", server.url(WWW), *configuration, "--json")))
        assert fetched["outcome"] == "ok"
        assert fetched["connection"]["certificate"]["verified"] is True
        summary = json.loads(said_by(run("crawl", *configuration, "--json")))
    assert summary["stopped_by"] == "empty"
    assert summary["pages"] > 20
    said_by(run("verify", archive))


def said_by(done: "subprocess.CompletedProcess[str]") -> str:
    """Standard output of a command that succeeded."""
    assert done.returncode == 0, (done.args, done.stdout, done.stderr)
    return done.stdout
