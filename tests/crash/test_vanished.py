"""Output files that are deleted, moved or cut under a running crawl: noticed at once, told, and fetched again."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Crawl, Ran, ended, run, running
from tests.support.nginx import Nginx, Site, nginx
from tests.support.site_crawls import DOCS, OTHER, SLOWLY, sections, wait_for_event, wait_for_requests, wait_until
from tests.support.warcs import records

pytestmark = pytest.mark.e2e
REQUESTS = 20  # before something happens to a file


@pytest.fixture(scope="module")
def small_server() -> Iterator[Nginx]:
    with nginx(Site({DOCS: 30, OTHER: 20})) as running_server:
        yield running_server


@pytest.fixture
def server(small_server: Nginx) -> Nginx:
    """The same, with an empty log."""
    small_server.forget()
    return small_server


def crawl_of(server: Nginx, directory: Path) -> Crawl:
    return Crawl.of(directory, sections(server, DOCS, OTHER, politeness=SLOWLY))


def open_file(crawl: Crawl, sink: str) -> Path:
    [path] = (crawl.output / sink).glob("*.open")
    return path


def interfere(server: Nginx, crawl: Crawl, act: Callable[[Path], object], sink: str) -> Ran:
    """Crawl, and in the middle of it do something to the open file of a sink."""
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, REQUESTS)
        assert wait_until(lambda: any((crawl.output / sink).glob("*.open")), process)
        act(open_file(crawl, sink))
        assert wait_for_event(crawl, process, "file_lost")
        return ended(process)


def archived(server: Nginx, folder: Path) -> set[str]:
    robots = {server.url(host, "/robots.txt") for host in server.site.hosts}
    found = {
        record.url
        for path in folder.glob("*.warc.gz*")
        for record in records(path)
        if record.kind in ("response", "revisit")
    }
    return found - robots


def assert_all_is_there(server: Nginx, crawl: Crawl, *beside: Path) -> None:
    """Nothing of the site is missing in the complete files; `beside` are folders that hold more of them."""
    found = set().union(*(archived(server, folder) for folder in (crawl.output / "warc", *beside)))
    assert found == {server.url(*place) for place in server.site.wanted()}
    pages = {line["url"] for line in crawl.page_lines()}
    assert pages == {server.url(*place) for place in server.site.pages | server.site.requisites}
    assert list(crawl.output.glob("*/*.open")) == []
    checked = run("verify", crawl.output)
    assert (checked.code, checked.stdout) == (0, ""), checked.stderr


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"somebody else's\n")
    other.replace(path)


@pytest.mark.parametrize("sink", ["warc", "pages"])
@pytest.mark.parametrize("act", [Path.unlink, cut, replace], ids=["deleted", "cut", "replaced"])
def test_what_was_in_a_vanished_file_is_fetched_again(
    server: Nginx, tmp_path: Path, act: Callable[[Path], object], sink: str
) -> None:
    """Within a commit it is told on stderr and in events.jsonl, another file is begun, and the crawl ends complete."""
    crawl = crawl_of(server, tmp_path)
    done = interfere(server, crawl, act, sink)
    assert (done.code, done.summary["stopped_by"], done.summary["unstored"]) == (0, "empty", 0), done.stderr
    [lost] = [line for line in crawl.events() if line["event"] == "file_lost"]
    assert (lost["sink"], lost["how"]) == (sink, "deleted" if act is not cut else "cut")
    assert lost["bytes"] > 0
    assert lost["urls"] > 0
    words = rf"crawler: {sink}/{lost['name']} was .*: {lost['urls']} URLs? .* fetched again"
    assert re.search(words, done.stderr), done.stderr
    closed = {line["name"] for line in crawl.events() if line["event"] == "file_closed"}
    assert closed == {path.name for path in crawl.output.glob("*/crawl-*[lz]")}
    assert lost["name"] not in closed
    if act is replace:
        [orphan] = (crawl.output / sink).glob("*.orphan")
        assert orphan.read_bytes() == b"somebody else's\n"
        orphan.unlink()
    for orphan in (crawl.output / sink).glob("*.orphan"):
        orphan.unlink()
    assert_all_is_there(server, crawl)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_was_moved_away_keeps_what_is_in_it(server: Nginx, tmp_path: Path, what: str) -> None:
    """Its bytes are whole where it is now, which is told: it counts as moved away, and nothing is fetched again."""
    crawl = crawl_of(server, tmp_path)
    away = tmp_path / "away"

    def move(path: Path) -> None:
        if what == "folder":
            path.parent.rename(away)
        else:
            away.mkdir()
            path.rename(away / path.name)

    done = interfere(server, crawl, move, "warc")
    assert (done.code, done.summary["stopped_by"]) == (0, "empty"), done.stderr
    [lost] = [line for line in crawl.events() if line["event"] == "file_lost"]
    assert (lost["how"], lost["urls"]) == ("moved", 0)
    assert str(away) in lost["place"]
    assert f"was moved away while it was written: it is complete at {away}" in done.stderr
    assert_all_is_there(server, crawl, away)
    assert not archived(server, away) & archived(server, crawl.output / "warc")


def test_a_file_that_vanishes_at_the_very_end_is_noticed_by_the_end(server: Nginx, tmp_path: Path) -> None:
    """After the last commit of a crawl that is stopped: URLs are left, and the same command fetches them again."""
    crawl = crawl_of(server, tmp_path)
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, REQUESTS)
        assert wait_until(lambda: any((crawl.output / "warc").glob("*.open")), process)
        process.send_signal(signal.SIGSTOP)
        open_file(crawl, "warc").unlink()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        stopped = ended(process)
    assert stopped.code == 75, stopped.stderr
    assert "fetched again" in stopped.stderr
    checked = run("verify", crawl.output)
    assert checked.code == 1
    assert re.search(r"its record was in warc/\S+, which is lost; it will be fetched again", checked.stdout)
    done = crawl.run("-o", "politeness.delay=0")
    assert done.code == 0, done.stderr
    assert_all_is_there(server, crawl)


def test_a_file_that_is_gone_at_the_start_is_given_up_by_command_alone(server: Nginx, tmp_path: Path) -> None:
    """Deleted and killed before a commit could notice: it may be a disk that is not mounted. The start says both ways
    out, and `crawler requeue --file` is the one without the file.
    """
    crawl = crawl_of(server, tmp_path)
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, REQUESTS)
        assert wait_until(lambda: any((crawl.output / "warc").glob("*.open")), process)
        process.send_signal(signal.SIGSTOP)
        path = open_file(crawl, "warc")
        path.unlink()
        process.kill()
        ended(process)
    refused = crawl.run()
    name = f"warc/{path.name.removesuffix('.open')}"
    assert refused.code == 65
    assert f"put the file back as it was, or have `crawler requeue --file {name}` fetch again" in refused.stderr
    strange = run("requeue", "--file", "warc/other.warc.gz", "--output", crawl.output)
    assert (strange.code, "knows no output file warc/other.warc.gz" in strange.stderr) == (2, True)
    given_up = run("requeue", "--file", name, "--output", crawl.output)
    assert (given_up.code, given_up.stderr) == (0, "")
    assert re.fullmatch(r"\d+ URLs of 2 hosts queued again\n", given_up.stdout)
    done = crawl.run("-o", "politeness.delay=0")
    assert done.code == 0, done.stderr
    assert_all_is_there(server, crawl)
