"""One machine with a real systemd for all these tests, and the service on it as the README installs it."""

from collections.abc import Iterator

import pytest

from tests.support.installed_service import Service, serve
from tests.support.systemd_machine import ROOT, Machine, booted

# Everything that an earlier test may have left; the unit is written anew by the command that users have.
_CLEAN = """
systemctl stop 'crawler-again@*.timer'
systemctl stop --no-block crawler.service 'crawler@*.service' 'crawler-again@*.service'
systemctl kill --signal=KILL crawler.service 'crawler@*.service' 'crawler-again@*.service' 2>/dev/null || true
systemctl stop crawler.service 'crawler@*.service' 'crawler-again@*.service'
rm -rf /var/lib/crawler /var/log/crawler /run/crawler /etc/crawler /srv/elsewhere /home/*
rm -rf /etc/systemd/system/crawler*.service* /etc/systemd/system/crawler*.timer*
rm -rf /usr/local/share/crawler /etc/logrotate.d/crawler
rm -f /etc/systemd/system/*.target.wants/crawler*
/opt/crawler/.venv/bin/crawler install-service
systemctl daemon-reload
systemctl reset-failed
date '+@%s.%N'
"""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    with booted(ROOT) as machine:
        serve(machine)
        machine.must("/opt/crawler/.venv/bin/crawler", "install-service")
        machine.must("systemd-sysusers")
        yield machine


@pytest.fixture
def service(machine: Machine) -> Service:
    """crawler.service, installed and not configured."""
    return Service(machine, machine.shell(_CLEAN).splitlines()[-1].strip())
