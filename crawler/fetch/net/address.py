"""In which order the addresses of a host are tried: the family that won last time first, those that were dead last.

It connects to nothing and checks no address (`dial`). Invariant: every address stays in the order; one that was dead is
only tried behind the others, so it is found again once it answers, or once nothing else does.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeVar

from crawler.core.clock import Clock

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
    """An address that may not be dialled; the message says why."""


def embedded(address: IPv6Address) -> tuple[str, tuple[IPv4Address, ...]] | None:
    """The IPv4 addresses that a packet to this IPv6 address would, or could, end up at, and the name of the form.

    None if it carries none. IPv4-mapped addresses are not here: the kernel itself dials those over IPv4.
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
    """`allow` lists networks ("127.0.0.0/8", "fd00::/8") that may be dialled although they are special.

    An exception covers exactly its own addresses and their IPv4-mapped spelling, which is the same packet; it does not
    open the NAT64, 6to4 or Teredo address that leads there through someone else's gateway. Raises ValueError for what
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
    """Why an address is not to be dialled, None if it is ordinary."""
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


MAX_ADDRESSES: Final = 6  # tried for one connection; more is a name's way of making us knock everywhere
DEAD_S: Final = 600.0  # for how long an address that did not answer is tried last
_REMEMBERED: Final = 16_384  # hosts, and dead addresses

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class AddressOrder:
    """Remembers, per host, which address family works, and per address and port, that nothing answered there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._v6_won: dict[str, bool] = {}
        self._dead_until: dict[tuple[str, int], float] = {}  # monotonic

    def of(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """The addresses to try, in order, at most MAX_ADDRESSES."""
        mixed = interleave(addresses, v6_first=self._v6_won.get(host))
        if self._dead_until:
            now = self._clock.mono()
            mixed.sort(key=lambda address: self._dead_until.get((address, port), 0.0) > now)
        return mixed[:MAX_ADDRESSES]

    def raced(self, host: str, port: int, addresses: Sequence[str], winner: str, dead: Iterable[str]) -> None:
        """`winner` connected; `dead` failed, or had not connected although they were tried before it."""
        self._dead_until.pop((winner, port), None)
        until = self._clock.mono() + DEAD_S
        for address in dead:
            _remember(self._dead_until, (address, port), until)
        if len({":" in address for address in addresses}) == 2:
            _remember(self._v6_won, host, ":" in winner)


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known.pop(key, None)
    while len(known) >= _REMEMBERED:
        del known[next(iter(known))]
    known[key] = value


def interleave(addresses: Sequence[str], *, v6_first: bool | None) -> list[str]:
    """Alternate between the families (RFC 8305 §4), keeping each one's order. `v6_first` None: as the first one is."""
    v6 = [a for a in addresses if ":" in a]
    v4 = [a for a in addresses if ":" not in a]
    if v6_first is None:
        v6_first = ":" in addresses[0]
    first, second = (v6, v4) if v6_first else (v4, v6)
    shared = min(len(first), len(second))
    mixed = [a for pair in zip(first, second, strict=False) for a in pair]
    return mixed + first[shared:] + second[shared:]
