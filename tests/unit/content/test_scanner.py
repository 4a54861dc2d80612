"""The result of a scan does not depend on how PCRE2 runs the pattern."""

import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcre2 import LibraryError

from crawler.content.html import fingerprint as words
from crawler.content.html import parsing, tag_meaning, tags
from crawler.content.html.fingerprint import fingerprint
from crawler.content.html.parsing import parse_page
from crawler.content.html.tags import ScanLimitError, Scanner, TagFinder
from tests.support.pcre2_without_jit import interpreted

SCANNERS = {
    "every tag": parsing._EVERY_TAG._scanner,
    "links": parsing._LINKS_ONLY._scanner,
    "and what is shown": parsing._WITH_REQUISITES._scanner,
    "style sheets": tag_meaning._REFERENCES,
    "drawings": tag_meaning._FOREIGN_REQUIRED,
    "words": words._TEXT,
}

_PARTS = st.sampled_from(
    ["<a", "<A", "<p", "</a", ">", ' href="', " href=", ' rel="nofollow"', ' title="', "'", '"', "=", "/", "<!--",
     "-->", "--!>", "-", "<!", "<?", "&amp;", "&", "#", ":", "https://", "text", " ", "\n", "\t", "\x00", "\x01",
     "\x7f", "\x80", "\xa0", "é", "\u2028", "<script>", "</SCRIPT", "<title>", "</title>", "<iframe src=x>",
     "</iframe ", "<style>", "<plaintext>", "<", "1", "\n\n", "<svg>", "</svg>", "<math ", "/>",
     "<title/>", "<![CDATA[", "]]>", "<font ", "url(", "@import", "\\", "/*", "*/", ")"]
)  # fmt: skip


INTERPRETED = {name: interpreted(one) for name, one in SCANNERS.items()}


@settings(deadline=None, max_examples=1_000, derandomize=True)
@given(text=st.lists(_PARTS, max_size=40).map("".join))
def test_machine_code_and_the_interpreter_find_the_same(text: str) -> None:
    """For any mixture of markup, with control characters and non-ASCII bytes."""
    for name, one in SCANNERS.items():
        assert one.captured(text.encode()) == INTERPRETED[name].captured(text.encode())


@pytest.mark.parametrize("name", SCANNERS)
def test_large_texts_give_the_same(name: str) -> None:
    """The pieces of a large text are those of a list, without empty ones."""
    for text in (
        b'<p><a href="x"><b title="<a>">' * 20_000,
        b"<title>" + b"<a href=x>" * 60_000,
        b"<" * 300_000,
        b"<a x='" * 100_000,
        "<a title='ä'>é".encode() * 40_000,
        b"url(" * 100_000,
    ):
        one, other = ([piece for piece in one.pieces(text) if piece] for one in (SCANNERS[name], INTERPRETED[name]))
        assert one == other


