"""Pages in XML are read by the rules of XML."""

import time
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.html.parsing import ParsedPage, parse_page
from crawler.core.enums import Source

URL = "https://e.test/"
_START = '<html xmlns="http://www.w3.org/1999/xhtml">'
_DOCTYPE = (
    '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">'
)


def read(text: str, *, requisites: bool = True) -> ParsedPage:
    return parse_page(text.encode(), URL, requisites=requisites, max_links=100_000, xml=True)


def found(text: str) -> list[str]:
    return [link.url.removeprefix(URL) for link in read(text).links]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<script src='a'/><a href='b'/>", ["a", "b"]),
        ("<title/><iframe src='a'/><textarea/><style/><a href='b'>x</a>", ["a", "b"]),
        ("<script>if (a &lt; b) {}</script><a href='a'/>", ["a"]),
        ("<script><![CDATA[ '<a href=\"no\"/>' < ]]></script><![CDATA[<a href='no'/>]]><a href='a'/>", ["a"]),
        ("<!-- <a href='no'/> --><a href='a'/>", ["a"]),
        ("<a href='a?b&amp;c&#x3d;1&copy;=&nbsp;'/>", ["a?b&c=1%C2%A9=%C2%A0"]),
        ("<a href='a?b&c=1'/>", ["a?b&c=1"]),  # mended: a browser stops here
        ("<A HREF='no'/><a HREF='no'/>", []),  # names have a case
        ("<h:a xmlns:h='http://www.w3.org/1999/xhtml' href='a'/>", ["a"]),
        ("<x:a xmlns:x='urn:x' href='no'/><a xmlns='urn:x' href='no'/>", []),
        ("<style>@import 'a'; p { background: url(b) }</style>", ["a", "b"]),
        ("<style><![CDATA[p > q { background: url(a) }]]></style>", ["a"]),
        (
            "<s:svg xmlns:s='http://www.w3.org/2000/svg' xmlns:l='http://www.w3.org/1999/xlink'><s:title/>"
            "<s:a l:href='a'/><s:feImage href='b'/><s:a href='c' l:href='no'/><s:g style='fill:url(d)'/></s:svg>",
            ["a", "b", "c", "d"],
        ),
        ("<a href='a'/><b><a href='b'/></i><a href='no'/>", ["a", "b"]),
        ("<a href='a'/><a href=no><a href='no'/>", ["a"]),
        ("<a href='a'/><u:x/><a href='no'/>", ["a"]),
        ("<base href='/x/'/><a href='a'/><img src='b'/>", ["x/a", "x/b"]),
    ],
)
def test_elements(body: str, expected: list[str]) -> None:
    """The references of each body; if it is not well-formed, those before the fault."""
    assert found(f"{_START}{body}</html>") == expected
    assert found(f'<?xml version="1.0"?>\n{_DOCTYPE}{_START}{body}</html>') == expected


def test_the_information_in_the_head() -> None:
    """Title, languages, directives, refresh and the style sheets of a processing instruction."""
    page = read(
        f"<?xml-stylesheet type='text/css' href='s.css'?>{_START[:-1]} lang='en' xml:lang='de'><head>"
        "<title>\n A &amp;amp; B<!-- c --></title><meta name='robots' content='noindex'/>"
        "<meta http-equiv='refresh' content='0;url=r'/><link rel='canonical' href='c'/></head></html>"
    )
    assert (page.title, page.language, page.refresh, page.canonical) == ("A &amp; B", "de", f"{URL}r", f"{URL}c")
    assert page.robots == ((None, "noindex"),)
    assert [(link.url, link.source) for link in page.links] == [
        (f"{URL}s.css", Source.REQUISITE),
        (f"{URL}c", Source.CANONICAL),
    ]
    assert [link.source for link in read("<?xml-stylesheet href='s'?><html/>", requisites=False).links] == []


def test_a_page_without_a_namespace() -> None:
    """Pages whose author left it out."""
    assert found("<html><a href='a'/></html>") == ["a"]


_LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
_ATTLIST = "".join(f'<!ATTLIST a a{n} CDATA "x">' for n in range(20_000))


@pytest.mark.parametrize(
    "doctype",
    [
        f'[<!ENTITY e0 "ha">{_LAUGHS}]',
        f"[<!ENTITY % p \"<!ENTITY e8 '{'ha' * 50_000}'>\"> %p;]",
        'SYSTEM "file:///etc/passwd" [<!ENTITY e8 SYSTEM "file:///etc/passwd">]',
    ],
)
def test_entities_of_a_page_are_not_expanded(doctype: str) -> None:
    """Neither in text nor in attributes, wherever they are declared."""
    body = "<title>&e8;</title><a href='a&e8;'/>" * 100
    start = time.process_time()
    page = read(f"<!DOCTYPE html {doctype}>{_START}{body}</html>")
    assert time.process_time() - start < 1
    assert (page.title, [link.url for link in page.links]) == ("&e8;", [f"{URL}a&e8;"])


def test_default_attributes_cost_no_time() -> None:
    """A document type with very many of them ends the page; a few are ignored."""
    start = time.process_time()
    assert found(f"<!DOCTYPE html [{_ATTLIST}]>{_START}{'<a/>' * 100_000}</html>") == []
    assert time.process_time() - start < 1
    few = "<!ATTLIST a href CDATA 'no'><!ATTLIST html xmlns:fb CDATA #IMPLIED>"
    assert found(f"<!DOCTYPE html [{few}]>{_START}<a href='a'/><a/></html>") == ["a"]


@pytest.mark.parametrize(
    "body",
    ["<a>" * 200_000, "<a/>" * 130_000, "<a x='" + "y" * 500_000, "<!--" + "-" * 500_000, "<a href='&amp;'/>" * 30_000,
     "<" * 500_000, "&" * 500_000, "<style>" + "url(" * 100_000, "<p " + " ".join(f"a{n}=''" for n in range(60_000)),
     "<?x " * 100_000, "]]>" * 150_000]
)  # fmt: skip
def test_hostile_documents_cost_no_more_than_their_length(body: str) -> None:
    """Half a megabyte of each pattern takes less than a second."""
    start = time.process_time()
    read(_START + body)
    assert time.process_time() - start < 1


_names = st.sampled_from(["a", "p", "title", "iframe", "style", "x:a", "y:a", "script", "textarea"])
_children = st.recursive(
    st.one_of(
        st.sampled_from(["x", "&lt;", "<![CDATA[<a href='no'/>]]>", "<!-- <a href='no'/> -->"]),
        _names.map("<{}/>".format),
    ),
    lambda inner: st.builds(
        "<{0} href='{1}'>{2}</{0}>".format, _names, st.integers(0, 99), st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(_children, max_size=4).map("".join))
def test_links_are_those_an_xml_parser_finds(body: str) -> None:
    """For any well-formed page the links are those of its tree, in order."""
    text = f"{_START[:-1]} xmlns:x='http://www.w3.org/1999/xhtml' xmlns:y='urn:y'>{body}</html>"
    tree = ElementTree.fromstring(text)
    nodes = tree.iter("{http://www.w3.org/1999/xhtml}a")
    assert found(text) == list(dict.fromkeys(href for node in nodes if (href := node.get("href"))))


_PARTS = st.sampled_from(
    ["<a href='", "'/>", "<b>", "</b>", "&", "<!DOCTYPE x [", "]>", "<![CDATA[", "]]>", "\0", "<?", "?>", "<title>",
     "é", "<!ENTITY a 'b'>", "%a;", "&a;"]
)  # fmt: skip


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(_PARTS, max_size=12).map("".join))
def test_any_text_is_read(text: str) -> None:
    """No text makes it raise; each link is found once, and is a URL, in which "<" is escaped."""
    for page in (text, _START + text):
        links = found(page)
        assert len(links) == len(set(links))
        assert all(link.count("<") == 0 for link in links)
