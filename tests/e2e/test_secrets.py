"""Credentials, cookies and a proxy together, before the whole program: who is told what, and what is left behind."""

import asyncio
import gzip
import json
from base64 import b64encode
from pathlib import Path

import pytest

from tests.support.commands import Crawl, run
from tests.support.proxy_server import RunningProxy, proxy
from tests.support.scripted_server import Accepted, Certificates, ok, serve

pytestmark = pytest.mark.e2e

PASSWORD, TOKEN, SESSION, PROXY_PASSWORD = "correct-horse", "b4tt3ry.st4ple", "sess10n-1d", "pr0xy-w0rd"
BASIC = b64encode(f"reader:{PASSWORD}".encode()).decode()
PROXY_BASIC = b64encode(f"crawler:{PROXY_PASSWORD}".encode()).decode()
# What servers say themselves stays as it came: the Set-Cookie of a response is not ours to mask.
NEVER_WRITTEN = (PASSWORD, TOKEN, PROXY_PASSWORD, BASIC, PROXY_BASIC)


def fields(head: bytes, name: str) -> list[str]:
    lines = head.decode("latin-1").split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}:")]


def html(body: str, *more: str, status: str = "200 OK") -> bytes:
    return ok(body.encode(), "Content-Type: text/html", *more, status=status)


def members(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).split(b"WARC/1.1\r\n")[1:]


