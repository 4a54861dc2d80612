"""Fingerprints: near for pages with the same words, far for others."""

import random
import time

from crawler.content.html.fingerprint import Fingerprint, fingerprint, simhash

URL = "https://example.org/no/such/page-123?q=term"


def page(*words: str) -> bytes:
    return f"<html><head><title>t</title><style>p {{ x }}</style></head><body><p>{' '.join(words)}</p></body>".encode()


def test_markup_scripts_and_the_words_of_the_url_do_not_count() -> None:
    """Two error pages that repeat the requested URL have the same words."""
    one = fingerprint(page("Nothing", "at", "/no/such/page-123", "<script>var x = 1</script>"), URL)
    other = fingerprint(page("nothing", "at", "<b>/other/thing</b>"), "https://example.org/other/thing")
    assert one == other
    assert one.words == {b"t", b"nothing", b"at"}


def test_pages_that_share_nearly_all_are_near() -> None:
    """One word in a hundred differs."""
    words = [f"word{n}" for n in range(100)]
    one, other = fingerprint(page(*words), URL), fingerprint(page(*words[1:], "another"), URL)
    assert one.is_near(other)
    assert (one.simhash ^ other.simhash).bit_count() <= 12


def test_pages_that_share_little_are_far() -> None:
    """Of a thousand pairs, none is near."""
    rng = random.Random(1)
    pages = [fingerprint(page(*(f"w{rng.randrange(3_000)}" for _ in range(200))), URL) for _ in range(46)]
    assert not any(one.is_near(other) for n, one in enumerate(pages) for other in pages[:n])


def test_empty_pages_are_near_only_to_empty_ones() -> None:
    """Two pages without words have the same words."""
    empty, other = fingerprint(b"", URL), fingerprint(page("a", "few", "words"), URL)
    assert empty.is_near(fingerprint(b"<p></p>", URL))
    assert not empty.is_near(other)


def test_columns_are_counted_right() -> None:
    """The sums are those of counting bit by bit."""
    words = [f"w{n}".encode() for n in range(301)]
    single = [simhash([word]) for word in words]
    expected = sum(1 << bit for bit in range(64) if 2 * sum(value >> bit & 1 for value in single) > len(words))
    assert expected == simhash(words)


def test_large_pages_are_cut() -> None:
    """Ten megabytes of words, or of unclosed markup, take no longer than the part that is read."""
    for body in (b"word%d " * 1_500_000, b"<" * 10_000_000, b"<script>" * 1_000_000):
        start = time.thread_time()
        fingerprint(body, URL)
        assert time.thread_time() - start < 0.5


def test_a_fingerprint_comes_back_as_it_was_stored() -> None:
    """Words beyond ASCII, and none at all."""
    for text in ("<p>Not found: nichts für dich, 0 Treffer".encode(), b"<p>"):
        found = fingerprint(text, "https://a.test/x")
        assert Fingerprint.from_bytes(found.as_bytes()) == found
