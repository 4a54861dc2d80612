"""The URL policy: which rules of robots.txt are cached."""

from crawler.content.robots_txt import RobotsTxt
from crawler.core.enums import DenyReason
from crawler.core.models import Origin, RobotsRecord
from crawler.core.options import ScopeOptions
from crawler.core.scope import Scope
from crawler.engine.pages.url_policy import RobotsCache, UrlPolicy
from crawler.engine.scheduling.host import Host, PolitenessKey

RULES = RobotsTxt.parse(b"User-agent: *\nDisallow: /private").rules_for("bot")


def host(n: int) -> Host:
    origin = Origin("https", f"h{n}.test", 443)
    return Host(n, origin, PolitenessKey(origin.host, 0.0), robots=RobotsRecord("rules", 200, None, 0.0, 1e12))


def test_the_least_recently_used_rules_are_dropped() -> None:
    """The cache is bounded; a host whose rules were dropped needs them."""
    cache = RobotsCache("bot", budget_bytes=2 * RULES.size_bytes)
    url_policy = UrlPolicy(Scope(ScopeOptions(), []), cache, True)
    hosts = [host(n) for n in range(5)]
    for each in hosts:
        cache.put(each, RULES, stored=True)
        denied = url_policy.judge_robots(f"{each.origin}/private", each)
        assert denied is not None
        assert denied.reason is DenyReason.ROBOTS
        cache.use(hosts[0])
    assert [one.needs_rules for one in hosts] == [False, True, True, True, False]
    assert cache.bytes == sum(one.rules.size_bytes for one in hosts if one.rules is not None)


def test_rules_in_use_or_not_yet_stored_are_kept() -> None:
    """They cannot be read from the store yet, or a worker is about to judge by them."""
    cache = RobotsCache("bot", budget_bytes=1)
    leased, unstored, free = host(1), host(2), host(3)
    leased.leases = 1
    for each in (leased, unstored, free, host(4)):
        cache.put(each, RULES, stored=each is not unstored)
    assert [one.needs_rules for one in (leased, unstored, free)] == [False, False, True]
    cache.stored(unstored)
    cache.put(host(5), RULES, stored=True)
    assert unstored.needs_rules