def files(output: Path) -> dict[str, bytes]:
    """Everything a crawl left behind, uncompressed."""
    return {
        str(path): gzip.decompress(path.read_bytes()) if ".warc.gz" in path.name else path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


async def test_secrets_go_where_they_belong_and_stay_nowhere(tmp_path: Path) -> None:
    """A site behind a password that keeps a session and redirects to two others, all through a proxy that wants a
    password too: every page is fetched, each origin is told its own, and no file or message holds a secret of ours.
    """
    certificates = Certificates(tmp_path)

    async def guarded(c: Accepted) -> None:
        """Wants credentials for everything, robots.txt too, and a session for what is behind the door."""
        while path := await c.request():
            head = c.requests[-1]
            if fields(head, "Authorization") != [f"Basic {BASIC}"]:
                await c.send(html("who are you?", status="401 Unauthorized"))
            elif path == "/robots.txt":
                await c.send(ok(b"User-agent: *\nDisallow:\n", "Content-Type: text/plain"))
            elif path == "/":
                links = "".join(f'<a href="{link}">x</a>' for link in ("/door", "/api", "/plain"))
                await c.send(html(links, f"Set-Cookie: session={SESSION}; Secure; HttpOnly; Path=/"))
            elif path in ("/api", "/plain"):
                there = api_url if path == "/api" else plain_url
                await c.send(html("", f"Location: {there}", status="302 Found"))
            elif fields(head, "Cookie") == [f"session={SESSION}"]:
                await c.send(html("<title>inside</title>"))
            else:
                await c.send(html("no session", status="403 Forbidden"))

    async def open_to_all(c: Accepted) -> None:
        while path := await c.request():
            text = path == "/robots.txt"
            await c.send(ok(b"", "Content-Type: text/plain") if text else html("<title>outside</title>"))

    async with (
        serve(guarded, tls=certificates.server("door.test")) as door,
        serve(open_to_all, tls=certificates.server("api.test")) as api,
        serve(open_to_all) as plain,
        proxy(credentials=f"crawler:{PROXY_PASSWORD}") as p,
    ):
        door_url = f"https://door.test:{door.port}/"
        api_url, plain_url = f"https://api.test:{api.port}/", f"http://plain.test:{plain.port}/"
        secrets = tmp_path / "secrets.toml"
        secrets.write_text(
            f'[origin."{door_url}"]\nusername = "reader"\npassword = "{PASSWORD}"\n'
            f'[origin."{api_url}"]\nbearer = "{TOKEN}"\n'
            f'[proxy]\nusername = "crawler"\npassword = "{PROXY_PASSWORD}"\n'
        )
        secrets.chmod(0o600)
        crawl = Crawl.of(tmp_path, _sections(door_url, p, certificates))
        ran = await asyncio.to_thread(crawl.run)
        assert ran.code == 0, ran.stderr
        titles = {line["title"] for line in crawl.page_lines()}
        assert {"inside", "outside"} <= titles
        assert {line["url_full"] for line in crawl.fetches() if line["outcome"] == "ok"} >= {api_url, plain_url}

        assert {tuple(fields(head, "Authorization")) for head in door.requests} == {(f"Basic {BASIC}",)}
        assert {tuple(fields(head, "Authorization")) for head in api.requests} == {(f"Bearer {TOKEN}",)}
        assert api.requests
        assert plain.requests
        assert not any(fields(head, "Authorization") or fields(head, "Cookie") for head in plain.requests)
        assert not any(fields(head, "Cookie") for head in api.requests)
        everyone = door.requests + api.requests + plain.requests
        assert not any(fields(head, "Proxy-Authorization") for head in everyone)
        assert set(p.connects) == {f"door.test:{door.port}", f"api.test:{api.port}"}
        assert set(p.plain) == {f"{plain_url}robots.txt", plain_url}

        said = ran.stdout + ran.stderr
        for command in (("check", "-c", crawl.config), ("config", "show", "-c", crawl.config, "--origin")):
            shown = await asyncio.to_thread(run, *command)
            said += shown.stdout + shown.stderr
        left = files(crawl.output)
        assert len(left) > 5
        for secret in NEVER_WRITTEN:
            assert secret not in said
            assert [name for name, content in left.items() if secret.encode() in content] == []
        requests = [m for path in crawl.warcs() for m in members(path) if b"WARC-Type: request\r\n" in m]
        assert len(requests) == len(everyone)
        assert not any(SESSION.encode() in record for record in requests)
        assert sum(b"\r\nCookie: masked\r\n" in record for record in requests) >= 1
        starts = [line for line in crawl.events() if line["event"] == "start"]
        assert [line["proxy"] for line in starts] == [f"127.0.0.1:{p.port}"]


def _sections(seed: str, p: RunningProxy, certificates: Certificates) -> dict[str, dict[str, object]]:
    return {
        "crawl": {"seeds": [seed], "linger": "1s"},
        "identity": {"secrets": "secrets.toml"},
        "scope": {"hosts": ["door.test", "api.test", "plain.test"]},
        "politeness": {"delay": 0, "key": "host"},
        "fetch": {"cookies": "session"},
        "network": {"proxy": f"http://127.0.0.1:{p.port}", "ca_file": certificates.ca_file},
    }


@pytest.mark.parametrize("cookies", ["off", "session"])
async def test_a_page_behind_a_cookie_is_requested_again_with_it(tmp_path: Path, cookies: str) -> None:
    """The site sends whoever has no cookie to the same URL, or round by another, with one. With a session both pages
    are fetched, each URL twice at most; without one, nothing goes round in circles either.
    """
    certificates = Certificates(tmp_path)

    async def site(c: Accepted) -> None:
        while path := await c.request():
            known = fields(c.requests[-1], "Cookie")
            if path == "/robots.txt":
                await c.send(ok(b"", "Content-Type: text/plain"))
            elif path == "/":
                await c.send(html('<a href="/same">x</a><a href="/round">x</a><a href="/stubborn">x</a>'))
            elif path == "/check" or (known and path != "/stubborn"):
                await c.send(html(f"<title>{path}</title>"))
            else:
                there = "/check" if path == "/round" else path
                cookie = f"seen={len(c.requests)}; Path={path}"
                await c.send(html("", f"Set-Cookie: {cookie}", f"Location: {there}", status="302 Found"))

    async with serve(site, tls=certificates.server("door.test")) as server:
        keys: dict[str, dict[str, object]] = {
            "crawl": {"seeds": [f"https://door.test:{server.port}/"], "linger": "1s"},
            "fetch": {"cookies": cookies},
            "politeness": {"delay": "50ms"},
            "network": {
                "allow_private": ["127.0.0.0/8"],
                "resolve": {"door.test": ["127.0.0.1"]},
                "ca_file": certificates.ca_file,
            },
        }
        crawl = Crawl.of(tmp_path, keys)
        ran = await asyncio.to_thread(crawl.run)
        assert (ran.code, ran.summary["stopped_by"]) == (0, "empty"), ran.stderr
    asked = [path for connection in server.accepted for path in connection.paths if path != "/robots.txt"]
    titles = {line["title"] for line in crawl.page_lines()} - {None}
    nexts = {
        (line["url_full"].rpartition("/")[2], line["next"]) for line in crawl.fetches() if line["outcome"] == "redirect"
    }
    if cookies == "session":
        assert titles == {"/same", "/round"}
        assert sorted(asked) == ["/", "/round", "/round", "/same", "/same", "/stubborn", "/stubborn"]
        assert nexts == {("same", "retry"), ("round", "retry"), ("stubborn", "retry"), ("stubborn", "done")}
    else:
        assert titles == {"/check"}
        assert sorted(asked) == ["/", "/check", "/round", "/same", "/stubborn"]
        assert nexts == {("same", "done"), ("round", "done"), ("stubborn", "done")}


async def test_a_proxy_that_is_down_costs_no_url(tmp_path: Path) -> None:
    """Nothing is reached, nothing is given up, the words name the proxy; when it is back, so is the crawl."""
    certificates = Certificates(tmp_path)

    async def site(c: Accepted) -> None:
        while path := await c.request():
            text = path == "/robots.txt"
            await c.send(ok(b"", "Content-Type: text/plain") if text else html("<title>here</title>"))

    async with serve(site, tls=certificates.server("door.test")) as server:
        async with proxy() as gone:
            port = gone.port
        sections = _sections(f"https://door.test:{server.port}/", gone, certificates)
        del sections["identity"]
        crawl = Crawl.of(tmp_path, sections)
        down = await asyncio.to_thread(crawl.run)
        assert down.code == 1
        assert f"proxy 127.0.0.1:{port}" in down.stderr
        assert {line["error_type"] for line in crawl.fetches()} == {"proxy_failed"}
        assert {line["stage"] for line in crawl.events() if line["event"] == "conn_fail"} == {"proxy"}
        assert server.accepted == []
        async with proxy() as back:
            up = await asyncio.to_thread(crawl.run, "-o", f"network.proxy=http://127.0.0.1:{back.port}")
            assert (up.code, up.summary["pages"]) == (0, 1), up.stderr


async def test_a_traced_fetch_shows_its_proxy(tmp_path: Path) -> None:
    """`crawler fetch`: whose address it is, that it is not checked, and no secret."""
    certificates = Certificates(tmp_path)

    async def site(c: Accepted) -> None:
        while await c.request():
            await c.send(html("<title>here</title>"))

    secrets = tmp_path / "secrets.toml"
    secrets.write_text(f'[proxy]\nusername = "crawler"\npassword = "{PROXY_PASSWORD}"\n')
    secrets.chmod(0o600)
    async with (
        serve(site, tls=certificates.server("door.test")) as server,
        serve(site) as plain,
        proxy(credentials=f"crawler:{PROXY_PASSWORD}") as p,
    ):
        config = Crawl.of(tmp_path, _sections("https://door.test/", p, certificates)).config
        for url in (f"https://door.test:{server.port}/", f"http://plain.test:{plain.port}/"):
            ran = await asyncio.to_thread(run, "fetch", url, "-c", config, "--no-robots")
            assert ran.code == 0, ran.stderr
            assert "127.0.0.1  an IP address  (the proxy)" in ran.stdout
            assert "not dialled" not in ran.stdout
            assert ("Proxy-Authorization: masked" in ran.stdout) is url.startswith("http:")
            assert PROXY_BASIC not in ran.stdout + ran.stderr
            as_json = await asyncio.to_thread(run, "fetch", url, "-c", config, "--no-robots", "--json")
            (resolved,) = json.loads(as_json.stdout)["connection"]["resolved"]
            assert [(a["allowed"], a["why"]) for a in resolved["addresses"]] == [(True, "the proxy's, not checked")]
            assert PROXY_BASIC not in as_json.stdout
