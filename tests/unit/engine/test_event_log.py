"""What the log's observer remembers for the end of a crawl."""

from pathlib import Path
from typing import Any, cast

import pytest

from crawler.core.enums import Source
from crawler.core.models import Task
from crawler.engine.monitoring.event_log import EventLog
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


def _visited(task: Task, status: int) -> Visited:
    lease: Any = _Lease()
    return Visited(visit(task, response(status)), lease, 0.0, 0.0)
