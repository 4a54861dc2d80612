"""Which addresses may be dialled."""

import pytest

from crawler.core.url import parse
from crawler.fetch.net.address import AddressDenied, AddressPolicy

REFUSED = [
    ("0.0.0.0", "this network"),
    ("10.1.2.3", "private"),
    ("100.64.0.1", "carrier-grade"),
    ("100.127.255.255", "carrier-grade"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.169.254", "link-local"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.1", "IETF"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4"),
    ("192.168.0.1", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "IPv4-compatible address of 127.0.0.1"),
    ("::ffff:127.0.0.1", "IPv4-mapped"),
    ("::ffff:10.0.0.1", "IPv4-mapped"),
    ("::ffff:169.254.169.254", "IPv4-mapped"),
    ("64:ff9b::7f00:1", "NAT64 address of 127.0.0.1"),
    ("64:ff9b::a9fe:a9fe", "NAT64 address of 169.254.169.254"),
    ("64:ff9b:1::7f00:1", "NAT64"),
    ("64:ff9b:1:7f00:0:100::", "NAT64"),
    ("64:ff9b:1::808:808", "NAT64"),
    ("100::1", "discard"),
    ("2001::1", "Teredo"),
    ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "Teredo address of 10.0.0.1"),
    ("2001:2::1", "IETF"),
    ("2001:10::1", "IETF"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4 address of 127.0.0.1"),
    ("2002:c0a8:101::1", "6to4 address of 192.168.1.1"),
    ("3fff::1", "documentation"),
    ("4000::1", "not global unicast"),
    ("5f00::1", "segment routing"),
    ("fc00::1", "unique local"),
    ("fd12:3456:789a::1", "unique local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
]

ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.31.196.1",
    "192.0.1.1",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2620:4f:8000::1",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize(("address", "why"), REFUSED)
def test_special_addresses_are_refused_with_their_reason(address, why):
    """Each special-purpose block, and each IPv6 form of one, is refused with its name."""
    with pytest.raises(AddressDenied, match=why):
        AddressPolicy().check(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_global_unicast_addresses_are_allowed(address):
    """The neighbours of special blocks, and IPv6 forms of global IPv4 addresses, may be dialled."""
    AddressPolicy().check(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
def test_every_spelling_of_loopback_is_refused(host):
    """Whatever spelling of 127.0.0.1 a URL has, the address that would be dialled is refused."""
    _, origin = parse(f"https://{host}/")
    with pytest.raises(AddressDenied, match="loopback"):
        AddressPolicy().check(origin.host.strip("[]"))


@pytest.mark.parametrize(
    ("allow", "address", "allowed"),
    [
        (("127.0.0.0/8",), "127.0.0.1", True),
        (("127.0.0.0/8",), "::ffff:127.0.0.1", True),
        (("::ffff:127.0.0.0/104",), "::ffff:127.0.0.1", True),
        (("127.0.0.0/8",), "10.0.0.1", False),
        (("127.0.0.0/8",), "64:ff9b::7f00:1", False),
        (("127.0.0.0/8",), "2002:7f00:1::", False),
        (("127.0.0.0/8",), "::127.0.0.1", False),
        (("127.0.0.0/8",), "::1", False),
        (("::1/128",), "::1", True),
        (("fd00::/8", "10.0.0.0/8"), "fd00::5", True),
        (("10.0.0.5/8",), "10.9.9.9", True),
    ],
)
def test_an_exception_allows_its_network_only(allow, address, allowed):
    """It covers its own addresses and their IPv4-mapped form, not addresses of gateways to them."""
    policy = AddressPolicy(allow)
    if allowed:
        policy.check(address)
    else:
        with pytest.raises(AddressDenied):
            policy.check(address)


def test_invalid_addresses_and_networks_raise():
    """A name is no address, and a malformed network is refused."""
    with pytest.raises(ValueError):
        AddressPolicy().check("localhost")
    with pytest.raises(ValueError):
        AddressPolicy(("127.0.0.0/99",))
