"""The HTTP client put together from settings: resolver, dialer, pool, fetcher. Part of the composition root.

A crawl and `crawler fetch` get theirs here, so that what the one shows is what the other does. It does not know what is
asked. Invariant: nothing is dialled that the settings' address policy has not passed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from crawler import descriptors
from crawler.core.clock import Clock
from crawler.core.models import Origin
from crawler.descriptors import connections_within
from crawler.fetch.cookies import CookieJar
from crawler.fetch.credentials import OriginCredentials
from crawler.fetch.fetcher import AddressLimits, Fetcher
from crawler.fetch.limits import Bandwidth, ByteBudget
from crawler.fetch.net.address import AddressPolicy
from crawler.fetch.net.dial import NetworkDialer
from crawler.fetch.net.proxy import Proxy
from crawler.fetch.net.resolver import AresLookup, CachingResolver, Resolver
from crawler.fetch.net.tls import TlsProfile
from crawler.fetch.pool import Pool
from crawler.fetch.pool_statistics import OnEvent
from crawler.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Client:
    """The parts, as far as others reach them."""

    resolver: CachingResolver
    policy: AddressPolicy
    bandwidth: Bandwidth
    pool: Pool
    fetcher: Fetcher
    budget: ByteBudget
    cookies: CookieJar | None

    async def close(self) -> None:
        """Close every connection, then the resolver."""
        await self.fetcher.close()
        await self.resolver.close()


def make_client(
    settings: Settings,
    *,
    clock: Clock,
    gate: AddressLimits,
    memory: int,
    spool_directory: str | None,
    on_event: OnEvent | None = None,
    permits: Callable[[Origin], bool] = lambda origin: True,
    budget: ByteBudget | None = None,
    first_connection_id: int = 1,
    cookies: CookieJar | None = None,
    tap_resolver: Callable[[CachingResolver], Resolver] = lambda resolver: resolver,
    dialer_class: Callable[..., NetworkDialer] = NetworkDialer,
) -> Client:
    """Build it inside the running event loop. `memory` is the budget of bytes held; `budget` and `cookies` are of the
    client that this one takes over from; `permits` is asked before each request; `tap_resolver` and `dialer_class`
    serve to look on. Raises LocalProtocolError for fields that cannot be sent, and what TlsProfile raises.
    """
    fetch, network = settings.fetch_options(), settings.network_options()
    descriptors.raise_limit(fetch.connections)
    fetch = replace(fetch, connections=connections_within(descriptors.limit(), fetch.connections))
    lookup = AresLookup(network.nameservers, family=network.address_family, timeout_s=network.dns_timeout_s)
    resolver = CachingResolver(lookup, network, clock)
    policy = AddressPolicy(network.allow_private)
    dialer = dialer_class(
        resolver=tap_resolver(resolver),
        policy=policy,
        tls=TlsProfile(settings.tls_options(), network),
        options=fetch,
        network=network,
        clock=clock,
    )
    budget = ByteBudget(memory) if budget is None else budget
    bandwidth = Bandwidth(fetch.bandwidth, fetch.bandwidth_per_host)
    pool = Pool(
        dialer=dialer,
        options=fetch,
        clock=clock,
        connections_per_host=settings.politeness_options().connections_per_host,
        connections_per_address=settings.address_politeness().connections_per_address,
        budget=budget,
        bandwidth=bandwidth,
        on_event=on_event,
        first_id=first_connection_id,
    )
    if cookies is None and fetch.cookies == "session":
        cookies = CookieJar()
    fetcher = Fetcher(
        pool=pool,
        options=fetch,
        identity=settings.identity_options(),
        gate=gate,
        clock=clock,
        budget=budget,
        spool_directory=spool_directory,
        permits=permits,
        personal=OriginCredentials.of(
            settings.secrets,
            cookies=cookies,
            proxy=None if network.proxy is None else Proxy(network.proxy),
            clock=clock,
        ),
    )
    return Client(resolver, policy, bandwidth, pool, fetcher, budget, cookies)
