"""What every test shares: asynchronous tests run on uvloop, as the program does; where the loop itself could matter
(`both_loops`), on asyncio's as well. Every event that a test logs is held to the catalogue.
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from crawler.obs.events import Event
from crawler.obs.logs import Logs
from tests.support.log_lines import problems_of_event


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("both_loops") is not None:
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture(autouse=True)
def events_are_in_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test logs an event, or a field of one, that `obs.events.CATALOGUE` does not have."""
    emit = Logs.emit

    def checked(self: Logs, name: Event, fields: Mapping[str, object], *, level: int | None = None) -> None:
        assert problems_of_event(name, fields) == []
        emit(self, name, fields, level=level)

    monkeypatch.setattr(Logs, "emit", checked)
