"""What `crawler install-service` writes, what it leaves alone, and what it refuses."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.cli import main
from crawler.cli.service import planned_files
from crawler.cli.service.planned_files import again_unit, instance_unit, is_instance
from crawler.settings.loading import load

REPOSITORY = Path(__file__).resolve().parents[4]
PROGRAM = "/srv/crawler/bin/crawler"


def installed(root: Path, *more: str) -> int:
    return main(["install-service", "--root", str(root), "--program", PROGRAM, *more], standalone_mode=False)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}


def test_everything_goes_to_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readable by all, whole, and named on stdout with what is left to do."""
    assert installed(tmp_path) == 0
    found = files(tmp_path)
    assert {
        "etc/systemd/system/crawler.service",
        "etc/sysusers.d/crawler.conf",
        "etc/crawler/crawler.toml",
        "etc/crawler/crawler.schema.json",
        "usr/local/share/bash-completion/completions/crawler",
        "usr/local/share/zsh/site-functions/_crawler",
        "usr/local/share/fish/vendor_completions.d/crawler.fish",
        "usr/local/share/man/man1/crawler.1",
    } <= found
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in found} == {0o644}
    out = capsys.readouterr().out
    for name in found:
        assert f"{tmp_path / name}  written" in out
    assert out.splitlines()[-1].strip() == "systemctl enable --now crawler"


def test_the_unit_starts_the_program_that_is_there(tmp_path: Path) -> None:
    """Not the one of the template's place."""
    assert installed(tmp_path) == 0
    unit = (tmp_path / "etc/systemd/system/crawler.service").read_text()
    assert f"ExecStart={PROGRAM} run -c /etc/crawler/crawler.toml\n" in unit
    assert "/opt/crawler" not in unit


def test_a_program_in_an_odd_place_is_quoted(tmp_path: Path) -> None:
    """As systemd reads command lines: quotes for spaces, two of each percent and dollar sign."""
    assert (
        main(
            ["install-service", "--root", str(tmp_path), "--program", "/srv/my crawler/100%/$x/crawler"],
            standalone_mode=False,
        )
        == 0
    )
    unit = (tmp_path / "etc/systemd/system/crawler.service").read_text()
    assert 'ExecStart="/srv/my crawler/100%%/$$x/crawler" run' in unit


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    """It loads, and names the schema that lies beside it."""
    assert installed(tmp_path) == 0
    path = tmp_path / "etc/crawler/crawler.toml"
    load(path, [], {}, "crawl")
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("#:schema ./")).is_file()


@pytest.mark.parametrize("instance", [None, "news"])
def test_the_configuration_names_the_directories_of_the_unit(tmp_path: Path, instance: str | None) -> None:
    """With the two keys that are left to the operator it is right for `run`, and for every command that is given it."""
    assert installed(tmp_path, *(["--instance", instance] if instance else [])) == 0
    path = tmp_path / f"etc/crawler/{instance or 'crawler'}.toml"
    overrides = ["identity.user_agent=mybot/1.0 (+https://example.org/)", "crawl.seeds=https://example.org/"]
    settings = load(path, overrides, {}, "run").settings
    below = f"/{instance}" if instance else ""
    assert str(settings.output_directory) == f"/var/lib/crawler{below}"
    assert str(settings.log_directory) == f"/var/log/crawler{below}"
    unit = (tmp_path / f"etc/systemd/system/crawler{'@' if instance else ''}.service").read_text()
    assert "Environment=" not in unit


def test_an_earlier_configuration_needs_two_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The unit said where the crawl is, once: a file that does not is named, with the two lines it lacks."""
    configuration = tmp_path / "etc/crawler/crawler.toml"
    configuration.parent.mkdir(parents=True)
    for text in ("", '[output]\ndirectory = "archive"\n'):
        configuration.write_text(text)
        assert installed(tmp_path) == 0
        assert 'output.directory = "/var/lib/crawler"' in capsys.readouterr().err
    configuration.write_text('[output]\ndirectory = "/srv/crawl"\n')
    assert installed(tmp_path) == 0
    assert capsys.readouterr().err == ""


def test_the_command_is_linked_where_a_shell_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to the program; shown by --dry-run; one that leads elsewhere is replaced by --force alone, and kept."""
    link = tmp_path / "usr/local/bin/crawler"
    assert installed(tmp_path, "--dry-run") == 0
    assert f"==> {link} (new, a link to {PROGRAM})" in capsys.readouterr().out
    assert installed(tmp_path) == 0
    assert link.readlink() == Path(PROGRAM)
    assert f"{link}  written" in capsys.readouterr().out
    assert installed(tmp_path) == 0
    assert f"{link}  unchanged" in capsys.readouterr().out
    link.unlink()
    link.symlink_to("/elsewhere/crawler")
    assert installed(tmp_path) == 1
    assert installed(tmp_path, "--force") == 0
    assert link.readlink() == Path(PROGRAM)
    assert link.with_name("crawler.old").readlink() == Path("/elsewhere/crawler")


