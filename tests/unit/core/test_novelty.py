"""When a template is condemned: only if it brings nothing new and finds more of itself."""

import random

import pytest

from crawler.core.novelty import Evidence, Ledger
from crawler.core.options import TrapOptions
from crawler.core.trapshape import TrapKind

OPTIONS = TrapOptions(suspect_after=100, patience=1_000)
MONTHS = [f"month{n}".encode() for n in range(12)]
WORDS = [f"w{n}".encode() for n in range(5_000)]


def calendar(n: int, rng: random.Random) -> set[bytes]:
    return {b"calendar", b"no", b"events", MONTHS[n % 12], f"{2000 + n // 12}".encode()}


def article(n: int, rng: random.Random) -> set[bytes]:
    return set(rng.sample(WORDS, 120))


def walk(
    kind: TrapKind, pages: int, words: object, *, bred: int = 2, leads_out: bool = False, options: TrapOptions = OPTIONS
) -> tuple[int, int, Evidence | None]:
    """How many pages were fetched until the template was condemned, and how many were looked at."""
    ledger, rng, looked = Ledger(kind), random.Random(1), 0
    for n in range(pages):
        if ledger.count(kind, options):
            looked += 1
            text = words(n, rng)  # type: ignore[operator]
            evidence = ledger.judge(text, rng.getrandbits(64), leads_out=leads_out, bred=bred, options=options)
            if evidence is not None:
                return n + 1, looked, evidence
    return pages, looked, None


def test_an_endless_calendar_is_condemned_when_its_patience_ends() -> None:
    """Months and years are new words now and then, but hardly."""
    fetched, looked, evidence = walk(TrapKind.CALENDAR, 5_000, calendar)
    assert (fetched, looked) == (100, 60)
    assert evidence is not None
    assert evidence.as_dict()["kind"] == "calendar"
    assert evidence.known >= 18


@pytest.mark.parametrize("kind", list(TrapKind))
def test_pages_with_words_of_their_own_never_condemn_a_template(kind: TrapKind) -> None:
    """Whatever their URLs look like."""
    assert walk(kind, 5_000, article)[2] is None


def test_known_words_that_lead_to_new_places_are_worth_fetching() -> None:
    """An index is made of known words."""
    assert walk(TrapKind.FACETS, 5_000, calendar, leads_out=True)[2] is None


def test_what_is_finite_is_fetched_to_its_end() -> None:
    """Pages that all look the same, but find no more of themselves."""
    assert walk(TrapKind.CALENDAR, 5_000, calendar, bred=0)[2] is None


def test_a_template_without_a_sign_of_a_trap_has_more_patience() -> None:
    """Ten times as much here."""
    assert walk(TrapKind.PLAIN, 5_000, calendar)[0] == 1_000


def test_few_pages_of_a_good_template_are_looked_at() -> None:
    """A sample each time it has doubled: that is what keeps it cheap."""
    fetched, looked, _ = walk(TrapKind.PLAIN, 50_000, article)
    assert looked < 0.01 * fetched


@pytest.mark.parametrize("patience", [1, 2, 3, 7])
def test_short_patience_still_judges(patience: int) -> None:
    """With room for a few pages only, so many are judged."""
    options = TrapOptions(suspect_after=patience, patience=patience)
    fetched, _, evidence = walk(TrapKind.CALENDAR, 500, lambda n, rng: {b"a"}, options=options)
    assert evidence is not None
    assert fetched <= max(4, patience)


def test_a_page_read_after_its_sample_ended_condemns_nothing() -> None:
    """Large pages are read in threads, and come when the verdict was already given: a few known ones among many that
    were not said nothing then, and the last one must not be taken for a sample of its own.
    """
    ledger, rng, late = Ledger(TrapKind.DEEP), random.Random(1), []
    for n in range(OPTIONS.suspect_after):
        if not ledger.count(TrapKind.DEEP, OPTIONS):
            continue
        if n in (80, 85, 90):
            late.append(calendar(n, rng))
            continue
        text = calendar(n, rng) if n % 4 == 0 else article(n, rng)
        assert ledger.judge(text, rng.getrandbits(64), leads_out=False, bred=2, options=OPTIONS) is None
    for text in late:
        assert ledger.judge(text, rng.getrandbits(64), leads_out=False, bred=2, options=OPTIONS) is None


def test_a_sample_of_which_most_is_missing_condemns_nothing() -> None:
    """Answers that are no HTML, or are still being read."""
    ledger, rng = Ledger(TrapKind.CALENDAR), random.Random(1)
    for n in range(OPTIONS.suspect_after):
        if ledger.count(TrapKind.CALENDAR, OPTIONS) and (n < 80 or n > 95):
            assert ledger.judge(calendar(n, rng), 0, leads_out=False, bred=2, options=OPTIONS) is None
