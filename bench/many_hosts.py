"""A store of many hosts, and how long each view of it and each command on it takes.

    python -m bench.many_hosts [--hosts 1000000] [--directory DIR]

The store is filled by a few SQL statements with rows as the program writes them: three URLs a host, of which half of
the hosts have one that was visited; one host in a hundred each is held by its robots.txt, backs off, or reached its
limit. Every command runs in a process of its own: its exit code, wall time, peak memory and first line are printed,
while a crawl has the store, which loads nothing, since its hours are closed, and then without one.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import apsw

from crawler.core.enums import Source
from crawler.core.models import Discovered
from crawler.core.url import key_of, parse_seed, registrable_domain
from crawler.frontier.sqlite.store import SqliteFrontier

URLS = 3  # of each host
EXAMPLE = 777_777  # a host that commands name
CONFIGURATION = """
[crawl]
seeds = ["https://www0.site1.example/"]
[identity]
user_agent = "bench/1.0 (+https://www.site1.example/about; bench@site1.example)"
[scope]
hosts = ["*.example"]
[fetch]
hours = ["03:00-03:01"]
[network]
resolve = {{ "*.example" = ["127.0.0.1"] }}
allow_private = ["127.0.0.1"]
[admin]
listen = "127.0.0.1:{port}"
[output]
directory = "data"
"""
PORT = 18_123
CACHE_KIB = 1024**2  # while the store is made
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
PAGES = (
    "/metrics",
    "/api/status",
    "/api/find_hosts?text=&state=&sort=broken&limit=100",
    "/api/find_hosts?text=&state=broken&sort=broken&limit=100",
    "/api/find_hosts?text=&state=&sort=queued&limit=100",
    "/api/find_hosts?text=site7777&state=&sort=queued&limit=100",
    "/api/find_hosts?text=www0.site999999.example&state=&sort=queued&limit=100",
)
FILL = (
    """WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {hosts})
       INSERT INTO host (id, slot, scheme, host, port, domain, state, queued, fetched, ok, errors, bytes, found_at,
                         last_at, ready_at, parked, responded, failures, reason)
       SELECT i, 0, 'https', name(i), {port}, domain(i), iif(i % 2, 'ready', 'new'), {urls} - i % 2, i % 2, i % 2, 0,
              (i % 2) * 20000, {now}, iif(i % 2, {now} - i % 86400, NULL),
              CASE i % 100 WHEN 7 THEN 9e99 WHEN 11 THEN {now} + 86400 WHEN 13 THEN 9e99 ELSE 0 END,
              CASE i % 100 WHEN 7 THEN 'robots' WHEN 11 THEN 'backoff' WHEN 13 THEN 'limit' END, i % 2,
              iif(i % 100 = 11, 3, 0), iif(i % 100 = 11, 'connect_timeout', NULL)
       FROM n""",
    """INSERT INTO robots (host, verdict, status_code, fetched_at, expires_at, error)
       SELECT id, iif(parked = 'robots', 'unreachable', 'allow'), iif(parked = 'robots', 503, 404), {now},
              {now} + 86400, NULL
       FROM host WHERE id % 2 AND id > 1""",
    """INSERT INTO rest (key, until_at, strikes, reason)
       SELECT domain, {now} + 86400, 4, 'http_429' FROM host WHERE id % 100 = 11 AND id % 200 = 11""",
    "INSERT INTO pace (key, response_s, updated_at) SELECT domain, 2.5, {now} FROM host WHERE id % 100 = 17",
    """INSERT INTO url (host, hash, depth, state, target, source, found_at)
       SELECT id, key(id, u), 0, iif(u = 0 AND id % 2, 'done', 'queued'), target(u), iif(u, 'link', 'seed'), {now}
       FROM host, (SELECT 0 AS u UNION SELECT 1 UNION SELECT 2) WHERE id > 1 ORDER BY id, u""",
    """INSERT INTO visit (url, attempts, last_at, last_status, visits, ended)
       SELECT id, 1, {now}, iif(host % 10 = 1, 404, 200), 1, 1 FROM url WHERE state = 'done'""",
    """INSERT OR REPLACE INTO meta
       SELECT 'totals', json_object('queued', sum(queued), 'done', sum(ok), 'hosts', count(*)) FROM host""",
    "DELETE FROM meta WHERE name = 'politeness_key'",  # the next start makes the keys
)


def name(i: int) -> str:
    """The name of host number `i`: one in five shares its registrable domain with another."""
    return f"www{i % 5 // 4}.site{i - i % 5 // 4}.example"


def target(u: int) -> str:
    return f"/section/page-{u}.html" if u else "/"


async def fill(path: Path, hosts: int, *, port: int = 443, judged_by: str | None = None) -> None:
    """Make the store at `path`. `port` is that of all hosts. `judged_by`: the fingerprint of the rules that the URLs
    were judged by; None: they are judged anew by the first crawl.
    """
    now, suffix = time.time(), "" if port == 443 else f":{port}"
    frontier = SqliteFrontier(path)
    await frontier.open()
    if judged_by is not None:
        await frontier.judge_by(judged_by)
    url, origin = parse_seed(f"https://{name(1)}{suffix}/")
    await frontier.add([Discovered(url, origin, key_of(url), 0, "", Source.SEED)], now=now)
    await frontier.close(clean=True)
    database = apsw.Connection(str(path))
    for pragma, value in (("synchronous", "off"), ("journal_mode", "off"), ("cache_size", -CACHE_KIB)):
        database.pragma(pragma, value)
    database.create_scalar_function("name", name, 1, deterministic=True)
    database.create_scalar_function("domain", lambda i: registrable_domain(name(i)), 1, deterministic=True)
    database.create_scalar_function("target", target, 1, deterministic=True)
    database.create_scalar_function(
        "key", lambda i, u: key_of(f"https://{name(i)}{suffix}{target(u)}"), 2, deterministic=True
    )
    with database:
        for statement in FILL:
            database.execute(statement.format(hosts=hosts, urls=URLS, port=port, now=now))
    database.close()
    await frontier.open()
    await frontier.close(clean=True)


def run(arguments: list[str], directory: Path) -> tuple[float, int, int, str]:
    """Run a command. Returns its wall time, its peak memory in bytes, its exit code, and what it wrote."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "crawler", arguments[0], "-c", "crawler.toml", *arguments[1:]],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken_s = time.perf_counter() - begin
        output.seek(0)
        return taken_s, usage.ru_maxrss * 1024, process.returncode, output.read(500).decode(errors="replace")


