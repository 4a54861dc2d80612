"""Which addresses may be dialled: global unicast ones, and the networks that the operator allows.

Invariant: an IPv6 address that leads to an IPv4 address (NAT64, 6to4, Teredo, IPv4-compatible) is refused if that
IPv4 address is.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_V4_REFUSED: Final = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network (RFC 791)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "carrier-grade NAT (RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "IETF protocol assignments (RFC 6890)"),
        ("192.0.2.0/24", "documentation (RFC 5737)"),
        ("192.88.99.0/24", "6to4 relay anycast (RFC 7526)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("198.18.0.0/15", "benchmarking (RFC 2544)"),
        ("198.51.100.0/24", "documentation (RFC 5737)"),
        ("203.0.113.0/24", "documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)
# Only 2000::/3 is global unicast (RFC 4291 §2.4): these are the parts of it that are not, and names for what lies
# outside.
_V6_REFUSED: Final = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified (RFC 4291)"),
        ("::1/128", "loopback (RFC 4291)"),
        ("64:ff9b:1::/48", "local-use NAT64 (RFC 8215)"),  # whatever IPv4 address is inside
        ("100::/64", "discard-only (RFC 6666)"),
        ("100:0:0:1::/64", "dummy prefix (RFC 9780)"),
        ("2001::/23", "IETF protocol assignments (RFC 2928)"),
        ("2001:db8::/32", "documentation (RFC 3849)"),
        ("3fff::/20", "documentation (RFC 9637)"),
        ("5f00::/16", "segment routing (RFC 9602)"),
        ("fc00::/7", "unique local (RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "site-local (RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1
_6TO4: Final = IPv6Network("2002::/16")  # RFC 3056 §2
_TEREDO: Final = IPv6Network("2001::/32")  # RFC 4380 §4
_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291 §2.5.5.1

Address = IPv4Address | IPv6Address


class AddressDenied(Exception):
    """The address may not be dialled; the message says why."""


def embedded(address: IPv6Address) -> tuple[str, tuple[IPv4Address, ...]] | None:
    """The kind of an IPv6 address that carries IPv4 addresses, and those addresses; None if it carries none.

    IPv4-mapped addresses are not among them: the kernel itself dials those over IPv4.
    """
    value = int(address)
    if address in _NAT64:
        return "NAT64", (IPv4Address(value & 0xFFFFFFFF),)
    if address in _6TO4:
        return "6to4", (IPv4Address(value >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:  # the server, and the client with its bits inverted
        return "Teredo", (IPv4Address(value >> 64 & 0xFFFFFFFF), IPv4Address(~value & 0xFFFFFFFF))
    if address in _COMPATIBLE and value > 1:
        return "IPv4-compatible", (IPv4Address(value),)
    return None


class AddressPolicy:
    """Decides which addresses may be dialled. `allow` lists special networks that may be ("127.0.0.0/8", "fd00::/8").

    An allowed network covers its own addresses and their IPv4-mapped form, which is the same packet. It does not cover
    the NAT64, 6to4 or Teredo addresses that lead there through somebody else's gateway. Raises ValueError for text that
    is no network.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allow: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(text, strict=False) for text in allow)

    def check(self, address: str | Address) -> None:
        """Return if the address may be dialled. Raises AddressDenied, or ValueError if it is no IP address."""
        ip = ip_address(address) if isinstance(address, str) else address
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            if self._is_allowed(ip):
                return
            mapped = ip.ipv4_mapped
            if not self._is_allowed(mapped) and (why := _refusal(mapped)) is not None:
                raise AddressDenied(f"{ip} is {mapped} (IPv4-mapped): {why}")
            return
        if not self._is_allowed(ip) and (why := _refusal(ip)) is not None:
            raise AddressDenied(f"{ip}: {why}")

    def _is_allowed(self, ip: Address) -> bool:
        return any(ip in network for network in self._allow)


def _refusal(ip: Address) -> str | None:
    """Why an address may not be dialled; None if it may."""
    if isinstance(ip, IPv4Address):
        for network4, what in _V4_REFUSED:
            if ip in network4:
                return what
        return None
    hidden = embedded(ip)
    if hidden is not None:
        form, addresses = hidden
        for inner in addresses:
            why = _refusal(inner)
            if why is not None:
                return f"{form} address of {inner}: {why}"
        return None
    for network6, what in _V6_REFUSED:
        if ip in network6:
            return what
    return None if ip in _GLOBAL_UNICAST else "not global unicast (RFC 4291 §2.4)"
