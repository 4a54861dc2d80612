"""The Debian package under a real systemd: what an upgrade starts anew, and what a removal stops and disables."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import distributions
from tests.support.distributions import ROOT, checked
from tests.support.installed_service import Service
from tests.support.site_crawls import OTHER

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1_200)]  # the first has the root made and the machine booted

FOLDER = "/srv/package"
INSTALL = f"DEBIAN_FRONTEND=noninteractive dpkg --install {FOLDER}/*.deb"
# In the places of the package is what the other tests use; it comes back.
ASIDE = """
rm -rf /etc/systemd/system/crawler* /etc/crawler /etc/lnav /etc/sysusers.d/crawler.conf
mv /opt/crawler /opt/aside
mv /usr/local/bin/crawler /opt/aside/command
systemctl daemon-reload
"""
BACK = """
dpkg --purge crawlerd
mv /opt/aside/command /usr/local/bin/crawler
mv /opt/aside /opt/crawler
/opt/crawler/.venv/bin/crawler install-service
systemd-sysusers
systemctl daemon-reload
"""


@pytest.fixture
def packaged(service: Service, tmp_path: Path) -> Iterator[Service]:
    """crawler.service as the package has it, installed and not configured."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    built = tmp_path / "built"
    checked([ROOT / "release/deb/build", distributions.build(tmp_path).wheel, built], cwd=ROOT)
    service.machine.put_tree(built, FOLDER)
    service.machine.shell(ASIDE)
    try:
        service.machine.shell(INSTALL)
        yield service
    finally:
        service.machine.shell(BACK)


def test_an_upgrade_restarts_what_runs_and_a_removal_ends_all_of_it(packaged: Service) -> None:
    """The daemon, an instance and a round, with their timer; the crawl stays."""
    machine = packaged.machine
    instance = replace(packaged, instance="often")
    nightly = replace(packaged, instance="news", is_again=True)
    services = (packaged, instance, nightly)
    for one in services:
        one.configure(OTHER, politeness={"delay": "60s"})  # a round that is under way for long
        one.start()
    machine.must("systemctl", "enable", packaged.unit, instance.unit, nightly.timer)
    machine.must("systemctl", "start", nightly.timer)

    pids = [one.pid for one in services]
    machine.shell(INSTALL)
    assert all(one.is_active() for one in services)
    assert not {one.pid for one in services} & set(pids)
    assert machine.property_of(nightly.timer, "ActiveState") == "active"

    said = machine.must("dpkg", "--remove", "crawlerd")
    assert "/var/lib/crawler" in said
    assert not any(one.is_active() for one in services)
    assert machine.property_of(nightly.timer, "ActiveState") == "inactive"
    assert machine.shell("find /etc/systemd/system -name 'crawler*'") == ""
    assert machine.run("pgrep", "-u", "crawler").returncode == 1
    for one in services:
        assert "Failed with result" not in one.journal()
        machine.must("test", "-f", f"{one.output}/frontier.db")
