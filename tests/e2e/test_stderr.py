"""What is on stderr while a crawl runs: on a terminal, in a file, and as log.stderr says."""

import json
import os
import pty
import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.commands import command, ended, environment, run, running
from tests.support.site_crawls import wait_until

pytestmark = pytest.mark.e2e

URL = "http://127.0.0.1:2/"  # nothing listens there
QUICK = ("-o", 'crawl.linger="0s"', "-o", 'network.allow_private=["127.0.0.0/8"]', "-o", 'politeness.robots="ignore"')


@pytest.mark.parametrize("shown", ["auto", "text", "json", "off"])
def test_a_crawl_that_is_piped_shows_records_if_it_is_told_to(shown: str, tmp_path: Path) -> None:
    """How it ended is said in any case."""
    ran = run("crawl", URL, *QUICK, "--output", tmp_path / "out", "-o", f'log.stderr="{shown}"')
    assert "crawler: no seed responded\n" in ran.stderr
    records = [line for line in ran.stderr.splitlines() if not line.startswith("crawler: ")]
    if shown == "text":
        assert re.fullmatch(r"\S+Z info start version=.*", records[0])
    elif shown == "json":
        assert [json.loads(line)["event"] for line in records][:2] == ["start", "ready"]
    else:
        assert records == []


def test_run_is_not_mute_where_stderr_is_a_file(tmp_path: Path) -> None:
    """It says where its status page and its control socket are."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{sock.getsockname()[1]}"
    (tmp_path / "c.toml").write_text(
        f'[crawl]\nseeds = ["{URL}"]\n[output]\ndirectory = "{tmp_path}/out"\n[admin]\nlisten = "{listen}"\n'
        '[identity]\nuser_agent = "tested/1.0 (+https://example.org/bot)"\n'
    )
    log = tmp_path / "stderr"
    with log.open("w") as file, running("run", "-c", tmp_path / "c.toml", stderr=file) as process:
        assert wait_until(lambda: run("status", "--output", tmp_path / "out").code == 0, process)
        process.terminate()
        assert ended(process).code == 0
    text = log.read_text()
    assert f"socket={tmp_path}/out/control.sock admin={listen}" in text
    assert re.search(r"^\S+Z info stop reason=signal", text, re.MULTILINE)


def on_terminal(*arguments: object) -> str:
    """What a command writes to a terminal of 80 columns."""
    ours, its = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as screen,
        subprocess.Popen(
            command(*arguments), stdin=its, stdout=its, stderr=its, env=environment(TERM="xterm", COLUMNS="80")
        ) as process,
    ):
        os.close(its)
        written = b""
        with suppress(OSError):  # EIO: the other end is closed
            while piece := screen.read(65_536):
                written += piece
        process.wait(60)
    return written.decode()


def test_a_terminal_gets_sentences_and_no_records(tmp_path: Path) -> None:
    """What is crawled into which directory, what was done before, and what to do next."""
    output = tmp_path / "o"
    first = on_terminal("crawl", URL, *QUICK, "--output", output)
    assert re.search(r"Crawling http://127\.0\.0\.1:2/ into", first)
    assert "robots.txt is ignored" in " ".join(first.split())
    assert "crawler report --output" in first
    assert "Continued" not in first
    assert not re.search(r"\b(start|ready|drain|stop) \w+=", first)
