"""The service under a real systemd: it starts, crawls, reloads, drains, comes back, stays up."""

import time
from pathlib import Path

import pytest

from tests.support.installed_service import CONFIG, PLAIN, Service, pages_in, wanted
from tests.support.site_crawls import DOCS, OTHER, WWW
from tests.support.systemd_machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1_200)]  # the first has the root made and the machine booted

ROOT = Path(__file__).parents[2]
QUICK = "RestartSec=100ms"  # five seconds are for people


def test_make_venv_compiled_the_program(machine: Machine) -> None:
    """The service may not write beside it: each start would compile all of it."""
    count = "find crawler -name '*.py{}' {} | wc -l"
    folder = "cd /opt/crawler && " + count
    sources = int(machine.shell(folder.format("", "")))
    assert sources == len([*(ROOT / "crawler").rglob("*.py")])
    assert int(machine.shell(folder.format("c", "-newer pyproject.toml"))) == sources


def test_the_unit_as_it_is_shipped_has_nothing_that_systemd_does_not_know(service: Service) -> None:
    """An unknown key would be a line in the journal at each look at the unit."""
    for unit in ("crawler.service", "crawler@x.service"):
        service.machine.must("crawler", "install-service", *(["--instance", "x"] if "@" in unit else []))
        done = service.machine.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pages_are_those_of_a_crawl_outside(service: Service) -> None:
    """Page by page and digest by digest: the unit's restrictions cost no link. The site itself says what there is."""
    service.configure(WWW, DOCS, OTHER)
    service.start()
    service.wait_until_idle()
    service.stop()
    outside = "/srv/outside"
    log = "-o", f"log.directory={outside}/logs"
    service.machine.must("crawler", "crawl", "-c", CONFIG, "--output", outside, *log)
    found = service.pages()
    assert found == pages_in(service.machine, outside)
    assert set(found) == wanted(WWW, DOCS, OTHER)
    assert service.machine.run("crawler", "verify", service.output).returncode == 0
    assert "Traceback" not in service.journal()


def test_it_is_started_when_it_answers(service: Service) -> None:
    """`systemctl start` returns at READY: status and socket are there, and what it runs as is what the unit says."""
    service.configure(OTHER)
    service.start()
    status = service.status()
    assert status["pid"] == service.pid
    assert (status["mode"], status["output"]) == ("run", "/var/lib/crawler")
    assert service.machine.must("ps", "-o", "user=,group=", "-p", service.pid).split() == ["crawler", "crawler"]


def test_a_reload_is_taken(service: Service) -> None:
    """When `systemctl reload` returns the new configuration is in force."""
    service.configure(OTHER)
    service.start()
    pid = service.pid
    service.configure(OTHER, scope={"max_depth": 3})
    assert service.systemctl("reload") == 0
    assert service.status()["reloaded_at"] is not None
    assert service.pid == pid
    (event,) = [line for line in service.events() if line["event"] == "reload_ok"]
    assert event["changed"] == ["scope.max_depth"]


def test_a_reload_is_refused(service: Service) -> None:
    """It fails, the journal says where the mistake is, and the service goes on with what it had."""
    service.configure(OTHER)
    service.start()
    pid = service.pid
    service.machine.put(CONFIG, service.machine.read(CONFIG) + "[scoop]\n")
    assert service.systemctl("reload") != 0
    assert f"{CONFIG}:" in service.journal()
    assert 'unknown section "scoop"' in service.journal()
    assert service.status()["state"] in ("crawling", "idle")
    assert (service.is_active(), service.pid) == (True, pid)


def test_a_stop_waits_for_what_is_in_flight(service: Service) -> None:
    """Longer than TimeoutStopSec if need be, for the program asks for the time; what comes is stored."""
    service.drop_in("TimeoutStopSec=1s")
    service.configure(OTHER, crawl={"seeds": [f"{PLAIN}/slow/0.html"]})
    service.start()
    service.machine.wait_until(lambda: in_flight(service) == ["body"], "the slow page comes")
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began > 1.0
    assert service.show("ActiveState") == "inactive"
    assert ": Deactivated successfully." in service.journal()
    assert f"{PLAIN}/slow/0.html" in service.pages()


