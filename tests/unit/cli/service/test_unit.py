"""The unit of a configuration, and what `crawler check` finds that it does not allow."""

import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.cli import main
from crawler.cli.service import planned_files
from crawler.cli.service import unit as unit_module
from crawler.cli.service.unit import Refusals, Unit, refusals, unit_of
from crawler.settings.loading import Loaded, load
from tests.support.commands import toml

ME = pwd.getpwuid(os.getuid()).pw_name
NOBODY = "nobody"


class Machine:
    """A root directory with the units as they are installed, and configurations for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configs = root / "etc/crawler"
        self.configs.mkdir(parents=True)
        self.units = root / "etc/systemd/system"
        self.units.mkdir(parents=True)
        for name in ("crawler.service", "crawler@.service", "crawler-again@.service"):
            text = (planned_files.templates() / "systemd" / name).read_text()
            self.write(name, text.replace("/etc/crawler", str(self.configs)))

    def write(self, name: str, text: str) -> None:
        """A unit, or a drop-in of one."""
        path = self.units / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def grant(self, *lines: str, name: str = "crawler.service", order: int = 50) -> None:
        self.write(f"{name}.d/{order}-mine.conf", "[Service]\n" + "".join(f"{line}\n" for line in lines))

    def config(self, name: str = "crawler", **keys: dict[str, object]) -> Path:
        base: dict[str, dict[str, object]] = {
            "crawl": {"seeds": ["https://example.org/"]},
            "identity": {"user_agent": "mybot/1.0 (+https://example.org/bot)"},
            "output": {"directory": "/var/lib/crawler"},
            "log": {"directory": "/var/log/crawler"},
        }
        path = self.configs / f"{name}.toml"
        path.write_text(toml({key: base.get(key, {}) | keys.get(key, {}) for key in base | keys}))
        return path

    def unit(self, config: Path) -> Unit:
        found = unit_of(config, self.root)
        assert found is not None
        return found

    def refused(self, **keys: dict[str, object]) -> Refusals:
        config = self.config(**keys)
        return refusals(self.unit(config), load(config, [], {}, "run"), config)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Its unit runs as whoever runs the tests; tests write to /tmp, which the unit hides."""
    monkeypatch.setattr(unit_module, "_TEMPORARY", ())
    machine = Machine(tmp_path / "root")
    machine.grant(f"User={ME}", "Group=", order=10)
    return machine


def words(found: Refusals) -> str:
    return "\n".join(map(str, found.problems))


def test_a_configuration_as_it_is_installed_is_refused_nothing(machine: Machine) -> None:
    """Its directories are those that systemd creates."""
    found = machine.refused()
    assert (found.problems, found.warnings, found.drop_in, found.commands) == ([], [], [], [])


def test_the_unit_is_found_by_the_configuration_that_it_runs(machine: Machine) -> None:
    """The service's own, an instance's, and none for a file that lies elsewhere."""
    assert machine.unit(machine.config()).name == "crawler.service"
    news = machine.unit(machine.config("news"))
    assert news.name == "crawler@news.service"
    assert Path("/var/lib/crawler/news") in news.writable()
    assert news.credential == machine.configs / "news.secrets.toml"
    elsewhere = machine.root / "crawler.toml"
    elsewhere.write_text("")
    assert unit_of(elsewhere, machine.root) is None
    below = machine.configs / "old" / "news.toml"
    below.parent.mkdir()
    below.write_text("")
    assert unit_of(below, machine.root) is None


def test_the_unit_of_rounds_counts_where_no_daemon_has_the_configuration(machine: Machine) -> None:
    """Its instance of every configuration is possible, also of one that the service runs."""
    (machine.units / "crawler@.service").unlink()
    assert machine.unit(machine.config()).name == "crawler.service"
    assert machine.unit(machine.config("news")).name == "crawler-again@news.service"


