"""Which encoding a page is in, and the page in UTF-8."""

import pytest
import webencodings
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.charset import mime_type, sniff, sniff_xml, to_utf8
from tests.support.vectors import vectors

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, ""),
        ("", ""),
        ("text/html", "text/html"),
        (" Text/HTML ; charset=utf-8", "text/html"),
        ("text/html;", "text/html"),
        ("text/html, text/plain", "text/html"),
        ("application/xhtml+xml", "application/xhtml+xml"),
        ("text", ""),
        ("text/", ""),
        ("/html", ""),
        ("text/html x", ""),
        ("te xt/html", ""),
        ("*/*", "*/*"),
    ],
)
def test_mime_types(content_type: str | None, expected: str) -> None:
    """The essence of a Content-Type is given in lower case, nothing where it is malformed."""
    assert expected == mime_type(content_type)


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"", None, "windows-1252"),
        (b"<p>x", "text/html", "windows-1252"),
        (b"<p>x", "text/html; charset=UTF-8", "utf-8"),
        (b"<p>x", 'text/html; x=y; Charset = "ISO-8859-2"', "iso-8859-2"),
        (b"<p>x", "text/html;charset=latin1", "windows-1252"),
        (b"<p>x", "text/html; charset='koi8-r'", "koi8-r"),
        (b"<p>x", "text/html; charset=nonsense", "windows-1252"),
        (b"<meta charset=koi8-r>", "text/html; charset=nonsense", "koi8-r"),
        (b"<meta charset=koi8-r>", "text/html; charset=utf-8", "utf-8"),
        (b"\xef\xbb\xbf<meta charset=koi8-r>", "text/html; charset=koi8-r", "utf-8"),
        (b"\xff\xfe<\0p\0", "text/html; charset=koi8-r", "utf-16le"),
        (b"\xfe\xff\0<\0p", None, "utf-16be"),
        (b"<meta charset=utf-16>", None, "utf-8"),
        (b"<meta charset=x-user-defined>", None, "windows-1252"),
        (b"<meta charset=iso-2022-kr>", None, "windows-1252"),
        (b"<meta charset=nonsense><meta charset=koi8-r>", None, "koi8-r"),
        (b"<!--" + b"x" * 1020 + b"--><meta charset=koi8-r>", None, "windows-1252"),
        (RUSSIAN.encode() * 3, None, "utf-8"),
        (RUSSIAN.encode("cp1251") * 3, None, "windows-1251"),
        (RUSSIAN.encode("koi8-r") * 3, None, "koi8-u"),  # what both can say, chardetng calls by the larger set
        ("日本語のページです。".encode("shift_jis") * 5, None, "shift_jis"),
        (b"x" * 70_000 + RUSSIAN.encode(), None, "windows-1252"),  # beyond what is looked at
        (("a" + "я" * 40_000).encode(), None, "utf-8"),  # cut in the middle of a character
    ],
)
def test_encodings(data: bytes, content_type: str | None, expected: str) -> None:
    """A byte order mark comes first, then the header, then the page's own word, then detection."""
    assert expected == sniff(data, content_type)


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"<p/>", None, "utf-8"),
        (b"<p>\xe4", "application/xhtml+xml", "utf-8"),
        (b"<p/>", "application/xhtml+xml; charset=koi8-r", "koi8-r"),
        (b'<?xml version="1.0" encoding="koi8-r"?>', None, "koi8-r"),
        (b"\r\n<?xml version='1.0' encoding = 'ISO-8859-1' standalone='no' ?>", None, "windows-1252"),
        (b'<?xml version="1.0" encoding="koi8-r"?>', "text/xml; charset=utf-8", "utf-8"),
        (b'\xef\xbb\xbf<?xml version="1.0" encoding="koi8-r"?>', "text/xml; charset=koi8-r", "utf-8"),
        (b'<?xml version="1.0" encoding="utf-16"?>', None, "utf-8"),
        (b'<?xml version="1.0" encoding="nonsense"?>', None, "utf-8"),
        (b'<?xml version="1.0"?><!-- encoding="koi8-r" -->', None, "utf-8"),
        ('<?xml version="1.0"?>'.encode("utf-16le"), None, "utf-16le"),
        ('<?xml version="1.0"?>'.encode("utf-16be"), None, "utf-16be"),
        (b"<meta charset=koi8-r />", None, "utf-8"),
    ],
)
def test_encodings_of_xml(data: bytes, content_type: str | None, expected: str) -> None:
    """A mark, the header, the declaration; nothing is guessed."""
    assert expected == sniff_xml(data, content_type)


