"""Commands that end before they start: each says what stands in the way, and which key or option helps."""

import os
import socket
from pathlib import Path

import pytest

from crawler.cli import main
from crawler.settings import checks
from crawler.settings.loading import load


def told(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int | str | None, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return end.value.code, said.err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["seeds.txt", "./seeds.txt", "lists/seeds", "seeds", "README.md", "example.org"])
def test_a_file_is_no_url(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    """It was looked up as a host."""
    (tmp_path / "lists").mkdir()
    Path(name).write_text("https://a.test/\n")
    code, said = told(capfd, "crawl", name)
    assert (code, f"{name} is a file here: -o crawl.seed_files={name} takes the seeds in it" in said) == (2, True)
    code, said = told(capfd, "add", name, "--output", "out")
    assert (code, f"--from {name} takes the URLs in it" in said) == (2, True)
    assert not Path("out").exists()


def test_a_directory_of_others_is_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing is written there, and a directory to use is named. A configuration may lie in the output directory."""
    Path("docs").mkdir()
    Path("docs/thesis.doc").touch()
    code, said = told(capfd, "crawl", "a.test", "--output", "docs")
    assert code == 2
    assert "docs holds other files (thesis.doc) and no crawl: take a directory of its own, e.g. --output docs/" in said
    assert [path.name for path in Path("docs").iterdir()] == ["thesis.doc"]
    Path("mine").mkdir()
    Path("mine/site.toml").write_text('[crawl]\nmax_duration = "100ms"\n')
    assert "other files" not in told(capfd, "crawl", "a.test", "-c", "mine/site.toml", "--output", "mine")[1]


def test_an_address_that_is_taken_names_its_key(capfd: pytest.CaptureFixture[str]) -> None:
    """And the program that has it goes on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        code, said = told(capfd, "crawl", "https://a.test/", "--output", "out", "-o", f"admin.listen={place}")
        assert (code, said) == (74, f"crawler: admin.listen {place}: Address already in use\n")
        told(
            capfd, "crawl", "https://a.test/", "--output", "out", "-o", f"admin.listen={place}",
            "-o", "admin.actions=true",
        )  # fmt: skip
    assert not list(Path("out").glob("*.token"))


@pytest.mark.parametrize("key", ["admin.listen", "admin.socket"])
def test_a_socket_that_cannot_be_made_names_its_key(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, key: str
) -> None:
    """The folder is not there, or something else is in its place."""
    file = tmp_path / "file"
    file.write_text("mine")
    code, said = told(capfd, "crawl", "https://a.test/", "--output", "out", "-o", f"{key}={file}")
    assert (code, said) == (78, f"crawler: {file} exists and is no socket; {key} must name another path\n")
    missing = tmp_path / "no" / "c.sock"
    code, said = told(capfd, "crawl", "https://a.test/", "--output", "out", "-o", f"{key}={missing}")
    assert (code, said) == (74, f"crawler: {key} {missing}: No such file or directory\n")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("key", ["output.directory", "log.directory"])
def test_a_directory_that_nobody_can_make_is_found_by_check(capfd: pytest.CaptureFixture[str], key: str) -> None:
    """It was ok, and the start failed."""
    code, said = told(capfd, "crawl", "https://a.test/", "-o", f"{key}=/proc/crawls/x")
    assert (code, f"{key} /proc/crawls/x: no directory can be created in /proc" in said) == (78, True)


def test_a_directory_that_cannot_be_made_here_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who checks need not be who runs it; the start says which key it was."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (warning,) = load(None, [f"output.directory={tmp_path}/a/b"], {}, "crawl").warnings
    assert f"output.directory {tmp_path}/a/b: this user cannot create it: {tmp_path} may not be written" in warning
    assert load(None, [f"output.directory={tmp_path}"], {}, "crawl").warnings == []


def test_a_directory_that_the_system_refuses_names_its_key(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start, whatever the check could see."""
    monkeypatch.setattr(checks, "_NOT_FOR_FILES", ())
    code, said = told(capfd, "crawl", "https://a.test/", "--output", "/proc/crawls/x")
    assert code in (74, 77)
    assert "crawler: output.directory /proc/crawls/x: cannot be made: " in said
    code, said = told(capfd, "crawl", "https://a.test/", "--output", "out", "-o", "log.directory=/proc/crawls")
    assert "crawler: log.directory /proc/crawls: cannot be made: " in said


def test_a_private_address_names_the_key(capfd: pytest.CaptureFixture[str]) -> None:
    """Once, and not the address twice."""
    code, said = told(capfd, "crawl", "https://127.0.0.1:9443/", "--output", "out", "-o", "crawl.linger=0")
    assert code == 1
    assert (
        "address_denied: 127.0.0.1 may not be dialled: loopback (RFC 1122); network.allow_private can list its network"
        in said
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--output", "out\udcff"],
        ["-o", "output.directory=out\udcff"],
        ["-o", "output.directory=out", "-o", "log.directory=logs\udcff"],
        ["-o", "output.directory=out", "-o", "admin.socket=s\udcff"],
        ["-o", "output.directory=out", "-o", "frontier.path=f\udcff"],
    ],
)
def test_a_path_that_is_not_utf_8_is_refused(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    """run.json, the status and the log are JSON, which has no other bytes."""
    code, said = told(capfd, "crawl", "https://a.test/", *words)
    assert (code, "is not UTF-8, as paths in run.json must be" in said) == (78, True)
    assert list(Path().iterdir()) == []


def test_a_default_output_below_a_path_that_is_not_utf_8_is_refused(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory in which the command is called is part of the path."""
    Path("here\udcff").mkdir()
    monkeypatch.chdir("here\udcff")
    assert "is not UTF-8" in told(capfd, "crawl", "https://a.test/")[1]
