"""Lines about a URL or a host, found from the end of the log."""

import json
from pathlib import Path

import pytest

from crawler.inspection.log import url_history
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.url_history import last_attempts, skipped_of_host


@pytest.mark.parametrize("piece", [200, 4 * 1024 * 1024])
def test_the_last_attempts_of_a_host(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first, also across rotated files; a host that is only named in a URL is another one."""
    monkeypatch.setattr(url_history, "_PIECE", piece)
    log = tmp_path / "fetch.jsonl"
    for path, numbers in ((tmp_path / "fetch.jsonl.1", range(50)), (log, range(50, 53))):
        path.write_text(
            "".join(
                json.dumps({"server_address": f"h{n % 3}.test", "fetch_id": n, "via": "h1.test"}) + "\n"
                for n in numbers
            )
            + "no JSON, but h1.test\n"
        )
    with RotatedLog(log) as parts:
        assert [line["fetch_id"] for line in last_attempts(parts, "h1.test", 4)] == [52, 49, 46, 43]
        assert len(last_attempts(parts, "h1.test", 99)) == 18
        assert last_attempts(parts, "h9.test", 9) == []


@pytest.mark.parametrize("host", ["a.test", "[2001:db8::1]"])
def test_the_last_refused_link_of_a_host_is_found(tmp_path: Path, host: str) -> None:
    """Whatever its port, and with the brackets of an address; not that of another host or for another reason."""
    lines = [
        {"event": "url_skipped", "url_full": f"https://{host}:8443/first?q=1", "deny_reason": "scope_host"},
        {"event": "url_skipped", "url_full": f"https://{host}/last", "deny_reason": "scope_host"},
        {"event": "url_skipped", "url_full": f"https://{host}/other", "deny_reason": "nofollow"},
        {"event": "url_skipped", "url_full": f"https://b.test//{host}/", "deny_reason": "scope_host"},
    ]
    log = tmp_path / "events.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with RotatedLog(log) as parts:
        found = skipped_of_host(parts, host, "scope_host")
        assert found is not None
        assert found["url_full"] == f"https://{host}/last"
        assert skipped_of_host(parts, "c.test", "scope_host") is None
