"""Lines of the log for tests: made-up fetch lines of a crawl of many hosts, and a check of event lines."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from crawler.core.enums import Bottleneck, CloseReason, DenyReason, ErrorType, HostState, Stage
from crawler.core.formatting import timestamp
from crawler.obs.events import CATALOGUE, Event

BEGIN_AT = 1_764_000_000.0  # 2025-11-24T16:00:00Z


def fetch_lines(
    count: int, *, hosts: int = 50, seed: int = 1, begin_at: float = BEGIN_AT, per_s: float = 20.0
) -> Iterator[dict[str, Any]]:
    """Lines of fetch.jsonl as a crawl of these hosts writes them, `per_s` a second; the same for the same seed."""
    rng = random.Random(seed)
    requests: dict[int, int] = {}
    connections = 0
    open_now = [0] * hosts
    for number in range(count):
        host = int(rng.random() ** 2 * hosts)  # a few hosts get most
        name = f"h{host:04}.many.test"
        at = begin_at + number / per_s
        url = f"https://{name}/articles/{number:08}-the-light-of-farholm?page={number % 7}"
        line: dict[str, Any] = {
            "ts": timestamp(at), "event": "fetch", "level": "info", "crawl": "crawl", "run_id": "20251124T160000Z-beef",
            "fetch_id": number + 1, "url_full": url,
            "server_address": name, "depth": 2, "hop_path": "LL", "source": "link", "attempt": 1, "outcome": "ok",
            "via": f"https://{name}/articles/index-{number % 100}.html", "http_request_resend_count": 0,
        }  # fmt: skip
        kind = rng.random()
        if kind < 0.02:
            line |= {"outcome": "error", "error_type": rng.choice(["first_byte_timeout", "connect_refused", "reset"]),
                     "dur_ms": 30_000.0, "next": "retry", "next_at": timestamp(at + 300)}  # fmt: skip
            yield line
            continue
        if kind < 0.03:
            yield line | {"outcome": "denied", "deny_reason": "robots", "dur_ms": 0.01, "next": "done"}
            continue
        conn_id = open_now[host]
        if conn_id == 0 or requests[conn_id] >= 100 or rng.random() < 0.01:
            connections += 1
            conn_id = open_now[host] = connections
            requests[conn_id] = 0
            line |= {"dns_ms": 0.06, "connect_ms": 10.0, "tls_ms": 20.0}
        requests[conn_id] += 1
        size = int(rng.lognormvariate(10, 1))
        ttfb = round(rng.lognormvariate(4, 0.7), 2)
        status = 200 if kind < 0.93 else 404 if kind < 0.97 else 301 if kind < 0.99 else 429
        outcome = "ok" if status == 200 else "redirect" if status == 301 else "http_error"
        line |= {
            "outcome": outcome, "http_response_status_code": status, "http_response_body_size": size,
            "content_size": size * 4, "content_type": "text/html" if kind < 0.8 else "image/png",
            "sent_at": timestamp(at - 0.1 - ttfb / 1e3),
            "content_digest": f"sha256:{number:052}====", "links_found": 40, "ttfb_ms": ttfb, "body_ms": 5.0,
            "conn_id": conn_id, "conn_request_n": requests[conn_id], "network_peer_address": f"192.0.2.{host % 250}",
            "tls_protocol_version": "1.3", "tls_resumed": conn_id % 3 == 0, "links_new": 2, "queue_ms": 0.4,
            "politeness_ms": 900.0, "dur_ms": ttfb + 6, "warc_file": "crawl-20251124160000-00000.warc.gz",
            "warc_offset": number * 9_000, "next": "retry" if status == 429 else "done",
        }  # fmt: skip
        if status == 301:
            line["redirect_to"] = line["url_full"] + "&x=1"
        yield line


def write(path: Path, lines: Iterator[dict[str, Any]], *, limit_bytes: int | None = None) -> int:
    """Write lines, up to a size. Returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = count = 0
    with path.open("wb") as file:
        for line in lines:
            written += file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
            if limit_bytes is not None and written >= limit_bytes:
                break
    return count


# -- the event catalogue

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


def problems_of_event(name: str, fields: Mapping[str, object]) -> list[str]:
    """How an event differs from the catalogue, before the log adds the common fields."""
    return problems(dict.fromkeys(COMMON, "") | fields | {"event": name})


def problems(line: Mapping[str, object]) -> list[str]:
    """How a line of events.jsonl differs from the catalogue; empty if it does not."""
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
