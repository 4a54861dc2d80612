"""Commands on the store of a crawl, as operators use them: verify, export, backup, add, requeue, forget."""

import csv
import io
import json
import shutil
import sqlite3
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Crawl, ended, run, running
from tests.support.nginx import Nginx
from tests.support.site_crawls import DOCS, OTHER, SLOWLY, sections, wait_for_requests, wait_until
from tests.support.warcs import record_at, records

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def crawled(running_server: Nginx, tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    """A finished crawl of two hosts, in several WARC files."""
    directory = tmp_path_factory.mktemp("crawled")
    crawl = Crawl.of(directory, sections(running_server, DOCS, OTHER, output={"warc_size": "100kB"}))
    assert crawl.run().code == 0
    return crawl


@pytest.fixture
def crawl(crawled: Crawl, tmp_path: Path) -> Crawl:
    """A copy of it, to do harm to."""
    shutil.copytree(crawled.output, tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()  # it names the paths of the original
    config = tmp_path / "crawler.toml"
    config.write_text(crawled.config.read_text())
    return Crawl(config, tmp_path / "out", tmp_path / "out" / "logs")


def rows(crawl: Crawl, *arguments: str) -> list[dict[str, Any]]:
    exported = run("export", *arguments, "--output", crawl.output)
    assert (exported.code, exported.stderr) == (0, "")
    return [json.loads(line) for line in exported.stdout.splitlines()]


def store(crawl: Crawl, statement: str) -> None:
    with sqlite3.connect(crawl.output / "frontier.db") as connection:
        connection.execute(statement)
    connection.close()


# -- verify


def test_a_finished_crawl_verifies(crawl: Crawl) -> None:
    """Every record, page and line was looked at, and nothing is wrong."""
    ran = run("verify", crawl.output)
    assert (ran.code, ran.stdout) == (0, "")
    responses = sum(1 for path in crawl.warcs() for _ in records(path))
    assert f"no findings: {responses} records and {len(crawl.page_lines())} pages in " in ran.stderr
    assert f"{len(crawl.fetches())} log lines" in ran.stderr


def flip_a_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def first_visit(crawl: Crawl) -> tuple[Path, int]:
    page = crawl.page_lines()[0]
    return crawl.output / "warc" / page["warc_file"], page["warc_offset"]


def damage(crawl: Crawl, kind: str) -> None:
    """Do one kind of harm to the output directory."""
    warc, offset = first_visit(crawl)
    pages = sorted((crawl.output / "pages").iterdir())[0]
    lines = pages.read_bytes().splitlines(keepends=True)
    match kind:
        case "a byte of a record":
            flip_a_byte(warc, offset + 300)
        case "a record cut off":
            warc.write_bytes(warc.read_bytes()[:-10])
        case "bytes behind a complete file":
            warc.write_bytes(warc.read_bytes() + b"more")
        case "an open file that is gone":
            store(crawl, f"UPDATE sink_file SET state = 'open' WHERE name = '{warc.name}'")
            warc.unlink()
        case "a file of another crawl":
            shutil.copy(warc, warc.with_name("other-20260101000000-00099.warc.gz"))
        case "a page line that is no JSON":
            pages.write_bytes(b"".join([b"x" * (len(lines[0]) - 1) + b"\n", *lines[1:]]))
        case "a page line twice":
            pages.write_bytes(pages.read_bytes() + lines[0])
            store(crawl, f"UPDATE sink_file SET committed_bytes = {pages.stat().st_size} WHERE name = '{pages.name}'")
        case "a visit that points elsewhere":
            store(crawl, "UPDATE visit SET warc_offset = warc_offset + 1 WHERE url = 1")
        case "a digest that differs":
            store(crawl, "UPDATE visit SET digest = 'sha256:A' WHERE url = 1")
        case "a settled page that is queued again":
            store(crawl, "UPDATE url SET state = 'queued' WHERE id = 2")
        case "a page that the store lost":
            store(crawl, "DELETE FROM url WHERE id = 3")
        case "a visit that is forgotten":
            store(crawl, "UPDATE visit SET visits = 0, warc_offset = NULL, warc_file = NULL WHERE url = 1")
            warc2 = warc.read_bytes()
            warc.write_bytes(warc2 + warc2)
            size = warc.stat().st_size
            store(crawl, f"UPDATE sink_file SET committed_bytes = {size} WHERE name = '{warc.name}'")
        case "a log line that lies":
            log = crawl.logs / "fetch.jsonl"
            log.write_bytes(log.read_bytes().replace(f'"warc_offset":{offset}'.encode(), b'"warc_offset":1', 1))
        case "a damaged index":
            with sqlite3.connect(crawl.output / "frontier.db") as connection:
                connection.execute("PRAGMA writable_schema = on")
                connection.execute("DELETE FROM sqlite_schema WHERE name = 'url_queued'")
            connection.close()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a byte of a record", "at byte"),
        ("a record cut off", "were committed"),
        ("bytes behind a complete file", "bytes beyond the"),
        ("an open file that is gone", "is missing, but the store has it as open"),
        ("a file of another crawl", "unknown to the store"),
        ("a page line that is no JSON", "not a complete JSON line"),
        ("a page line twice", "more than one line for one record"),
        ("a visit that points elsewhere", "where no response begins"),
        ("a digest that differs", "digest is sha256:A in the store"),
        ("a settled page that is queued again", "the stored totals are"),
        ("a page that the store lost", "and unknown to the store"),
        ("a visit that is forgotten", "archived 2 times, fetched"),
        ("a log line that lies", "fetch.jsonl: "),
        ("a damaged index", "SQLite: "),
    ],
)
def test_each_kind_of_damage_is_found(crawl: Crawl, kind: str, words: str) -> None:
    """And told in words, with exit code 1."""
    damage(crawl, kind)
    ran = run("verify", crawl.output)
    assert ran.code == 1, ran.stderr
    assert words in ran.stdout
    assert "Traceback" not in ran.stderr


