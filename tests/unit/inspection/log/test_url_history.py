"""Lines about a URL or a host, found from the end of the log."""

import json
from pathlib import Path

import pytest

from crawler.inspection.log import url_history
from crawler.inspection.log.rotated_log import RotatedLog
from crawler.inspection.log.url_history import last_attempts


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
