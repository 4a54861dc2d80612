"""What the event catalogue says of a line of events.jsonl."""

from collections.abc import Mapping
from typing import Final

from crawler.core.enums import Bottleneck, CloseReason, DenyReason, ErrorType, HostState, Stage
from crawler.obs.events import CATALOGUE, Event

COMMON: Final = frozenset({"ts", "event", "level", "crawl", "run_id"})  # in every line
_WORDS: Final[Mapping[tuple[Event, str], frozenset[str]]] = {
    (Event.CONN_CLOSE, "reason"): frozenset(CloseReason),
    (Event.CONN_FAIL, "stage"): frozenset(Stage),
    (Event.CONN_FAIL, "error_type"): frozenset(ErrorType),
    (Event.HOST_STATE, "from"): frozenset(HostState),
    (Event.HOST_STATE, "to"): frozenset(HostState),
    (Event.URL_SKIPPED, "deny_reason"): frozenset(DenyReason),
    (Event.PROGRESS, "bottleneck"): frozenset(Bottleneck),
}


def problems(line: Mapping[str, object]) -> list[str]:
    """Where a line of events.jsonl departs from the catalogue; empty if it does not."""
    name = line.get("event")
    if name not in CATALOGUE:
        return [f"unknown event {name!r}"]
    event = Event(str(name))
    spec = CATALOGUE[event]
    fields = set(line)
    found = [f"{event}: no {field}" for field in sorted((COMMON | spec.required) - fields)]
    found += [f"{event}: unknown field {field}" for field in sorted(fields - COMMON - spec.required - spec.optional)]
    for (of_event, field), words in _WORDS.items():
        if of_event is event and field in line and line[field] not in words:
            found.append(f"{event}: {field} is {line[field]!r}")
    return found