def test_another_program_of_that_name_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is said; the rest is installed, and the steps that are left name ours by its path."""
    theirs = tmp_path / "usr/local/bin/crawler"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    assert installed(tmp_path, "--force") == 0
    told = capsys.readouterr()
    assert theirs.read_text() == "#!/bin/sh\n"
    assert f"{theirs} is another program, and stays; this one is {PROGRAM}" in told.err
    assert f"{PROGRAM} check -c /etc/crawler/crawler.toml" in told.out


def test_the_steps_that_are_left_call_the_command_by_its_name(tmp_path: Path) -> None:
    """Where it was installed for this machine, and is no other program."""
    link = planned_files.Planned(Path("/usr/local/bin/crawler"), "", planned_files.InstallState.NEW, Path(PROGRAM))
    assert planned_files.command_of([link], Path(PROGRAM), root=Path("/")) == "crawler"
    theirs = planned_files.Planned(link.path, "", planned_files.InstallState.KEPT, Path(PROGRAM))
    assert planned_files.command_of([theirs], Path("/my own/crawler"), root=Path("/")) == "'/my own/crawler'"
    assert planned_files.command_of([], Path("/usr/local/bin/crawler"), root=Path("/")) == "crawler"


def test_a_second_time_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file is as it was; also those of another instance share what they can."""
    assert installed(tmp_path) == 0
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    capsys.readouterr()
    assert installed(tmp_path) == 0
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)} == before
    assert "written" not in capsys.readouterr().out


def test_a_dry_run_shows_every_file_and_writes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its content, before anything is there and after."""
    assert installed(tmp_path, "--dry-run") == 0
    assert files(tmp_path) == set()
    out = capsys.readouterr().out
    assert installed(tmp_path) == 0
    for name in files(tmp_path):
        assert f"==> {tmp_path / name} (new, " in out
        assert (tmp_path / name).read_text() in out
    capsys.readouterr()
    assert installed(tmp_path, "--dry-run") == 0
    assert "(new, " not in capsys.readouterr().out


def test_a_changed_file_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written then, not even what is new; --force keeps the old file beside the new one."""
    assert installed(tmp_path) == 0
    unit = tmp_path / "etc/systemd/system/crawler.service"
    ours = unit.read_text()
    unit.write_text("[Service]\n# mine\n")
    (tmp_path / "etc/sysusers.d/crawler.conf").unlink()
    assert installed(tmp_path, "--dry-run") == 1
    assert installed(tmp_path) == 1
    assert f"{unit} was changed" in capsys.readouterr().err
    assert "# mine" in unit.read_text()
    assert not (tmp_path / "etc/sysusers.d/crawler.conf").exists()
    assert installed(tmp_path, "--force") == 0
    assert unit.read_text() == ours
    assert "# mine" in unit.with_name("crawler.service.old").read_text()
    assert (tmp_path / "etc/sysusers.d/crawler.conf").exists()


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The service's files of a later version, with which `install-service` works from now on."""
    source = tmp_path / "later"
    for folder in ("systemd", "config"):
        shutil.copytree(REPOSITORY / folder, source / folder)
    monkeypatch.setattr(planned_files, "templates", lambda: source)
    unit = source / "systemd/crawler.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=20", "WatchdogSec=30"))
    sysusers = source / "systemd/crawler.sysusers"
    sysusers.write_text(sysusers.read_text() + "# more\n")
    return source


