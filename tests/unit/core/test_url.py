"""URLs: parsing, keys of duplicates, registrable domains."""

import json
import os
import re
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from crawler.core import url
from crawler.core.enums import DenyReason
from crawler.core.models import Origin

SEEDS = [
    ("example.org", "https://example.org/"),
    ("example.org:8443/x", "https://example.org:8443/x"),
    ("localhost:8443", "https://localhost:8443/"),
    ("http://Example.ORG:80/a/../b#frag", "http://example.org/b"),
    ("https://user:secret@example.org/", "https://example.org/"),
    ("  https://example.org/a b ", "https://example.org/a%20b"),
    ("bücher.example", "https://xn--bcher-kva.example/"),
    ("127.1", "https://127.0.0.1/"),
    ("0x7f000001", "https://127.0.0.1/"),
    ("https://①②⑦.0.0.1/", "https://127.0.0.1/"),
    ("https://[::FFFF:127.0.0.1]/", "https://[::ffff:7f00:1]/"),
]


@pytest.mark.parametrize(("typed", "fetched"), SEEDS)
def test_seed_becomes_the_url_that_is_fetched(typed: str, fetched: str) -> None:
    """Typed text is read as browsers do, with https for a missing scheme."""
    assert url.parse_seed(typed)[0] == fetched


@pytest.mark.parametrize("typed", ["ht!tp://x", "://x", "1http://x/", "htt p://x"])
def test_an_invalid_scheme_is_not_taken_for_a_host(typed: str) -> None:
    """Otherwise DNS would be queried for a host "ht!tp". It is allowed in a path."""
    with pytest.raises(url.UrlError):
        url.parse_seed(typed)
    assert url.parse_seed("e.org/to?u=ht!tp://x")[1].host == "e.org"


@pytest.mark.parametrize("typed", ["https//example.org/", "HTTP/example.org", "http///x"])
def test_a_seed_without_its_colon_is_refused(typed: str) -> None:
    """It would be parsed as a host named "https"."""
    with pytest.raises(url.UrlError, match="is missing"):
        url.parse_seed(typed)


@pytest.mark.parametrize("host", ["*.farm.test", "h*", "!!", "a,b.test", "(x)", "a+b.test", "$"])
def test_the_host_of_a_seed_is_a_name_that_dns_can_have(host: str) -> None:
    """The URL standard allows other names, which no resolver knows."""
    assert url.parse(f"https://{host}/")[1].host == host == url.parse_typed(host)[1].host
    with pytest.raises(url.UrlError, match="is neither a host name nor an address"):
        url.parse_seed(host)
    with pytest.raises(url.UrlError):
        url.parse_seed(f"https://{host}/x")
    assert url.parse_seed("a_b-1.test/a*")[0] == "https://a_b-1.test/a*"


def test_a_message_shows_no_password() -> None:
    """Text that is no URL may contain one."""
    with pytest.raises(url.UrlError) as caught:
        url.parse("http://user:pw@")
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mailto:a@b.c", DenyReason.SCOPE_SCHEME),
        ("javascript:alert(1)", DenyReason.SCOPE_SCHEME),
        ("ftp://example.org/", DenyReason.SCOPE_SCHEME),
        ("https://", DenyReason.URL_INVALID),
        ("https://exa mple.org/", DenyReason.URL_INVALID),
        ("https://example.org:99999/", DenyReason.URL_INVALID),
        ("https://example.org:25/", DenyReason.PORT_BLOCKED),
        ("https://example.org:0/", DenyReason.PORT_BLOCKED),
        ("https://example.org/" + "a" * 2048, DenyReason.URL_TOO_LONG),
        (f"https://{'a.' * 127}org/", DenyReason.URL_INVALID),
        (f"https://{'a' * 64}.org/", DenyReason.URL_INVALID),
        ("https://x..org/", DenyReason.URL_INVALID),
        ("https://.org/", DenyReason.URL_INVALID),
    ],
)
def test_unusable_urls_are_refused_with_their_reason(text: str, reason: DenyReason) -> None:
    """Each kind of unusable URL has a reason of its own."""
    with pytest.raises(url.UrlError) as caught:
        url.parse(text)
    assert caught.value.reason == reason


def test_origin_has_the_port_that_is_dialled() -> None:
    """The default port is filled in; another one is shown."""
    assert url.parse("https://e.org/")[1] == Origin("https", "e.org", 443)
    assert str(Origin("https", "e.org", 443)) == "https://e.org"
    assert str(Origin("http", "e.org", 8080)) == "http://e.org:8080"


MD5 = "9f86d081884c7d659a2feaa0c55ad015"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://e.org/%7ejo", "https://e.org/~jo", True),
        ("https://e.org/a%2fb", "https://e.org/a%2Fb", True),
        ("https://e.org/a%2fb", "https://e.org/a/b", False),
        ("https://e.org/a?", "https://e.org/a", True),
        ("https://e.org/a?x=1&y=2", "https://e.org/a?y=2&x=1", False),
        ("https://e.org/A", "https://e.org/a", False),
        ("https://e.org/", "http://e.org/", False),
        ("https://e.org/a", "https://e.org/a/", False),
        ("https://e.org/?s=covid-19", "https://e.org/", False),
        (f"https://e.org/a?sid={MD5}&b=1", "https://e.org/a?b=1", True),
    ],
)
def test_duplicates_share_a_key(one: str, other: str, same: bool) -> None:
    """Only spellings that mean the same to every server are one URL."""
    assert (url.key_of(url.parse(one)[0]) == url.key_of(url.parse(other)[0])) is same


