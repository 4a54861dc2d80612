"""SVG and MathML in a page: no element hides what follows, and their links count."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser, LexborNode

from crawler.content.html.parsing import parse_page
from crawler.core.enums import Source

URL = "https://e.test/"


def found(text: str, *, requisites: bool = True) -> list[str]:
    """The paths that a page refers to, in order."""
    page = parse_page(text.encode(), URL, requisites=requisites, max_links=100)
    return [link.url.removeprefix(URL) for link in page.links]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a href=a><svg><title/></svg><a href=b>", ["a", "b"]),
        ("<svg><TITLE /><style/><script/><iframe/><a href=a></svg><a href=b>", ["a", "b"]),
        ("<math><style/></math><a href=b>", ["b"]),
        ("<svg><style>x</svg><a href=b>", ["b"]),
        ("<svg><title><a href=a></title></svg><a href=b>", ["a", "b"]),
        ("<svg><svg><g/></svg><title/><a href=a></svg><a href=b>", ["a", "b"]),
        ("<SVG><title/></sVg><a href=b>", ["b"]),
        ("<svg/><title><a href=a></title><a href=b>", ["b"]),
        ("<svg x=1/><title/><a href=a></svg><a href=b>", ["a", "b"]),  # the slash belongs to the value
        ("<svg x='1'/><title><a href=a></title><a href=b>", ["b"]),
        ("<svg><![CDATA[ <a href=a> > ]] ]]><a href=b></svg><![CDATA[ <a href=c> ]]>", ["b"]),
        ("<svg><!-- <a href=a> --><a href=b></svg>", ["b"]),
        ("<svg><p><title><a href=a></title><a href=b>", ["b"]),  # a p ends it
        ("<svg><font/><title/><a href=a></svg>", ["a"]),
        ("<svg><font color=x><title><a href=a></title><a href=b>", ["b"]),
        ("<td><svg></td><title><a href=a></title><a href=b>", ["b"]),
        ("<svg><foreignObject><style>a<b</style><a href=a></foreignObject></svg><a href=b>", ["a", "b"]),
        ("<svg><title/>", []),
        ("<svg><a href=a", []),
        ("<title>a</title><svg", []),
    ],
)
def test_no_element_hides_what_follows(text: str, expected: list[str]) -> None:
    """Links in and after foreign content, with any self-closed element in it (HTML standard §13.2.6.5)."""
    assert found(text) == found(text, requisites=False) == expected


@pytest.mark.parametrize(
    ("text", "links", "requisites"),
    [
        ("<svg><a xlink:href=a /><a HREF=b xlink:href=c></a></svg>", ["a", "b"], []),
        ("<a xlink:href=a></a>", [], []),  # HTML knows no such attribute
        ("<svg><a rel=nofollow href=a></a></svg>", ["a"], []),
        ("<svg><image href=a /><image xlink:href=b /><image src=c /><feImage href=d /></svg>", [], ["a", "b", "d"]),
        ("<image src=a href=b srcset='c 2x'>", [], ["a", "c"]),
        ("<svg><use href='a#x'/><script href=b /><script src=c /></svg><use href=d>", [], ["a", "b"]),
        ("<svg><style>@import 'a';<![CDATA[x{fill:url(b)}]]></style></svg>", [], ["a", "b"]),
        ("<svg><g style='fill:url(a)'/></svg>", [], ["a"]),
        ("<svg><link rel=stylesheet href=a /><base href=/x/ /><iframe src=b /></svg>", [], []),
        ("<svg style='background:url(a)'/><svg style='background:url(b)'><g/></svg>", [], ["a", "b"]),
    ],
)
def test_references_of_svg_elements(text: str, links: list[str], requisites: list[str]) -> None:
    """They have attributes of their own; attributes of HTML mean nothing in them."""
    page = parse_page(text.encode(), URL, requisites=True, max_links=100)
    by_source = {
        source: [link.url.removeprefix(URL) for link in page.links if link.source is source]
        for source in (Source.LINK, Source.REQUISITE)
    }
    assert by_source == {Source.LINK: links, Source.REQUISITE: requisites}


def test_the_title_of_a_drawing_is_not_that_of_the_page() -> None:
    """An icon before the title element does not name the page."""
    page = parse_page(b"<svg><title>Icon</title></svg><title>Page</title>", URL, requisites=True, max_links=9)
    assert page.title == "Page"


_IN_HTML = ["<a href=#>x</a>", "<image src=#>", "<p>", "<style>a<b</style>", "<iframe></iframe>", "<title>t</title>"]
_IN_SVG = [
    "<title/>", "<style/>", "<script />", "<title>t</title>", "<style>x</style>", "<script>y</script>", "<path d='>'/>",
    "<a href=#></a>", "<a xlink:href=# />", "<a xlink:href=#><text>x</text></a>", "<image href=# />", "<image src=# />",
    "<image xlink:href='#'/>", "<![CDATA[ <a href=#> > ]]>", "<!-- <a href=#> -->", "<g><desc/></g>", "x > y",
    "<font/>", "<svg/>", "<foreignObject/>", "<foreignObject><p><a href=#></a><style>a<b</style></foreignObject>",
]  # fmt: skip
_leaf = st.sampled_from(_IN_SVG)


def _svg(inner: st.SearchStrategy[str], ends: list[str]) -> st.SearchStrategy[str]:
    content = st.lists(inner, max_size=3).map("".join)
    return st.builds("<svg>{}{}".format, content, st.sampled_from(ends))


# As deep as ends are told apart.
_nested = _svg(st.one_of(_leaf, _svg(_leaf, ["</svg>"])), ["</svg>"])
_drawing = _svg(st.one_of(_leaf, _nested), ["</svg>", "</svg>", "<p>", "<div>", "</p>"])


def _in_svg(node: LexborNode) -> bool:
    parent = node.parent
    while parent is not None and parent.tag not in ("svg", "foreignObject", "foreignobject", "desc", "title"):
        parent = parent.parent
    return parent is not None and parent.tag == "svg"


def _by_lexbor(text: str) -> set[str]:
    """The references in lexbor's tree."""
    references: set[str | None] = set()
    for node in LexborHTMLParser(text.encode()).css("a, img, image"):
        values = node.attributes
        if node.tag == "img":
            references.add(values.get("src"))
        elif node.tag == "image" or _in_svg(node):
            references.add(values.get("href", values.get("xlink:href")))
        else:
            references.add(values.get("href"))
    return {reference for reference in references if reference}


@settings(deadline=None, max_examples=400, derandomize=True)
@given(st.lists(st.one_of(st.sampled_from(_IN_HTML), _drawing), max_size=6).map("".join))
def test_references_are_those_a_tree_builder_finds(text: str) -> None:
    """For drawings in pages, nested and unclosed, the references are those of lexbor's tree."""
    start, *parts = text.split("#")
    text = start + "".join(f"{number}{part}" for number, part in enumerate(parts))
    assert set(found(text)) == _by_lexbor(text), text
