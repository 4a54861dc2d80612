"""Blocks: which hosts a name covers, and that those have no turn."""

import pytest

from crawler.core.models import Origin
from crawler.engine.scheduling.blocklist import DOMAIN, HOST, Blocklist
from crawler.frontier.base import BlockedHost


def blocks(*names: str, kind: str = DOMAIN) -> Blocklist:
    made = Blocklist()
    made.load(BlockedHost(name, kind, 0.0, "") for name in names)
    return made


@pytest.mark.parametrize(
    ("name", "kind", "host", "covered"),
    [
        ("a.test", DOMAIN, "a.test", True),
        ("a.test", DOMAIN, "www.a.test", True),
        ("a.test", DOMAIN, "x.y.a.test", True),
        ("a.test", DOMAIN, "a.test.", True),
        ("a.test", DOMAIN, "www.a.test.", True),
        ("a.test", DOMAIN, "ba.test", False),
        ("a.test", DOMAIN, "test", False),
        ("a.test", HOST, "a.test", True),
        ("a.test", HOST, "www.a.test", False),
        ("192.0.2.1", HOST, "192.0.2.1", True),
        ("192.0.2.1", HOST, "9.192.0.2.1", False),
        ("[2001:db8::1]", HOST, "[2001:db8::1]", True),
        ("localhost", DOMAIN, "localhost", True),
    ],
)
def test_a_name_covers_itself_and_a_domain_what_is_below_it(name: str, kind: str, host: str, covered: bool) -> None:
    """Whole labels, with or without the root's dot."""
    made = blocks(name, kind=kind)
    assert (made.covers(host) is not None) is covered
    assert made.permits(Origin("https", host, 443)) is not covered


def test_the_nearest_name_is_given() -> None:
    """Whoever asks why hears of the block that is closest; taking it back leaves the other in force."""
    made = blocks("a.test", "www.a.test")
    covering = made.covers("www.a.test")
    assert covering is not None
    assert covering.name == "www.a.test"
    made.remove("www.a.test")
    assert not made.permits(Origin("https", "www.a.test", 443))
    made.remove("a.test")
    assert made.permits(Origin("https", "www.a.test", 443))


def test_a_block_becomes_wider_and_never_narrower() -> None:
    """Who is asked to leave a whole domain alone, having blocked one host of it, must; only unblocking takes back."""
    made = blocks("a.test", kind=HOST)
    made.add(BlockedHost("a.test", DOMAIN, 1.0, "they asked us to"))
    assert not made.permits(Origin("https", "www.a.test", 443))
    assert made.get("a.test") == BlockedHost("a.test", DOMAIN, 0.0, "they asked us to")
    made.add(BlockedHost("a.test", HOST, 2.0, ""))
    assert made.get("a.test") == BlockedHost("a.test", DOMAIN, 0.0, "they asked us to")