def test_the_unit_of_rounds_counts_where_its_timer_is_enabled(machine: Machine) -> None:
    """What the daemon's unit allows then helps nothing; the timer of another instance says nothing."""
    wants = machine.units / "timers.target.wants"
    wants.mkdir()
    timer = "/etc/systemd/system/crawler-again@.timer"
    (wants / "crawler-again@other.timer").symlink_to(timer)
    assert machine.unit(machine.config("news")).name == "crawler@news.service"
    (wants / "crawler-again@news.timer").symlink_to(timer)
    assert machine.unit(machine.config("news")).name == "crawler-again@news.service"
    machine.grant("ReadWritePaths=/srv/news", name="crawler@news.service")
    config = machine.config("news", output={"directory": "/srv/news"})
    found = refusals(machine.unit(config), load(config, [], {}, "run"), config)
    assert "crawler-again@news.service may not write there" in words(found)


def test_drop_ins_add_to_the_unit_and_remove_from_it(machine: Machine) -> None:
    """In order of name; an empty value removes all before it; a quoted word is one."""
    machine.grant("ReadWritePaths=/srv/one '/srv/the other'", 'Environment=CRAWLER_CRAWL__NAME=mine "X=a b"')
    unit = machine.unit(machine.config())
    assert unit.granted() == [Path("/srv/one"), Path("/srv/the other")]
    assert unit.environment == {"CRAWLER_CRAWL__NAME": "mine", "X": "a b"}
    machine.grant("ReadWritePaths=", "ReadWritePaths=-/srv/last", order=60)
    assert machine.unit(machine.config()).granted() == [Path("/srv/last")]
    machine.grant("ExecStart=", f"ExecStart=/bin/x run -c {machine.configs}/crawler.toml -o scope.max_urls=3", order=70)
    assert machine.unit(machine.config()).overrides == ("scope.max_urls=3",)


def test_an_instance_has_the_drop_ins_of_all_and_its_own(machine: Machine) -> None:
    """crawler@.service.d and crawler@news.service.d."""
    machine.grant("ReadWritePaths=/srv/%i", name="crawler@.service")
    machine.grant("ReadWritePaths=/srv/mine", name="crawler@news.service", order=60)
    assert machine.unit(machine.config("news")).granted() == [Path("/srv/news"), Path("/srv/mine")]
    assert machine.unit(machine.config("wiki")).granted() == [Path("/srv/wiki")]


@pytest.mark.parametrize(
    ("section", "key", "place"),
    [
        ("output", "directory", "{0}"),
        ("log", "directory", "{0}"),
        ("frontier", "path", "{0}/frontier.db"),
        ("admin", "socket", "{0}/control.sock"),
        ("admin", "listen", "{0}/page.sock"),
    ],
)
def test_a_directory_that_the_unit_does_not_name_is_refused(
    machine: Machine, tmp_path: Path, section: str, key: str, place: str
) -> None:
    """With the lines that name it and the command that creates it; then nothing is refused."""
    directory = tmp_path / "srv" / "100% mine"
    keys = {section: {key: place.format(directory)}}
    found = machine.refused(**keys)
    assert f"{section}.{key} {directory}: crawler.service may not write there" in words(found)
    assert words(found).startswith("crawler.toml:")
    assert found.drop_in == [f'ReadWritePaths="{str(directory).replace("%", "%%")}"']
    (command,) = found.commands
    assert command.startswith("install -d -o ")
    assert command.endswith(f"'{directory}'")
    machine.grant(*found.drop_in)
    found = machine.refused(**keys)
    assert "does not exist, and crawler.service cannot create it" in words(found)
    assert found.drop_in == []
    directory.mkdir(parents=True)
    assert words(machine.refused(**keys)) == ""


