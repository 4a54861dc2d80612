"""When a host may be asked again: pure transitions on frozen states, `now` passed in.

Three things rest independently: a politeness key (registrable domain or host: delay, 429/503), an origin (connection
failures), an IP address (its own delay). Each is a `PolitenessState`; a request may leave when all three are open. With
a delay, a turn has one request in flight and the next may begin `delay` after that one ended; without, up to `width`
are.
"""

import random
import re
from dataclasses import replace
from math import ceil
from typing import Final

from crawler.core.clock import http_date
from crawler.core.frozen import dataclass
from crawler.core.models import Head
from crawler.core.options import PolitenessOptions
from crawler.core.url import registrable_domain

# Servers log in whole milliseconds from a clock read once per event-loop turn: a request that left exactly at the end
# of the delay can look early there. This is added to every delay above 0.
CLOCK_GUARD_S: Final = 0.010
ADAPTIVE_FACTOR: Final = 5.0  # Heritrix's delayFactor: a host that takes a second is asked every five
ADAPTIVE_MAX_S: Final = 30.0  # Heritrix's maxDelayMs
RETRY_AFTER_MIN_S: Final = 1.0  # what a Retry-After of 0, or a date gone by, counts as
RETRY_AFTER_MAX_S: Final = 86_400.0
_SECONDS: Final = re.compile(r"\d+\.?\d*")
BACKOFF_FIRST_S: Final = 5.0
BACKOFF_FACTOR: Final = 3.0
BACKOFF_MAX_S: Final = 3_600.0
SERVER_ERROR_BACKOFF_MAX_S: Final = 30.0
# A host that never answered is tried twice more at once, then seldom: the mistake is most often in its name.
NEVER_RESPONDED_BACKOFFS_S: Final = (1.0, 4.0)
NEVER_RESPONDED_LONG_S: Final = 900.0


def politeness_key(host: str, options: PolitenessOptions) -> str:
    """Whose patience a request to `host` costs."""
    return host if options.key == "host" else registrable_domain(host)


def host_delay(options: PolitenessOptions, crawl_delay_s: float | None, response_s: float = 0.0) -> float:
    """Seconds between the end of one answer and the next request. A Crawl-delay raises it, up to
    `max_crawl_delay_s`; so does a slow answer, if `adaptive`. A delay of 0 without Crawl-delay stays 0.
    """
    delay = options.delay_s
    if crawl_delay_s is not None and options.robots == "obey":
        delay = max(delay, min(crawl_delay_s, options.max_crawl_delay_s))
    if options.adaptive and delay > 0:
        delay = max(delay, min(ADAPTIVE_FACTOR * response_s, ADAPTIVE_MAX_S))
    return delay


def address_delay(options: PolitenessOptions) -> float:
    """The same for an IP address; when not set it is a quarter of a second, or the host's delay if that is less."""
    if options.address_delay_s is not None:
        return options.address_delay_s
    return min(0.25, options.delay_s)


def address_width(options: PolitenessOptions) -> int:
    """Requests in flight to one IP address where no delay holds."""
    if options.connections_per_address is not None:
        return options.connections_per_address
    return max(4, options.connections_per_host)


@dataclass(frozen=True, slots=True)
class PolitenessState:
    """Who may go next. `open_mono` is when the next request may begin; `failures` counts failures in a row."""

    open_mono: float = 0.0
    in_flight: int = 0
    failures: int = 0
    reason: str = ""  # why it rests, "" when it only keeps its delay

    def opens_at(self, now_mono: float, *, delay_s: float, width: int) -> float | None:
        """None: a request may begin now. Otherwise when to look again; infinity while one in flight must end first."""
        if self.in_flight >= (1 if delay_s > 0 else width):
            return float("inf")
        return None if self.open_mono <= now_mono else self.open_mono

    def began(self) -> "PolitenessState":
        return PolitenessState(self.open_mono, self.in_flight + 1, self.failures, self.reason)

    def ended(self, now_mono: float, *, delay_s: float) -> "PolitenessState":
        """A request ended, however: the delay runs from here."""
        guard = CLOCK_GUARD_S if delay_s > 0 else 0.0
        return PolitenessState(
            max(self.open_mono, now_mono + delay_s + guard), self.in_flight - 1, self.failures, self.reason
        )

    def abandoned(self) -> "PolitenessState":
        """What began never left: no delay is due."""
        return replace(self, in_flight=self.in_flight - 1)

    def backed_off(self, until_mono: float, reason: str) -> "PolitenessState":
        """Closed until then, and not before any earlier date it had."""
        return replace(self, open_mono=max(self.open_mono, until_mono), failures=self.failures + 1, reason=reason)

    def recovered(self) -> "PolitenessState":
        """An answer came: failures are forgotten."""
        return self if self.failures == 0 and not self.reason else replace(self, failures=0, reason="")


OPEN: Final = PolitenessState()


def backoff_s(failures: int, rng: random.Random, *, ever_responded: bool) -> float:
    """How long to rest after failure number `failures` + 1 in a row: exponential, with up to a quarter of jitter."""
    if not ever_responded:
        rests = NEVER_RESPONDED_BACKOFFS_S
        return rests[failures] if failures < len(rests) else NEVER_RESPONDED_LONG_S * (1 + rng.random() / 4)
    base = min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** min(failures, 20), BACKOFF_MAX_S)
    return base * (1 + rng.random() / 4)


def server_error_backoff_s(times: int) -> float:
    """How long a host rests that answers one URL after the other with a 500 or its like, for the `times`th time. A part
    of a site that is broken for good must not keep the rest of it for hours, so it stays below half a minute.
    """
    return min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** min(times - 1, 20), SERVER_ERROR_BACKOFF_MAX_S)


def throttled_backoff_s(failures: int, wait_s: float | None, rng: random.Random) -> float:
    """How long to rest after a 429 or 503, the (`failures` + 1)th in a row; `wait_s` is its Retry-After.

    A server that refuses again after the time it named itself is not taken at its word a second time: from then on the
    rests that it would earn without a word hold as well. Retry-After 0 must not make a loop of asking.
    """
    if wait_s is None:
        return backoff_s(failures, rng, ever_responded=True)
    if failures == 0:
        return max(wait_s, RETRY_AFTER_MIN_S)
    return max(wait_s, backoff_s(failures - 1, rng, ever_responded=True))


def retry_after_s(head: Head, now_at: float) -> float | None:
    """Seconds to wait by a response's Retry-After (RFC 9110 §10.2.3: seconds or a date), at most a day; None without a
    usable one. A date counts from the response's own Date, if it has one: a clock that is wrong is so in both. Of
    several fields the longest wait holds; of a fraction, which the RFC does not know, the ceiling.
    """
    date = http_date(head.get("date") or "")
    waits = [_wait_s(value, now_at if date is None else date) for value in head.get_all("retry-after")]
    return max((wait for wait in waits if wait is not None), default=None)


def _wait_s(value: str, now_at: float) -> float | None:
    value = value.strip()
    if value.isascii() and _SECONDS.fullmatch(value):
        return float(ceil(min(float(value), RETRY_AFTER_MAX_S)))
    at = http_date(value)
    return None if at is None else min(max(0.0, at - now_at), RETRY_AFTER_MAX_S)
