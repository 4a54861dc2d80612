"""What the web sends, before the whole program: every line of the table of framing outcomes, served over TLS by a host
of its own, is in the log, in the archive and in what becomes of its URL as the table says.

The same table is held to the reader and to the client in the unit tests; here it is carried to where people look.
"""

import asyncio
import gzip
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator

from tests.support.commands import Crawl
from tests.support.response_cases import CASES, CLEAN, SMALL, UNCLEAN, Case
from tests.support.responses import LIMITS
from tests.support.scripted_server import Accepted, Certificates, Script, ok, serve
from tests.unit.fetch.test_response_outcomes import WITHOUT_END, expected

pytestmark = pytest.mark.e2e

ATTEMPTS = 4
RETRY_FIRST_S = 5.0
ROBOTS = ok(b"", "Content-Type: text/plain")
NOT_THERE = ok(b"", status="404 Not Found")


def host_of(a: Accepted) -> str:
    """The host that the last request was for."""
    line = next(line for line in a.requests[-1].split(b"\r\n") if line.lower().startswith(b"host: "))
    return line[6:].decode().partition(":")[0]


@dataclass
class Web:
    """A host for each case; `asked` has when its page was asked for, by host."""

    cases: Sequence[Case]
    port: int = 0
    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def host(self, number: int) -> str:
        return f"c{number}.out.test"

    def url(self, number: int) -> str:
        return f"https://{self.host(number)}:{self.port}/"

    async def __call__(self, a: Accepted) -> None:
        while path := await a.request():
            if path != "/":
                await a.send(ROBOTS if path == "/robots.txt" else NOT_THERE)
                continue
            host = host_of(a)
            self.asked[host].append(time.monotonic())
            case = self.cases[int(host[1:].partition(".")[0])]
            await a.send(case.data)
            if case.eof is CLEAN:
                return
            if case.eof is UNCLEAN:
                await a.cut()
                return


async def served(
    directory: Path, script: Script, hosts: Sequence[str], linger: str, fetch: Mapping[str, object]
) -> Crawl:
    """A crawl of every host, each served by `script`, over once nothing more is due within `linger`."""
    certificates = Certificates(directory)
    async with serve(script, tls=certificates.server("*.out.test")) as server:
        crawl = Crawl.of(
            directory,
            {
                "crawl": {"seeds": [f"https://{host}:{server.port}/" for host in hosts], "linger": linger},
                "politeness": {"delay": 0, "adaptive": False, "key": "host", "address_delay": "0s"},
                "network": {
                    "ca_file": certificates.ca_file,
                    "allow_private": ["127.0.0.0/8"],
                    "resolve": {"*.test": ["127.0.0.1"]},
                },
                "fetch": {"idle_timeout": "10m", **fetch},  # what lives, lives to the end
            },
        )
        ran = await asyncio.to_thread(crawl.run, timeout=200)
    assert ran.code in (0, 1, 75), ran.stderr
    return crawl


async def crawled(directory: Path, web: Web, linger: str, **fetch: object) -> Crawl:
    crawl = await served(directory, web, [web.host(n) for n in range(len(web.cases))], linger, fetch)
    web.port = int(crawl.fetches()[0]["url_full"].split("/")[2].rpartition(":")[2])
    return crawl


def archived(crawl: Crawl) -> dict[str, list[tuple[str, dict[str, str], bytes]]]:
    """URL → kind, header and block of each of its records."""
    found: dict[str, list[tuple[str, dict[str, str], bytes]]] = defaultdict(list)
    for path in crawl.warcs():
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=False):
                header = {name.lower(): value for name, value in record.headers.items()}
                found[header.get("warc-target-uri", "")].append((header["warc-type"], header, record.reader.read()))
    return found