def test_a_directory_of_somebody_else_is_refused(machine: Machine, tmp_path: Path) -> None:
    """Though the unit names it: permissions hold as well."""
    if os.geteuid() != 0:
        pytest.skip("needs a directory that another user may not write to: run it as root")
    tmp_path.parent.chmod(0o755)
    directory = tmp_path / "theirs"
    directory.mkdir()
    machine.grant(f"ReadWritePaths={directory}", f"User={NOBODY}", "Group=nogroup")
    for up in (tmp_path, *tmp_path.parents):
        up.chmod(up.stat().st_mode | 0o011)
    found = machine.refused(output={"directory": str(directory)})
    assert f"{directory}: user nobody of crawler.service may not write there" in words(found)
    assert found.commands == [f"install -d -o nobody -g nogroup -m 0750 {directory}"]


def test_homes_and_temporary_directories_are_refused_for_different_reasons(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home needs another setting too; what is written to the service's own /tmp is gone when it ends."""
    found = machine.refused(output={"directory": "/home/me/crawl"})
    assert found.drop_in == ["ProtectHome=read-only", "ReadWritePaths=/home/me/crawl"]
    machine.grant(*found.drop_in)
    assert machine.refused(output={"directory": "/home/me/crawl"}).drop_in == []
    monkeypatch.setattr(unit_module, "_TEMPORARY", ("/tmp", "/var/tmp"))
    found = machine.refused(output={"directory": "/var/tmp/crawl"})
    assert "that crawler.service loses when it ends (PrivateTmp=): name another" in words(found)
    assert found.drop_in == []


def test_what_the_service_reads_must_be_there_for_it(machine: Machine) -> None:
    """Files in a home are hidden from it."""
    config = machine.config(crawl={"seed_files": ["/home/me/seeds"]})
    unit = machine.unit(config)
    loaded = load(machine.config(), [], {}, "run")
    crawl = loaded.settings.crawl.model_copy(update={"seed_files": ("/home/me/seeds",)})
    changed = with_sections(loaded, crawl=crawl)
    found = refusals(unit, changed, config)
    assert "crawl.seed_files /home/me/seeds: crawler.service does not see it (ProtectHome=)" in words(found)


def with_sections(loaded: Loaded, **sections: Any) -> Loaded:
    """The same with other sections."""
    return replace(loaded, settings=replace(loaded.settings, **sections))


def test_the_secrets_that_systemd_passes_on_are_checked(machine: Machine) -> None:
    """With file and line. A missing file is no fault, nor is its mode: the service gets a copy."""
    secrets = machine.configs / "secrets.toml"
    secrets.write_text('[origin."https://example.org"]\nusername = "me"\n')
    secrets.chmod(0o600)
    assert "must have either username and password, or bearer" in words(machine.refused())
    secrets.write_text('[origin."https://example.org"]\nusername = "me"\npassword = "p"\n')
    assert words(machine.refused()) == ""


def test_a_privileged_port_is_refused(machine: Machine) -> None:
    """The service has no capability."""
    machine.grant(f"User={NOBODY}")
    found = machine.refused(admin={"listen": "127.0.0.1:80"})
    assert "admin.listen 127.0.0.1:80: crawler.service may not listen on a port below 1024" in words(found)
    assert "admin.listen" not in words(machine.refused(admin={"listen": "127.0.0.1:9090"}))


def test_check_prints_the_refusals_and_the_drop_in(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 78 with the drop-in; 0 and the unit's name where there is nothing to refuse."""
    monkeypatch.setattr(unit_module, "_FOLDERS", (str(machine.units),))
    assert main(["check", "-c", str(machine.config())], standalone_mode=False) == 0
    assert "run by crawler.service" in capsys.readouterr().out
    config = machine.config(output={"directory": "/srv/crawl"})
    assert main(["check", "-c", str(config)], standalone_mode=False) == 78
    err = capsys.readouterr().err
    assert "crawler.toml:6: output.directory /srv/crawl: crawler.service may not write there" in err
    assert "systemctl edit crawler.service" in err
    assert "    [Service]\n    ReadWritePaths=/srv/crawl\n" in err
