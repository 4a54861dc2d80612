"""What operators name: whole hosts and URLs to take down or to block. Nothing else is taken for one."""

import pytest

from crawler.core.url import UrlError
from crawler.engine.operations import TakedownTarget, told_of
from crawler.engine.scheduling.blocklist import DOMAIN, HOST, block_of, blocked_name
from crawler.frontier.base import Forgotten
from crawler.inspection.log.query import host_names


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a.test", TakedownTarget("a.test")),
        (" A.Test ", TakedownTarget("a.test")),
        ("b\u00fccher.test", TakedownTarget("xn--bcher-kva.test")),
        ("[::1]", TakedownTarget("[::1]")),
        ("127.1", TakedownTarget("127.0.0.1")),
        ("a.test/", TakedownTarget("a.test", "https://a.test/")),
        ("http://a.test", TakedownTarget("a.test", "http://a.test/")),
        ("a.test?id=1", TakedownTarget("a.test", "https://a.test/?id=1")),  # not the whole host
        ("a.test#x", TakedownTarget("a.test", "https://a.test/")),
        ("https://a.test:8443/a*", TakedownTarget("a.test", "https://a.test:8443/a*")),
    ],
)
def test_a_takedown_names_one_host_or_one_url(text: str, target: TakedownTarget) -> None:
    """What has a path, a query or a scheme is a URL; a "*" in a path is a character like others."""
    assert TakedownTarget.of(text) == target


@pytest.mark.parametrize(
    "text",
    ["*.farm.test", "*", "!!", "h*", "https://h*/", "https://*.farm.test/x", "a.test:8443", "mailto:a@b.test", ""],
)
def test_what_is_no_host_and_no_url_is_not_taken_down(text: str) -> None:
    """A pattern would be stored as a name that nobody has; of a host with a port more than it says would go."""
    with pytest.raises(UrlError):
        TakedownTarget.of(text)


def test_a_takedown_says_what_it_left() -> None:
    """Hosts below a name are hosts of their own."""
    hosts = ["a.test", "x.a.test", "x.a.test", "y.x.a.test", "ba.test"]
    assert told_of(TakedownTarget("a.test"), Forgotten(3), hosts) == {
        "target": "a.test", "urls": 3, "again": False, "hosts_below": 2,
    }  # fmt: skip
    assert told_of(TakedownTarget("a.test", "https://a.test/"), Forgotten(again=True), hosts)["hosts_below"] == 0


def test_a_block_means_a_domain_or_a_host_alone() -> None:
    """ "*.name" is the domain; it contradicts --host-only."""
    assert block_of("*.a.test", host_only=False, reason="", at=0.0).kind == DOMAIN
    assert block_of("a.test", host_only=True, reason="", at=0.0).kind == HOST
    with pytest.raises(UrlError, match="means all below"):
        block_of("*.a.test", host_only=True, reason="", at=0.0)
    for text in ("h*", "!!", "a.*.test", "*."):
        with pytest.raises(UrlError):
            block_of(text, host_only=False, reason="", at=0.0)


def test_a_block_that_an_older_version_took_can_be_taken_back() -> None:
    """It may have a name that is refused today."""
    assert blocked_name("h*") == "h*"
    assert blocked_name("*.A.test.") == "a.test"


def test_hosts_that_are_searched_for_are_spelt_as_the_store_has_them() -> None:
    """With "*." for all below; other patterns would find nothing, and say so as if there were nothing."""
    asked = ("A.test", "*.B\u00fccher.test", "::1", "[::1]", "https://c.test/x")
    assert host_names(asked) == ("a.test", "*.xn--bcher-kva.test", "::1", "::1", "c.test")
    with pytest.raises(UrlError):
        host_names(("h*",))
