"""Actions on the status page of a real daemon, with the token that `crawler status` shows."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.commands import ended, run, running
from tests.support.site_crawls import wait_until
from tests.support.sockets import free_port

pytestmark = pytest.mark.e2e


def test_an_operator_pauses_the_crawl_with_the_token_of_status(tmp_path: Path) -> None:
    """And without it nothing happens; both are in the log."""
    page = f"http://127.0.0.1:{free_port()}"
    output = tmp_path / "out"
    (tmp_path / "c.toml").write_text(
        f'[crawl]\nseeds = ["http://127.0.0.1:2/"]\n[output]\ndirectory = "{output}"\n'
        f'[admin]\nlisten = "{page.removeprefix("http://")}"\nactions = true\n'
        '[identity]\nuser_agent = "tested/1.0 (+https://example.org/bot)"\n'
    )

    def pause(token: str) -> int:
        request = urllib.request.Request(
            f"{page}/api/action", b'{"action":"pause","arguments":{}}',
            {"Origin": page, "Authorization": f"Bearer {token}"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    with running("run", "-c", tmp_path / "c.toml") as process:
        assert wait_until(lambda: run("status", "--output", output).code == 0, process)
        shown = run("status", "--output", output).stdout
        token = re.search(r"^  token +(\S+)$", shown, re.MULTILINE)
        assert token is not None
        assert f"{page}/" in shown
        with urllib.request.urlopen(f"{page}/api/status", timeout=20) as response:
            assert token[1] not in response.read().decode()
        assert pause("wrong") == 403
        assert pause(token[1]) == 200
        assert "is paused" in run("status", "--output", output).stdout
        process.terminate()
        assert ended(process).code == 0
    lines = [json.loads(line) for line in (output / "logs/events.jsonl").read_text().splitlines()]
    details = [line["detail"] for line in lines if line["event"] == "control"]
    assert details[0].startswith("refused on the status page: the token is missing or wrong")
    assert details[1:] == ["on the status page"]
    assert not (output / "status-page.token").exists()