def test_an_upgrade_brings_what_nobody_touched_up_to_date(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --force, and without an .old: it was ours. The unit of the instances too, and the list of it."""
    root = tmp_path / "root"
    assert installed(root, "--instance", "news") == 0
    assert installed(root) == 0
    request.getfixturevalue("later")
    capsys.readouterr()
    assert installed(root) == 0
    out = capsys.readouterr().out
    for unit in ("crawler.service", "crawler@.service"):
        path = root / "etc/systemd/system" / unit
        assert f"{path}  updated" in out
        assert "WatchdogSec=30" in path.read_text()
    assert "# more" in (root / "etc/sysusers.d/crawler.conf").read_text()
    assert "systemctl try-restart crawler 'crawler@*' 'crawler-again@*.service'" in out
    assert not list(root.rglob("*.old"))
    assert installed(root) == 0
    assert "updated" not in capsys.readouterr().out


def test_an_upgrade_leaves_what_somebody_changed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """One line is enough."""
    root = tmp_path / "root"
    assert installed(root) == 0
    unit = root / "etc/systemd/system/crawler.service"
    unit.write_text(unit.read_text().replace("MemoryMax=2G", "MemoryMax=3G"))
    request.getfixturevalue("later")
    assert installed(root) == 1
    assert "MemoryMax=3G" in unit.read_text()


def test_the_list_of_what_was_written_is_one_for_sha256sum(tmp_path: Path) -> None:
    """Which tells an operator what was changed."""
    assert installed(tmp_path) == 0
    listed = (tmp_path / planned_files.LIST).read_text()
    assert f"# /usr/local/bin/crawler -> {PROGRAM}\n" in listed
    below = "".join(line.replace("  /", f"  {tmp_path}/") + "\n" for line in listed.splitlines())
    check = ["sha256sum", "--check", "--strict", "--quiet"]
    assert subprocess.run(check, input=below, text=True, capture_output=True, check=False).returncode == 0
    names = {line.partition("  /")[2] for line in listed.splitlines() if not line.startswith("#")}
    assert names == files(tmp_path) - {str(planned_files.LIST), "etc/crawler/crawler.toml"}  # which is the operator's


@pytest.mark.parametrize("program", ["/opt/crawler/.venv/bin/crawler", "/srv/my crawler/bin/crawler"])
def test_what_a_version_without_a_list_wrote_is_known_too(tmp_path: Path, program: str) -> None:
    """By the digests of all that was ever written, wherever the program was."""
    before = Path(__file__).parent / "installed_before"
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    quoted = f'"{program}"' if " " in program else program
    for name in ("crawler.service", "crawler@.service"):
        text = (before / name).read_text().replace("/opt/crawler/.venv/bin/crawler", quoted)
        (folder / name).write_text(text.replace("file:///opt/crawler/docs/OPERATIONS.md", "man:crawler(1)"))
    assert installed(tmp_path) == 0
    assert "StartLimitIntervalSec=0" in (folder / "crawler.service").read_text()
    assert "StartLimitIntervalSec=0" in (folder / "crawler@.service").read_text()


@pytest.mark.parametrize(("systemd", "steps"), [(0, False), (252, False), (254, True), (257, True)])
def test_restarts_come_in_steps_where_systemd_has_them(tmp_path: Path, systemd: int, steps: bool) -> None:
    """RestartSteps= came with 254; an older one would complain of it at each look at the unit."""
    planned = planned_files.plan(
        root=tmp_path, instance=None, program=Path(PROGRAM), completions=str, man_page="", systemd=systemd
    )
    lines = planned[0].content.splitlines()
    assert ("RestartSteps=8" in lines, "RestartMaxDelaySec=5min" in lines) == (steps, steps)
    assert ("RestartSec=1" if steps else "RestartSec=5") in lines


def test_the_program_is_compiled_where_it_can_be(tmp_path: Path) -> None:
    """A service may not write beside its program: each start would compile all of it."""
    package = tmp_path / "crawler"
    package.mkdir()
    (package / "one.py").write_text("x = 1\n")
    planned_files.compile_program([package])
    assert [path.name for path in (package / "__pycache__").iterdir()] == [f"one.{sys.implementation.cache_tag}.pyc"]


def test_the_operators_configuration_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is said."""
    assert installed(tmp_path) == 0
    configuration = tmp_path / "etc/crawler/crawler.toml"
    configuration.write_text("[crawl]\n")
    assert installed(tmp_path, "--force") == 0
    assert configuration.read_text() == "[crawl]\n"
    assert f"{configuration}  kept" in capsys.readouterr().out


def test_an_instance_has_a_unit_and_a_configuration_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """crawler@news reads news.toml and writes below its own directories."""
    assert installed(tmp_path, "--instance", "news") == 0
    found = files(tmp_path)
    units = {Path(path).name for path in found if path.startswith("etc/systemd/system/")}
    assert units == {"crawler@.service", "crawler-again@.service", "crawler-again@.timer"}
    assert "etc/crawler/news.toml" in found
    out = capsys.readouterr().out
    assert "systemctl enable --now crawler@news" in out
    assert "crawler-again@news.timer" in out


def test_a_round_starts_the_same_program_in_the_same_sandbox(tmp_path: Path) -> None:
    """It ends by itself, so nothing starts it again but a kill; what is left for the next night is no failure."""
    assert installed(tmp_path, "--instance", "news") == 0
    folder = tmp_path / "etc/systemd/system"
    daemon, again = (folder / name for name in ("crawler@.service", "crawler-again@.service"))
    of_daemon, of_again = (set(path.read_text().splitlines()) for path in (daemon, again))
    assert {line for line in of_again - of_daemon if not line.startswith("#")} == {
        "Description=Web crawler %i: everything anew",
        f"ExecStart={PROGRAM} crawl -c /etc/crawler/%i.toml --again",
        "RestartPreventExitStatus=75",
        "SuccessExitStatus=75 130 143",
        "Restart=on-abnormal",
    }
    left_out = {line.partition("=")[0] for line in of_daemon - of_again if "=" in line and not line.startswith("#")}
    assert left_out == {
        "Description", "ExecStart", "ExecReload", "RestartPreventExitStatus", "RestartForceExitStatus",
        "SuccessExitStatus", "Restart", "WantedBy",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../x", "a b", "x" * 65, "é"])
def test_a_name_that_is_no_instance_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It becomes part of paths."""
    assert not is_instance(name)
    assert installed(tmp_path, f"--instance={name}") == 2
    assert "--instance" in capsys.readouterr().err
    assert files(tmp_path) == set()


def test_a_program_that_the_unit_cannot_see_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ProtectHome= and PrivateTmp= hide where people try things out."""
    arguments = ["install-service", "--root", str(tmp_path), "--program", "/home/me/.venv/bin/crawler"]
    assert main(arguments, standalone_mode=False) == 0
    assert "hides /home" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_missing_permission_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback."""
    tmp_path.chmod(0o500)
    assert installed(tmp_path) == 77
    assert "Permission denied" in capsys.readouterr().err


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An I/O error with its path."""
    (tmp_path / "etc").write_text("")
    assert installed(tmp_path) == 74
    assert str(tmp_path / "etc") in capsys.readouterr().err


def test_missing_service_files_are_reported_with_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An installation that lost them."""
    monkeypatch.setattr(planned_files, "__file__", str(tmp_path / "x/crawler/cli/service/planned_files.py"))
    assert installed(tmp_path / "root") == 74
    assert "the service's files are neither in" in capsys.readouterr().err


def test_the_units_of_an_instance_are_made_of_the_other() -> None:
    """Write it anew with `make generated`."""
    unit = (REPOSITORY / "systemd/crawler.service").read_text()
    assert (REPOSITORY / "systemd/crawler@.service").read_text() == instance_unit(unit)
    assert (REPOSITORY / "systemd/crawler-again@.service").read_text() == again_unit(unit)


def test_instances_share_no_directory() -> None:
    """Every path that belongs to the one service is the instance's own in the other."""
    text = (REPOSITORY / "systemd/crawler@.service").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in lines:
        for place in ("/var/lib/crawler", "/var/log/crawler", "/run/crawler"):
            assert line.count(place) == line.count(f"{place}/%i"), line
    for directory in ("StateDirectory", "LogsDirectory", "RuntimeDirectory"):
        assert f"{directory}=crawler/%i" in lines
    assert "/etc/crawler/crawler.toml" not in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_an_instance(tmp_path: Path) -> None:
    """The unit as it is installed, with a program that exists."""
    program = shutil.which("true") or "/bin/true"
    arguments = ["install-service", "--root", str(tmp_path), "--program", program, "--instance", "x"]
    assert main(arguments, standalone_mode=False) == 0
    folder = tmp_path / "etc/systemd/system"
    named = [shutil.copy(unit, str(unit).replace("@", "@x")) for unit in sorted(folder.glob("crawler*@.*"))]
    assert len(named) == 3
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *named], capture_output=True, text=True, check=False, timeout=60
    )
    about_us = [line for line in verified.stderr.splitlines() if "crawler" in line]
    assert about_us == []