def commands(hosts: int) -> list[list[str]]:
    """The views and commands that are measured, in this order."""
    host, other = name(EXAMPLE % hosts), name((EXAMPLE + 100) % hosts)
    sorts = ("state", "host", "queued", "fetched", "errors", "bytes", "slow", "eta", "until", "last")
    return [
        *(["hosts", "-n", "40", "--sort", sort] for sort in sorts),
        *(["hosts", "-n", "40", "--state", state] for state in ("held", "backoff", "ready", "waiting", "blocked")),
        ["hosts", "--host", host],
        ["hosts", "--host", f"*.{registrable_domain(host)}"],
        ["hosts"],
        ["why", f"https://{host}{target(1)}"],
        ["report"],
        ["report", "--host", host],
        ["block", host],
        ["unblock", host],
        ["requeue", "--status", "404", "--host", host, "--dry-run"],
        ["requeue", "--status", "404", "--host", host],
        ["requeue", "--status", "404", "--dry-run"],
        ["forget", other],
    ]


def show(what: str, taken_s: float, peak_bytes: int, said: str = "") -> None:
    line = " | ".join(said.strip().splitlines())[:60]
    print(f"{what:60} {taken_s:7.2f} s {peak_bytes / 2**20:6.0f} MiB  {line}", flush=True)


def memory_of(pid: int) -> tuple[int, int]:
    """Present and peak resident bytes of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024


def while_it_runs(directory: Path, hosts: int, configuration: str) -> None:
    """Start a crawl that loads nothing, look at it and command it, and stop it."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "crawler", "run", "-c", "crawler.toml"],
        cwd=directory, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while run(["status"], directory)[2] and process.poll() is None:
        time.sleep(0.2)
    show("start", time.perf_counter() - begin, memory_of(process.pid)[1])
    for what in [["status"], *commands(hosts)]:
        taken_s, peak_bytes, code, said = run(what, directory)
        show(f"{' '.join(what)} [{code}]", taken_s, peak_bytes, said)
    for path in PAGES:
        begin = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}") as response:
            body = response.read()
        show(path, time.perf_counter() - begin, memory_of(process.pid)[0], body.decode()[:60])
    (directory / "crawler.toml").write_text(
        configuration.replace('"*.example"]\n', '"*.example"]\nexclude = ["re:page-2"]\n', 1)
    )
    for what in (["reload", "--dry-run"], ["reload"]):
        taken_s, peak_bytes, code, said = run(what, directory)
        show(f"{' '.join(what)} (scope.exclude) [{code}]", taken_s, peak_bytes, said)
    show("the crawl, with its peak", 0.0, memory_of(process.pid)[1])
    begin = time.perf_counter()
    run(["stop"], directory)
    process.wait()
    show("stop", time.perf_counter() - begin, 0)
    (directory / "crawler.toml").write_text(configuration)


def main() -> None:
    """Make the store, unless it is there, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="where the store is made, unless it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or Path(temporary)
        store = directory / "data" / "frontier.db"
        if not store.exists():
            store.parent.mkdir(parents=True)
            begin = time.perf_counter()
            asyncio.run(fill(store, options.hosts))
            print(f"filled in {time.perf_counter() - begin:.1f} s, {store.stat().st_size / 2**20:.0f} MiB", flush=True)
        configuration = CONFIGURATION.format(port=PORT)
        (directory / "crawler.toml").write_text(configuration)
        print("-- while a crawl runs")
        while_it_runs(directory, options.hosts, configuration)
        print("-- while none does")
        for what in commands(options.hosts):
            taken_s, peak_bytes, code, said = run(what, directory)
            show(f"{' '.join(what)} [{code}]", taken_s, peak_bytes, said)


if __name__ == "__main__":
    main()
