"""Settlements in PostgreSQL: CPU a page of our process and of the server, and bytes of WAL a page.

    python -m bench.database [--commits 200] [--sizes]

It starts a server of its own on a Unix socket (Debian's /usr/lib/postgresql), with fsync and full_page_writes as they
are by default, and settles batches of 256 pages on 256 hosts, one of each, with 4 new URLs a page. CPU of our process
is that within `settle`; of the server, that of all its processes (/proc/PID/stat). Before the measurement there is a
tenth of the commits.

`--sizes`: whether autovacuum keeps up. All keys and hosts leave and enter between two commits, URLs come by the inbox,
and the lease is renewed; sizes of the tables whose rows change all the time, after a tenth of the commits and later.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from crawler.core.enums import Source
from crawler.core.models import UNTIL_EVENT, Counters, HostReadiness, HostRow
from crawler.core.ownership import slot_in
from crawler.frontier.base import Leaving, Wanted
from crawler.frontier.postgresql.connection import columns
from crawler.frontier.postgresql.insertions import inbox_rows
from crawler.frontier.postgresql.sql import PUT_IN_INBOX
from crawler.frontier.postgresql.store import PostgresFrontier
from tests.support.frontiers import NOW, batch, found, visit
from tests.support.postgresql import Server

PAGES = 256
LINKS = 4


def server_cpu_s(server: Server) -> float:
    """CPU of the server's processes so far, those that ended too."""
    assert server.process is not None
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    parent = server.process.pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == parent:
            total += sum(map(int, fields[11:15]))  # its own and that of children that ended
        elif int(fields[1]) == parent:
            total += sum(map(int, fields[11:13]))
    return total / tick


async def seeded(server: Server) -> tuple[PostgresFrontier, list[HostRow]]:
    """An open frontier of `PAGES` hosts with a URL each."""
    server.execute("CREATE DATABASE bench")
    frontier = PostgresFrontier(server.dsn("bench"))
    await frontier.open()
    receipt = await frontier.add([found(f"https://h{n}.example{n}.org/") for n in range(PAGES)], now=NOW)
    return frontier, list(receipt.hosts)


async def measure(server: Server, commits: int) -> None:
    frontier, hosts = await seeded(server)
    wal = 0.0
    cpu_s = server_s = 0.0
    times: list[float] = []
    for number in range(commits + commits // 10):
        if number == commits // 10:
            wal = float(await frontier.connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
            server_s = cpu_s = 0.0
        settlements = []
        for row in hosts:
            (task,) = await frontier.take(row.id, 1, leased=())
            links = tuple(
                found(f"{row.origin}/{number}/a-page-with-a-name-of-usual-length-{n}.html", depth=1, source=Source.LINK)
                for n in range(LINKS)
            )
            settlements.append(visit(task, host_id=row.id, discovered=links, digest="sha256:" + "A" * 32))
        before_s, before_mono, server_before_s = time.process_time(), time.monotonic(), server_cpu_s(server)
        await frontier.settle(batch(*settlements))
        cpu_s += time.process_time() - before_s
        server_s += server_cpu_s(server) - server_before_s
        times.append(time.monotonic() - before_mono)
    after = float(await frontier.connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    pages = commits * PAGES
    rows, size = server.execute(
        "SELECT sum(n_live_tup), sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables "
        "WHERE relname LIKE 'url\\_%' AND relname NOT LIKE 'url_template%'",
        "bench",
    )[0]
    print(f"client µs of CPU a page    {cpu_s / pages * 1e6:7.0f}")
    print(f"server µs of CPU a page    {server_s / pages * 1e6:7.0f}")
    print(f"WAL bytes a page           {(after - wal) / pages:7.0f}")
    print(f"ms a commit (median)       {statistics.median(times) * 1e3:7.1f}")
    print(f"url: bytes a row           {float(size) / max(1, int(rows or 0)):7.0f}  ({rows} rows)")
    await frontier.close(clean=True)


WATCHED = ("host", "politeness_key", "settled", "agent", "slot", "inbox", "robots", "sink_file")


def sizes_kib(server: Server) -> list[int]:
    """Of each watched table, with its partitions and indexes."""
    rows = server.execute(
        "SELECT regexp_replace(relname, '_[0-9]+$', ''), sum(pg_total_relation_size(relid))::bigint / 1024 "
        "FROM pg_stat_user_tables GROUP BY 1",
        "bench",
    )
    return [int(dict(map(tuple, rows))[name]) for name in WATCHED]


async def watch_sizes(server: Server, commits: int) -> None:
    frontier, hosts = await seeded(server)
    wanted = Wanted(ready_by=UNTIL_EVENT, places=PAGES, hosts=1)
    keys = (await frontier.exchange(Leaving(), wanted)).keys
    print("settled   KiB: " + " ".join(f"{name:>14}" for name in WATCHED), flush=True)
    for number in range(1, commits + 1):
        settlements = []
        for row in hosts:
            (task,) = await frontier.take(row.id, 1, leased=())
            settlements.append(visit(task, host_id=row.id, discovered=(found(f"{row.origin}/{number}/a.html"),)))
        at = NOW + number
        requested = [(key.id, at) for key in keys]
        await frontier.settle(batch(*settlements, requested=requested, schedule_at=at, counters=Counters()))
        ready = [HostReadiness(row.id, at, has_responded=True) for row in hosts]
        await frontier.exchange(Leaving(ready, [(key.id, at, at) for key in keys]), Wanted())
        keys = (await frontier.exchange(Leaving(), wanted)).keys
        foreign = [(slot_in(row.id), (0, None, at, found(f"{row.origin}/{number}/b.html"))) for row in hosts]
        await frontier.connection.job(lambda: frontier.connection.run(PUT_IN_INBOX, *columns(inbox_rows(foreign), 3)))  # noqa: B023
        while await frontier.agents.empty_inbox(now=at, hint_after_s=None) is not None:
            pass
        await frontier.agents.renew("{}")
        if number % (commits // 10) == 0:
            print(f"{number * PAGES:9,}      " + " ".join(f"{size:14,}" for size in sizes_kib(server)), flush=True)
    await frontier.close(clean=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--sizes", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crawler-bench-", dir="/var/tmp") as folder:
        server = Server(Path(folder), fsync="on", full_page_writes="on", autovacuum="on", shared_buffers="256MB")
        try:
            uvloop.run((watch_sizes if arguments.sizes else measure)(server, arguments.commits))
        finally:
            server.stop(at_once=True)


if __name__ == "__main__":
    main()
