"""The Debian package in a root of its own (debootstrap): installed, used, upgraded, removed, purged.

No service is started.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crawler import __version__
from tests.support import distributions
from tests.support.distributions import ROOT, check_crawl, check_generated, checked, said_by
from tests.support.systemd_machine import debian_base

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1_800)]
OUTPUT = "var/lib/crawler"
CONFIG = "etc/crawler/crawler.toml"
UNITS = ("crawler.service", "crawler@.service", "crawler-again@.service")
# What dpkg and the tools that it calls write for themselves
WRITTEN_BY_DPKG = (
    "run/",
    "var/lib/dpkg",
    "var/cache",
    "var/log",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
)


@dataclass(frozen=True)
class Chroot:
    """A root file system with processes of its own, on this machine's network."""

    root: Path

    def run(self, *command: object, user: str = "root") -> "subprocess.CompletedProcess[str]":
        inside = f'mount -t proc proc "{self.root}/proc"; mount --bind /dev "{self.root}/dev"; exec "$@"'
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc", inside, "_",
             "chroot", f"--userspec={user}:{user}", self.root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
             "HOME=/nonexistent", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *map(str, command)],
            capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def must(self, *command: object) -> str:
        return said_by(self.run(*command))

    def crawler(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Run by the account of the service."""
        return self.run("crawler", *arguments, user="crawler")

    def install(self, package: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        inside = self.root / "tmp/package.deb"
        shutil.copy(package, inside)
        try:
            return self.run("dpkg", *options, "--install", "/tmp/package.deb")
        finally:
            inside.unlink()

    def files(self) -> set[str]:
        found = set()
        for folder, folders, names in os.walk(self.root):
            inside = Path(folder).relative_to(self.root)
            found |= {str(inside / name) for name in (*folders, *names)}
        return {name for name in found if not name.startswith(WRITTEN_BY_DPKG)}


def wanted_units(chroot: Chroot) -> set[str]:
    """Units of the crawler that a boot would start."""
    return {path.name for path in (chroot.root / "etc/systemd/system").glob("*.wants/crawler*")}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path_factory.mktemp("deb")
    wheel = distributions.build(folder).wheel
    said = checked([ROOT / "release/deb/build", wheel, folder], cwd=ROOT)
    return Path(said.splitlines()[-1])


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as the next revision, with another file in it, one file less, and a changed example configuration."""
    folder = tmp_path_factory.mktemp("newer")
    tree = folder / "tree"
    checked(["dpkg-deb", "-R", package, tree])
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"{__version__}-1", f"{__version__}-2"))
    (tree / CONFIG).write_text((tree / CONFIG).read_text() + "# a line of the new version\n")
    (tree / "opt/crawler/new").touch()
    (tree / "usr/share/doc/crawlerd/examples/grafana-dashboard.json").unlink()
    checked(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, folder / "newer.deb"])
    return folder / "newer.deb"


@pytest.fixture
def chroot(tmp_path: Path) -> Iterator[Chroot]:
    if os.geteuid() != 0:
        pytest.skip("a root of its own needs root")
    base = debian_base()
    root = tmp_path / "root"
    checked(["cp", "-a", "--reflink=auto", base, root])
    try:
        yield Chroot(root)
    finally:
        shutil.rmtree(root)


def test_lintian_has_no_errors(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    said = subprocess.run(
        ["lintian", "--allow-root", "--tag-display-limit=0", package],
        capture_output=True, text=True, timeout=600, check=False,
    ).stdout  # fmt: skip
    assert [line for line in said.splitlines() if line.startswith("E:")] == []


def test_two_builds_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    wheel = distributions.build(tmp_path).wheel
    again = checked([ROOT / "release/deb/build", wheel, tmp_path], cwd=ROOT).splitlines()[-1]
    assert Path(again).read_bytes() == package.read_bytes()


def test_from_installation_to_purge(chroot: Chroot, package: Path, newer: Path) -> None:
    """It works; an upgrade keeps a changed configuration, `remove` the crawl; `purge` leaves nothing."""
    stamp = chroot.root / "var/lib/systemd/timers/stamp-crawler-again@two.timer"  # as systemd makes it
    stamp.parent.mkdir(parents=True, exist_ok=True)
    before = chroot.files()
    said = said_by(chroot.install(package))
    assert "edit /etc/crawler/crawler.toml" in said
    check_generated(chroot.crawler)
    for unit in UNITS:
        assert chroot.must("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{unit}") == ""
    named = chroot.must("sh", "-c", "find /opt/crawler -name '*.so*' -exec ldd {} + 2>/dev/null")
    assert "not found" not in named
    assert chroot.run("dpkg", "--verify", "crawlerd").stdout == ""

    output = chroot.root / OUTPUT  # as the unit's StateDirectory= makes it
    chroot.must("install", "-d", "-o", "crawler", "-g", "crawler", "-m", "750", f"/{OUTPUT}", "/var/log/crawler")
    check_crawl(chroot.crawler, output, seen_as=Path("/") / OUTPUT)
    assert (output / "archive/warc").is_dir()

    changed = (chroot.root / CONFIG).read_text() + "# a line of the operator's\n"
    (chroot.root / CONFIG).write_text(changed)
    said_by(chroot.install(newer, "--force-confold"))
    assert (chroot.root / CONFIG).read_text() == changed
    assert (chroot.root / "opt/crawler/new").is_file()
    assert not (chroot.root / "usr/share/doc/crawlerd/examples/grafana-dashboard.json").exists()
    check_generated(chroot.crawler)

    enabled = ("crawler.service", "crawler@one.service", "crawler-again@two.timer")
    chroot.must("systemctl", "enable", *enabled)
    assert wanted_units(chroot) == set(enabled)
    stamp.touch()
    said = chroot.must("dpkg", "--remove", "crawlerd")
    assert wanted_units(chroot) == set()
    assert "/var/lib/crawler" in said
    assert (output / "archive/warc").is_dir()
    assert (chroot.root / CONFIG).read_text() == changed
    assert not (chroot.root / "opt/crawler").exists()

    said = chroot.must("dpkg", "--purge", "crawlerd")
    assert "deleting /var/lib/crawler" in said
    assert chroot.files() - before == set()
    assert "crawler:" not in (chroot.root / "etc/passwd").read_text()


def test_what_is_in_its_place_is_not_overwritten(chroot: Chroot, package: Path) -> None:
    tree = chroot.root / "opt/crawler"
    tree.mkdir()
    (tree / "Makefile").touch()
    done = chroot.install(package)
    assert done.returncode != 0
    assert "is not empty" in done.stderr
    assert [path.name for path in tree.iterdir()] == ["Makefile"]