def assert_told(crawl: Crawl, web: Web, attempts: int) -> None:
    """Log, archive and settlement say of each case what the table says; what failed was tried again, `attempts` times
    in all, each time later, but for a protocol error.
    """
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in crawl.fetches():
        lines[line["url_full"]].append(line)
    closed = {line["conn_id"]: line for line in crawl.events() if line["event"] == "conn_close"}
    archive = archived(crawl)
    for number, case in enumerate(web.cases):
        outcome, error_type, lives = expected(case)
        words = set(case.words.split())
        told, fails = lines[web.url(number)], error_type is not None
        is_weather = fails and error_type != "protocol_error"  # that is what it is, and stays
        assert (case.name, len(told)) == (case.name, attempts if is_weather else 1)
        asked = web.asked[web.host(number)]
        resends = sum(line["http_request_resend_count"] for line in told)
        assert (case.name, len(asked)) == (case.name, len(told) + resends)
        # The connection had carried robots.txt: one that closes without a byte may have done so before it was asked.
        assert (case.name, resends) == (case.name, 1 if error_type == "server_closed" else 0)
        if not resends:
            assert all(after - before >= RETRY_FIRST_S - 0.2 for before, after in pairwise(asked)), case.name
        for n, line in enumerate(told, 1):
            is_last = n == ATTEMPTS or not is_weather
            said = line["outcome"], line.get("error_type"), line.get("tainted", False)
            is_response = outcome != "error"
            assert (case.name, said) == (case.name, (outcome, error_type, is_response and "tainted" in words))
            assert (case.name, line["next"]) == (case.name, "done" if not fails else "gave_up" if is_last else "retry")
            reason = next((w.partition(":")[2] for w in words if w.startswith("cut:")), None) if is_response else None
            assert (case.name, line.get("truncated")) == (case.name, reason)
            connection = closed[line["conn_id"]]
            if lives:
                assert (case.name, connection["reason"]) == (case.name, "shutdown")
            else:
                assert (case.name, connection["requests"]) == (case.name, line["conn_request_n"])
                assert connection["reason"] not in ("shutdown", "idle_timeout"), case.name
            records = archive.get(web.url(number), []) if is_response and (not fails or is_last) else []
            assert ("warc_file" in line) == bool(records), case.name
            if records:
                assert_archived(case, records, reason)
        if outcome == "error" or (fails and attempts < ATTEMPTS):
            assert web.url(number) not in archive, case.name


def assert_archived(case: Case, records: list[tuple[str, dict[str, str], bytes]], reason: str | None) -> None:
    """One response, its bytes as they came, marked where it is not whole and where it was read leniently."""
    kinds = {kind: (header, block) for kind, header, block in records}
    assert (case.name, len(records), set(kinds)) == (case.name, 3, {"response", "request", "metadata"})
    header, block = kinds["response"]
    assert (case.name, header.get("warc-truncated")) == (case.name, reason)
    assert block in case.data, case.name
    assert b"HTTP/1." in block[:9]
    if b"chunked" not in case.data.lower():
        assert block.endswith(case.payload or b"") or case.status in (204, 304), case.name
    assert (b"framing: lenient" in kinds["metadata"][1]) == ("tainted" in case.words.split()), case.name


def ending(limits: object) -> list[Case]:
    return [case for case in CASES if case.limits == limits and case.name not in WITHOUT_END]


SMALL_LIMITS = {
    "max_head": SMALL.max_head,
    "max_fields": SMALL.max_fields,
    "max_informational": SMALL.max_informational,
    "max_body": SMALL.max_body,
    "max_chunk_line": SMALL.max_chunk_line,
    "max_trailers": SMALL.max_trailers,
}


async def test_every_outcome_is_in_log_report_and_why(tmp_path: Path) -> None:
    """Until the attempt after the first: no failure is tried again at once, and none is recorded before its last."""

    async def one(name: str, limits: object, **fetch: object) -> None:
        directory, web = tmp_path / name, Web(ending(limits))
        directory.mkdir()
        assert_told(await crawled(directory, web, "8s", **fetch), web, attempts=2)

    async with asyncio.TaskGroup() as group:  # they do little but wait
        group.create_task(one("usual", LIMITS))
        group.create_task(one("small", SMALL, **SMALL_LIMITS))


PAGE = b"<!doctype html><title>coded</title>" + b"<p>A line of it.</p>" * 2_000
ZEROS = bytes(8 * 1024 * 1024)
# Body and Content-Encoding, then outcome, error_type, coding_fault, next, and whether it is a page.
CODED: dict[str, tuple[bytes, str, tuple[str, str | None, str | None, str, bool]]] = {
    "gzip": (gzip.compress(PAGE), "gzip", ("ok", None, None, "done", True)),
    "two members": (gzip.compress(PAGE) + gzip.compress(b"x"), "gzip", ("ok", None, None, "done", True)),
    "cut gzip": (gzip.compress(PAGE)[:-20], "gzip", ("ok", None, "truncated", "done", True)),
    "wrong checksum": (gzip.compress(PAGE)[:-5] + bytes(5), "gzip", ("ok", None, "damaged", "done", True)),
    "br and a line end": (brotli.compress(PAGE) + b"\r\n", "br", ("ok", None, "trailing", "done", True)),
    "no gzip": (PAGE, "gzip", ("ok", None, "not_coded", "done", True)),
    "unknown": (PAGE, "rot13", ("ok", None, "unknown", "done", True)),
    "six layers": (PAGE, ", ".join(["gzip"] * 6), ("ok", None, "unknown", "done", True)),
    "gzip bomb": (gzip.compress(ZEROS), "gzip", ("error", "too_large", None, "gave_up", False)),
    "zlib bomb": (zlib.compress(ZEROS), "deflate", ("error", "too_large", None, "gave_up", False)),
    "br bomb": (brotli.compress(ZEROS, quality=1), "br", ("error", "too_large", None, "gave_up", False)),
    "zstd bomb": (
        zstandard.ZstdCompressor(write_content_size=False).compress(ZEROS),
        "zstd",
        ("error", "too_large", None, "gave_up", False),
    ),
    "layered bomb": (
        gzip.compress(gzip.compress(ZEROS)),
        "gzip, gzip",
        ("error", "too_large", None, "gave_up", False),
    ),
}