def test_a_redirect_to_another_spelling_has_a_key_of_its_own() -> None:
    """/%7Ejo → /~jo must be followed although both have one canonical form."""
    assert url.respelled_key_of("https://e.org/~jo") != url.key_of("https://e.org/~jo")
    assert -(2**63) <= url.respelled_key_of("https://e.org/~jo") < 2**63


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("www.example.org", "example.org"),
        ("example.org", "example.org"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("jo.github.io", "jo.github.io"),
        ("h0001.many.test", "many.test"),
    ],
)
def test_registrable_domain(host: str, domain: str) -> None:
    """It follows the Public Suffix List; addresses, single labels and suffixes are their own domain."""
    assert url.registrable_domain(host) == domain


def test_the_registrable_domain_is_that_of_the_list_whatever_its_rule() -> None:
    """Plain rules, wildcards and exceptions; names below, above and beside those that a rule is about."""
    library = PublicSuffixList()
    for rule in sorted(library._publicsuffix):
        name = rule.lstrip("!*.")
        for host in (f"x.{name}", f"www.x.{name}", f"a.www.x.{name}", f"{name}.com", f"x.{name}.co.uk", f"x..{name}"):
            assert url.registrable_domain(host) == (library.privatesuffix(host) or host)


def test_slots_are_bounded_and_stable() -> None:
    """A domain hashes to one of 1,024 slots, the same on every machine."""
    assert url.slot_of("example.org") == 837
    assert {url.slot_of(f"d{n}.org") for n in range(20_000)} == set(range(url.SLOTS))


_LABELS = st.sampled_from(
    ["a", "b-c", "www", "x--y", "ab--c", "-a", "a-", "xn--a", "xn--bcher-kva", "1", "0x1", "x1", "a_b", "", "A",
     "a" * 63, "a" * 64]
)  # fmt: skip
_PATHS = st.text(alphabet="ab.-_~/%2e?#:@ \\A", max_size=8)


@settings(max_examples=2_000, deadline=None, derandomize=True)
@given(
    st.sampled_from(["", "http://", "https://"]), st.lists(_LABELS, max_size=6), st.just("") | _PATHS.map("/{}".format)
)
def test_a_plain_seed_is_parsed_as_any_other(scheme: str, labels: list[str], path: str) -> None:
    """A list of seeds is read faster where the parser of the URL standard would change nothing."""
    text = scheme + ".".join(labels) + path
    with patch.object(url, "_PLAIN_SEED", re.compile("(?!)")):
        expected = _parsed_seed(text)
    assert _parsed_seed(text) == expected


def _parsed_seed(text: str) -> tuple[str, Origin] | str:
    try:
        return url.parse_seed(text)
    except url.UrlError as error:
        return str(error)


_TEXT = st.text(alphabet="abcXYZ0189-._~%2Ff7E/?&=;:@!$'()*+, é", max_size=40)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_TEXT)
def test_canonical_form_is_a_fixed_point(path: str) -> None:
    """The canonical form of a URL parses to itself, and to the same key."""
    href, origin = url.parse("https://e.org/" + path.lstrip("/\\"))
    again, same_origin = url.parse(url.canonical(href))
    assert same_origin == origin
    assert url.canonical(again) == url.canonical(href)
    assert url.key_of(again) == url.key_of(href)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_TEXT)
def test_parsing_is_idempotent(path: str) -> None:
    """A URL does not change if it is stored and parsed again."""
    href, origin = url.parse("https://e.org:8443/" + path.lstrip("/\\"))
    assert url.parse(href) == (href, origin)
    assert f"{origin}{url.target_of(href)}" == href


def test_web_platform_vectors() -> None:
    """The http(s) cases of the URL standard: the serialisation without userinfo and fragment."""
    folder = os.environ.get("VECTORS_DIR")
    if not folder:
        pytest.skip("VECTORS_DIR is not set: no URL test data here")
    cases = [case for case in json.loads(Path(folder, "url/urltestdata.json").read_text()) if isinstance(case, dict)]
    checked = 0
    for case in cases:
        base = case.get("base")
        base = None if base in (None, "about:blank") else base
        if case.get("failure"):
            with pytest.raises(url.UrlError):
                url.parse(case["input"], base)
            checked += 1
        elif case["protocol"] in ("http:", "https:"):
            try:
                href, origin = url.parse(case["input"], base)
            except url.UrlError as error:
                labels = case["hostname"].removesuffix(".").split(".")
                is_server_name = all(0 < len(label) <= 63 for label in labels)
                ours = {DenyReason.PORT_BLOCKED, DenyReason.URL_TOO_LONG}
                assert error.reason in (ours if is_server_name else {DenyReason.URL_INVALID}), case  # noqa: PT017
                continue
            port = f":{case['port']}" if case["port"] else ""
            assert href == f"{case['protocol']}//{case['hostname']}{port}{case['pathname']}{case['search']}" or (
                case["href"].partition("#")[0].endswith("?") and href.endswith("?")
            ), case
            assert origin.host == case["hostname"]
            checked += 1
    assert checked > 500
