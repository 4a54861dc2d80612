"""How many connections file descriptors have room for."""

import resource

import pytest

from crawler.fetch.descriptors import RESERVED, connections_within, limit, raise_limit


@pytest.mark.parametrize(
    ("limit", "connections"),
    [
        (resource.RLIM_INFINITY, 512),
        (1_024, 512),
        (512 + RESERVED, 512),
        (511 + RESERVED, 511),
        (RESERVED + 100, 100),
        (60, 30),
        (1, 1),
    ],
)
def test_what_the_crawler_itself_needs_is_left_to_it(limit: int, connections: int) -> None:
    """The reserve, or half of a limit that is lower than the reserve would leave."""
    assert connections_within(limit, 512) == connections


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1_024, 4_096, None),
        (256, 4_096, 512 + RESERVED),
        (256, 300, 300),
        (256, resource.RLIM_INFINITY, 512 + RESERVED),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None
) -> None:
    """No further than is needed, and never lowered."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: made.append(limits))
    raise_limit(512)
    assert made == ([] if raised is None else [(raised, hard)])


def test_a_limit_that_may_not_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a filter of system calls: it was tried once, and nobody is told of the refusal."""
    tried: list[tuple[int, int]] = []

    def refuse(what: int, limits: tuple[int, int]) -> None:
        tried.append(limits)
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_limit(512)
    assert tried == [(512 + RESERVED, 4_096)]
    assert connections_within(limit(), 512) == 160
