"""The address gate: who may ask an address, and what is remembered of it."""

import math

from crawler.core.options import PolitenessOptions
from crawler.core.politeness import CLOCK_GUARD_S
from crawler.engine.scheduling import rate_limits as gate_module
from crawler.engine.scheduling.rate_limits import AddressRateLimiter
from tests.support.fetching import FakeClock

A, B = "192.0.2.1", "192.0.2.2"


def gate(clock: FakeClock, **options: float) -> AddressRateLimiter:
    return AddressRateLimiter(PolitenessOptions(**options), clock)


def test_under_a_delay_one_request_is_at_an_address() -> None:
    """Who comes meanwhile cannot be told when it opens; who comes in the delay can."""
    clock = FakeClock(100.0)
    shut = gate(clock, delay_s=1.0, address_delay_s=0.25)
    assert shut.enter(A) is None
    assert shut.enter(A) == math.inf
    assert shut.opens_at(A) == math.inf
    clock.time = 103.0
    shut.leave(A)
    assert shut.enter(A) == 103.25 + CLOCK_GUARD_S
    clock.time = 103.25 + CLOCK_GUARD_S
    assert shut.enter(A) is None


def test_a_refusal_takes_no_place() -> None:
    """One leave answers one granted enter, however many were refused in between."""
    clock = FakeClock()
    shut = gate(clock, delay_s=1.0)
    shut.enter(A)
    for _ in range(3):
        assert shut.enter(A) is not None
    shut.leave(A)
    clock.time += 1.0
    assert shut.enter(A) is None


def test_addresses_do_not_know_of_each_other() -> None:
    """Each has its own turn."""
    shut = gate(FakeClock(), delay_s=1.0)
    assert shut.enter(A) is None
    assert shut.enter(B) is None


def test_at_delay_0_the_width_counts() -> None:
    """As many as connections_per_address are there at once, and the next as soon as one has left."""
    wide = gate(FakeClock(), delay_s=0.0, connections_per_address=3)
    assert [wide.enter(A) for _ in range(4)] == [None, None, None, math.inf]
    wide.leave(A)
    assert wide.enter(A) is None


def test_who_leaves_says_when_the_address_opens() -> None:
    """The scheduler calls the next in line for then."""
    clock = FakeClock(50.0)
    told = []
    options = PolitenessOptions(delay_s=1.0, address_delay_s=0.5)
    shut = AddressRateLimiter(options, clock, lambda address, opens: told.append((address, opens)))
    shut.enter(A)
    clock.time = 52.0
    shut.leave(A)
    assert told == [(A, 52.5 + CLOCK_GUARD_S)]


def test_addresses_whose_delay_is_over_are_forgotten() -> None:
    """Memory stays bounded; what is in flight or still in its delay is kept."""
    clock = FakeClock()
    shut = gate(clock, delay_s=1.0)
    shut.enter("busy")
    for n in range(gate_module._PRUNE_OVER - 1):
        shut.enter(str(n))
        shut.leave(str(n))
    clock.time += 10.0
    shut.enter("recent")
    shut.leave("recent")
    assert set(shut._turns) == {"busy", "recent"}
    assert shut.opens_at("busy") == math.inf
    assert shut.opens_at("recent") is not None


def test_after_a_restart_every_address_rests_first() -> None:
    """An earlier run may have asked it a moment ago."""
    clock = FakeClock(100.0)
    shut = gate(clock, delay_s=0.1, address_delay_s=8.0)
    shut.rest_all()
    assert shut.enter(A) == 108.0 + CLOCK_GUARD_S
    clock.time = 108.0 + CLOCK_GUARD_S
    assert shut.enter(A) is None
    assert shut.enter(B) is None
