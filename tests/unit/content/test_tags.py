"""Start tags are found where the HTML standard finds them."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from crawler.content.html.tags import MAX_ATTRIBUTES, Tag, TagFinder, attributes_of, read_tag, unescape_attribute

ALL = TagFinder(None)
LINKS = TagFinder(("a", "meta"))


def tags(finder: TagFinder, data: bytes) -> Iterator[Tag]:
    """The tags that are found, plain anchors as tags."""
    for piece in finder.pieces(data):
        if piece:
            yield read_tag(piece) if piece.startswith("<") else ("a", {"href": piece}, "")


def found(text: str, finder: TagFinder = ALL) -> list[tuple[str, dict[str, str]]]:
    return [(name, dict(attributes)) for name, attributes, _ in tags(finder, text.encode())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no tags, 1 < 2 > 0 <", []),
        ("<a>", [("a", {})]),
        ("<A HREF=x>", [("a", {"href": "x"})]),
        ("<a/>", [("a", {})]),
        ("<a\nhref = 'x'\tb=\"y\" c>", [("a", {"href": "x", "b": "y", "c": ""})]),
        ("<a href=x/y/>", [("a", {"href": "x/y/"})]),
        ("<a/href=x>", [("a", {"href": "x"})]),
        ("<a href=x href=y>", [("a", {"href": "x"})]),
        ("<a href=\"x\"b='y'>", [("a", {"href": "x", "b": "y"})]),
        ("<a href='a>b' c=\"d>e\">", [("a", {"href": "a>b", "c": "d>e"})]),
        ("<a href=x\"y>'>", [("a", {"href": 'x"y'})]),
        ("<a b'c>d'>", [("a", {"b'c": ""})]),
        ("<a href=>", [("a", {"href": ""})]),
        ("<a href= >", [("a", {"href": ""})]),
        ("<p title='<a href=x>'><a href=y>", [("p", {"title": "<a href=x>"}), ("a", {"href": "y"})]),
        ("<!-- <a> --><b>", [("b", {})]),
        ("<!--><b>", [("b", {})]),
        ("<!---><b>", [("b", {})]),
        ("<!--x--!><b>", [("b", {})]),
        ("<!-- <b>", []),
        ("<!doctype html><b>", [("b", {})]),
        ("<?php <b>", []),
        ("<?x?><b>", [("b", {})]),
        ("</b a='x'><i>", [("i", {})]),
        ("</ ><i>", [("i", {})]),
        ("< b><i>", [("i", {})]),
        ("<1><i>", [("i", {})]),
        ("<<i>", [("i", {})]),
        ("<a href=x", []),
        ("<b><a href='x>", [("b", {})]),
        ("<b></a", [("b", {})]),
        ("<script>'<a>'</script><b>", [("script", {}), ("b", {})]),
        ("<SCRIPT><a></ScRiPt ><b>", [("script", {}), ("b", {})]),
        ("<script></scripty><a></script><b>", [("script", {}), ("b", {})]),
        ("<script><a>", [("script", {})]),
        ("<textarea><a></textarea><b>", [("textarea", {}), ("b", {})]),
        ("<style><!-- <a> </style><b>", [("style", {}), ("b", {})]),
        ("<b><plaintext><a>", [("b", {})]),
        ("<my-tag x=1><a.b>", [("my-tag", {"x": "1"}), ("a.b", {})]),
    ],
)
def test_start_tags(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """The start tags of each text."""
    assert expected == found(text)


def test_only_wanted_tags_are_found() -> None:
    """A finder of a few names skips other tags and their text."""
    text = b"<p><abbr><a b=1><metal><META x><title><a></title><script><a></script><iframe><a></IFRAME><a>"
    assert [name for name, _, _ in tags(LINKS, text)] == ["a", "meta", "a"]


def test_the_content_of_text_elements_is_captured() -> None:
    """The content of a title is returned as written."""
    assert list(tags(TagFinder(("title",)), b"<title>A &amp; <b></title>")) == [("title", {}, "A &amp; <b>")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a?b&amp;c", "a?b&c"),
        ("a?b=1&copy=2", "a?b=1&copy=2"),
        ("a?b=1&copyx", "a?b=1&copyx"),
        ("a?b&copy", "a?b©"),
        ("&copy;=", "©="),
        ("a&b&c", "a&b&c"),
        ("&notit;", "&notit;"),
        ("&unknown;&amp", "&unknown;&"),
        ("&#65;&#x42;&#X43&#68", "ABCD"),
        ("&#0;&#xD800;&#x110000;&#99999999999;", "\ufffd\ufffd\ufffd\ufffd"),
        ("&#x80;&#150;", "€–"),
        ("&#;&#x;&", "&#;&#x;&"),
        ("&#0000000000000065;", "A"),
        ("&#x000000000000041;", "A"),
    ],
)
def test_character_references_in_attributes(written: str, meant: str) -> None:
    """They are replaced by the rules for attributes, which keep query strings."""
    assert meant == unescape_attribute(written)


def test_the_number_of_attributes_is_limited() -> None:
    """The first attributes of an element are read."""
    text = " ".join(f"a{n}=1" for n in range(100_000))
    assert len(attributes_of(text)) == MAX_ATTRIBUTES


_PARTS = st.sampled_from(
    ["<a", "<A", "<b", "<p", "</a", "</b", ">", " href=", " x=", " x", "'", '"', "=", "/", "<!--", "-->", "--!>", "-",
     "<!", "<?", "&amp;", "&copy", ";", "text", " ", "\n", "<script>", "</script>", "<title>", "</title>", "<", "1"]
)  # fmt: skip


@settings(deadline=None, max_examples=500, derandomize=True)
@given(st.lists(_PARTS, max_size=12).map("".join))
def test_links_are_those_a_tree_builder_finds(text: str) -> None:
    """For any mixture of markup the anchors with an href are those of lexbor's tree, in order."""
    tree = LexborHTMLParser(text.encode())
    # A tree builder copies an unclosed anchor into what follows it; each copy is the same reference.
    expected = dict.fromkeys(node.attributes["href"] or "" for node in tree.css("a[href]"))
    got = dict.fromkeys(values["href"] for name, values in found(text, LINKS) if name == "a" and "href" in values)
    assert list(expected) == list(got), text
