"""What an operator does with the service under a real systemd: secrets, instances, a group, logs, upgrades, checks."""

import re
from dataclasses import replace

import pytest

from tests.support.installed_service import CONFIG, PASSWORD, PLAIN, USER, Service, wanted
from tests.support.site_crawls import DOCS, OTHER
from tests.support.systemd_machine import ROOT

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(1_200)]  # the first has the root made and the machine booted

SECRETS = "/etc/crawler/secrets.toml"
CREDENTIALS = f'[origin."{PLAIN}"]\nusername = "{USER}"\npassword = "{PASSWORD}"\n'


def test_credentials_are_handed_over_and_shown_to_nobody(service: Service) -> None:
    """From a file that only root may read; a reload works with them, and they are in no log, record or status."""
    service.configure(OTHER, crawl={"seeds": [f"{PLAIN}/closed/0.html"]})
    service.machine.put(SECRETS, CREDENTIALS, mode=0o600)
    assert service.crawler("check").returncode == 0
    service.start()
    service.wait_until_idle()
    assert set(service.pages()) == {f"{PLAIN}/closed/0.html"}
    assert service.systemctl("reload") == 0
    service.stop()
    everything = "/var/lib/crawler /var/log/crawler /run/log"
    for secret in (PASSWORD, "Authorization: Basic c"):
        assert service.machine.run("grep", "-rqaF", secret, *everything.split()).returncode == 1
        assert secret not in service.machine.shell("cat /var/lib/crawler/warc/* | gzip -dcf")
    assert PASSWORD not in service.journal()


def test_secrets_with_a_mistake_are_told_by_check_and_by_the_service(service: Service) -> None:
    """What the service refuses, `check` refuses too; neither quotes anything of it."""
    service.configure(OTHER)
    service.machine.put(SECRETS, CREDENTIALS.replace("password", "pasword"), mode=0o600)
    checked = service.crawler("check")
    assert checked.returncode == 78
    assert f'{SECRETS}:3:1: unknown key "pasword"' in checked.stderr
    assert service.systemctl("start") != 0
    assert 'unknown key "pasword"' in service.journal()
    assert PASSWORD not in checked.stderr + service.journal()


def test_instances_come_and_go_without_each_other(service: Service) -> None:
    """Each has its configuration, directories and socket; one that stops takes nothing of the others with it."""
    news = replace(service, instance="news")
    service.machine.must("crawler", "install-service", "--instance", "news")
    service.machine.must("systemctl", "daemon-reload")
    service.configure(OTHER)
    news.configure(DOCS)
    for one in (service, news):
        assert one.crawler("check").returncode == 0
        one.start()
    service.stop()
    assert news.status()["output"] == "/var/lib/crawler/news"
    # found by its configuration alone, which leads nowhere now: by the link in the instance's own directory
    news.configure(DOCS, output={"directory": "/var/lib/crawler/moved"})
    assert news.status()["output"] == "/var/lib/crawler/news"
    news.configure(DOCS)
    service.start()
    news.stop()
    assert service.status()["output"] == "/var/lib/crawler"
    assert service.systemctl("reload") == 0
    service.wait_until_idle()
    news.start()
    news.wait_until_idle()
    assert set(service.pages()) == wanted(OTHER)
    assert set(news.pages()) == wanted(DOCS)


def test_who_is_in_the_group_may_steer_and_nobody_else(service: Service) -> None:
    """A member looks at the crawl, steers it and reloads it; others are told whom it is open to."""
    service.machine.shell(
        "for user in alice bob; do id $user >/dev/null 2>&1 || useradd --create-home $user; done\n"
        "usermod --append --groups crawler alice"
    )
    service.configure(OTHER)
    service.start()
    service.wait_until_idle()
    for command in (
        ["status"],
        ["pause"],
        ["resume"],
        ["reload"],
        ["block", "example.net"],
        ["hosts"],
        ["logs", "-n1"],
    ):
        done = service.crawler(*command, user="alice")
        assert done.returncode == 0, (command, done.stderr)
    for command in (["status"], ["pause"], ["reload"], ["stop"], ["hosts"], ["logs", "-n1"]):
        done = service.crawler(*command, user="bob")
        assert (done.returncode, "Traceback" in done.stderr) == (77, False), (command, done.stderr)
        assert "ermission denied" in done.stderr
    assert service.is_active()


