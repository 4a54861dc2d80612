"""Rate limit of one IP address: delay, width, and what is remembered of it."""

import math

from crawler.core.options import PolitenessOptions
from crawler.core.politeness import CLOCK_GUARD_S
from crawler.engine.scheduling import restrictions
from crawler.engine.scheduling.restrictions import AddressRateLimiter
from tests.support.fetching import FakeClock

A, B = "192.0.2.1", "192.0.2.2"


def limiter_of(clock: FakeClock, **options: float) -> AddressRateLimiter:
    return AddressRateLimiter(PolitenessOptions(**options), clock)


def test_with_a_delay_one_request_is_in_flight_to_an_address() -> None:
    """While it is in flight, nobody knows when the address opens; during the delay everybody does."""
    clock = FakeClock(100.0)
    limiter = limiter_of(clock, delay_s=1.0, address_delay_s=0.25)
    assert limiter.enter(A) is None
    assert limiter.enter(A) == math.inf
    assert limiter.opens_at(A) == math.inf
    clock.time = 103.0
    limiter.leave(A)
    assert limiter.enter(A) == 103.25 + CLOCK_GUARD_S
    clock.time = 103.25 + CLOCK_GUARD_S
    assert limiter.enter(A) is None


def test_a_refused_request_does_not_count() -> None:
    """One `leave` ends one `enter` that succeeded, however many were refused in between."""
    clock = FakeClock()
    limiter = limiter_of(clock, delay_s=1.0)
    limiter.enter(A)
    for _ in range(3):
        assert limiter.enter(A) is not None
    limiter.leave(A)
    clock.time += 1.0
    assert limiter.enter(A) is None


def test_each_address_has_its_own_limit() -> None:
    """A request to one does not delay another."""
    limiter = limiter_of(FakeClock(), delay_s=1.0)
    assert limiter.enter(A) is None
    assert limiter.enter(B) is None


def test_at_delay_0_the_width_counts() -> None:
    """As many requests as connections_per_address are in flight at once, and the next as soon as one has ended."""
    limiter = limiter_of(FakeClock(), delay_s=0.0, connections_per_address=3)
    assert [limiter.enter(A) for _ in range(4)] == [None, None, None, math.inf]
    limiter.leave(A)
    assert limiter.enter(A) is None


def test_on_leave_gets_the_time_at_which_the_address_opens() -> None:
    """The ready queue then lets the next key use it."""
    clock = FakeClock(50.0)
    told = []
    options = PolitenessOptions(delay_s=1.0, address_delay_s=0.5)
    limiter = AddressRateLimiter(options, clock, lambda address, opens: told.append((address, opens)))
    limiter.enter(A)
    clock.time = 52.0
    limiter.leave(A)
    assert told == [(A, 52.5 + CLOCK_GUARD_S)]


def test_addresses_whose_delay_is_over_are_forgotten() -> None:
    """Memory stays bounded; addresses with a request in flight or a running delay are kept."""
    clock = FakeClock()
    limiter = limiter_of(clock, delay_s=1.0)
    limiter.enter("busy")
    for n in range(restrictions._PRUNE_OVER - 1):
        limiter.enter(str(n))
        limiter.leave(str(n))
    clock.time += 10.0
    limiter.enter("recent")
    limiter.leave("recent")
    assert set(limiter._states) == {"busy", "recent"}
    assert limiter.opens_at("busy") == math.inf
    assert limiter.opens_at("recent") is not None


def test_after_a_restart_every_address_is_delayed_first() -> None:
    """An earlier run may have sent it a request a moment ago."""
    clock = FakeClock(100.0)
    limiter = limiter_of(clock, delay_s=0.1, address_delay_s=8.0)
    limiter.delay_all()
    assert limiter.enter(A) == 108.0 + CLOCK_GUARD_S
    clock.time = 108.0 + CLOCK_GUARD_S
    assert limiter.enter(A) is None
    assert limiter.enter(B) is None
