"""Rate limit and back-off of requests: pure transitions on frozen states, with the time passed in.

Three states limit a request independently: that of its politeness key (registrable domain or host: delay, 429, 503), of
its origin (connection failures) and of its IP address (its own delay). A request may start when all three are open.
With a delay, one request is in flight at a time, and the next may start `delay` after that one ended. Without a delay,
up to `width` requests are in flight.
"""

import random
import re
from dataclasses import replace
from math import ceil
from typing import Final

from crawler.core.clock import http_date
from crawler.core.models import Head, dataclass
from crawler.core.options import Override, PolitenessOptions
from crawler.core.url import registrable_domain

# Servers log whole milliseconds of a clock that they read once per iteration of their event loop: in such a log a
# request sent exactly at the end of the delay can look early. This is added to every delay above 0.
CLOCK_GUARD_S: Final = 0.010
ADAPTIVE_FACTOR: Final = 5.0  # Heritrix's delayFactor: a host that takes a second to respond gets a request every five
ADAPTIVE_MAX_S: Final = 30.0  # Heritrix's maxDelayMs
RETRY_AFTER_MIN_S: Final = 1.0  # the least wait: for a Retry-After of 0 or a date in the past
RETRY_AFTER_MAX_S: Final = 86_400.0
_SECONDS: Final = re.compile(r"\d+\.?\d*")
BACKOFF_FIRST_S: Final = 5.0
BACKOFF_FACTOR: Final = 3.0
BACKOFF_MAX_S: Final = 3_600.0
SERVER_ERROR_BACKOFF_MAX_S: Final = 30.0
# A host that never responded is tried twice more soon, then seldom: most often its name is misspelled.
NEVER_RESPONDED_BACKOFFS_S: Final = (1.0, 4.0)
NEVER_RESPONDED_LONG_S: Final = 900.0


def politeness_key(host: str, options: PolitenessOptions) -> str:
    """The politeness key of a host: the name under which the delay after a request to `host` holds."""
    return host if options.key == "host" else registrable_domain(host)


_OVERRIDABLE: Final = ("delay_s", "max_crawl_delay_s", "connections_per_host", "robots", "adaptive")


def overridden(options: PolitenessOptions, override: Override) -> PolitenessOptions:
    """The options of a host with an override."""
    given = {name: value for name in _OVERRIDABLE if (value := getattr(override, name)) is not None}
    return replace(options, **given) if given else options


def host_delay(options: PolitenessOptions, crawl_delay_s: float | None, response_s: float = 0.0) -> float:
    """Seconds between the end of a response and the next request. A Crawl-delay raises it, up to `max_crawl_delay_s`.
    A slow response (`response_s`) raises it if `adaptive`. A delay of 0 without Crawl-delay stays 0.
    """
    delay = options.delay_s
    if crawl_delay_s is not None and options.robots == "obey":
        delay = max(delay, min(crawl_delay_s, options.max_crawl_delay_s))
    if options.adaptive and delay > 0:
        delay = max(delay, min(ADAPTIVE_FACTOR * response_s, ADAPTIVE_MAX_S))
    return delay


def address_delay(options: PolitenessOptions) -> float:
    """Seconds between requests to one IP address. If not set: 0.25 s, or the host's delay if that is less."""
    if options.address_delay_s is not None:
        return options.address_delay_s
    return min(0.25, options.delay_s)


def address_width(options: PolitenessOptions) -> int:
    """Most requests in flight to one IP address that has no delay."""
    if options.connections_per_address is not None:
        return options.connections_per_address
    return max(4, options.connections_per_host)


@dataclass(frozen=True, slots=True)
class PolitenessState:
    """Rate limit of one politeness key, origin or IP address."""

    open_mono: float = 0.0  # when the next request may start
    in_flight: int = 0
    failures: int = 0  # in succession
    reason: str = ""  # of the back-off; "" if there is only the delay

    def opens_at(self, now_mono: float, *, delay_s: float, width: int) -> float | None:
        """When a request may start: None for now, infinity if one in flight must end first."""
        if self.in_flight >= (1 if delay_s > 0 else width):
            return float("inf")
        return None if self.open_mono <= now_mono else self.open_mono

    def began(self) -> "PolitenessState":
        return PolitenessState(self.open_mono, self.in_flight + 1, self.failures, self.reason)

    def ended(self, now_mono: float, *, delay_s: float) -> "PolitenessState":
        """The state after a request ended with any result: the delay starts."""
        guard = CLOCK_GUARD_S if delay_s > 0 else 0.0
        return PolitenessState(
            max(self.open_mono, now_mono + delay_s + guard), self.in_flight - 1, self.failures, self.reason
        )

    def abandoned(self) -> "PolitenessState":
        """The state after a request that was begun was never sent: there is no delay."""
        return replace(self, in_flight=self.in_flight - 1)

    def backed_off(self, until_mono: float, reason: str) -> "PolitenessState":
        """The state closed until `until_mono`, or longer if it was closed for longer before."""
        return replace(self, open_mono=max(self.open_mono, until_mono), failures=self.failures + 1, reason=reason)

    def recovered(self) -> "PolitenessState":
        """The state after a good response: the back-off is over."""
        return self if self.failures == 0 and not self.reason else replace(self, failures=0, reason="")


OPEN: Final = PolitenessState()


def backoff_s(failures: int, rng: random.Random, *, ever_responded: bool) -> float:
    """Seconds to back off after failure number `failures` + 1 in a row: exponential, with up to a quarter of jitter."""
    if not ever_responded:
        first = NEVER_RESPONDED_BACKOFFS_S
        return first[failures] if failures < len(first) else NEVER_RESPONDED_LONG_S * (1 + rng.random() / 4)
    base = min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** min(failures, 20), BACKOFF_MAX_S)
    return base * (1 + rng.random() / 4)


def server_error_backoff_s(times: int) -> float:
    """Seconds to back off, for the `times`th time, from a host with status 500 or similar for many URLs in succession.

    At most half a minute, because a broken part of a site must not delay the rest of it for hours.
    """
    return min(BACKOFF_FIRST_S * BACKOFF_FACTOR ** min(times - 1, 20), SERVER_ERROR_BACKOFF_MAX_S)


def throttled_backoff_s(failures: int, wait_s: float | None, rng: random.Random) -> float:
    """Seconds to back off after a 429 or 503, number `failures` + 1 in a row. `wait_s` is its Retry-After.

    If a server still refuses after the time that it gave itself, the exponential back-off applies as well. Retry-After
    0 must not cause a loop of requests.
    """
    if wait_s is None:
        return backoff_s(failures, rng, ever_responded=True)
    if failures == 0:
        return max(wait_s, RETRY_AFTER_MIN_S)
    return max(wait_s, backoff_s(failures - 1, rng, ever_responded=True))


def retry_after_s(head: Head, now_at: float) -> float | None:
    """The Retry-After of a response in seconds (RFC 9110 §10.2.3), at most a day; None without a usable one.

    A date is compared with the response's own Date if it has one, since a wrong clock makes both wrong. Of several
    fields the longest wait counts. A fraction of a second, which the RFC does not allow, is rounded up.
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