def test_logrotate_as_it_is_documented_loses_no_line(service: Service) -> None:
    """Also while the configuration has a mistake, and the reload is refused."""
    text = (ROOT / "docs/reference/service.md").read_text()
    (rules,) = re.findall(r"```\n(/var/log/crawler/\*\.jsonl \{\n.*?\n\})\n```", text, re.DOTALL)
    service.machine.put("/etc/logrotate.d/crawler", f"{rules}\n")
    service.configure(OTHER)
    service.start()
    service.wait_until_idle()
    good = service.machine.read(CONFIG)
    for mistake in ("", "[scoop]\n"):
        service.machine.put(CONFIG, good + mistake)
        before = service.machine.read(f"{service.logs}/events.jsonl").splitlines()
        service.machine.must("logrotate", "--force", "/etc/logrotate.d/crawler")
        assert service.crawler("pause").returncode == 0
        assert service.crawler("resume").returncode == 0
        service.machine.wait_until(
            lambda: [one.get("command") for one in service.events()][-2:] == ["pause", "resume"],
            "lines in the new file",
        )
        moved = service.machine.shell(f"cat $(ls -t {service.logs}/events.jsonl?* | head -n 1)").splitlines()
        assert moved[: len(before)] == before
        assert not any('"pause"' in line for line in moved[len(before) :])
    assert service.is_active()
    commands = service.machine.must("crawler", "logs", "--output", service.output, "--events", "--event", "control")
    assert commands.count("pause") == 2


def test_an_untouched_installation_is_upgraded_without_force(service: Service) -> None:
    """The unit of the first version that had `install-service`, and a service that runs by it: the steps that are
    printed bring both to this version.
    """
    for name in ("crawler.service", "crawler@.service"):
        old = (ROOT / "tests" / "unit" / "cli" / "service" / "installed_before" / name).read_text()
        service.machine.put(f"/etc/systemd/system/{name}", old)
    service.machine.shell("rm /usr/local/share/crawler/installed.sha256; systemctl daemon-reload")
    service.configure(OTHER)
    service.start()
    pid = service.pid
    assert service.show("StartLimitBurst") == "5"
    done = service.machine.must("crawler", "install-service")
    steps = [line.strip() for line in done.partition("next:")[2].splitlines() if line.strip()]
    assert "systemctl try-restart crawler 'crawler@*' 'crawler-again@*.service'" in steps
    for step in steps:
        service.machine.shell(step)
    assert service.show("StartLimitIntervalUSec") == "0"
    assert "RuntimeDirectoryPreserve=yes" in service.machine.must("systemctl", "cat", "crawler@x.service")
    assert service.pid != pid
    service.machine.must("sha256sum", "--check", "--quiet", "/usr/local/share/crawler/installed.sha256")
    service.machine.shell("sed -i s/WatchdogSec=20/WatchdogSec=40/ /etc/systemd/system/crawler.service")
    assert service.machine.run(
        "sha256sum", "--check", "--quiet", "/usr/local/share/crawler/installed.sha256"
    ).returncode


@pytest.mark.parametrize("place", ["/srv/elsewhere/my crawl", "/home/carol/crawl"])
def test_what_check_refuses_the_service_refuses_and_what_it_advises_helps(service: Service, place: str) -> None:
    """A directory that the unit does not name: both say no; with the drop-in and the commands as they are printed, both
    say yes.
    """
    service.machine.shell("mkdir -p /home/carol /srv/elsewhere")
    service.configure(OTHER, output={"directory": place})
    refused = service.crawler("check")
    assert refused.returncode == 78
    assert f"output.directory {place}: crawler.service may not write there" in refused.stderr
    assert service.systemctl("start") != 0
    lines = re.findall(r"^    (.+)$", refused.stderr, re.MULTILINE)
    assert lines[0] == "[Service]"
    service.drop_in(*lines[1:])
    for command in re.findall(r"to allow it: (.+)", refused.stderr):
        service.machine.shell(command)
    service.machine.must("systemctl", "reset-failed")
    checked = service.crawler("check")
    assert checked.returncode == 0, checked.stderr
    service.start()
    assert service.status()["output"] == place


def test_a_file_that_the_service_may_not_read_is_refused_by_both(service: Service) -> None:
    """Root may read it, and the service is not root."""
    service.machine.put("/etc/crawler/seeds", f"{PLAIN}/slow/0.html\n", mode=0o600)
    service.configure(OTHER, crawl={"seed_files": ["/etc/crawler/seeds"]})
    refused = service.crawler("check")
    assert refused.returncode == 78
    assert "crawl.seed_files /etc/crawler/seeds: user crawler of crawler.service may not read it" in refused.stderr
    assert service.systemctl("start") != 0
    for command in re.findall(r"to allow it: (.+)", refused.stderr):
        service.machine.shell(command)
    assert service.crawler("check").returncode == 0
    service.start()
