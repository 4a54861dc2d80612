"""The container image, built by buildah of a Debian made by debootstrap, and the crawler in it. It asks no registry."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.distributions import ROOT, check_crawl, check_generated, checked, said_by
from tests.support.systemd_machine import debian_base

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1_800)]
USER = 10001
OUTPUT = "/var/lib/crawler"
CONFIGURATION = "/etc/crawler"


@dataclass(frozen=True)
class Buildah:
    """With images and containers in a folder of its own. Containers are chroots here, on this machine's network."""

    folder: Path

    def command(self, *arguments: object) -> list[object]:
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        return ["buildah", *store, *arguments]

    def __call__(self, *arguments: object) -> str:
        return checked(self.command(*arguments), cwd=ROOT).strip()


@dataclass(frozen=True)
class Container:
    """Of the image, with directories of this machine as its volume and its configuration."""

    buildah: Buildah
    name: str
    volume: Path
    configuration: Path

    def command(self, *arguments: object) -> list[str]:
        volumes = "-v", f"{self.volume}:{OUTPUT}", "-v", f"{self.configuration}:{CONFIGURATION}:ro"
        run = self.buildah.command("run", "--isolation", "chroot", *volumes, self.name, "--", "crawler", *arguments)
        return [*map(str, run)]

    def crawler(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Buildah, str]]:
    if shutil.which("buildah") is None or os.geteuid() != 0:
        pytest.skip("images are built here by buildah, as root")
    buildah = Buildah(tmp_path_factory.mktemp("buildah"))
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, debian_base(), "/")
    buildah("commit", "--quiet", base, "base")
    buildah("build", "--isolation", "chroot", "--format", "docker", "--build-arg", "BASE=localhost/base",
            "-f", "Containerfile", "-t", "crawlerd", ".")  # fmt: skip
    try:
        yield buildah, "localhost/crawlerd"
    finally:
        shutil.rmtree(buildah.folder)


@pytest.fixture
def container(image: tuple[Buildah, str], tmp_path: Path) -> Container:
    buildah, name = image
    volume, configuration = tmp_path / "volume", tmp_path / "configuration"
    volume.mkdir()
    configuration.mkdir()
    os.chown(volume, USER, USER)
    for folder in tmp_path.parents:
        if folder.stat().st_mode & 0o077 == 0 and folder.is_relative_to("/tmp"):
            folder.chmod(0o711)  # pytest's are its own; another user shall get at the volume
    return Container(buildah, buildah("from", "--pull-never", name), volume, configuration)


def test_what_the_image_says_of_itself(image: tuple[Buildah, str]) -> None:
    """Not root; output in a volume; SIGTERM, which drains; a health check."""
    buildah, name = image
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    assert found["User"] == f"{USER}:{USER}"
    assert found["Volumes"] == {OUTPUT: {}}
    assert found["StopSignal"] == "SIGTERM"
    assert found["Healthcheck"]["Test"] == ["CMD", "crawler", "status", "--output", OUTPUT]


def test_the_crawler_works_in_it(container: Container) -> None:
    """It writes to the volume, as its own user."""
    check_generated(container.crawler)
    check_crawl(container.crawler, container.configuration, seen_as=Path(CONFIGURATION), archive=Path(OUTPUT))
    assert {path.stat().st_uid for path in (container.volume / "warc").iterdir()} == {USER}


def test_the_health_check_tells_whether_it_runs(container: Container) -> None:
    """`crawler status` fails before the daemon runs and after it ended, and not between."""
    config = container.configuration / "crawler.toml"
    config.write_text('[identity]\nuser_agent = "tested/1.0 (+https://example.org/bot)"\n')
    health = ("status", "--output", OUTPUT)
    assert container.crawler(*health).returncode != 0
    with subprocess.Popen(container.command("run", "-c", f"{CONFIGURATION}/crawler.toml")) as daemon:
        deadline = time.monotonic() + 60
        while container.crawler(*health).returncode != 0:
            assert time.monotonic() < deadline
            assert daemon.poll() is None
        said_by(container.crawler("stop", "--output", OUTPUT))
        assert daemon.wait(60) == 0
    assert container.crawler(*health).returncode != 0
