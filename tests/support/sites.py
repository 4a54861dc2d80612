"""The hosts that whole-program tests crawl, where they are, and the configuration that leads there."""

from tests.support.commands import Sections
from tests.support.nginx import Nginx

BARE, WWW, DOCS, OTHER, CDN = "alpha.test", "www.alpha.test", "docs.alpha.test", "beta.test", "cdn.gamma.test"
# Two hosts of one domain at two addresses, and another domain at the address of the first.
ADDRESS_OF = {BARE: "127.0.0.1", WWW: "127.0.0.1", DOCS: "127.0.0.2", OTHER: "127.0.0.1", CDN: "127.0.0.3"}


def sections(server: Nginx, *hosts: str, **keys: dict[str, object]) -> Sections:
    """A configuration that crawls `hosts` as fast as it can; `keys` are added to it, section by section."""
    base: dict[str, dict[str, object]] = {
        "crawl": {"seeds": [server.url(host) for host in hosts], "linger": "5s"},
        "scope": {},
        "politeness": {"delay": 0, "connections_per_host": 8},
        "network": {
            "allow_private": ["127.0.0.0/8"],
            "ca_file": server.ca_file,
            "resolve": {host: [address] for host, address in ADDRESS_OF.items()},
        },
    }
    return {name: base.get(name, {}) | keys.get(name, {}) for name in base | keys}
