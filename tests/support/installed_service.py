"""The crawler as it is installed on a machine with systemd, and the site that it crawls there.

It runs commands as an operator does, and reads the same files. Invariant: a `Service` starts without the state, logs
and drop-ins of the one before it, with the unit as shipped.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.support.commands import toml
from tests.support.nginx import Nginx, Place, Site, lay_out
from tests.support.site_crawls import DOCS, OTHER, WWW, sections
from tests.support.systemd_machine import Machine

CONFIG: Final = "/etc/crawler/crawler.toml"
DROP_IN: Final = "/etc/systemd/system/{}.d/test.conf"
SERVED: Final = Path("/srv/site")
PORT: Final = 8443
PLAIN: Final = "http://127.0.0.1:8090"  # what is slow, and what needs credentials
USER, PASSWORD = "reader", "s3cr3t-of-the-site"
SLOW_BYTES: Final = 64 * 1024
AGENT: Final = "tested/1.0 (+https://example.org/bot)"
SITE: Final = Site({WWW: 60, DOCS: 20, OTHER: 10})
SERVER: Final = Nginx(SERVED, SITE, PORT)  # as seen on the machine

_PLAIN_SERVER = f"""
  server {{
    listen 127.0.0.1:8090; root {SERVED}/plain;
    location /slow/ {{ limit_rate 16k; }}  # 4 seconds for a page
    location /slower/ {{ limit_rate 1k; }}  # a minute
    location /closed/ {{ auth_basic closed; auth_basic_user_file {SERVED}/users; }}
  }}
}}
"""


def serve(machine: Machine) -> None:
    """Copy the site to the machine and serve it while the machine runs."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        lay_out(directory, SITE, PORT, {}, seen_as=SERVED)
        configuration = directory / "nginx.conf"
        configuration.write_text(configuration.read_text().rstrip().removesuffix("}") + _PLAIN_SERVER)
        (directory / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        for folder, size in (("slow", SLOW_BYTES), ("slower", SLOW_BYTES), ("closed", 100)):
            (directory / "plain" / folder).mkdir(parents=True)
            for n in range(3):
                page = f"<title>{folder} {n}</title><p>{'words ' * (size // 6)}</p>"
                (directory / "plain" / folder / f"{n}.html").write_text(page)
        machine.put_tree(directory, str(SERVED))
    nginx = f"nginx -p {SERVED} -c {SERVED}/nginx.conf -e {SERVED}/error.log"
    machine.shell(f"systemd-run --quiet --unit=site --collect {nginx}; touch {SERVED}/access.jsonl")
    machine.wait_until(lambda: machine.run("test", "-S", SERVED / "mark.sock").returncode == 0, "nginx listens")


@dataclass(frozen=True)
class Service:
    """`crawler.service`, or an instance of crawler@.service (with `is_again`, crawler-again@.service) on a machine."""

    machine: Machine
    since: str  # the journal before is of other tests
    instance: str = ""
    is_again: bool = False

    @property
    def unit(self) -> str:
        template = "crawler-again" if self.is_again else "crawler"
        return f"{template}@{self.instance}.service" if self.instance else "crawler.service"

    @property
    def timer(self) -> str:
        return self.unit.replace(".service", ".timer")

    @property
    def config(self) -> str:
        return f"/etc/crawler/{self.instance}.toml" if self.instance else CONFIG

    @property
    def output(self) -> str:
        return f"/var/lib/crawler/{self.instance}".rstrip("/")

    @property
    def logs(self) -> str:
        return f"/var/log/crawler/{self.instance}".rstrip("/")

    def configure(self, *hosts: str, **keys: dict[str, object]) -> None:
        """Write the configuration: a crawl of these hosts; `keys` are added, section by section."""
        more: dict[str, dict[str, object]] = {
            "identity": {"user_agent": AGENT},
            "output": {"directory": self.output},
            "log": {"directory": self.logs},
        }
        merged = {name: more.get(name, {}) | keys.get(name, {}) for name in more | keys}
        self.machine.put(self.config, toml(sections(SERVER, *hosts, **merged)))

    def drop_in(self, *lines: str) -> None:
        """Settings of [Service] for a test, such as shorter times."""
        self.machine.put(DROP_IN.format(self.unit), "\n".join(["[Service]", *lines, ""]))
        self.machine.must("systemctl", "daemon-reload")

    def systemctl(self, verb: str, *more: str) -> int:
        return self.machine.run("systemctl", verb, *more, self.unit).returncode

    def start(self) -> None:
        """Start the service. Returns when it has notified READY."""
        self.machine.must("systemctl", "start", self.unit)

    def stop(self) -> None:
        self.machine.must("systemctl", "stop", self.unit)

    def is_active(self) -> bool:
        return self.systemctl("is-active", "--quiet") == 0

    def show(self, name: str) -> str:
        return self.machine.property_of(self.unit, name)

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def crawler(self, command: str, *arguments: object, user: str | None = None) -> Any:
        """Run a command of the crawler for this service."""
        return self.machine.run("crawler", command, "-c", self.config, *arguments, user=user)

    def status(self) -> dict[str, Any]:
        done = self.crawler("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait_until_idle(self) -> None:
        """Wait until every URL is fetched."""

        def is_idle() -> bool:
            status = self.status()
            return status["state"] == "idle" and status["urls"]["done"] > 0

        self.machine.wait_until(is_idle, "idle")

    def journal(self) -> str:
        self.machine.must("journalctl", "--sync")
        return self.machine.must("journalctl", "--no-pager", "-o", "cat", "--since", self.since, "-u", self.unit)

    def pages(self) -> dict[str, str]:
        """URL → digest of every page that is stored."""
        return pages_in(self.machine, self.output)

    def wait_until_ended(self) -> None:
        """Wait until a crawl that ends by itself has ended, well or not."""
        self.machine.wait_until(lambda: self.show("ActiveState") in ("inactive", "failed"), "it has ended")

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.machine.read(f"{self.logs}/events.jsonl").splitlines()]


def pages_in(machine: Machine, output: str) -> dict[str, str]:
    """URL → digest of every line of pages/. Fails if a URL has two."""
    lines = [json.loads(line) for line in machine.shell(f"cat {output}/pages/*.jsonl*").splitlines()]
    found = {line["url"]: line["digest"] for line in lines}
    assert len(found) == len(lines)
    return found


def wanted(*hosts: str) -> set[str]:
    """What a whole crawl of these hosts stores as pages."""
    places: set[Place] = SITE.pages | SITE.requisites
    return {SERVER.url(*place) for place in places if place[0] in hosts}
