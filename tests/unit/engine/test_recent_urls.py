"""Keys and URLs stored lately, and counts of in-links."""

from crawler.engine.pages.recent_urls import IN_LINK_PAGES, MAX_URLS, InLinks, RecentKeys, RecentUrls


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
    """When it is full it is emptied, and has the next URL only."""
    urls = RecentUrls()
    for n in range(MAX_URLS):
        urls.add(str(n))
    assert len(urls) == MAX_URLS
    urls.add("one more")
    assert urls == {"one more"}


def test_in_links_continue_from_stored_counters() -> None:
    """A stored table of another size is ignored; a counter that was taken is 0."""
    links = InLinks(bits=4)
    links.note([1, 2, 2])
    assert links.is_dirty
    again, other = InLinks(bits=4), InLinks(bits=5)
    again.load(links.dump())
    other.load(links.dump())
    assert (again.take(1), again.take(2), again.take(2)) == (IN_LINK_PAGES, 2 * IN_LINK_PAGES, 0)
    assert other.take(1) == 0
