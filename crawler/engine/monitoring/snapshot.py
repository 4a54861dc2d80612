"""How a crawl stands at one instant: what the views show."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts since this run began, and the state now. `rate_now` is pages a second over the last few seconds; `state`
    is crawling, lingering, paused, outage, draining or off_hours: then `until_at` (UTC) is when `fetch.hours` open.
    `queued` counts the URLs that may be asked for; those that a limit of scope or a block keeps are in `kept`.
    """

    elapsed_s: float
    state: str
    responses: int
    pages: int
    bytes: int
    errors: int
    denied: int
    links_found: int
    links_new: int
    queued: int
    kept: int
    waiting: int
    in_flight: int
    hosts: int
    hosts_resting: int
    connections_open: int
    connections_opened: int
    requests: int
    tls_handshakes: int
    tls_resumed: int
    rate_now: float
    last_url: str
    until_at: float | None = None
