"""Scope: each rule, and the rule that a refusal names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.core.enums import DenyReason, Source
from crawler.core.models import Denied
from crawler.core.options import NameSet, ScopeOptions, ScopeRule
from crawler.core.scope import MAX_REQUISITE_HOPS, Scope, ScopePatternError, compile_pattern, directory_of
from crawler.core.url import parse


def judge(
    scope: Scope, text: str, *, depth: int = 1, hop_path: str = "L", source: Source = Source.LINK
) -> Denied | None:
    href, origin = parse(text)
    return scope.judge(href, origin, depth=depth, hop_path=hop_path, source=source)


def reason(denied: Denied | None) -> DenyReason | None:
    return None if denied is None else denied.reason


@pytest.mark.parametrize(
    ("pattern", "href", "matches"),
    [
        ("e.org/a/*", "https://e.org/a/b", True),
        ("e.org/a/*", "https://e.org/a/b/c", False),
        ("e.org/a/**", "https://e.org/a/b/c?x=/y", True),
        ("e.org/**", "https://www.e.org/", False),
        ("*.e.org/**", "https://www.e.org/x", True),
        ("/private/**", "https://any.org:8443/private/x", True),
        ("/private/**", "https://any.org/x/private/x", False),
        ("http://e.org/**", "https://e.org/", False),
        ("**.pdf", "https://e.org/a/b.pdf", True),
        ("**.pdf", "https://e.org/a/b.pdf?x", False),
        ("e.org/page?", "https://e.org/page1", True),
        ("e.org/a.b", "https://e.org/aXb", False),
        (r"re:/\d{4}/", "https://e.org/2026/x", True),
        (r"re:/\d{4}/", "https://e.org/26/x", False),
    ],
)
def test_patterns(pattern: str, href: str, matches: bool) -> None:
    """Globs match the whole URL by path segments; "re:" is searched for."""
    assert bool(compile_pattern(pattern).search(href)) is matches


@pytest.mark.parametrize("pattern", ["re:(", ""])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    """It is an error, not a pattern that never matches."""
    with pytest.raises(ScopePatternError):
        compile_pattern(pattern)


_NAMES = st.integers(0, 400).map("h{}.test".format)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(_NAMES), st.lists(_NAMES), st.lists(_NAMES))
def test_a_set_of_names_has_the_names_it_was_made_of(some: list[str], others: list[str], asked: list[str]) -> None:
    """In whatever order and however often; so has what is read back, and the union of two."""
    names = NameSet.of(some)
    assert NameSet(names.content()) == names == NameSet.of(reversed([*some, *some]))
    assert (names == NameSet.of(others)) == (set(some) == set(others))
    assert len(names) == len(set(some))
    assert [name in names for name in asked] == [name in set(some) for name in asked]
    assert names | NameSet.of(others) == NameSet.of([*others, *some])


@pytest.mark.parametrize("mode", ["seed-hosts", "seed-domains"])
def test_a_redirect_of_a_seed_in_a_file_adds_its_place(mode: str) -> None:
    """As that of any seed."""
    scope = Scope(ScopeOptions(hosts=(mode,)), (), seed_names=NameSet.of(["a.test"]))
    wider = scope.widened("https://www.b.test/ https://a.test/")
    assert [one.has_host("www.b.test") for one in (scope, wider)] == [False, True]
    assert [one.has_host("x.b.test") for one in (scope, wider)] == [False, mode == "seed-domains"]
    assert wider.has_host("a.test")


def test_seed_hosts() -> None:
    """By default only the seeds' own hosts are in scope, on any port and scheme."""
    scope = Scope(ScopeOptions(), ["e.org"])
    assert judge(scope, "https://e.org/x") is None
    assert judge(scope, "http://e.org:8080/x") is None
    assert reason(judge(scope, "https://www.e.org/x")) is DenyReason.SCOPE_HOST


def test_seed_domains() -> None:
    """seed-domains has every host of the seeds' registrable domains in scope."""
    scope = Scope(ScopeOptions(hosts=("seed-domains",)), ["www.e.co.uk"])
    assert judge(scope, "https://a.b.e.co.uk/") is None
    assert reason(judge(scope, "https://other.co.uk/")) is DenyReason.SCOPE_HOST


