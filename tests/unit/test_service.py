"""The reload of a configuration, apart from what the engine does with it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crawler.obs.events import Event
from crawler.service import Reloader
from crawler.settings.loading import Loaded, load
from tests.support.virtual_time import run


class Engine:
    """Takes any options."""

    frontier = SimpleNamespace(agents=None)

    clock = SimpleNamespace(now=lambda: 1_795_424_400.0)

    async def reconfigure(self, options: object) -> None: ...

    async def add_seed_files(self) -> int:
        return 0

    def changed_files(self, options: object) -> list[object]:
        return []

    def new_seeds(self, options: object) -> list[object]:
        return []


class Logs:
    """Keeps the events."""

    run_id = "r"

    def __init__(self) -> None:
        self.events: list[tuple[Event, dict[str, Any]]] = []

    def reload(self, options: object) -> None: ...

    def event(self, name: Event, **fields: object) -> None:
        self.events.append((name, fields))


def test_a_reload_whose_run_file_cannot_be_written_says_what_is_free(tmp_path: Path) -> None:
    """The rules are in force all the same; the event has the figures of the disk, and why it was not written."""

    def loaded(delay: str) -> Loaded:
        overrides = [f"output.directory={tmp_path}", f"politeness.delay={delay}", "output.min_free=1MiB"]
        return load(None, overrides, {}, "crawl")

    (tmp_path / "run.json.new").mkdir()
    logs = Logs()
    reloader = Reloader(
        loaded("1s").settings, "crawl", Engine(), logs,  # type: ignore[arg-type]
        configuration=None, read_again=lambda: loaded("2s"),
    )  # fmt: skip
    run(reloader.reload())
    assert reloader.settings.politeness.delay == 2.0
    (ok, _), (low, fields) = logs.events
    assert (ok, low) == (Event.RELOAD_OK, Event.DISK_LOW)
    assert fields["free_bytes"] > 0
    assert fields["min_free_bytes"] == 1024**2
    assert "run.json.new" in fields["detail"]