async def test_faults_of_codings_are_in_log_and_fetch(tmp_path: Path) -> None:
    """Each is asked for once, and archived as it came; a bomb is no page, and what can be read is one."""
    web = Web(
        [
            Case(name, ok(body, "Content-Type: text/html", f"Content-Encoding: {coding}"), "reusable", body)
            for name, (body, coding, _) in CODED.items()
        ]
    )
    crawl = await crawled(tmp_path, web, "0s")
    lines = {line["url_full"]: line for line in crawl.fetches()}
    pages = {line["url"] for line in crawl.page_lines()}
    archive = archived(crawl)
    for number, case in enumerate(web.cases):
        url = web.url(number)
        line = lines[url]
        told = (line["outcome"], line.get("error_type"), line.get("coding_fault"), line["next"], url in pages)
        assert (case.name, told) == (case.name, CODED[case.name][2])
        assert len(web.asked[web.host(number)]) == 1
        kinds = {kind: (header, block) for kind, header, block in archive[url]}
        header, block = kinds["response"]
        assert (case.name, "warc-truncated" in header, block) == (case.name, False, case.data)


HALF = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9999\r\n\r\n<title>half"


async def dripping(a: Accepted) -> None:
    await a.send(HALF)
    while not a.writer.transport.is_closing():
        await a.send(b"x")
        await asyncio.sleep(0.05)  # the case itself: a byte every now and then


async def one_byte(a: Accepted) -> None:
    await a.send(b"H")
    await a.client_closed()


async def half(a: Accepted) -> None:
    await a.send(HALF)
    await a.client_closed()


async def half_and_reset(a: Accepted) -> None:
    await a.send(HALF)
    await a.arrived()  # a reset may overtake what was sent
    await a.reset()


async def silent(a: Accepted) -> None:
    await a.client_closed()


# What a host does, and outcome, error_type, truncated, and why the connection was closed.
LATE: dict[str, tuple[Script, tuple[str, str, str | None, str]]] = {
    "silent": (silent, ("error", "first_byte_timeout", None, "timeout")),
    "one-byte": (one_byte, ("error", "read_timeout", None, "timeout")),
    "half": (half, ("truncated", "read_timeout", "time", "timeout")),
    "dripping": (dripping, ("truncated", "total_timeout", "time", "timeout")),
    "half-reset": (half_and_reset, ("truncated", "reset", "disconnect", "reset")),
    "reset": (Accepted.reset, ("error", "reset", None, "reset")),
}


async def test_each_deadline_and_each_end_has_its_word_where_people_look(tmp_path: Path) -> None:
    """What came is told as truncated; each is to be tried again later, and nothing is recorded of it yet."""
    asked: Counter[str] = Counter()

    async def script(a: Accepted) -> None:
        while path := await a.request():
            host = host_of(a)
            if path == "/":
                asked[host] += 1
                await LATE[host.partition(".")[0]][0](a)
                return
            await a.send(ROBOTS if path == "/robots.txt" else NOT_THERE)

    deadlines = {"first_byte_timeout": "400ms", "read_timeout": "600ms", "total_timeout": "2s"}
    crawl = await served(tmp_path, script, [f"{name}.out.test" for name in LATE], "0s", deadlines)
    lines = {line["server_address"].partition(".")[0]: line for line in crawl.fetches() if line.get("kind") is None}
    closed = {line["conn_id"]: line["reason"] for line in crawl.events() if line["event"] == "conn_close"}
    for name, (_, expects) in LATE.items():
        line = lines[name]
        told = (line["outcome"], line.get("error_type"), line.get("truncated"), closed[line["conn_id"]])
        assert (name, told) == (name, expects)
        assert (name, line["next"], "warc_file" in line) == (name, "retry", False)
        # robots.txt went over the connection before: one that ends without a byte is asked again, once
        assert (name, asked[f"{name}.out.test"]) == (name, 1 + (name == "reset"))
        assert line["http_request_resend_count"] == (name == "reset")


@pytest.mark.prove
async def test_the_last_attempt_of_what_broke_off_is_kept_and_marked(tmp_path: Path) -> None:
    """To the last attempt: what came of a body that broke off is in the archive, with the reason."""
    web = Web(ending(LIMITS))
    crawl = await crawled(tmp_path, web, "80s")
    assert_told(crawl, web, attempts=ATTEMPTS)
