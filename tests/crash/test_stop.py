"""Being told to stop: the first signal drains, the second ends at once, and the same command goes on."""

import signal
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.commands import Crawl, ended, running
from tests.support.nginx import Nginx
from tests.support.raw_servers import sending
from tests.support.site_crawls import (
    DOCS,
    OTHER,
    SLOWLY,
    assert_everything_is_stored_once,
    sections,
    wait_for_event,
    wait_for_requests,
)

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_the_same_command_goes_on(
    server: Nginx, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit 75 with a word on what is left; what was asked is stored, so the next run asks for the rest only."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        process.send_signal(number)
        stopped = ended(process, timeout=10)
    assert (stopped.code, stopped.summary["stopped_by"]) == (75, "signal")
    assert "URLs are left, the same command continues with them" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    asked = server.places()
    assert len(crawl.fetches()) == stopped.summary["responses"] + stopped.summary["denied"] == len(server.requests())
    assert [line["event"] for line in crawl.events() if line["event"] in ("drain", "stop")] == ["drain", "stop"]
    assert all(path.name.endswith(".warc.gz") for path in crawl.warcs())
    last = crawl.run("-o", "politeness.delay=0")
    assert (last.code, last.summary["stopped_by"]) == (0, "empty")
    assert max(Counter(server.places()).values()) == 1
    assert server.places()[: len(asked)] == asked
    assert_everything_is_stored_once(server, crawl)


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    """It does not wait for an answer that never comes; 128 and the signal's number, as shells have it."""
    with sending(None) as port:
        crawl = Crawl.of(
            tmp_path,
            {
                "crawl": {"seeds": [f"http://127.0.0.1:{port}/"]},
                "network": {"allow_private": ["127.0.0.0/8"]},
            },
        )
        with running(*crawl.arguments()) as process:
            wait_for_event(crawl, process, "conn_open")
            process.send_signal(signal.SIGTERM)
            wait_for_event(crawl, process, "drain")
            assert process.poll() is None  # the answer is waited for
            process.send_signal(signal.SIGTERM)
            stopped = ended(process, timeout=10)
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.stdout == ""
    assert "ended at once" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_what_was_ended_at_once_can_be_resumed(server: Nginx, tmp_path: Path) -> None:
    """Two signals in a row cost no more than a kill."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 30)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert ended(process, timeout=10).code in (75, 128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert crawl.run("-o", "politeness.delay=0").code == 0
    assert_everything_is_stored_once(server, crawl)


def test_two_crawlers_never_share_an_output_directory(server: Nginx, tmp_path: Path) -> None:
    """The second ends with 75 and names the first, which goes on undisturbed."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    with running(*crawl.arguments()) as first:
        assert wait_for_requests(server, first, 3)
        second = crawl.run()
        assert second.code == 75
        assert second.stderr == (
            f"crawler: {crawl.output}/frontier.db is in use by process {first.pid}: `crawler status --output "
            f"{crawl.output}` shows it, `crawler reload --output {crawl.output}` has it read a changed configuration, "
            f"`crawler stop --output {crawl.output}` ends it\n"
        )
        assert second.stdout == ""
        assert ended(first).code == 0
    assert_everything_is_stored_once(server, crawl)


def test_a_stop_in_full_flight_ends_within_its_drain(server: Nginx, tmp_path: Path) -> None:
    """Full speed, and a server that never answers: `engine.drain` is waited for it, not a second more; nothing is lost,
    and what was cut off is asked again by the next run.
    """
    drain_s = 1.5
    with sending(None) as port:
        seeds = [server.url(DOCS), server.url(OTHER), f"http://127.0.0.1:{port}/"]
        keys = sections(server, DOCS, OTHER, crawl={"seeds": seeds}, engine={"drain": f"{drain_s}s"})
        crawl = Crawl.of(tmp_path, keys)
        with running(*crawl.arguments()) as process:
            assert wait_for_requests(server, process, 60)
            process.send_signal(signal.SIGTERM)
            stopped = ended(process, timeout=20)
    assert (stopped.code, stopped.summary["stopped_by"]) == (75, "signal")
    began, end = (line["ts"] for line in crawl.events() if line["event"] in ("drain", "stop"))
    took_s = (datetime.fromisoformat(end) - datetime.fromisoformat(began)).total_seconds()
    assert drain_s - 0.1 < took_s < drain_s + 1.0
    last = crawl.run("-o", f"crawl.seeds={seeds[:2]}", "-o", "crawl.linger=0s")
    assert last.code in (0, 75)
    assert max(Counter(server.places()).values()) == 1
    assert_everything_is_stored_once(server, crawl)
