"""The form of a URL: impossible paths, signs of an endless part of a site, and templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.options import TrapOptions
from crawler.core.url_templates import (
    MAX_TEMPLATE,
    general_templates_of,
    impossible_path,
    is_suspicious,
    templates_of,
)

OPTIONS = TrapOptions()
TARGETS = st.from_regex(r"/([a-z0-9]{0,6}/){0,6}[a-z0-9.-]{0,9}(\?[a-z=&0-9-]{0,20})?", fullmatch=True)


@pytest.mark.parametrize(
    ("target", "is_refused"),
    [
        ("/", False),
        ("/a/b/c/d/e/f/g.html", False),
        ("/api/java.base/java/util/concurrent/atomic/class-use/AtomicLong.html", False),
        ("/2024/01/01/01/", False),
        ("/tiles/1/1/1/1/1.png", False),
        ("/a/b/a/b/a/b/x", False),  # three times
        ("/a/b/a/b/a/b/a/b/x", True),
        ("/img/img/img/img/", True),
        ("/1/2/1/2/1/2/1/2/", True),
        # not one behind the other: packages within packages are like that
        ("/a/x/a/y/a/z/a/", False),
        ("/node_modules/x/node_modules/y/node_modules/z/node_modules/w/", False),
        ("/" + "/".join(str(n) for n in range(24)), False),
        ("/" + "/".join(str(n) for n in range(25)), True),
        ("/s?" + "&".join(f"p{n}=1" for n in range(24)), False),
        ("/s?" + "&".join(f"p{n}=1" for n in range(25)), True),
        ("/s?to=/a/a/a/a/a", False),
    ],
)
def test_impossible_paths_are_refused(target: str, is_refused: bool) -> None:
    """Repeated folders, too many folders or parameters; dates and map tiles may repeat."""
    assert is_refused == (impossible_path(target, OPTIONS) is not None)


@pytest.mark.parametrize(
    ("target", "templates"),
    [
        ("/", ("/", "/**")),
        ("/about.html", ("/*.html", "/**")),
        ("/page/17", ("/page/{n}", "/page/**", "/**")),
        ("/page17.html", ("/{n}.html", "/**")),
        ("/docs/a/", ("/docs/a/", "/docs/**", "/**")),
        ("/cal/2031/04", ("/cal/{date}", "/cal/**{date}", "/**{date}")),
        ("/cal/2031-04-05/x.html", ("/cal/{date}/*.html", "/cal/**{date}", "/**{date}")),
        ("/2031/04/05/title", ("/{date}/*", "/**{date}")),
        ("/cal?month=4&year=2031", ("/cal?month&year", "/cal?…", "/**?…{date}")),
        ("/search?q=java", ("/search?q", "/search?…", "/**?…")),
        ("/shop/list?size=m&color=red", ("/shop/list?color&size", "/shop/list?…", "/shop/**?…", "/**?…")),
        ("/p/0123456789abcdef0123/x", ("/p/{id}/*", "/p/**{id}", "/**{id}")),
        ("/a/b/c/d/e/f.html", ("/a/b/c/**/*.html", "/a/**", "/**")),
        ("/a/x/a/y/a/z/a/w", ("/a/x/a/**/*", "/a/**{again}", "/**{again}")),
    ],
)
def test_a_url_has_templates_from_its_own_folder_to_the_whole_host(target: str, templates: tuple[str, ...]) -> None:
    """Varying parts are replaced; URLs with a date, an identifier or a query have templates of their own."""
    assert templates_of(target) == templates


@given(TARGETS)
def test_the_general_templates_are_the_last_of_all(target: str) -> None:
    """`general_templates_of` agrees with `templates_of`; each is bounded, and the last is that of the host."""
    templates = templates_of(target)
    assert general_templates_of(target) == templates[-2:]
    assert templates[-1].startswith("/**")
    assert all(len(template) <= MAX_TEMPLATE for template in templates)
    assert len(set(templates)) == len(templates) <= 4


def test_a_template_is_bounded() -> None:
    """For a target of any length."""
    assert {len(template) for template in templates_of("/" + "a" * 2_000 + "/b?" + "c" * 2_000)} == {MAX_TEMPLATE, 5}


@pytest.mark.parametrize(
    ("target", "is_sign"),
    [
        ("/about.html", False),
        ("/item/4021", False),
        ("/search?q=java", False),
        ("/cal/2031/04", True),
        ("/cal?date=2031-04-05", True),
        ("/cal?month=4", True),
        ("/shop?size=m&color=red", True),
        ("/p?v=3f2504e0-4f89-11d3-9a0c-0305e82c3301", True),
        ("/a/x/a/y/a/z/", False),
        ("/a/x/a/y/a/z/a/", True),
        ("/1/x/1/y/1/z/1/", False),
    ],
)
def test_signs_of_an_endless_part_of_a_site(target: str, is_sign: bool) -> None:
    """Dates, identifiers, several parameters, repeated folders."""
    assert is_suspicious(target) is is_sign
