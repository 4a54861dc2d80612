"""Sdist and wheel: what is in them, and the program as installed from them outside the checkout."""

import os
import shutil
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import distributions
from tests.support.distributions import ROOT, Distributions, check_crawl, check_generated, check_service_files, checked

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return distributions.build(tmp_path_factory.mktemp("dist"))


def check_everything(program: Path, directory: Path) -> None:
    run = distributions.runner(program, directory)
    check_generated(run)
    check_service_files(run, directory / "root")
    check_crawl(run, directory)


def test_the_wheel_has_every_file_of_the_package(built: Distributions) -> None:
    """Also when it is made of the sdist: modules, static files, SQL, and what `install-service` installs."""
    with zipfile.ZipFile(built.wheel) as archive:
        packed = set(archive.namelist())
    tracked = checked(["git", "-C", ROOT, "ls-files", "-z", "crawler", "config", "systemd"]).rstrip("\0").split("\0")
    wanted = {name if name.startswith("crawler/") else f"crawler/share/{name}" for name in tracked}
    assert wanted - packed == set()


def test_it_works_without_the_checkout(built: Distributions, tmp_path: Path) -> None:
    """In an environment of its own, with this one's libraries."""
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    checked([sys.executable, "-m", "pip", "--python", environment / "bin/python", "install", "--quiet", "--no-deps",
             "--no-index", built.wheel])  # fmt: skip
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    found = checked([environment / "bin/python", "-I", "-c", "import crawler; print(crawler.__file__)"], cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(environment)
    check_everything(environment / "bin/crawler", tmp_path)


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_pip_installs_it(built: Distributions, tmp_path: Path, kind: str) -> None:
    """With the newest libraries that it allows, from the package index."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    checked([environment / "bin/pip", "install", "--quiet", getattr(built, kind)])
    checked([environment / "bin/pip", "check"])
    check_everything(environment / "bin/crawler", tmp_path)


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_pipx_installs_it(built: Distributions, tmp_path: Path) -> None:
    """The command is in its bin folder and nothing else is."""
    if (pipx := shutil.which("pipx")) is None:
        pytest.skip("pipx is not installed")
    environment = os.environ | {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    checked([pipx, "install", built.wheel], env=environment)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["crawler"]
    check_everything(tmp_path / "bin/crawler", tmp_path)
