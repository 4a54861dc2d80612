"""What the log's observer remembers for the end of a crawl."""

from pathlib import Path
from typing import Any, cast

import pytest

from crawler.core.enums import Source, TaskKind
from crawler.core.models import Task
from crawler.engine.monitoring.event_log import RECENT_ERRORS_KEPT, EventLog
from crawler.engine.observer import Visited
from crawler.obs.logs import Logs
from tests.support.fetching import FakeClock
from tests.support.frontiers import response, visit


class _Logs:
    crawl_name = run_id = ""

    def fetch(self, line: object) -> None:
        return


class _Lease:
    waited_s = 0.0


@pytest.mark.parametrize(
    ("statuses", "refused"),
    [
        ((404, 503), ("https://e.org/0: status 404", "https://e.org/1: status 503")),
        ((404, 200), ()),
        ((200, 404), ()),
        ((), ()),
    ],
)
def test_seeds_are_remembered_if_all_got_an_http_error(
    statuses: tuple[int, ...], refused: tuple[str, ...], tmp_path: Path
) -> None:
    """If one of them had another response there are none; links do not count."""
    reporter = EventLog(cast(Logs, _Logs()), FakeClock(), tmp_path, min_free=0)
    tasks = [Task(id=n + 1, url=f"https://e.org/{n}") for n in range(len(statuses))]
    for task, status in zip(tasks, statuses, strict=True):
        reporter.stored(_visited(task, status), 0, None)
    reporter.stored(_visited(Task(id=9, url="https://e.org/9", source=Source.LINK), 404), 0, None)
    assert reporter.seeds_refused() == refused


@pytest.mark.parametrize(
    ("url", "status", "is_hinted"),
    [
        ("http://e.org:8443/a", 400, True),
        ("http://e.org/a", 400, False),
        ("https://e.org:8443/a", 400, False),
        ("http://e.org:8443/a", 404, False),
    ],
)
def test_plain_http_to_a_port_of_tls_is_suspected(url: str, status: int, is_hinted: bool, tmp_path: Path) -> None:
    reporter = EventLog(cast(Logs, _Logs()), FakeClock(), tmp_path, min_free=0)
    reporter.stored(_visited(Task(id=1, url=url), status), 0, None)
    hint = "; the server may speak TLS on this port: try https://e.org:8443/" if is_hinted else ""
    assert reporter.seeds_refused() == (f"{url}: status {status}{hint}",)


def test_errors_alike_of_a_host_are_remembered_as_one_the_newest_first(tmp_path: Path) -> None:
    """With how often they came and the last URL, without its secrets. That a robots.txt is missing is no error."""
    log = EventLog(cast(Logs, _Logs()), FakeClock(), tmp_path, min_free=0)
    for url, status, kind in (
        ("https://a.test/1?token=s3cret", 500, TaskKind.PAGE), ("https://b.test/", 404, TaskKind.PAGE),
        ("https://a.test/robots.txt", 404, TaskKind.ROBOTS), ("https://c.test/robots.txt", 503, TaskKind.ROBOTS),
        ("https://a.test/2?token=s3cret", 500, TaskKind.PAGE), ("https://a.test/3", 200, TaskKind.PAGE),
    ):  # fmt: skip
        log.stored(_visited(Task(id=1, url=url, kind=kind), status), 0, None)
    assert [(one.host, one.error, one.times, one.url) for one in log.recent_errors] == [
        ("a.test", "status 500", 2, "https://a.test/2?token=***"),
        ("c.test", "status 503", 1, "https://c.test/robots.txt"),
        ("b.test", "status 404", 1, "https://b.test/"),
    ]
    for n in range(2 * RECENT_ERRORS_KEPT):
        log.stored(_visited(Task(id=1, url=f"https://h{n}.test/"), 404), 0, None)
    assert len(log.recent_errors) == RECENT_ERRORS_KEPT


def _visited(task: Task, status: int) -> Visited:
    lease: Any = _Lease()
    return Visited(visit(task, response(status)), lease, 0.0, 0.0)