@pytest.mark.parametrize(
    ("seed", "directory"),
    [
        ("https://e.org", "https://e.org/"),
        ("https://e.org/docs", "https://e.org/"),  # wget --no-parent reads it so too
        ("https://e.org/docs/", "https://e.org/docs/"),
        ("https://e.org:8443/docs/x.html?next=/a/b", "https://e.org:8443/docs/"),
    ],
)
def test_the_directory_of_a_seed(seed: str, directory: str) -> None:
    """All up to the last slash of the path."""
    assert directory_of(parse(seed)[0]) == directory


@pytest.mark.parametrize(
    ("url", "is_in_scope"),
    [
        ("https://e.org/docs/", True),
        ("https://e.org/docs/a/b.html?x=/y", True),
        ("https://e.org/docs?x=/docs/", False),
        ("https://e.org/docs2/", False),
        ("https://e.org/", False),
        ("https://e.org/other/docs/", False),
        ("http://e.org/docs/x", False),
        ("https://www.e.org/docs/x", False),
        ("https://f.org/", True),
        ("https://f.org/x/y", True),
    ],
)
def test_seed_prefix(url: str, is_in_scope: bool) -> None:
    """Only what is in the directory of a seed or below, at its origin."""
    directories = ["https://e.org/docs/", "https://f.org/"]
    scope = Scope(ScopeOptions(hosts=("seed-prefix",)), ["e.org", "f.org"], seed_directories=directories)
    denied = judge(scope, url)
    assert denied == (None if is_in_scope else Denied(DenyReason.SCOPE_HOST, "scope.hosts = seed-prefix"))
    assert judge(scope, url, source=Source.REQUISITE, hop_path="LE") is None
    assert judge(scope, url, source=Source.SEED, depth=0, hop_path="") is None
    assert [scope.has_host(host) for host in ("e.org", "www.e.org")] == [True, False]


def test_the_time_to_judge_does_not_grow_with_the_number_of_seeds() -> None:
    """A path has few directories above it: as many are looked up, of however many seeds."""

    class Counted(frozenset[str]):
        looked_up = 0

        def __contains__(self, item: object) -> bool:
            Counted.looked_up += 1
            return super().__contains__(item)

    directories = [f"https://e.org/{n}/" for n in range(50_000)]
    scope = Scope(ScopeOptions(hosts=("seed-prefix",)), ["e.org"], seed_directories=directories)
    scope.seed_directories = Counted(scope.seed_directories)
    assert judge(scope, "https://e.org/49999/a/b/c") is None
    assert judge(scope, "https://e.org/no/a/b/c") is not None
    assert Counted.looked_up <= 2 + 5


def test_what_a_redirect_of_a_seed_added_holds_in_every_mode() -> None:
    """Its directory, its host, its domain: whichever the scope follows from. An older store has only the host."""
    added = ("https://www.f.co.uk/docs/", "old.org")
    urls = ["https://www.f.co.uk/docs/x", "https://www.f.co.uk/x", "https://a.f.co.uk/", "https://old.org/"]
    for mode, in_scope in (("seed-prefix", "1000"), ("seed-hosts", "1101"), ("seed-domains", "1111")):
        for scope in (
            Scope(ScopeOptions(hosts=(mode,)), ["e.org"], added=added),
            Scope(ScopeOptions(hosts=(mode,)), ["e.org"]).widened(*added),
        ):
            assert [judge(scope, url) is None for url in urls] == [bit == "1" for bit in in_scope], mode


def test_listed_hosts() -> None:
    """Only the listed names count; "*." is every subdomain, not the name itself."""
    scope = Scope(ScopeOptions(hosts=("e.org", "*.f.org")), ["seed.org"])
    assert judge(scope, "https://e.org/") is None
    assert judge(scope, "https://a.b.f.org/") is None
    assert reason(judge(scope, "https://f.org/")) is DenyReason.SCOPE_HOST
    assert reason(judge(scope, "https://seed.org/")) is DenyReason.SCOPE_HOST
    assert not scope.follows_seeds


