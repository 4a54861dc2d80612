"""The token bucket."""

import random

from crawler.fetch.limits import TokenBucket


def test_a_rested_bucket_gives_its_burst_at_once() -> None:
    """More than that is debt, paid off at its rate."""
    bucket = TokenBucket(rate=100, burst=50)
    assert bucket.spend(50, now_mono=10.0) == 10.0
    assert bucket.spend(100, now_mono=10.0) == 11.0
    assert bucket.clear_mono == 11.0


def test_rest_is_not_saved_up_beyond_the_burst() -> None:
    """An hour of silence allows no more than one burst."""
    bucket = TokenBucket(rate=100, burst=50)
    bucket.spend(10, now_mono=0.0)
    assert bucket.is_full(3_600.0)
    assert bucket.spend(150, now_mono=3_600.0) == 3_601.0
    assert not bucket.is_full(3_601.0)


def test_who_waits_until_it_is_clear_keeps_the_rate() -> None:
    """Whatever sizes come: never more than rate × time + burst + the piece that was on its way."""
    rng = random.Random(1)
    bucket = TokenBucket(rate=1_000, burst=500)
    now = spent = 0.0
    for _ in range(10_000):
        size = rng.randrange(1, 5_000)
        assert spent <= 1_000 * now + 500 + 1e-6
        spent += size
        now = max(now + rng.random() / 100, bucket.spend(size, now))
    assert spent > 0.95 * 1_000 * now
