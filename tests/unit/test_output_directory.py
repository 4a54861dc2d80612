"""How a configuration leads to the daemon that runs it: the links it leaves, and which of them are followed."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import orjson
import pytest

from crawler import output_directory
from crawler.cli.crawl_options import find_crawl
from crawler.frontier.sqlite.database import OwnerLock
from crawler.output_directory import link_configuration, other_files, outputs_running, unlink_configuration


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A runtime directory of our own, and nothing of this machine's."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setattr(output_directory, "_SERVICE", tmp_path / "service")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "crawler.toml"
    path.write_text("[output]\ndirectory = 'gone'\n")
    return path


@pytest.fixture
def outputs(tmp_path: Path, config: Path) -> Iterator[list[Path]]:
    """Two crawls of one configuration, both running: this process holds their locks."""
    found, locks = [], []
    for name in ("one", "two"):
        output = tmp_path / name
        output.mkdir()
        (output / "frontier.db").touch()
        (output / "run.json").write_bytes(orjson.dumps({"output": str(output), "configuration": str(config)}))
        locks.append(OwnerLock(output / "frontier.db.lock"))
        locks[-1].acquire()
        found.append(output)
    yield found
    for lock in locks:
        lock.release()


def test_a_daemon_is_found_by_its_configuration_while_it_runs(
    config: Path, outputs: list[Path], environ: dict[str, str]
) -> None:
    """Under any spelling of the path; not by another file, and not once the link is taken away."""
    link = link_configuration(str(config), outputs[0], environ)
    assert outputs_running(config, environ) == [outputs[0]]
    assert outputs_running(config.parent / "x" / ".." / config.name, environ) == [outputs[0]]
    assert outputs_running(config.with_name("other.toml"), environ) == []
    assert find_crawl(config, (), None).paths.output == outputs[0]
    unlink_configuration(link)
    assert outputs_running(config, environ) == []
    unlink_configuration(link)


def test_a_link_is_only_a_hint(config: Path, outputs: list[Path], environ: dict[str, str]) -> None:
    """After a kill it is still there: what it leads to has to run, and with this configuration."""
    link_configuration(str(config), outputs[0], environ)
    run = outputs[0] / "run.json"
    said = run.read_bytes()
    run.write_bytes(orjson.dumps(orjson.loads(said) | {"configuration": "/etc/other.toml"}))
    assert outputs_running(config, environ) == []
    run.write_bytes(said)
    (outputs[0] / "frontier.db.lock").unlink()
    assert outputs_running(config, environ) == []
    run.unlink()
    link_configuration(str(config), outputs[1], environ)  # takes away what leads nowhere
    assert len(list(Path(environ["XDG_RUNTIME_DIR"], "crawler").iterdir())) == 1


def test_of_several_none_is_chosen(config: Path, outputs: list[Path], environ: dict[str, str]) -> None:
    """The operator says which."""
    for output in outputs:
        link_configuration(str(config), output, environ)
    assert outputs_running(config, environ) == outputs
    with pytest.raises(click.UsageError, match="name one with --output DIR"):
        find_crawl(config, (), None)


def test_the_services_links_are_found_by_everyone(
    tmp_path: Path, config: Path, outputs: list[Path], environ: dict[str, str]
) -> None:
    """systemd names the directory to the daemon alone: /run/crawler, and one below it for each instance."""
    for folder, output in zip((tmp_path / "service", tmp_path / "service/news"), outputs, strict=True):
        folder.mkdir()
        assert link_configuration(str(config), output, {"RUNTIME_DIRECTORY": str(folder)}) is not None
    assert outputs_running(config, environ) == outputs


def test_a_folder_that_others_may_write_to_is_not_believed(
    config: Path, outputs: list[Path], tmp_path: Path, environ: dict[str, str]
) -> None:
    """In the directory for temporary files anybody may have made it."""
    own = tmp_path / f"crawler-{os.geteuid()}"
    link = link_configuration(str(config), outputs[0], {})
    assert link is not None
    assert link.parent == own
    assert outputs_running(config, environ) == [outputs[0]]
    own.chmod(0o777)
    assert outputs_running(config, environ) == []
    assert link_configuration(str(config), outputs[1], {}) is None


def test_what_is_not_the_crawls_is_named_before_it_begins(tmp_path: Path) -> None:
    """Not hidden files, nor anything once a crawl is there."""
    assert other_files(tmp_path / "nowhere") == []
    (tmp_path / ".made-by-crawler-demo").touch()
    (tmp_path / "logs").mkdir()
    assert other_files(tmp_path) == []
    (tmp_path / "thesis.doc").touch()
    assert other_files(tmp_path) == ["thesis.doc"]
    (tmp_path / "frontier.db").touch()
    assert other_files(tmp_path) == []