def test_adding_a_host_makes_a_new_scope() -> None:
    """Visits in flight keep the scope that they began with."""
    before = Scope(ScopeOptions(), ["e.org"])
    after = before.widened("www.e.org")
    assert after.has_host("www.e.org")
    assert not before.has_host("www.e.org")


def test_exclude_beats_include_and_names_its_place() -> None:
    """The rule that decided is named with file and line."""
    options = ScopeOptions(
        include=(ScopeRule("e.org/**", "crawler.toml:3"),), exclude=(ScopeRule("/private/**", "crawler.toml:4"),)
    )
    scope = Scope(options, ["e.org"])
    assert judge(scope, "https://e.org/x") is None
    denied = judge(scope, "https://e.org/private/x")
    assert denied == Denied(DenyReason.SCOPE_EXCLUDE, 'crawler.toml:4  exclude "/private/**"')
    assert reason(judge(Scope(options, ["f.org"]), "https://f.org/x")) is DenyReason.SCOPE_INCLUDE


def test_depth() -> None:
    """max_depth counts links; None is no limit; a seed is never too deep."""
    scope = Scope(ScopeOptions(max_depth=2), ["e.org"])
    assert judge(scope, "https://e.org/x", depth=2) is None
    assert reason(judge(scope, "https://e.org/x", depth=3)) is DenyReason.SCOPE_DEPTH
    assert judge(Scope(ScopeOptions(max_depth=None), ["e.org"]), "https://e.org/x", depth=999) is None
    assert judge(scope, "https://e.org/x", depth=9, source=Source.SEED) is None


def test_requisites_may_be_a_few_hops_out_of_scope() -> None:
    """Images, styles and what styles import are fetched from any host; links found there are judged as links."""
    scope = Scope(ScopeOptions(), ["e.org"])
    cdn = "https://cdn.net/x.css"
    assert judge(scope, cdn, hop_path="LE", source=Source.REQUISITE) is None
    assert judge(scope, cdn, hop_path="LER", source=Source.REDIRECT) is None
    assert judge(scope, cdn, hop_path="L" + "E" * MAX_REQUISITE_HOPS, source=Source.REQUISITE) is None
    too_far = judge(scope, cdn, hop_path="L" + "E" * (MAX_REQUISITE_HOPS + 1), source=Source.REQUISITE)
    assert reason(too_far) is DenyReason.SCOPE_DEPTH
    here = "https://e.org/x.css"
    assert judge(scope, here, hop_path="LLEEEEEE", depth=2, source=Source.REQUISITE) is None
    assert (
        reason(judge(scope, here, hop_path="L" + "E" * 20, depth=1, source=Source.REQUISITE)) is DenyReason.SCOPE_DEPTH
    )
    shallow = Scope(ScopeOptions(max_depth=0), ["e.org"])
    assert judge(shallow, here, hop_path="EEE", source=Source.REQUISITE) is None
    assert reason(judge(shallow, here, hop_path="EEEE", source=Source.REQUISITE)) is DenyReason.SCOPE_DEPTH
    endless = Scope(ScopeOptions(max_depth=None), ["e.org"])
    assert judge(endless, here, hop_path="E" * 60, source=Source.REQUISITE) is None
    assert reason(judge(scope, "https://cdn.net/page", hop_path="LEL")) is DenyReason.SCOPE_HOST
    off = Scope(ScopeOptions(requisites=False), ["e.org"])
    assert reason(judge(off, cdn, hop_path="LE", source=Source.REQUISITE)) is DenyReason.REQUISITES_OFF
    assert reason(judge(off, cdn, hop_path="LER", source=Source.REDIRECT)) is DenyReason.REQUISITES_OFF


def test_exclude_holds_for_requisites_and_seeds() -> None:
    """What the operator excluded is never fetched, whatever links to it."""
    scope = Scope(ScopeOptions(exclude=(ScopeRule("ads.net/**"),)), ["e.org"])
    denied = judge(scope, "https://ads.net/x.png", hop_path="LE", source=Source.REQUISITE)
    assert reason(denied) is DenyReason.SCOPE_EXCLUDE
    assert reason(judge(scope, "https://ads.net/", source=Source.SEED)) is DenyReason.SCOPE_EXCLUDE
