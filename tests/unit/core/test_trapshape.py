"""What the shape of a URL says: paths that no site means, and templates."""

import random

import pytest

from crawler.core.options import TrapOptions
from crawler.core.trapshape import MAX_NAMES, MAX_TEMPLATE, WIDE, TemplateTree, TrapKind, impossible_path

OPTIONS = TrapOptions()


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
        ("/a/x/a/y/a/z/a/", True),
        ("/1/2/1/2/1/2/1/2/", True),
        ("/" + "/".join(str(n) for n in range(24)), False),
        ("/" + "/".join(str(n) for n in range(25)), True),
        ("/s?" + "&".join(f"p{n}=1" for n in range(24)), False),
        ("/s?" + "&".join(f"p{n}=1" for n in range(25)), True),
        ("/s?to=/a/a/a/a/a", False),
    ],
)
def test_paths_that_no_site_means_are_refused(target: str, is_refused: bool) -> None:
    """Folders that repeat, too many of them, too many parameters; dates and tiles of maps may repeat."""
    assert is_refused == (impossible_path(target, OPTIONS) is not None)


@pytest.mark.parametrize(
    ("target", "text", "kind"),
    [
        ("/", "/", TrapKind.PLAIN),
        ("/about.html", "/about.html", TrapKind.PLAIN),
        ("/page/17", "/page/{n}", TrapKind.PLAIN),
        ("/page17.html", "/page{n}.html", TrapKind.PLAIN),
        ("/user/5/post/7", "/user/{n}/post/{n}", TrapKind.PLAIN),
        ("/x/1/2/3", "/x/**", TrapKind.PLAIN),
        ("/x/1/2/3/4/5", "/x/**", TrapKind.DEEP),
        ("/cal/2031/04", "/cal/{date}", TrapKind.CALENDAR),
        ("/cal/2031-04-05/", "/cal/{date}/", TrapKind.CALENDAR),
        ("/item/4021", "/item/{n}", TrapKind.PLAIN),
        ("/cal?month=4&year=2031", "/cal?…", TrapKind.CALENDAR),
        ("/cal?date=2031-04-05", "/cal?date", TrapKind.CALENDAR),
        ("/search?q=java", "/search?q", TrapKind.PLAIN),
        ("/shop?size=m&color=red", "/shop?…", TrapKind.FACETS),
        ("/p/0123456789abcdef0123/x", "/p/{id}/x", TrapKind.IDENTIFIER),
        ("/p?v=3f2504e0-4f89-11d3-9a0c-0305e82c3301", "/p?v", TrapKind.IDENTIFIER),
        ("/docs/the-long-road-to-nowhere-and-back", "/docs/the-long-road-to-nowhere-and-back", TrapKind.PLAIN),
    ],
)
def test_what_varies_is_replaced(target: str, text: str, kind: TrapKind) -> None:
    """Numbers, dates, identifiers and values of parameters."""
    template = TemplateTree().template_of(target)
    assert (text, kind) == (template.text, template.kind)


def test_a_folder_of_very_many_names_holds_values() -> None:
    """With so many names they are one template, those met before included."""
    tree = TemplateTree()
    for n in range(WIDE):
        name = "".join(chr(ord("a") + int(digit)) for digit in f"{n:03}")
        assert tree.template_of(f"/wiki/{name}", learns=True).text == f"/wiki/{name}"
    assert tree.template_of("/wiki/zebra", learns=True).text == "/wiki/*"
    assert tree.template_of("/wiki/aaa").text == "/wiki/*"
    assert tree.template_of("/blog/zebra").text == "/blog/zebra"


def test_mazes_of_random_names_come_to_few_templates() -> None:
    """However deep they go and however their folders are called."""
    tree = TemplateTree()
    words = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
    rng = random.Random(1)
    targets = ["/maze/" + "/".join(rng.choices(words, k=n % 9)) for n in range(3_000)]
    for target in targets:
        tree.template_of(target, learns=True)
    late = {tree.template_of(target + f"/{words[n % 100]}").text for n, target in enumerate(targets[-500:])}
    assert len(late) < 10
    assert tree.template_of("/maze/" + "/".join(words[50:58])).kind is TrapKind.DEEP


@pytest.mark.parametrize("target", ["/wiki/zebra", "/maze/aa/bb", "/maze/aa/bb/cc/dd/ee", "/maze/aa/bb/page.html?x=1"])
def test_a_template_is_known_again_by_its_text(target: str) -> None:
    """After a restart, by what was stored: nothing of the host needs to be fetched again for it."""
    tree = TemplateTree()
    for folder in ("/wiki", "/maze", "/maze/x", "/maze/x/x", "/maze/x/x/x"):
        for n in range(WIDE + 1):
            name = "".join(chr(ord("a") + int(digit)) for digit in str(n))
            tree.template_of(f"{folder}/{name}", learns=True)
    template = tree.template_of(target)
    assert "*" in template.text
    fresh = TemplateTree()
    fresh.widen(template.text)
    assert template.text == fresh.template_of(target).text


def test_what_is_remembered_is_bounded() -> None:
    """In names, and in the length of a template."""
    tree = TemplateTree()
    for n in range(3 * MAX_NAMES):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(n))
        tree.template_of(f"/{name}/x", learns=True)
        tree.template_of(f"/{name[0]}/{name}/{name}", learns=True)
    assert sum(len(names or ()) for names in tree._names.values()) <= MAX_NAMES
    assert len(tree._names) <= 2 * MAX_NAMES
    assert len(TemplateTree().template_of("/" + "a" * 2_000, learns=True).text) == MAX_TEMPLATE
