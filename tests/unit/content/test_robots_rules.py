"""The rules of a robots.txt: verdicts as Protego's, at a low cost for any number of rules."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

from crawler.content.robots_txt import Rule, RuleSet

SITE = "https://example.org"


def rule_set(*lines: str) -> RuleSet:
    """Rules of "Allow: …" and "Disallow: …" lines."""
    return RuleSet(
        [Rule(number, line.startswith("Allow"), line.partition(":")[2].strip()) for number, line in enumerate(lines, 1)]
    )


def oracle(*lines: str) -> Protego:
    return Protego.parse("\n".join(("User-agent: *", *lines)))


_ATOMS = ["/", "a", "b", "*", "$", "%61", "%2F", "%2a", "%24", "%C3%A9", "?", "=", "&", "index.html"]
_PIECES = st.lists(st.sampled_from([*_ATOMS, "%", "é"]), max_size=7).map("".join)
_LINES = st.tuples(st.sampled_from(["Allow: ", "Disallow: "]), _PIECES).map("".join)
_PATHS = st.lists(st.sampled_from(_ATOMS), max_size=8).map("".join)


@settings(deadline=None, max_examples=1_500, derandomize=True)
@given(st.lists(_LINES, max_size=5), _PATHS)
def test_verdicts_are_those_of_protego(lines: list[str], path: str) -> None:
    """With wildcards, anchors and escapes in any order, in rules and paths."""
    lines = [line for line in lines if line.partition(":")[2].strip()]
    url = f"{SITE}/{path}"
    assert oracle(*lines).can_fetch(url, "any") == rule_set(*lines).judge(url).allowed, (lines, url)


@pytest.mark.parametrize("seed", range(10))
def test_an_index_of_many_rules_changes_no_verdict(seed: int) -> None:
    """With so many wildcards that an index is used: Protego's verdicts, and the line of a matching rule."""
    rng = random.Random(seed)

    def pattern() -> str:
        return "".join(rng.choice(["/", "ab", "cd", "e", "*", "*", "xyzzy", "$"]) for _ in range(rng.randrange(1, 8)))

    lines = [f"{rng.choice(['Allow', 'Disallow'])}: /{pattern()}" for _ in range(200)]
    rules, protego = rule_set(*lines), oracle(*lines)
    for _ in range(300):
        path = "".join(rng.choice(["/", "ab", "cd", "e", "xyzzy", "q", "$"]) for _ in range(rng.randrange(12)))
        url = f"{SITE}/{path}"
        verdict = rules.judge(url)
        assert protego.can_fetch(url, "any") == verdict.allowed, url
        if verdict.line is not None:
            named = lines[verdict.line - 1]
            assert verdict.rule == named
            alone = oracle(named, *(["Disallow: /"] if verdict.allowed else []))
            assert alone.can_fetch(url, "any") == verdict.allowed


@pytest.mark.parametrize(
    "line",
    [
        "Disallow: /*{n}",
        "Disallow: /*?{n}=*&b",
        "Disallow: /{n}*$",
        "Allow: /index.html*{n}*x",
        "Disallow: /a*b{n}c",
        "Disallow: /{n}/",
    ],
)
def test_thousands_of_rules_cost_a_url_little(line: str) -> None:
    """A hundred verdicts on 20,000 rules take less time than ten by trying each rule."""
    rules = rule_set(*(line.format(n=f"{n:05}") for n in range(20_000)))
    urls = [f"{SITE}/index.html/{n:07}/abcdefg?x={n}&b=aXbYc" for n in range(100)]
    rules.judge(urls[0])
    start = time.thread_time()
    for url in urls:
        rules.judge(url)
    assert time.thread_time() - start < 0.1
