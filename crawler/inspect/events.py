"""What the newest events say of hosts: the last state of each origin, and the connections that are open.

Reads the end of events.jsonl, within a budget. Invariant: only the run that goes on counts; connections of a run that
was killed are not open.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from crawler.inspect.parts import Parts
from crawler.inspect.ranges import epoch, newest, select

BUDGET: Final = 64 * 1024 * 1024
_SOUGHT: Final = (b'"host_state"', b'"conn_open"', b'"conn_close"')


@dataclass(slots=True)
class Present:
    """`states` maps (host, port) to the fields of the last `host_state`, with `until_at` as epoch seconds. `open`
    counts the open connections by host; those opened before the budget's reach are missing, so it is a lower bound.
    """

    states: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    open: Counter[str] = field(default_factory=Counter)


def present(parts: Parts, run_id: str | None) -> Present:
    """How things stand by the events of a run."""
    found = Present()
    hosts: dict[int, str] = {}
    for stretch in newest(select(parts), BUDGET):
        for block in stretch.part.blocks(stretch.start, stretch.end):
            for raw in block.split(b"\n"):
                if not any(word in raw for word in _SOUGHT):
                    continue
                try:
                    line = orjson.loads(raw)
                except orjson.JSONDecodeError:
                    continue
                if not isinstance(line, dict) or (run_id is not None and line.get("run_id") != run_id):
                    continue
                host = str(line.get("server_address", ""))
                match line.get("event"):
                    case "host_state":
                        line["until_at"] = epoch(str(line.get("until", ""))) or 0.0
                        found.states[host, line.get("server_port", 0)] = line
                    case "conn_open":
                        hosts[line.get("conn_id", 0)] = host
                    case "conn_close":
                        hosts.pop(line.get("conn_id", 0), None)
    found.open.update(hosts.values())
    return found
