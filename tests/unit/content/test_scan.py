"""Both engines find the same, whatever the text, and one of them needs no memory that is executable."""

import subprocess
import sys
import tracemalloc
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcre2 import LibraryError

from crawler.content import scan
from crawler.content.fingerprint import fingerprint
from crawler.content.html import extract
from crawler.content.scan import Scanner
from crawler.content.tags import TagFinder

LINKING = ("a", "iframe", "meta", "title", "base", "link")
FINDERS = {"every tag": None, "links": LINKING, "and what is shown": (*LINKING, "img", "style", "script")}

_PARTS = st.sampled_from(
    ["<a", "<A", "<p", "</a", ">", ' href="', " href=", ' rel="nofollow"', ' title="', "'", '"', "=", "/", "<!--",
     "-->", "--!>", "-", "<!", "<?", "&amp;", "&", "#", ":", "https://", "text", " ", "\n", "\t", "\x00", "\x01",
     "\x7f", "\x80", "\xa0", "é", "\u2028", "<script>", "</SCRIPT", "<title>", "</title>", "<iframe src=x>",
     "</iframe ", "<style>", "<plaintext>", "<", "1", "\n\n", "<svg>", "</svg>", "<math ", "/>", "<title/>",
     "<![CDATA[", "]]>", "<font "]
)  # fmt: skip


@pytest.fixture(params=FINDERS)
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[TagFinder, TagFinder]:
    """The same finder by PCRE2 and by `re`."""
    names = FINDERS[request.param]
    one, other = TagFinder(names), TagFinder(names)
    assert one.is_compiled
    with monkeypatch.context() as patch:
        patch.setattr(scan._cy, "jit_compile", _forbidden)
        assert not other.is_compiled
    return one, other


def _forbidden(*_args: object, **_options: object) -> None:
    raise LibraryError(-48)  # PCRE2_ERROR_NOMEMORY: what a JIT gets that may have no executable memory


@settings(deadline=None, max_examples=1_000, derandomize=True)
@given(text=st.lists(_PARTS, max_size=40).map("".join))
def test_both_engines_find_the_same(text: str) -> None:
    """Any mixture of markup, with control characters and bytes that are no ASCII."""
    for names in FINDERS.values():
        finder = TagFinder(names)
        by_pcre = list(finder.pieces(text.encode()))
        assert by_pcre == _by_re(names, text.encode())


def _by_re(names: tuple[str, ...] | None, data: bytes) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan._cy, "jit_compile", _forbidden)
        return list(TagFinder(names).pieces(data))


def test_large_texts_give_the_same(engines: tuple[TagFinder, TagFinder]) -> None:
    """What is handed out one by one is what a list would hold, less what means nothing."""
    for text in (
        b'<p><a href="x"><b title="<a>">' * 20_000,
        b"<title>" + b"<a href=x>" * 60_000,
        b"<" * 600_000,
        b"<a x='" * 100_000,
        "<a title='ä'>é".encode() * 40_000,
    ):
        one, other = ([piece for piece in finder.pieces(text) if piece] for finder in engines)
        assert one == other


def test_a_nul_counts_as_the_replacement_character() -> None:
    """HTML standard §13.2.5: it never ends up in a URL as it stands, and never ends one."""
    found = extract(b'<a href="x\0y"><title>a\0b</title>', "https://e.test/", requisites=False, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/x%EF%BF%BDy"]
    assert found.title == "a\ufffdb"


def test_a_stack_that_does_not_suffice_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """PCRE2 may give up in the middle of a text: `re` then reads it."""
    scanner = Scanner(r"[^<]*+(?:<([a-z]++)()|\Z)")
    assert scanner.is_compiled

    def substitute(*_args: object) -> bytes:
        raise LibraryError(-46)  # PCRE2_ERROR_JIT_STACKLIMIT

    monkeypatch.setattr(scan._cy, "substitute", substitute)
    assert [piece for piece in scanner.pieces(b"x<a y<bc") if piece] == ["a", "bc"]


def test_the_end_of_the_text_is_not_the_last_line() -> None:
    """`\\Z` means to PCRE2 what `$` means to Python."""
    scanner = Scanner(r"[^<]*+(?:<([a-z]++)()|\Z)")
    assert [piece for piece in scanner.pieces(b"<a\n") if piece] == ["a"]
    assert not any(TagFinder(None).pieces(b"<a href='x\n"))


def test_where_memory_may_not_be_made_executable_pages_are_read_all_the_same() -> None:
    """As under a unit with MemoryDenyWriteExecute, with the kernel's own means (PR_SET_MDWE, Linux 6.3)."""
    code = """if True:
        import ctypes, sys
        if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
            print("absent")
            sys.exit()
        from crawler.content.html import extract
        from crawler.content.tags import TagFinder
        found = extract(b"<a href=x><title>t</title>", "https://e.test/", requisites=False, max_links=9)
        print(TagFinder(None).is_compiled, found.title, *(link.url for link in found.links))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if done.stdout == "absent\n":
        pytest.skip("this kernel knows no PR_SET_MDWE")
    assert done.stdout == "False t https://e.test/x\n"


def test_a_large_page_of_few_tags_takes_little_memory() -> None:
    """Half a million times the same tag is one tag."""
    text = b"<a>" * 600_000
    extract(b"", "https://e.test/", requisites=False, max_links=9)
    tracemalloc.start()
    try:
        extract(text, "https://e.test/", requisites=False, max_links=9)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()


def test_words_are_found_between_markup_scripts_and_references() -> None:
    """What a fingerprint is made of, each once, without those of the URL."""
    text = b"<p title='no'>One&nbsp;two&x<b>three<script>no</b></script >four<style>no{}</style><TWO>five < six"
    assert fingerprint(text, "https://e.test/five").words == frozenset(
        (b"one", b"two", b"x", b"three", b"four", b"six")
    )


def test_words_by_re_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both engines, on text that ends in each of the things there are."""
    from crawler.content import fingerprint as module

    ends = (b"", b"<script>x", b"<style", b"<!", b"&amp", b"&#1;", b"w", b"<", b">", b"\xc3\xa9", b"<script")
    texts = [b"a <b>c</b>" + end + tail for end in ends for tail in (b"", b" d", b"</script>e", b">f")]
    before = [fingerprint(text, "https://e.test/") for text in texts]
    scanner = cast(Scanner, module._TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(scan._cy, "jit_compile", _forbidden)
        plain = Scanner(scanner._pattern)
        assert not plain.is_compiled
    monkeypatch.setattr(module, "_TEXT", plain)
    assert [fingerprint(text, "https://e.test/") for text in texts] == before