def test_files_that_were_moved_away_are_not_missed(crawl: Crawl) -> None:
    """Closed ones may be uploaded and removed."""
    for path in crawl.warcs()[:2]:
        path.unlink()
    ran = run("verify", crawl.output)
    assert (ran.code, ran.stdout) == (0, "")
    assert "2 closed files moved away" in ran.stderr


def test_a_directory_without_a_crawl_is_refused_by_each_command(tmp_path: Path) -> None:
    """Neither clean nor full of findings."""
    assert run("verify", tmp_path).code == 74
    assert "holds no crawl" in run("verify", tmp_path).stderr


# -- export and backup


def test_urls_and_hosts_are_exported(crawl: Crawl) -> None:
    """Each with what the store knows, as JSON lines or CSV."""
    urls = rows(crawl, "urls")
    pages = {line["url"]: line for line in crawl.page_lines()}
    done = {row["url"]: row for row in urls if row["state"] == "done"}
    assert set(pages) <= set(done)
    assert all(done[url]["digest"] == page["digest"] for url, page in pages.items())
    assert {row["source"] == "seed" for row in urls if row["via"] is None} == {True}
    assert {row["via"] for row in urls} - {None} <= set(done)
    hosts = rows(crawl, "hosts")
    assert sum(row["fetched"] for row in hosts) == len(done)
    assert (
        run("export", "urls", "--json", "--output", crawl.output).stdout
        == run("export", "urls", "--output", crawl.output).stdout
    )
    assert run("export", "urls", "--json", "--format", "csv", "--output", crawl.output).code == 2
    table = run("export", "urls", "--format", "csv", "--state", "done", "--output", crawl.output)
    read = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["url"] for row in read] == [row["url"] for row in urls if row["state"] == "done"]


