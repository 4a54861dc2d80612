"""A round every night: crawler-again@.timer and crawler-again@.service under a real systemd."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.installed_service import SERVED, Service, wanted
from tests.support.site_crawls import OTHER

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1_200)]  # the first has the root made and the machine booted

SOON = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nAccuracySec=1ms\nRandomizedDelaySec=0\n"


@pytest.fixture
def nightly(service: Service) -> Service:
    """crawler-again@news.service, installed and not configured; its timer does not run."""
    service.machine.must("crawler", "install-service", "--instance", "news")
    service.machine.must("systemctl", "daemon-reload")
    return replace(service, instance="news", is_again=True)


def ends(nightly: Service) -> list[dict[str, Any]]:
    """The event of the end of each run."""
    return [line for line in nightly.events() if line["event"] == "stop"]


def rounds_over(nightly: Service) -> list[int]:
    return [line["round"] for line in nightly.events() if line["event"] == "round_over"]


def requests(nightly: Service) -> list[str]:
    """Targets of the requests that the site had, robots.txt left out."""
    lines = [json.loads(line) for line in nightly.machine.read(f"{SERVED}/access.jsonl").splitlines()]
    return [line["uri"] for line in lines if line["uri"] != "/robots.txt"]


def archived(nightly: Service, kind: str) -> int:
    """How many WARC records of a kind there are."""
    return int(nightly.machine.shell(f"zcat {nightly.output}/warc/*.gz | grep -ac '^WARC-Type: {kind}' || true"))


def crawled(nightly: Service) -> list[str]:
    """Let the first start fetch the site, which is round 1. Returns the targets that it requested."""
    before = len(requests(nightly))
    nightly.configure(OTHER)
    nightly.start()
    nightly.wait_until_ended()
    return requests(nightly)[before:]


def in_a_round(nightly: Service) -> None:
    """Start a round that takes seconds. Returns when it has made requests."""
    nightly.configure(OTHER, politeness={"delay": "300ms", "adaptive": False})
    nightly.start()
    nightly.machine.wait_until(lambda: nightly.status()["counts"]["responses"] >= 3, "it crawls")


def test_the_units_as_they_are_shipped_have_nothing_that_systemd_does_not_know(nightly: Service) -> None:
    for unit in (nightly.unit, nightly.timer):
        done = nightly.machine.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_timer_that_fires_makes_one_round(nightly: Service) -> None:
    """The first start fetches the site; the timer visits it once more: in the journal and in the archive."""
    first = crawled(nightly)
    pages = nightly.pages()
    assert set(pages) == wanted(OTHER)
    assert archived(nightly, "revisit") == 0
    before = len(requests(nightly))

    nightly.machine.put(f"/etc/systemd/system/{nightly.timer}.d/test.conf", SOON)
    nightly.machine.must("systemctl", "daemon-reload")
    nightly.machine.must("systemctl", "enable", "--now", nightly.timer)
    assert nightly.machine.property_of(nightly.timer, "UnitFileState") == "enabled"
    nightly.machine.wait_until(lambda: len(ends(nightly)) == 2, "the timer has fired, and the round is over")
    nightly.wait_until_ended()

    assert (nightly.show("ActiveState"), nightly.show("ExecMainStatus")) == ("inactive", "0")
    assert ": Deactivated successfully." in nightly.journal()
    assert f"round 2: {len(first)} visited again" in nightly.journal()
    assert sorted(requests(nightly)[before:]) == sorted(first)
    assert archived(nightly, "revisit") >= len(pages)
    assert nightly.machine.run("crawler", "verify", nightly.output).returncode == 0
    assert nightly.machine.property_of(nightly.timer, "ActiveState") == "active"


def test_a_round_that_is_stopped_goes_on_at_the_next_start(nightly: Service) -> None:
    """A stop drains and is no failure; nothing is visited twice, and there is one round."""
    first = crawled(nightly)
    before = len(requests(nightly))
    in_a_round(nightly)
    nightly.stop()
    assert nightly.show("ActiveState") == "inactive"
    assert "Failed with result" not in nightly.journal()
    half = len(requests(nightly)) - before
    assert 0 < half < len(first), "it was stopped too late to show anything"
    assert rounds_over(nightly) == [1]

    nightly.configure(OTHER)
    nightly.start()
    nightly.wait_until_ended()
    assert sorted(requests(nightly)[before:]) == sorted(first)
    assert rounds_over(nightly) == [1, 2]
    assert nightly.machine.run("crawler", "verify", nightly.output).returncode == 0


def test_a_round_that_is_killed_is_started_again_and_goes_on(nightly: Service) -> None:
    """By systemd, as after the watchdog or for want of memory."""
    crawled(nightly)
    nightly.drop_in("RestartSec=100ms")
    in_a_round(nightly)
    pid = nightly.pid
    assert nightly.systemctl("kill", "--signal=KILL") == 0
    nightly.machine.wait_until(lambda: nightly.pid not in (0, pid), "it is started again")
    nightly.wait_until_ended()
    assert nightly.show("ActiveState") == "inactive"
    assert nightly.journal().count("Scheduled restart job") == 1
    assert rounds_over(nightly) == [1, 2]


def test_a_second_start_during_a_round_changes_nothing_of_it(nightly: Service) -> None:
    """Neither one of the same unit, as by its timer, nor one of crawler@.service, which names who has the directory."""
    first = crawled(nightly)
    before = len(requests(nightly))
    in_a_round(nightly)
    pid = nightly.pid
    nightly.start()
    assert nightly.pid == pid
    daemon = replace(nightly, is_again=False)
    assert daemon.systemctl("start") != 0
    assert f"{pid}" in daemon.journal()
    assert "Traceback" not in daemon.journal()
    daemon.stop()
    assert nightly.pid == pid
    nightly.wait_until_ended()
    assert nightly.show("ActiveState") == "inactive"
    assert sorted(requests(nightly)[before:]) == sorted(first)
    assert rounds_over(nightly) == [1, 2]


def test_a_round_while_the_daemon_has_the_directory_does_not_begin(nightly: Service) -> None:
    """It fails, names the daemon, which goes on, and is not tried again before the next time."""
    daemon = replace(nightly, is_again=False)
    daemon.configure(OTHER)
    daemon.start()
    pid = daemon.pid
    assert nightly.systemctl("start") != 0
    assert nightly.show("ActiveState") == "failed"
    assert f"{pid}" in nightly.journal()
    assert (daemon.is_active(), daemon.pid) == (True, pid)