# Pages that declare their encoding behind the first 1024 bytes: a browser finds that out while it builds the tree, and
# begins anew. Here detection has to do.
_DECLARED_LATE = frozenset(("tests1.dat", number) for number in range(47, 54))


def cases(text: bytes) -> list[tuple[bytes, str]]:
    found = []
    for case in text.split(b"#data\n")[1:]:
        data, _, encoding = case.partition(b"\n#encoding\n")
        found.append((data, encoding.split(b"\n")[0].decode().lower()))
    return found


def test_the_cases_of_html5lib() -> None:
    """html5lib's pages are in the encoding it says, where its first 1024 bytes tell."""
    wrong = set()
    judged = 0
    for file in sorted(vectors("charset").glob("*.dat")):
        for number, (data, label) in enumerate(cases(file.read_bytes())):
            judged += 1
            if webencodings.lookup(label).name != sniff(data, None):
                wrong.add((file.name, number))
    assert judged > 60
    assert wrong == _DECLARED_LATE


@pytest.mark.parametrize("data", [b"", b"ascii", "schön".encode()])
def test_utf8_is_not_copied(data: bytes) -> None:
    """What is UTF-8 already comes back as the same object."""
    assert to_utf8(data, "utf-8") is data


def test_ascii_is_not_copied() -> None:
    """ASCII is UTF-8, whatever its encoding is called, unless that gives its bytes another meaning."""
    data = b"plain"
    assert to_utf8(data, "windows-1252") is data
    assert to_utf8(b"a\0b\0", "utf-16le") == b"ab"
    assert to_utf8(b'\x1b$B$"\x1b(B', "iso-2022-jp") == "あ".encode()


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"\xef\xbb\xbfa\xc3\xa4", "utf-8", "aä"),
        (b"\xff\xfea\0\xe4\0", "utf-16le", "aä"),
        (b"\xfe\xff\0a\0\xe4", "utf-16be", "aä"),
        (b"a\xe4\x80", "windows-1252", "aä€"),
        (b"a\xe4", "nonsense", "aä"),
        (b"a\xff\xe4b", "utf-8", "a\ufffd\ufffdb"),
        ("привет".encode("koi8-r"), "koi8-r", "привет"),
        (b"\x3d\xd8\x00", "utf-16le", "\ufffd"),
    ],
)
def test_decoding(data: bytes, encoding: str, expected: str) -> None:
    """Text comes out in UTF-8 without a mark; what is no character is replaced."""
    assert expected == to_utf8(data, encoding).decode()


@settings(deadline=None, max_examples=400, derandomize=True)
@given(
    st.binary(max_size=200),
    st.one_of(
        st.none(), st.text(max_size=30), st.sampled_from(sorted(webencodings.LABELS)).map("x/y; charset={}".format)
    ),
    st.sampled_from([b"", b"<meta charset=", b"<meta http-equiv=content-type content='charset=", b"<!--", b"<a b='"]),
)
def test_any_bytes_are_read(data: bytes, content_type: str | None, start: bytes) -> None:
    """Whatever the bytes and the header are, an encoding is named and the text comes out in UTF-8."""
    encoding = sniff(start + data, content_type)
    assert webencodings.lookup(encoding) is not None
    to_utf8(start + data, encoding).decode()