def test_a_backup_made_while_the_crawl_runs_is_whole_and_can_be_resumed(server: Nginx, tmp_path: Path) -> None:
    """It is the store of one moment; commits meanwhile do not disturb it."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, OTHER, politeness=SLOWLY))
    copy = tmp_path / "copy.db"
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 40)
        ran = run("backup", copy, "-c", crawl.config, "--output", crawl.output)
        assert (ran.code, ran.stderr) == (0, "")
        assert run("verify", crawl.output).code == 0  # beside the running crawl
        assert run("backup", copy, "--output", crawl.output).code == 74  # it is never overwritten
        process.terminate()
        process.wait()
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(copy, restored / "frontier.db")
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT value FROM meta WHERE name = 'clean'").fetchone() == ("0",)
        states = dict(connection.execute("SELECT state, count(*) FROM url GROUP BY state"))
    connection.close()
    assert states["done"] > 0
    assert states["queued"] > 0
    assert not list(tmp_path.glob("copy.db.partial*"))


# -- add, requeue, forget


def test_of_many_refused_lines_the_first_are_named(crawl: Crawl, tmp_path: Path) -> None:
    """Each with its line; the others are counted, as the wrong file would fill the screen."""
    file = tmp_path / "wrong.txt"
    file.write_text("# ours\n" + "".join(f"mailto:x{n}\n" for n in range(1_200)))
    ran = run("add", "--from", file, "-c", crawl.config, "--output", crawl.output)
    assert (ran.code, ran.stdout) == (1, "0 added, 0 known already, 1,200 refused\n")
    lines = ran.stderr.splitlines()
    assert len(lines) == 11
    assert lines[0].endswith(f"({file}:2)")
    assert lines[-1].endswith("not added: 1,190 other URLs")


def test_each_of_several_equal_refused_lines_is_named(crawl: Crawl, tmp_path: Path) -> None:
    """Also where the URL is written without its scheme."""
    file = tmp_path / "twice.txt"
    file.write_text("mailto:x\na.test:22/\nmailto:x\na.test/off\n https://a.test/off\n")
    ran = run("add", "--from", file, "-c", crawl.config, "--output", crawl.output, "-o", 'scope.exclude=["/off"]')
    assert ran.stdout == "0 added, 0 known already, 5 refused\n"
    named = sorted([line.split(": ")[2], line.rpartition(":")[2]] for line in ran.stderr.splitlines())
    assert named == [
        ["a.test:22/", "2)"], ["https://a.test/off", "4)"], ["https://a.test/off", "5)"], ["mailto:x", "1)"],
        ["mailto:x", "3)"],
    ]  # fmt: skip


def test_a_line_that_is_not_utf_8_is_refused(crawl: Crawl, tmp_path: Path) -> None:
    """Of a file and of standard input: else a URL would be added that nobody wrote. Comments may have other bytes."""
    file = tmp_path / "latin.txt"
    file.write_bytes(b"# Stra\xdfe\nhttps://a.test/stra\xdfe\n")
    with file.open("rb") as stdin:
        ran = run("add", "-", "--from", file, "-c", crawl.config, "--output", crawl.output, stdin=stdin)
    assert (ran.code, ran.stdout) == (1, "0 added, 0 known already, 2 refused\n")
    refused = "crawler: not added: https://a.test/stra\ufffde: url_invalid: not UTF-8"
    assert ran.stderr.splitlines() == [f"{refused} (<stdin>:2)", f"{refused} ({file}:2)"]


def test_urls_are_added_from_arguments_files_and_standard_input(crawl: Crawl, tmp_path: Path) -> None:
    """To a crawl that does not run; what is no URL is told and the others are added."""
    file = tmp_path / "more.txt"
    file.write_text("# of a partner\nhttps://a.test/1\n\nhttps://a.test/2\n")
    ran = run(
        "add", "a.test/3", "-", "https://a.test/1", "no url", "--from", file, "--priority", -5,
        "-c", crawl.config, "--output", crawl.output, input="https://a.test/4\nhttps://a.test/3\n",
    )  # fmt: skip
    assert ran.stdout == "4 added, 2 known already, 1 refused\n"
    assert "not added: no url: url_invalid" in ran.stderr
    assert ran.code == 1
    added = [row for row in rows(crawl, "urls", "--state", "queued") if row["url"].startswith("https://a.test/")]
    assert {(row["url"][-1], row["priority"], row["source"]) for row in added} == {(n, -5, "seed") for n in "1234"}


def test_a_running_crawl_fetches_what_is_added(server: Nginx, tmp_path: Path) -> None:
    """Through its control socket; requeue and forget go the same way."""
    crawl = Crawl.of(tmp_path, sections(server, DOCS, politeness=SLOWLY | {"delay": "100ms"}))
    with running(*crawl.arguments()) as process:
        assert wait_for_requests(server, process, 5)
        extra = server.url(DOCS, "/added-by-hand")
        ran = run("add", extra, "--priority", "-9", "--output", crawl.output)
        assert (ran.code, ran.stdout) == (0, "1 added, 0 known already, 0 refused\n")
        gone = server.url(OTHER, "/")
        ran = run("forget", gone, "--no-scan", "--output", crawl.output)
        assert ran.code == 1
        assert ran.stdout.startswith(f"{gone}: was not known; it will never be fetched\n")
        ran = run("requeue", "--error-type", "read_timeout", "--output", crawl.output)
        assert (ran.code, ran.stdout) == (0, "0 URLs of 0 hosts queued again\n")
        for pattern in ("*.test", "h*", "!!"):
            ran = run("forget", gone, pattern, "--output", crawl.output)
            assert (ran.code, ran.stdout) == (2, "")
        assert run("block", "h*", "--output", crawl.output).code == 2
        ran = run("add", gone, "--output", crawl.output)
        assert (ran.code, ran.stdout) == (1, "0 added, 0 known already, 1 refused\n")
        assert f"not added: {gone}: forgotten: it was taken down by `crawler forget`" in ran.stderr
        process.terminate()
        process.wait(timeout=90)
    assert (DOCS, "/added-by-hand") in server.places()
    assert OTHER not in {host for host, _ in server.places()}
    assert run("verify", crawl.output).code == 0


def test_errors_are_queued_again(crawl: Crawl) -> None:
    """By their word; a word that is none is a mistake."""
    store(crawl, "UPDATE visit SET last_error = 'reset' WHERE url IN (1, 2)")
    ran = run("requeue", "--error-type", "reset", "--output", crawl.output)
    assert (ran.code, ran.stdout) == (0, "2 URLs of 2 hosts queued again\n")
    assert len(rows(crawl, "urls", "--state", "queued")) == 2
    assert run("requeue", "--error-type", "rest", "--output", crawl.output).code == 2
    assert "name an error_type" in run("requeue", "--output", crawl.output).stderr.lower()
    by_status = run("requeue", "--error-type", "http_error", "--output", crawl.output)
    assert (by_status.code, "named by their status" in by_status.stderr) == (2, True)
    assert run("requeue", "--status", "40x", "--output", crawl.output).code == 2


def test_http_errors_are_queued_and_requested_again(server: Nginx, tmp_path: Path) -> None:
    """By their status, on one host or all; counted first if one likes. Before the next run as beside a running one;
    each is asked for once more, and the rests between requests hold.
    """
    crawl = Crawl.of(tmp_path, sections(server, OTHER))
    gone = [server.url(OTHER, f"/gone-{n}") for n in range(3)]
    assert run("requeue", "--status", "404", "--output", crawl.output).code == 74  # there is no crawl yet
    assert crawl.run(*gone).code == 1
    asked = {place: n for place, n in Counter(server.places()).items() if place[1].startswith("/gone-")}
    assert asked == {(OTHER, f"/gone-{n}"): 1 for n in range(3)}
    told = run("requeue", "--status", "404", "--dry-run", "--output", crawl.output)
    assert (told.code, told.stdout) == (0, "3 URLs of 1 host would be queued again\n")
    assert rows(crawl, "urls", "--state", "queued") == []
    nobody = run("requeue", "--status", "4xx", "--host", "nobody.test", "--output", crawl.output)
    assert (nobody.code, nobody.stderr) == (1, "crawler: the store knows no host nobody.test\n")
    assert run("requeue", "--status", "5xx", "--output", crawl.output).stdout.startswith("0 URLs of 0 hosts")
    told = run("requeue", "--status", "5xx", "--status", "404", "--host", OTHER, "--output", crawl.output)
    assert told.stdout == "3 URLs of 1 host queued again\n"
    keys = sections(
        server, OTHER, DOCS, politeness=SLOWLY | {"delay": "100ms"}, scope={"exclude": ["/missing/**"]}
    )  # fmt: skip
    rested = Crawl.of(tmp_path, keys, crawl.output)
    with running(*rested.arguments(*gone, server.url(DOCS))) as process:
        assert wait_until(lambda: Counter(server.places())[OTHER, "/gone-2"] == 2, process)
        told = run("requeue", "--status", "404", "--host", OTHER, "--output", crawl.output)
        assert (told.code, told.stdout, told.stderr) == (0, "3 URLs of 1 host queued again\n", "")
        nobody = run("requeue", "--status", "404", "--host", "nobody.test", "--output", crawl.output)
        assert (nobody.code, nobody.stderr) == (1, "crawler: the store knows no host nobody.test\n")
        assert wait_until(lambda: Counter(server.places())[OTHER, "/gone-2"] == 3, process)
        process.terminate()
        process.wait(timeout=90)
    asked = {place: n for place, n in Counter(server.places()).items() if place[1].startswith("/gone-")}
    assert asked == {(OTHER, f"/gone-{n}"): 3 for n in range(3)}
    requests = [request for request in server.requests() if request.target.startswith("/gone-")][-6:]
    assert all(later.begin_ms - earlier.end_ms >= 98 for earlier, later in pairwise(requests))
    assert run("verify", crawl.output).code == 0


def test_suspects_are_shown_and_released(crawl: Crawl) -> None:
    """By `hosts` and by the store; released, they are fetched, and suspected no more."""
    host_id = f"(SELECT id FROM host WHERE host = '{DOCS}')"
    store(
        crawl,
        f"INSERT INTO url_template (host, template, spent, since_at) VALUES ({host_id}, '/cal/{{date}}', 200, 1.0)",
    )
    assert run("release", DOCS, "--template", "/x", "--output", crawl.output).code == 1
    ran = run("release", DOCS, "--output", crawl.output)
    assert (ran.code, ran.stdout) == (0, "released /cal/{date}: 0 URLs queued\n")
    ran = run("release", DOCS, "--output", crawl.output)
    assert (ran.code, ran.stderr) == (1, f"crawler: no URL template of {DOCS} is suspected\n")
    assert crawl.run().code == 0


def test_a_forgotten_url_is_listed_with_all_its_records(crawl: Crawl) -> None:
    """And gone from the store; a crawl that goes on never asks for it again."""
    url = crawl.page_lines()[3]["url"]
    ran = run("forget", url, "--output", crawl.output)
    assert ran.code == 0, ran.stderr
    assert ran.stdout.startswith(f"{url}: 1 URL forgotten\n")
    listed = [json.loads(line) for line in (crawl.output / "takedown.jsonl").read_text().splitlines()]
    assert {line["url"] for line in listed} == {url}
    assert sorted(line["record"] for line in listed) == ["metadata", "page", "request", "response"]
    [page] = [line for line in listed if line["record"] == "page"]
    stands = (crawl.output / "pages" / page["pages_file"]).read_bytes()[page["pages_offset"] :][: page["length"]]
    assert json.loads(stands) == {"url": None, "forgotten": True}
    assert url not in {line["url"] for line in crawl.page_lines()}
    listed.remove(page)
    for line in listed:
        found = record_at(crawl.output / "warc" / line["warc_file"], line["warc_offset"])
        assert (found.kind, found.url) == (line["record"], url)
    assert url not in {row["url"] for row in rows(crawl, "urls")}
    assert run("verify", crawl.output).code == 0
    ran = run("add", url, "-c", crawl.config, "--output", crawl.output)
    assert (ran.code, ran.stdout) == (1, "0 added, 0 known already, 1 refused\n")
    assert "it was taken down by `crawler forget`" in ran.stderr
    again = run("forget", url, "--no-scan", "--output", crawl.output)
    assert (again.code, again.stdout.splitlines()[0]) == (0, f"{url}: was already taken down")


def test_a_url_is_forgotten_while_the_crawl_writes_the_file_with_its_line(server: Nginx, tmp_path: Path) -> None:
    """The line is blanked in the open file, which is completed whole all the same."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, DOCS, politeness=SLOWLY))
    with running(*crawl.arguments()) as process:

        def pages() -> list[dict[str, Any]]:
            found = list((crawl.output / "pages").glob("*.open"))
            return [json.loads(line) for path in found for line in path.read_bytes().splitlines() if line[-1:] == b"}"]

        assert wait_until(lambda: len(pages()) > 5, process)
        url = pages()[2]["url"]
        ran = run("forget", url, "--output", crawl.output)
        assert (ran.code, ran.stdout.splitlines()[0]) == (0, f"{url}: 1 URL forgotten"), ran.stderr
        assert url not in {page["url"] for page in pages()}
        done = ended(process)
    assert done.code == 0, done.stderr
    lines = [line["url"] for line in crawl.page_lines()]
    assert (lines.count(None), lines.count(url)) == (1, 0)
    assert [line for line in crawl.events() if line["event"] == "file_lost"] == []
    assert run("verify", crawl.output).code == 0


