"""Operators steer several agents of one crawl from anywhere: commands reach all of them. (By the server's log.)"""

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from crawler.admin.control_socket import Control
from crawler.admin.unix_socket import CommandRefused
from crawler.core.enums import Exit
from tests.support.agents import Agents, domains
from tests.support.commands import TIMEOUT_S, Crawl, Ran, ended, run
from tests.support.nginx import Nginx, Site, nginx
from tests.support.postgresql import new_database

pytestmark = pytest.mark.e2e
HOSTS = domains(18)
IN_FORCE_S = 1.0  # on every agent


class Steered:
    """Three running agents, and a configuration of the same crawl without an agent of its own."""

    def __init__(self, server: Nginx, agents: Agents, elsewhere: Crawl) -> None:
        self.server, self.agents, self.elsewhere = server, agents, elsewhere
        self.processes = [agents.start(n, verb="run") for n in (1, 2, 3)]

    def tell(self, *words: object, at: int | None = None) -> Ran:
        """Give a command at agent `at`, or elsewhere."""
        crawl = self.elsewhere if at is None else self.agents.crawls[at - 1]
        return run(*words, "-c", crawl.config)

    def requested(self, since_s: float) -> set[str]:
        """The hosts that were requested in the last seconds."""
        begin = time.time() - since_s
        return {one.host for one in self.server.requests() if one.begin_ms > begin * 1000}

    def await_requests(self, is_so: Callable[[set[str]], bool]) -> None:
        """Wait until it is so of the hosts that were requested within half a second."""
        end = time.monotonic() + TIMEOUT_S
        while not is_so(self.requested(0.5)):
            assert time.monotonic() < end
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.05)

    def assert_without(self, hosts: Sequence[str]) -> None:
        """From `IN_FORCE_S` on no request to `hosts` begins, while all others get one."""
        begin_ms = (time.time() + IN_FORCE_S) * 1000
        requested: set[str] = set()

        def have_others_one(_: set[str]) -> bool:
            requested.update(one.host for one in self.server.requests() if one.begin_ms > begin_ms)
            return requested >= set(HOSTS) - set(hosts)

        self.await_requests(have_others_one)
        assert requested == set(HOSTS) - set(hosts)


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    folder = tmp_path_factory.mktemp("steered")
    with nginx(Site(dict.fromkeys(HOSTS, 1_000))) as server:
        agents = Agents.of(folder, server, new_database(), 4, delay_s=0.1)
        one = Steered(server, agents, agents.crawls.pop())
        try:
            one.await_requests(lambda hosts: len(hosts) == len(HOSTS))
            yield one
        finally:
            for process in one.processes:
                process.kill()
                process.communicate()


def test_a_pause_and_its_end_reach_all(steered: Steered) -> None:
    """Told to one, and from where none runs."""
    assert steered.tell("pause", at=1).stdout == "paused\n"
    paused_ms = time.time() * 1000
    steered.await_requests(lambda hosts: not hosts)
    assert max(one.begin_ms for one in steered.server.requests()) <= paused_ms + 100
    assert steered.tell("resume").stdout == "resumed\n"
    steered.await_requests(lambda hosts: len(hosts) == len(HOSTS))


def test_a_block_is_in_force_everywhere_within_a_second(steered: Steered) -> None:
    """Also of hosts of other agents than the one that is told, and so is its end."""
    blocked = HOSTS[:6]
    for host in blocked:
        assert steered.tell("block", host, at=2).code == 0
    steered.assert_without(blocked)
    assert len(steered.tell("block", "--list").stdout.splitlines()) == len(blocked)
    for host in blocked:
        assert f"unblocked {host}: 1 host" in steered.tell("unblock", host).stdout
    steered.await_requests(lambda hosts: len(hosts) == len(HOSTS))


def test_urls_are_added_and_queued_again_wherever_they_belong(steered: Steered) -> None:
    """What one agent does not own it sends on; results are those of all."""
    urls = [steered.server.url(host, "/added") for host in HOSTS]
    added = steered.tell("add", *urls, at=3).stdout
    assert added.startswith(f"{len(HOSTS)} added") or "sent to the agents of their hosts" in added
    steered.await_requests(
        lambda _: {one.host for one in steered.server.requests() if one.target == "/added"} == set(HOSTS)
    )
    again = steered.tell("requeue", "--status", "404", "--dry-run").stdout
    assert f"of {len(HOSTS)} hosts would be queued again" in again
    assert "URLs of 1 host queued again" in steered.tell("requeue", "--status", "404", "--host", HOSTS[3], at=1).stdout
    assert steered.tell("requeue", "--status", "404", "--host", "unknown.test").code == 1


def test_a_takedown_is_carried_out_by_the_owner(steered: Steered) -> None:
    """Whoever is told."""
    for host, at in ((HOSTS[7], 1), (HOSTS[8], None)):
        assert "URLs forgotten" in steered.tell("forget", host, "--no-scan", at=at).stdout
    steered.assert_without(HOSTS[7:9])
    assert "was already taken down" in steered.tell("forget", HOSTS[7], "--no-scan", at=2).stdout


@pytest.mark.parametrize("slots", [5, ["5"], [True]])
def test_slots_of_another_program_are_checked(steered: Steered, slots: object) -> None:
    """Agents name slots to each other; whoever else reaches the socket may name anything."""
    with (
        Control(steered.agents.crawls[0].output / "control.sock") as control,
        pytest.raises(CommandRefused, match='"slots" must be a list of numbers') as refused,
    ):
        control.call("requeue", {"status": "404", "slots": slots, "dry_run": True})
    assert refused.value.exit_code == Exit.USAGE


def test_what_shows_one_agent_says_how_to_name_it(steered: Steered) -> None:
    """Where none runs."""
    shown = steered.tell("status")
    assert (shown.code, "`crawler fleet` shows all" in shown.stderr) == (69, True), shown.stderr


def test_a_reload_is_for_all_or_for_none(steered: Steered) -> None:
    """One configuration that differs keeps all as they were."""
    configurations = [crawl.config for crawl in steered.agents.crawls]
    texts = [path.read_text() for path in configurations]
    configurations[1].write_text(texts[1].replace('"0.100s"', '"0.200s"'))
    refused = steered.tell("reload", at=1)
    assert (refused.code, "differ in rules of scope or politeness: none was changed" in refused.stderr) == (78, True)
    for path, text in zip(configurations, texts, strict=True):
        path.write_text(text.replace('"0.100s"', '"0.200s"'))
    reloaded = steered.tell("reload", at=1)
    assert (reloaded.code, "politeness.delay" in reloaded.stdout) == (0, True), reloaded.stderr


def test_a_stop_ends_all(steered: Steered) -> None:
    """With everything stored; then no agent is left to tell anything."""
    stopped = steered.tell("stop", "--wait")
    assert (stopped.code, stopped.stdout) == (0, "stopped\n"), stopped.stderr
    codes = [ended(process).code for process in steered.processes]
    assert codes == [0, 0, 0]
    for crawl in steered.agents.crawls:
        checked = run("verify", crawl.output)
        assert checked.code == 0, checked.stdout + checked.stderr
