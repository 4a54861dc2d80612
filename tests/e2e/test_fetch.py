"""`crawler fetch` as its users run it: piped, on a terminal, as JSON, and with mistakes."""

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import command, environment, run, toml
from tests.support.nginx import Nginx
from tests.support.raw_servers import sending
from tests.support.site_crawls import WWW, sections

pytestmark = pytest.mark.e2e


@pytest.fixture
def config(server: Nginx, tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(toml(sections(server, WWW)))
    return path


def test_it_shows_what_the_server_logged(server: Nginx, config: Path) -> None:
    """Two requests over one connection, and nothing is written anywhere."""
    ran = run("fetch", server.url(WWW), "-c", config, "--json", cwd=config.parent)
    assert (ran.code, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert [request.target for request in server.requests()] == ["/robots.txt", "/"]
    assert found["outcome"] == "ok"
    assert found["connection"]["certificate"]["verified"] is True
    assert found["timings_ms"]["tls"] > 0
    assert [path.name for path in config.parent.iterdir()] == ["site.toml"]


def test_piped_it_is_plain_text(server: Nginx, config: Path) -> None:
    """No escape sequences, no cut lines, and the verdict is the first line."""
    ran = run("fetch", server.url(WWW), "-c", config)
    lines = ran.stdout.splitlines()
    assert ran.code == 0
    assert lines[0].startswith(f"● 200 OK  {server.url(WWW)}")
    assert "\x1b" not in ran.stdout
    assert lines[-1].startswith("  a crawl      would archive it")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_it_has_colours_unless_they_are_not_wanted(server: Nginx, config: Path, no_color: str) -> None:
    """NO_COLOR is respected; bold and dim are no colours."""
    ours, theirs = pty.openpty()
    env = environment(NO_COLOR=no_color, TERM="xterm-256color", COLUMNS="120")
    arguments = command("fetch", server.url(WWW), "-c", config)
    process = subprocess.Popen(arguments, stdout=theirs, stderr=subprocess.DEVNULL, env=env)
    os.close(theirs)
    out = b""
    while True:
        try:
            out += os.read(ours, 65_536)
        except OSError:  # EIO: the other side is gone
            break
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"\x1b[" in out
    assert (b"\x1b[1;32m" in out or b"\x1b[32m" in out) is (no_color == "")


def test_what_is_found_wrong_is_exit_code_1(server: Nginx, config: Path) -> None:
    """An error page, an unknown issuer, an address that is not dialled, a server that speaks no HTTP."""
    assert run("fetch", server.url(WWW) + "no/such/page", "-c", config).code == 1
    unknown = run("fetch", server.url(WWW), "-c", config, "-o", f"network.ca_file={os.devnull}")
    assert unknown.code == 78  # a CA file without a certificate is the configuration's fault
    with sending(b"SSH-2.0-x\r\n") as port:
        ssh = run("fetch", f"http://127.0.0.1:{port}/", "-o", "network.allow_private=127.0.0.0/8", "--json")
        denied = run("fetch", f"http://127.0.0.1:{port}/")
    # robots.txt already met it, so nothing may be fetched
    assert (ssh.code, json.loads(ssh.stdout)["robots"]["hops"][0]["error_type"]) == (1, "protocol_error")
    assert denied.code == 1
    assert "address_denied" in denied.stdout
    assert "Traceback" not in ssh.stderr + denied.stderr