def test_a_pattern_is_no_takedown(crawl: Crawl) -> None:
    """Neither is what is no host; a "*" in a path is taken as it stands, and said to be."""
    before = rows(crawl, "urls")
    for text in ("*.test", "h*", "!!", "https://*.test/", f"{DOCS}:8443"):
        for command in ("forget", "block"):
            if (command, text) in {("block", "*.test"), ("block", f"{DOCS}:8443")}:
                continue  # it means all below, and a host on all its ports
            ran = run(command, text, "--output", crawl.output)
            assert (ran.code, ran.stdout) == (2, ""), (command, text)
            assert "Traceback" not in ran.stderr
    for command in (("hosts", "--host"), ("logs", "--host"), ("requeue", "--status", "404", "--host")):
        assert run(*command, "h*", "--output", crawl.output).code == 2
    ran = run("forget", f"https://{DOCS}/a*", "--no-scan", "--output", crawl.output)
    assert (ran.code, '("*" is no pattern here)' in ran.stdout) == (1, True)
    assert rows(crawl, "urls") == before


def test_a_forgotten_host_is_listed_whole(crawl: Crawl) -> None:
    """Twice makes no difference, and lists nothing new."""
    said = []
    for _ in range(2):
        ran = run("forget", OTHER, "--output", crawl.output)
        assert ran.code == 0, ran.stderr
        said.append(ran.stdout.splitlines()[-1])
    listed = [json.loads(line) for line in (crawl.output / "takedown.jsonl").read_text().splitlines()]
    ours = [record for path in crawl.warcs() for record in records(path) if f"//{OTHER}:" in record.url]
    pages = [line for line in listed if line["record"] == "page"]
    assert not any(f"//{OTHER}:" in (line["url"] or "") for line in crawl.page_lines())
    assert len(pages) == sum(line["url"] is None for line in crawl.page_lines()) > 50
    assert len(listed) - len(pages) == len(ours) > 100
    assert not said[0].startswith("0 new")
    assert said[1].startswith(f"0 new records to remove, {len(listed)} in all, in ")
    assert all(f"//{OTHER}:" not in row["url"] for row in rows(crawl, "urls"))
    assert run("verify", crawl.output).code == 0