def in_flight(service: Service) -> list[str]:
    return [one["stage"] for one in service.status()["in_flight"] if one["kind"] != "robots"]


def test_two_signals_end_it_at_once_and_are_no_failure(service: Service) -> None:
    """What was in flight is asked for again by the next start."""
    service.configure(OTHER, crawl={"seeds": [f"{PLAIN}/slower/0.html"]})
    service.start()
    service.machine.wait_until(lambda: in_flight(service) == ["body"], "the slow page comes")
    assert service.systemctl("kill", "--signal=TERM") == 0
    service.machine.wait_until(lambda: service.status()["state"] == "draining", "it drains")
    assert service.systemctl("kill", "--signal=TERM") == 0
    service.machine.wait_until(lambda: service.show("ActiveState") == "inactive", "it has ended", timeout=10)
    journal = service.journal()  # systemd forgets a unit that has ended well
    assert ": Deactivated successfully." in journal
    assert "SIGTERM: ended at once" in journal
    service.start()
    assert service.status()["urls"]["queued"] == 1


def until_restarted(service: Service, times: int) -> None:
    service.machine.wait_until(
        lambda: service.show("NRestarts") == str(times) and service.is_active(), f"{times} times started again"
    )


def test_kills_are_survived_as_often_as_they_come(service: Service) -> None:
    """Each is followed by a start, which goes on: in the end every page is stored, and once."""
    service.drop_in(QUICK)
    service.configure(WWW, DOCS, politeness={"delay": "300ms", "adaptive": False})
    service.start()
    for kills in range(1, 7):
        asked = service.status()["counts"]["responses"]
        service.machine.wait_until(lambda: service.status()["counts"]["responses"] > asked, "it crawls")  # noqa: B023
        assert service.systemctl("kill", "--signal=KILL") == 0
        until_restarted(service, kills)
    service.configure(WWW, DOCS)
    assert service.systemctl("reload") == 0
    service.wait_until_idle()
    service.stop()
    assert set(service.pages()) == wanted(WWW, DOCS)
    assert service.machine.run("crawler", "verify", service.output).returncode == 0


def test_an_operator_restarts_as_often_as_he_likes(service: Service) -> None:
    """There is no limit of starts."""
    service.configure(OTHER)
    for _ in range(7):
        assert service.systemctl("restart") == 0
    assert service.is_active()


def test_a_wrong_configuration_is_not_tried_again(service: Service) -> None:
    """Exit code 78 is final; a mended file starts."""
    service.drop_in(QUICK)
    service.machine.put(CONFIG, "[scoop]\n")
    assert service.systemctl("start") != 0
    service.machine.wait_until(lambda: service.show("ActiveState") == "failed", "it has failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    service.configure(OTHER)
    service.start()


def test_the_watchdog_starts_it_again(service: Service) -> None:
    """A process that stands still is told by its silence."""
    service.drop_in(QUICK, "WatchdogSec=2s")
    service.configure(OTHER)
    service.start()
    pid = service.pid
    service.machine.must("kill", "-STOP", pid)
    until_restarted(service, 1)
    assert service.pid != pid
    assert service.status()["pid"] == service.pid
    journal = service.journal()
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal  # every thread's stack follows


def test_hangups_during_a_start_keep_it_from_nothing(service: Service) -> None:
    """As a script does that starts it and reloads; the first may come before the program runs at all."""
    service.drop_in(QUICK)
    service.configure(OTHER)
    for wait_s in ("0", "0.02", "0.05", "0.1", "0.2", "0.4"):
        service.machine.shell(
            f"systemctl start --no-block {service.unit}; sleep {wait_s}; systemctl kill -s HUP {service.unit} || true"
        )
        service.machine.wait_until(service.is_active, f"it runs after a hangup at {wait_s} s")
        assert service.status()["pid"] == service.pid  # it answers, and is the process that systemd watches
        service.stop()


def test_the_status_that_systemd_shows_is_that_of_the_status_command(service: Service) -> None:
    """A service without work is idle in both."""
    service.configure(OTHER)
    service.start()
    service.wait_until_idle()
    service.machine.wait_until(lambda: service.show("StatusText").startswith("idle: "), "systemd hears of it")
    assert service.show("StatusText").startswith(f"idle: {service.status()['sentence'][:20]}")
