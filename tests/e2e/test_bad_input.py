"""What a person gets wrong, and what the net does: an exit code, a message that names it, never a traceback."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.commands import TIMEOUT_S, Crawl, Ran, command, ended, environment, run, running
from tests.support.nginx import Nginx, Site, nginx
from tests.support.raw_servers import closed_port, sending
from tests.support.site_crawls import OTHER, sections

pytestmark = pytest.mark.e2e

SOON_S = 15.0  # OUTCOMES: a host that never answers is not waited for
LOOPBACK = ("-o", 'network.allow_private=["127.0.0.0/8"]')


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """The exit code, the words on stderr, no traceback, and nothing on stdout, for nothing was crawled."""
    assert ran.code == code, ran.stderr
    for word in words:
        assert word in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def write(directory: Path, text: str | bytes, name: str = "crawler.toml") -> str:
    path = directory / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


SEED = '[crawl]\nseeds = ["https://x.invalid/"]\n'

# What is wrong → the arguments behind `crawl --output DIR --json`, the exit code, and what stderr says. "{dir}" is a
# directory that holds the files of FILES.
FILES: dict[str, str | bytes] = {
    "syntax.toml": '[crawl]\nseeds = ["https://x.invalid/"\n',
    "key.toml": SEED + "[politeness]\ndelya = 1\n",
    "section.toml": SEED + "[politness]\ndelay = 1\n",
    "value.toml": SEED + '[politeness]\ndelay = "soon"\n',
    "latin.toml": b'[crawl]\nname = "caf\xe9"\n',
    "seed.toml": '[crawl]\nseeds = ["https://x.invalid/", "http://["]\n',
    "empty.toml": "",
    "good.toml": SEED,
    "no.pem": "no certificate",
    "file": "a file, not a directory",
}
REFUSED: dict[str, tuple[list[str], int, list[str]]] = {
    "a seed that is no URL": (["http://["], 2, ["http://["]),
    "a scheme that is not crawled": (["ftp://x.invalid/"], 2, ["ftp://x.invalid/", "not http or https"]),
    "one bad seed of several": (["https://x.invalid/", "http://a b/"], 2, ["http://a b/"]),
    "an empty seed": ([""], 2, ["URL"]),
    "no URL at all": ([], 2, ["no URL", "crawl.seeds"]),
    "no URL in the configuration": (["-c", "{dir}/empty.toml"], 2, ["no URL"]),
    "an option that does not exist": (["https://x.invalid/", "--fast"], 2, ["--fast"]),
    "a syntax error": (["-c", "{dir}/syntax.toml"], 78, ["syntax.toml:2:30: not TOML", "seeds = ["]),
    "an unknown key": (["-c", "{dir}/key.toml"], 78, ["key.toml:4:1: ", '"delya"', 'did you mean "delay"?']),
    "an unknown section": (["-c", "{dir}/section.toml"], 78, ["section.toml:3:2: ", 'did you mean "politeness"?']),
    "a wrong value": (
        ["-c", "{dir}/value.toml"],
        78,
        ["value.toml:4:9: politeness.delay must be a duration", '"soon"'],
    ),
    "a file that is not UTF-8": (["-c", "{dir}/latin.toml"], 78, ["latin.toml:2:12: not UTF-8"]),
    "a bad seed in the configuration": (["-c", "{dir}/seed.toml"], 78, ["seed.toml:2:", "http://["]),
    "a configuration that is not there": (["-c", "{dir}/no.toml"], 78, ["no.toml: cannot be read: No such file"]),
    "a configuration that is a directory": (["-c", "{dir}"], 78, ["cannot be read: Is a directory"]),
    "-o without a value": (["https://x.invalid/", "-o", "politeness.delay"], 78, ["must be SECTION.KEY=VALUE"]),
    "-o without a section": (["https://x.invalid/", "-o", "delay=1"], 78, ['did you mean "politeness.delay"?']),
    "-o with an unknown key": (["https://x.invalid/", "-o", "scope.max_url=1"], 78, ['did you mean "max_urls"?']),
    "-o with a wrong value": (["https://x.invalid/", "-o", "scope.max_urls=few"], 78, ["scope.max_urls", '"few"']),
    "a CA file that is not there": (["https://x.invalid/", "-o", "network.ca_file={dir}/x"], 78, ["No such file"]),
    "a CA file without certificates": (["https://x.invalid/", "-o", "network.ca_file={dir}/no.pem"], 78, ["PEM"]),
    "an output that is a file": (["https://x.invalid/", "--output", "{dir}/file"], 78, ["file is not a directory"]),
    "an output below a file": (["https://x.invalid/", "--output", "{dir}/file/out"], 78, ["file is not a directory"]),
    "a duration that is none": (["https://x.invalid/", "--max-duration", "long"], 78, ["duration", '"long"']),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_mistake_is_refused_before_anything_is_done(tmp_path: Path, wrong: str) -> None:
    """With the code and the words; no output directory is made."""
    arguments, code, words = REFUSED[wrong]
    for name, text in FILES.items():
        write(tmp_path, text, name)
    given = [argument.replace("{dir}", str(tmp_path)) for argument in arguments]
    output = [] if "--output" in given else ["--output", tmp_path / "out"]
    ran = run("crawl", *output, "--json", *given)
    assert_refused(ran, code, *words)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "file").read_text() == FILES["file"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["frobnicate"], 2, ["frobnicate"]),
        (["run"], 2, ["name the configuration (-c FILE)"]),
        (["run", "-c", "{dir}/good.toml"], 78, ["identity.user_agent must say how to reach you", "output.directory"]),
        (["check", "-c", "{dir}/key.toml"], 78, ["key.toml:4:1: ", "    delya = 1", "    ^"]),
    ],
    ids=["unknown command", "run without -c", "run without a contact", "check of a wrong file"],
)
def test_other_commands_refuse_as_well(tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    """The same words and codes, whichever command finds it."""
    for name, text in FILES.items():
        write(tmp_path, text, name)
    given = [argument.replace("{dir}", str(tmp_path)) for argument in arguments]
    assert_refused(run(*given), code, *words)


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    """In the order in which they stand there."""
    config = write(tmp_path, SEED + '[politeness]\ndelya = 1\nkey = "town"\n[scope]\nmax_depth = "deep"\n')
    ran = run("crawl", "-c", config, "--output", tmp_path / "out")
    assert_refused(ran, 78)
    assert re.findall(r"crawler\.toml:(\d+):", ran.stderr) == ["4", "5", "7"]


# -- the output directory


def test_a_store_that_is_no_database(tmp_path: Path) -> None:
    """Exit 65; the file is left as it is."""
    (tmp_path / "out").mkdir()
    noise = bytes(range(256)) * 64
    store = tmp_path / "out" / "frontier.db"
    store.write_bytes(noise)
    assert_refused(run("crawl", "https://x.invalid/", "--output", tmp_path / "out", "--json"), 65, "frontier.db")
    assert store.read_bytes() == noise


def test_a_store_of_a_newer_version(tmp_path: Path) -> None:
    """Exit 65, with both versions and what to do."""
    run("crawl", "https://x.invalid/", "--output", tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "frontier.db") as store:
        store.execute("PRAGMA user_version = 99")
    store.close()
    ran = run("crawl", "https://x.invalid/", "--output", tmp_path / "out", "--json")
    assert_refused(ran, 65, "frontier.db has version 99", "newer program")


def test_a_store_of_another_program(tmp_path: Path) -> None:
    """Exit 65: its tables are not touched."""
    (tmp_path / "out").mkdir()
    with sqlite3.connect(tmp_path / "out" / "frontier.db") as store:
        store.execute("CREATE TABLE mine (x)")
    store.close()
    assert_refused(run("crawl", "https://x.invalid/", "--output", tmp_path / "out"), 65, "frontier.db")
    with sqlite3.connect(tmp_path / "out" / "frontier.db") as store:
        assert store.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    store.close()


def test_an_output_that_may_not_be_written(tmp_path: Path) -> None:
    """Exit 77, naming the place; 78 where no directory can be made by anybody."""
    parent = Path("/sys") if os.geteuid() == 0 else tmp_path / "closed"  # root may write anywhere but there
    if parent != Path("/sys"):
        parent.mkdir(mode=0o500)
    ran = run("crawl", "https://x.invalid/", "--output", parent / "crawl-out", "--json")
    if ran.code == 1 or (parent / "crawl-out").exists():
        pytest.skip(f"{parent} may be written here")
    if parent == Path("/sys"):
        assert_refused(ran, 78, str(parent / "crawl-out"), "no directory can be created in /sys")
    else:
        assert_refused(ran, 77, str(parent / "crawl-out"), "ermi")  # "Permission denied", "Operation not permitted"


def test_a_store_damaged_inside(server: Nginx, tmp_path: Path) -> None:
    """Exit 65 and the file's name, also where the damage is met only in the middle of the crawl."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER))
    assert crawl.run("-o", "scope.max_urls=100").code == 0
    store = crawl.output / "frontier.db"
    content = bytearray(store.read_bytes())
    for page in range(2 * 4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    store.write_bytes(content)
    assert_refused(crawl.run(), 65, "frontier.db", "damaged")


@pytest.mark.parametrize("folder", ["warc", "pages", "logs"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, folder: str) -> None:
    """Exit 74, naming it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / folder).write_text("in the way")
    ran = run("crawl", "https://x.invalid/", "--output", tmp_path / "out", "--json")
    assert_refused(ran, 74, str(tmp_path / "out" / folder))


# -- the standard streams

SHELL = {
    "stdout is closed": (">&-", 0),
    "all are closed": ("<&- >&- 2>&-", 0),
    "stdout is full": (">/dev/full", 74),
    "nobody reads stdout": ("| true; exit ${PIPESTATUS[0]}", 0),
    "stderr is full": ("2>/dev/full", 0),
    "nobody reads either": ("-o log.stderr=text 2>&1 | true; exit ${PIPESTATUS[0]}", 0),
}


@pytest.mark.parametrize("how", SHELL)
def test_a_crawl_survives_streams_that_take_nothing(server: Nginx, tmp_path: Path, how: str) -> None:
    """Only a full disk behind stdout is an error; the crawl itself is whole each time."""
    redirection, code = SHELL[how]
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_urls": 3}))
    line = f"{shlex.join(command(*crawl.arguments()))} {redirection}"
    bash = ["bash", "-c", line]
    ran = subprocess.run(bash, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert len(server.places()) == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [("config show", 0), ("crawl", 2), ("crawl -c nowhere.toml", 78), ("why https://a.test/ --output nowhere", 74)],
)
@pytest.mark.parametrize("full", ["a pipe without a reader", "/dev/full"])
def test_messages_that_nobody_can_read_change_no_exit_code(words: str, code: int, full: str, tmp_path: Path) -> None:
    """Nor does a reader of stdout that is gone."""
    if full == "/dev/full":
        stderr, stdout = os.open(full, os.O_WRONLY), subprocess.DEVNULL
    else:
        reader, stderr = os.pipe()
        os.close(reader)
        stdout = stderr
    try:
        ran = subprocess.run(
            command(*words.split()), cwd=tmp_path, env=environment(PYTHONPATH=str(Path.cwd())), stdout=stdout,
            stderr=stderr, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    finally:
        os.close(stderr)
    assert ran.returncode == code


# -- hosts that do not answer


@dataclass(frozen=True)
class Unanswered:
    """A seed that gets no answer: how it comes about, and what the message names."""

    seed: Callable[[ExitStack], str]
    words: tuple[str, ...]
    arguments: tuple[str, ...] = LOOPBACK


def _greeting(greeting: bytes, scheme: str) -> Callable[[ExitStack], str]:
    return lambda stack: f"{scheme}://127.0.0.1:{stack.enter_context(sending(greeting))}/"


UNANSWERED: dict[str, Unanswered] = {
    "a name that does not resolve": Unanswered(lambda _: "https://nowhere.invalid/", ("nowhere.invalid", "dns_")),
    "a private address": Unanswered(
        lambda _: "https://127.0.0.1:8443/", ("127.0.0.1", "address_denied", "loopback"), ()
    ),
    "a private address in disguise": Unanswered(
        lambda _: "http://0x7f000001:8080/", ("127.0.0.1", "address_denied"), ()
    ),
    "refused connections": Unanswered(lambda _: f"https://127.0.0.1:{closed_port()}/", ("connect_refused",)),
    "garbage for TLS": Unanswered(_greeting(b"SSH-2.0-OpenSSH_9.2\r\n", "https"), ("tls_",)),
    "plain HTTP for TLS": Unanswered(_greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n", "https"), ("tls_",)),
    "garbage for HTTP": Unanswered(_greeting(b"220 mail.test ESMTP\r\n", "http"), ("protocol_error",)),
    "a connection that is hung up": Unanswered(_greeting(b"", "http"), ("server_closed",)),
    "an answer that breaks off": Unanswered(_greeting(b"HTTP/1.1 200 OK\r\nContent-", "http"), ("127.0.0.1",)),
}


@pytest.fixture(scope="module")
def unanswered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """How each ended. They run side by side, for they do little but rest between attempts."""
    with ExitStack() as stack:
        started = {}
        for cause, case in UNANSWERED.items():
            arguments = ("--output", tmp_path_factory.mktemp("unanswered") / "out", "--json", *case.arguments)
            started[cause] = stack.enter_context(running("crawl", case.seed(stack), *arguments))
        return {cause: ended(process, timeout=4 * SOON_S) for cause, process in started.items()}


@pytest.mark.parametrize("cause", UNANSWERED)
def test_a_seed_without_a_response_ends_soon_with_the_reason(unanswered: dict[str, Ran], cause: str) -> None:
    """Exit 1 with the URL and the cause, the summary all the same, and never the whole linger of ten minutes."""
    ran = unanswered[cause]
    assert ran.code == 1, ran.stderr
    assert ran.stderr.startswith("crawler: no seed responded\n")
    for word in UNANSWERED[cause].words:
        assert word in ran.stderr
    assert "Traceback" not in ran.stderr
    summary = json.loads(ran.stdout)
    assert summary["pages"] == 0
    assert summary["errors"] >= 1
    assert summary["duration_s"] < SOON_S


def test_a_crawl_whose_seeds_are_all_refused_has_failed(tmp_path: Path) -> None:
    """Plain HTTP to a port of TLS, which nginx answers with 400: exit 1 with what to try. So in a round in which the
    seed is missing, although other pages are there. If URLs are left, the exit code is that of what is left.
    """
    with nginx(Site({OTHER: 3})) as server:
        seed = server.url(OTHER)
        crawl = Crawl.of(tmp_path, sections(server, OTHER))
        plain = run("crawl", seed.replace("https", "http"), "-c", crawl.config, "--output", tmp_path / "plain")
        assert plain.code == 1
        assert f"status 400; the server may speak TLS on this port: try {seed}" in plain.stderr
        assert crawl.run().code == 0
        (server.ca_file.parent / "www" / OTHER / "index.html").unlink()
        again = crawl.run("--again")
        assert again.code == 1
        assert f"{seed}: status 40" in again.stderr
        assert again.summary["round"]["unchanged"] > 2
        limited = crawl.run("--output", tmp_path / "limited", "-o", "scope.max_urls=1", f"{seed}missing", seed)
        assert limited.code == 0


def test_a_certificate_of_an_unknown_issuer_is_refused(server: Nginx, tmp_path: Path) -> None:
    """Without network.ca_file: exit 1, the words say what is wrong, and the server never saw a request."""
    keys = {name: dict(section) for name, section in sections(server, OTHER).items()}
    del keys["network"]["ca_file"]
    ran = Crawl.of(tmp_path, keys).run(timeout=2 * SOON_S)
    assert ran.code == 1
    assert "tls_unknown_issuer" in ran.stderr
    assert "certificate" in ran.stderr
    assert server.requests() == []


def test_what_holds_urls_is_reported_when_a_crawl_goes_on(server: Nginx, tmp_path: Path) -> None:
    """The same directory without the CA file: no URL is asked for, and the words name the error; then one that an
    operator blocked, which is said too.
    """
    keys = sections(server, OTHER, crawl={"linger": "1s"})
    crawl = Crawl.of(tmp_path, keys)
    assert crawl.run("-o", "scope.max_urls=5").code == 0
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    unknown = crawl.run("-o", f'network.ca_file="{tmp_path}/other.pem"', timeout=2 * SOON_S)
    assert (unknown.code, unknown.summary["stopped_by"]) == (75, "waiting")
    assert "backing off after tls_unknown_issuer" in unknown.stderr
    assert "due later, the first in" not in unknown.stderr
    assert run("block", OTHER, "--output", crawl.output).code == 0
    blocked = crawl.run(timeout=2 * SOON_S)
    assert blocked.summary["responses"] == 0
    assert "blocked by the operator" in blocked.stderr
    assert len(server.places()) == 5


def test_verification_that_is_off_is_reported_each_time(server: Nginx, tmp_path: Path) -> None:
    """tls.verify = false: the crawl works, with a warning on stderr and in the log."""
    keys = {name: dict(section) for name, section in sections(server, OTHER, scope={"max_urls": 3}).items()}
    del keys["network"]["ca_file"]
    keys["tls"] = {"verify": False}
    crawl = Crawl.of(tmp_path, keys)
    ran = crawl.run()
    assert ran.code == 0
    assert "tls.verify = false: anybody on the network path can impersonate a server" in ran.stderr
    assert "tls_verify_off" in {line["event"] for line in crawl.events()}


def test_a_host_that_was_down_is_crawled_by_the_same_command_later(server: Nginx, tmp_path: Path) -> None:
    """What was not answered stays queued: nothing is held against the seed."""
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_urls": 5}))
    down = crawl.run("-o", 'network.resolve={"beta.test" = ["127.0.0.99"]}', timeout=2 * SOON_S)
    assert down.code == 1
    assert "connect_refused" in down.stderr
    up = crawl.run()
    assert (up.code, up.summary["stopped_by"]) == (0, "max_urls")
    assert len(server.places()) == 5


@pytest.fixture
def odd(server: Nginx) -> Iterator[str]:
    """A seed that hangs up on whoever asks."""
    with sending(b"") as port:
        yield f"http://127.0.0.1:{port}/"


def test_one_dead_seed_does_not_keep_the_others_from_being_crawled(server: Nginx, tmp_path: Path, odd: str) -> None:
    """All of the other host is fetched; what is left is said, with exit 75."""
    keys = sections(server, OTHER, crawl={"seeds": [odd, server.url(OTHER)], "linger": "1s"})
    ran = Crawl.of(tmp_path, keys).run(timeout=2 * SOON_S)
    assert (ran.code, ran.summary["stopped_by"]) == (75, "waiting")
    assert "1 URL is left that may not be requested within crawl.linger" in ran.stderr
    assert f"1 URL of {odd.removesuffix('/')} whose robots.txt cannot be read (server_closed)" in ran.stderr
    assert set(server.places()) == server.site.wanted(OTHER)


def test_mistyped_options_and_foreign_files_are_named(server: Nginx, tmp_path: Path) -> None:
    """A command, a host to forget, a log without such lines; a directory that holds other files."""
    slip = run("exprot")
    assert (slip.code, "Did you mean 'export'?" in slip.stderr) == (2, True)
    crawl = Crawl.of(tmp_path, sections(server, OTHER, scope={"max_urls": 3}))
    crawl.output.mkdir()
    (crawl.output / ".keep").touch()
    (crawl.output / "thesis.doc").write_text("mine")
    first = crawl.run()
    assert first.code == 2
    assert "holds other files (thesis.doc) and no crawl" in first.stderr
    (crawl.output / "thesis.doc").unlink()
    assert "holds other files" not in crawl.run().stderr
    nothing = run("logs", "--host", "nix.test", "--output", crawl.output)
    assert (nothing.code, nothing.stdout, nothing.stderr) == (0, "", "crawler: fetch.jsonl: no line matches\n")
    forgot = run("forget", "never.test", f"https://{OTHER}/never", "--no-scan", "--output", crawl.output)
    assert forgot.code == 1
    assert "never.test: no URL of this host was known; none will ever be fetched" in forgot.stdout
    assert f"https://{OTHER}/never: was not known; it will never be fetched" in forgot.stdout
    assert run("why", f"https://{OTHER}/never", "--output", crawl.output).code == 0
    refused = run("add", "ht!tp://x", "--output", crawl.output)
    assert (refused.code, "no scheme" in refused.stderr) == (1, True)
