"""The blocklist: which hosts a block covers, and which names it takes."""

import pytest

from crawler.core.models import Origin
from crawler.core.url import UrlError
from crawler.engine.scheduling.restrictions import DOMAIN, HOST, Blocklist, block_of, blocked_name
from crawler.frontier.base import BlockedHost


def blocklist_of(*names: str, kind: str = DOMAIN) -> Blocklist:
    blocklist = Blocklist()
    blocklist.load(BlockedHost(name, kind, 0.0, "") for name in names)
    return blocklist


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
def test_a_block_covers_its_name_and_that_of_a_domain_all_below_it(
    name: str, kind: str, host: str, covered: bool
) -> None:
    """Whole labels, with or without the root's dot."""
    blocklist = blocklist_of(name, kind=kind)
    assert (blocklist.covers(host) is not None) is covered
    assert blocklist.permits(Origin("https", host, 443)) is not covered


def test_of_several_blocks_the_nearest_is_named() -> None:
    """It is the block with the longest name. If it is removed, the other stays in force."""
    blocklist = blocklist_of("a.test", "www.a.test")
    covering = blocklist.covers("www.a.test")
    assert covering is not None
    assert covering.name == "www.a.test"
    blocklist.remove("www.a.test")
    assert not blocklist.permits(Origin("https", "www.a.test", 443))
    blocklist.remove("a.test")
    assert blocklist.permits(Origin("https", "www.a.test", 443))


def test_a_block_becomes_wider_and_never_narrower() -> None:
    """A block of a host may become one of its whole domain; only `unblock` goes the other way."""
    blocklist = blocklist_of("a.test", kind=HOST)
    blocklist.add(BlockedHost("a.test", DOMAIN, 1.0, "they asked us to"))
    assert not blocklist.permits(Origin("https", "www.a.test", 443))
    assert blocklist.get("a.test") == BlockedHost("a.test", DOMAIN, 0.0, "they asked us to")
    blocklist.add(BlockedHost("a.test", HOST, 2.0, ""))
    assert blocklist.get("a.test") == BlockedHost("a.test", DOMAIN, 0.0, "they asked us to")


def test_a_block_is_of_a_domain_or_of_one_host() -> None:
    """ "*.name" is the domain; it contradicts --host-only."""
    assert block_of("*.a.test", host_only=False, reason="", at=0.0).kind == DOMAIN
    assert block_of("a.test", host_only=True, reason="", at=0.0).kind == HOST
    with pytest.raises(UrlError, match="means all below"):
        block_of("*.a.test", host_only=True, reason="", at=0.0)
    for text in ("h*", "!!", "a.*.test", "*."):
        with pytest.raises(UrlError):
            block_of(text, host_only=False, reason="", at=0.0)


@pytest.mark.parametrize("text", ["2001:DB8::1", "[2001:db8::1]", "https://[2001:db8::1]/x", " fe80::1 "])
def test_an_ipv6_address_needs_no_brackets(text: str) -> None:
    """The status page and the logs have none; the store does."""
    block = block_of(text, host_only=False, reason="", at=0.0)
    assert block.name == blocked_name(text) == ("[fe80::1]" if "fe80" in text else "[2001:db8::1]")
    assert block.kind == HOST


def test_a_block_of_an_older_version_can_be_removed() -> None:
    """It may have a name that is refused today."""
    assert blocked_name("h*") == "h*"
    assert blocked_name("*.A.test.") == "a.test"