def test_a_nul_counts_as_the_replacement_character() -> None:
    """HTML standard §13.2.5: it is replaced in a URL, and does not end one."""
    found = parse_page(b'<a href="x\0y"><title>a\0b</title>', "https://e.test/", requisites=False, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/x%EF%BF%BDy"]
    assert found.title == "a\ufffdb"


def test_the_beginning_of_a_page_with_too_many_steps_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """PCRE2's own limit, reached when it interprets: the page is marked, and no other engine is used."""
    monkeypatch.setattr(parsing._LINKS_ONLY, "_scanner", INTERPRETED["links"])
    text = b"<a href=first>" + b"<p>" * 900_000 + b"<a href=last>"
    with pytest.raises(ScanLimitError, match="match limit exceeded"):
        parsing._LINKS_ONLY.pieces(text)
    found = parse_page(text, "https://e.test/", requisites=False, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/first"]
    assert found.cut


def test_a_style_sheet_that_takes_too_many_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for CSS; in a style attribute the page ends there."""
    monkeypatch.setattr(tag_meaning, "_REFERENCES", INTERPRETED["style sheets"])
    text = b"a{b:url(c)}" + b"'" * 8_000_000
    with pytest.raises(ScanLimitError, match="match limit exceeded"):
        tag_meaning.style_sheet_links(text, "https://e.test/")
    page = b'<a href=first><p style="url(x)"><p style="' + text + b'"><a href=last>'
    found = parse_page(page, "https://e.test/", requisites=True, max_links=9)
    assert [link.url for link in found.links] == ["https://e.test/first", "https://e.test/x"]
    assert found.cut


@pytest.mark.parametrize("code", [-46, -47, -63])  # PCRE2_ERROR_JIT_STACKLIMIT, _MATCHLIMIT, _HEAPLIMIT
def test_every_limit_raises_the_same_error(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of stack, steps and memory."""

    def substitute(*_args: object) -> bytes:
        raise LibraryError(code)

    monkeypatch.setattr(tags._cy, "substitute", substitute)
    with pytest.raises(ScanLimitError, match="limit"):
        SCANNERS["links"].pieces(b"<a>")


@pytest.mark.parametrize("part", [b"<", b"&", b"<!", b"</a", b"<script>", b"<style>a", b"a<b>", b"<title><"])
def test_fingerprints_reach_no_limit(part: bytes) -> None:
    """They read only the beginning of a page."""
    text = part * (words.MAX_TEXT // len(part))
    assert INTERPRETED["words"].captured(text) == SCANNERS["words"].captured(text)


def test_the_end_of_the_text_is_not_the_last_line() -> None:
    """In PCRE2 `\\Z` means what `$` means in Python."""
    scanner = Scanner(r"[^<]*+(?:<([a-z]++)()|\z)")
    assert [piece for piece in scanner.pieces(b"<a\n") if piece] == ["a"]
    assert not any(TagFinder(None).pieces(b"<a href='x\n"))


# Bans memory that is both written and run, as MemoryDenyWriteExecute does; prints what a page then says.
_READ_UNDER_MDWE = """if True:
    import ctypes, sys
    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:  # PR_SET_MDWE, Linux 6.3
        print("absent")
        sys.exit()
    from pcre2 import LibraryError, _cy
    try:
        _cy.jit_compile(_cy.compile(b"a"))
    except LibraryError:
        pass
    else:
        sys.exit("machine code is not forbidden")
    from crawler.content.html.parsing import parse_page
    page = b"<p><a href=x><title>t</title>" + b"".join(b'<p><a class=c href="%d">' % n for n in range(10_000))
    found = parse_page(page, "https://e.test/", requisites=True, max_links=99_999)
    print(found.title, found.links_count, found.links[0].url, found.links[-1].url)
"""


def test_pages_are_read_without_executable_memory() -> None:
    """As in a unit with MemoryDenyWriteExecute; the kernel enforces it."""
    done = subprocess.run([sys.executable, "-c", _READ_UNDER_MDWE], capture_output=True, text=True, check=False)
    if done.stdout == "absent\n":
        pytest.skip("this kernel knows no PR_SET_MDWE")
    assert (done.returncode, done.stdout, done.stderr) == (0, "t 10001 https://e.test/x https://e.test/9999\n", "")


def test_a_large_page_of_few_tags_takes_little_memory() -> None:
    """Half a million equal tags count as one."""
    text = b"<a>" * 600_000
    parse_page(b"", "https://e.test/", requisites=False, max_links=9)
    tracemalloc.start()
    try:
        parse_page(text, "https://e.test/", requisites=False, max_links=9)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    finally:
        tracemalloc.stop()


def test_words_are_found_between_markup_scripts_and_references() -> None:
    """The words of a fingerprint, each once, without those of the URL."""
    text = b"<p title='no'>One&nbsp;two&x<b>three<script>no</b></script >four<style>no{}</style><TWO>five < six"
    assert fingerprint(text, "https://e.test/five").words == frozenset(
        (b"one", b"two", b"x", b"three", b"four", b"six")
    )


def test_words_by_the_interpreter_are_the_same() -> None:
    """For texts that end within each kind of markup."""
    ends = (b"", b"<script>x", b"<style", b"<!", b"&amp", b"&#1;", b"w", b"<", b">", b"\xc3\xa9", b"<script")
    for text in [b"a <b>c</b>" + end + tail for end in ends for tail in (b"", b" d", b"</script>e", b">f")]:
        assert SCANNERS["words"].captured(text) == INTERPRETED["words"].captured(text)
