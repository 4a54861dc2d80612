"""The blocklist: hosts and domains that an operator blocked. No request goes to them until they are unblocked.

Invariant: what a name covers does not depend on the order in which blocks were added and removed.
"""

from collections.abc import Iterable
from dataclasses import asdict

from crawler.core.enums import DenyReason
from crawler.core.models import Origin
from crawler.core.url import UrlError, parse_seed, parse_typed
from crawler.frontier.base import BlockedHost

MAX_REASON = 1_000  # characters
HOST = "host"
DOMAIN = "domain"


def block_of(text: str, *, host_only: bool, reason: str, at: float) -> BlockedHost:
    """Make a block of a host, a domain or a URL, which stands for its host. The name is spelled as in URLs:
    IDNA-encoded, in lower case. An IP address is always a host. Raises UrlError.
    """
    bare = text.strip().removeprefix("*.")
    host = parse_seed(bare)[1].host.rstrip(".")
    if host_only and bare != text.strip():
        raise UrlError(DenyReason.URL_INVALID, f'"*." means all below {host}, --host-only means none of them')
    is_address = host.startswith("[") or host.replace(".", "").isdigit()
    return BlockedHost(host, HOST if host_only or is_address else DOMAIN, at, reason)


def blocked_name(text: str) -> str:
    """The name of a stored block, also one that only older versions allowed. Raises UrlError."""
    return parse_typed(text.strip().removeprefix("*."))[1].host.rstrip(".")


class Blocklist:
    """The current blocks, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, BlockedHost] = {}

    def load(self, blocks: Iterable[BlockedHost]) -> None:
        self._by_name = {block.name: block for block in blocks}

    def add(self, block: BlockedHost) -> None:
        """Add a block, joined with an earlier one of its name."""
        self._by_name[block.name] = block.joined_with(self._by_name.get(block.name))

    def remove(self, name: str) -> None:
        self._by_name.pop(name, None)

    def get(self, name: str) -> BlockedHost | None:
        """The block of exactly this name."""
        return self._by_name.get(name)

    def covers(self, host: str) -> BlockedHost | None:
        """The block that covers a host: of several the one with the longest name. A host block covers its name only."""
        if not self._by_name:
            return None
        block = self._by_name.get(host.rstrip("."))
        rest = host.rstrip(".")
        while block is None and "." in rest:
            rest = rest.partition(".")[2]
            above = self._by_name.get(rest)
            if above is not None and above.kind == DOMAIN:
                block = above
        return block

    def why_not(self, name: str) -> str:
        """A sentence for who wants to unblock a name that has no block of its own."""
        above = self.covers(name)
        return f"{name} is blocked by {above.name}" if above is not None else f"{name} is not blocked"

    def permits(self, origin: Origin) -> bool:
        """Whether requests to an origin are allowed."""
        return not self._by_name or self.covers(origin.host) is None

    def all(self) -> list[BlockedHost]:
        """All blocks, in order of their names."""
        return [self._by_name[name] for name in sorted(self._by_name)]


def block_result(block: BlockedHost, was: BlockedHost | None, origins: Iterable[Origin]) -> dict[str, object]:
    """The result of a command: a block, the number of `origins` that it covers, and the block of its name that there
    was before.
    """
    alone = Blocklist()
    alone.load([block])
    hosts = sum(not alone.permits(origin) for origin in origins)
    return asdict(block) | {"was": None if was is None else asdict(was), "hosts": hosts}
