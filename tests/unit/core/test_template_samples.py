"""Verdicts on URL templates: whether the sampled pages are alike, in whatever order they come."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core.url_templates import LEAST, SAMPLE, WORDS, PageSample, TemplateSample, is_sampled, rank_of, sketch

MONTHS = [f"month{n}".encode() for n in range(12)]
POOL = [f"w{n}".encode() for n in range(5_000)]
Words = Callable[[int], set[bytes]]


def calendar(n: int) -> set[bytes]:
    return {b"calendar", b"no", b"events", MONTHS[n % 12], f"{2000 + n // 12}".encode()}


def article(n: int) -> set[bytes]:
    return set(random.Random(n).sample(POOL, 120))


def facets(n: int) -> set[bytes]:
    """A list of some of forty goods."""
    return {b"our", b"goods", *random.Random(n).sample(POOL[:40], 15)}


def entry(n: int) -> set[bytes]:
    """Hundreds of words of navigation, and twenty of its own."""
    return {*POOL[:180], *(f"entry{n}word{m}".encode() for m in range(20))}


def sample_of(words: Words, pages: range) -> TemplateSample:
    sample = TemplateSample()
    for n in pages:
        sample.add(PageSample(rank_of(f"/page/{n}"), sketch(words(n))))
    return sample


@pytest.mark.parametrize("words", [calendar, facets, lambda n: {b"not", b"found"}, lambda n: set()])
def test_pages_with_few_words_of_their_own_are_alike(words: Words) -> None:
    """Months, choices among few goods, error pages, pages without words."""
    assert sample_of(words, range(400)).is_alike


@pytest.mark.parametrize("words", [article, entry])
def test_pages_with_words_of_their_own_are_different(words: Words) -> None:
    """Also if most of each page is the same."""
    assert not sample_of(words, range(400)).is_alike


def test_a_few_pages_give_no_verdict() -> None:
    """Fifteen identical pages are not alike yet, sixteen are."""
    assert not sample_of(calendar, range(LEAST - 1)).is_alike
    assert sample_of(calendar, range(LEAST)).is_alike


def test_a_fifth_of_different_pages_makes_a_template_different() -> None:
    """One article in three pages is enough, one in twenty is not."""
    assert not sample_of(lambda n: article(n) if n % 3 == 0 else calendar(n), range(600)).is_alike
    assert sample_of(lambda n: article(n) if n % 20 == 0 else calendar(n), range(600)).is_alike


@settings(max_examples=50, deadline=None)
@given(st.integers(LEAST, 120), st.randoms(use_true_random=False), st.sampled_from([calendar, article, facets, entry]))
def test_the_order_of_pages_changes_nothing(count: int, rng: random.Random, words: Words) -> None:
    """The sample and the verdict are the same for pages in any order."""
    pages = list(range(count))
    rng.shuffle(pages)
    straight, shuffled = sample_of(words, range(count)), TemplateSample()
    for n in pages:
        shuffled.add(PageSample(rank_of(f"/page/{n}"), sketch(words(n))))
    assert straight.pages == shuffled.pages
    assert straight.is_alike is shuffled.is_alike
    assert straight.alike_count == shuffled.alike_count


def test_the_sample_is_bounded() -> None:
    """It has at most SAMPLE pages, each with at most WORDS words."""
    sample = sample_of(lambda n: {f"{n}-{m}".encode() for m in range(1_000)}, range(1_000))
    assert len(sample.pages) == SAMPLE
    assert all(len(page.words) == WORDS for page in sample.pages)


def test_learned_words_are_new_once() -> None:
    """A page with goods that the sample lacks is new once, and the verdict stays."""
    sample = sample_of(facets, range(400))
    words = sketch([b"our", b"goods", *POOL[1_000:1_010]])
    assert sample.learns(words)
    assert not sample.learns(words)
    assert not sample.learns(sketch(facets(7)))
    assert sample.is_alike


def test_one_page_in_so_many_is_sampled() -> None:
    """One in 16, or one in 4 if the URL is suspicious; the first are among the second."""
    ranks = [rank_of(f"/a/{n}.html") for n in range(20_000)]
    plain = {rank for rank in ranks if is_sampled(rank, suspicious=False)}
    suspicious = {rank for rank in ranks if is_sampled(rank, suspicious=True)}
    assert 1_100 < len(plain) < 1_400
    assert 4_700 < len(suspicious) < 5_300
    assert plain < suspicious
