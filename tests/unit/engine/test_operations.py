"""What operators do to a store: which hosts and URLs a takedown names, and what it says."""

import pytest

from crawler.core.url import UrlError
from crawler.engine.operations import TakedownTarget, host_ids, hosts_below, hosts_covered, takedown_result
from crawler.frontier.base import BlockedHost, Forgotten
from tests.support.engine import seed
from tests.support.memory_frontier import MemoryFrontier


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
    """A text with a path, a query or a scheme is a URL; a "*" in a path is a character like others."""
    assert TakedownTarget.of(text) == target


@pytest.mark.parametrize(
    "text",
    ["*.farm.test", "*", "!!", "h*", "https://h*/", "https://*.farm.test/x", "a.test:8443", "mailto:a@b.test", ""],
)
def test_a_takedown_of_anything_else_is_refused(text: str) -> None:
    """A pattern would be stored as a name that no host has; a host with a port would be erased on all ports."""
    with pytest.raises(UrlError):
        TakedownTarget.of(text)


async def test_a_takedown_says_which_hosts_it_leaves() -> None:
    """Hosts below a name are hosts of their own."""
    frontier = MemoryFrontier()
    await frontier.open()
    hosts = ("a.test", "x.a.test", "y.x.a.test", "ba.test")
    await frontier.add([seed(f"https://{host}/") for host in hosts] + [seed("http://x.a.test/")], now=0.0)
    target = TakedownTarget("a.test")
    assert await hosts_below(frontier, target) == 2
    assert await hosts_below(frontier, TakedownTarget.of("a.test/")) == 0
    assert takedown_result(target, Forgotten(3), 2) == {
        "target": "a.test", "urls": 3, "again": False, "hosts_below": 2,
    }  # fmt: skip


async def test_operations_name_hosts_as_people_do() -> None:
    """A name alone is that host on all its ports; "*." in front of it stands for all below it, but not for itself."""
    frontier = MemoryFrontier()
    await frontier.open()
    urls = ("https://a.test/", "http://a.test/", "https://x.a.test/", "https://ba.test/", "https://[::1]/")
    await frontier.add([seed(url) for url in urls], now=0.0)
    assert await host_ids(frontier, ["A.test"]) == (1, 2)
    assert await host_ids(frontier, ["*.a.test", "::1"]) == (3, 5)
    assert await host_ids(frontier, ["unknown.test"]) == ()
    assert await hosts_covered(frontier, BlockedHost("a.test", "host", 0.0, "")) == 2
    assert await hosts_covered(frontier, BlockedHost("a.test", "domain", 0.0, "")) == 3
