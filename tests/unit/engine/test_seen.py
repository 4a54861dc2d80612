"""What the reader remembers of links it has met."""

from crawler.engine.seen import MAX_URLS, RecentKeys, RecentUrls


def test_a_key_is_known_until_another_takes_its_slot() -> None:
    """Keys that share a slot never pass for each other; nor does the mark of an empty one."""
    keys = RecentKeys(bits=4)
    keys.add(5)
    assert keys.has(5)
    assert not keys.has(5 + 16)
    assert not keys.has(0)
    keys.add(5 + 16)
    assert not keys.has(5)


def test_urls_are_bounded() -> None:
    """Full, it begins anew with the URL that did not fit."""
    urls = RecentUrls()
    for n in range(MAX_URLS):
        urls.add(str(n))
    assert len(urls) == MAX_URLS
    urls.add("one more")
    assert urls == {"one more"}
