"""The encoding of a page, and its text in UTF-8."""

import hashlib

import pytest
import webencodings
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.content.charset import sniff, sniff_css, sniff_xml, to_utf8
from tests.support.vectors import vectors

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "


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
        (b"<!--" + b"x" * 1020 + b"--><meta charset=koi8-r>", None, "koi8-r"),
        (b"x" * 2000 + b"<meta content='text/html; Charset=koi8-r' http-equiv=Content-Type>", None, "koi8-r"),
        (b"x" * 2000 + b"<meta charset=utf-16><meta charset=koi8-r>", None, "utf-8"),
        (b"x" * 2000 + b"<!--<meta charset=koi8-r>--><script>'<meta charset=koi8-r>'</script>", None, "windows-1252"),
        (b"<meta charset=koi8-u>" + b"x" * 2000 + b"<meta charset=koi8-r>", None, "koi8-u"),
        (b"x" * 2000 + b"<meta charset=koi8-r>", "text/html; charset=utf-8", "utf-8"),
        (b"<?xml version='1.0' encoding='koi8-r'?>", None, "koi8-r"),
        (b"<?xml version='1.0' encoding='utf-16'?>", None, "utf-8"),
        (b"<?xml version='1.0' encoding='koi8-r'?><meta charset=koi8-u>", None, "koi8-u"),
        (b"<?xml version='1.0' encoding='koi8-r'?>" + b"x" * 2000 + b"<meta charset=koi8-u>", None, "koi8-u"),
        (b" <?xml version='1.0' encoding='koi8-r'?>", None, "windows-1252"),
        ("<?xml version='1.0'?>".encode("utf-16le"), None, "utf-16le"),
        (RUSSIAN.encode() * 3, None, "utf-8"),
        (RUSSIAN.encode("cp1251") * 3, None, "windows-1251"),
        (RUSSIAN.encode("koi8-r") * 3, None, "koi8-u"),  # what both can say, chardetng calls by the larger set
        ("日本語のページです。".encode("shift_jis") * 5, None, "shift_jis"),
        (b"x" * 70_000 + RUSSIAN.encode(), None, "utf-8"),  # a browser looks at all of a page, too
        (b"x" * 70_000 + RUSSIAN.encode("cp1251") * 3, None, "windows-1251"),
        (RUSSIAN.encode() + b"\xff", None, "utf-8"),  # one broken character
        (RUSSIAN.encode()[:-30] + b"\xd0", None, "utf-8"),
        (b"a caf\xe9", None, "windows-1252"),  # no character of UTF-8, though one may begin here
        (("a" + "я" * 40_000).encode(), None, "utf-8"),  # cut in the middle of a character
    ],
)
def test_encodings(data: bytes, content_type: str | None, expected: str) -> None:
    """First a byte order mark, then the header, the page's own declaration, and detection."""
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
    """The mark, the header, the declaration; without detection."""
    assert expected == sniff_xml(data, content_type)


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (b"p{}", "text/css", "utf-8"),
        (b'@charset "koi8-r"; p{}', "text/css", "koi8-r"),
        (b'@charset "koi8-r"; p{}', "text/css; charset=windows-1251", "windows-1251"),
        (b'@charset "utf-16"; p{}', None, "utf-8"),
        (b"@charset 'koi8-r'; p{}", None, "utf-8"),  # the standard wants it to the byte
        (b' @charset "koi8-r";', None, "utf-8"),
        (b'@charset "nonsense";', None, "utf-8"),
        (b'\xff\xfe@\0charset "koi8-r";', "text/css; charset=koi8-r", "utf-16le"),
    ],
)
def test_encodings_of_style_sheets(data: bytes, content_type: str | None, expected: str) -> None:
    """The mark, the header, the @charset rule."""
    assert expected == sniff_css(data, content_type)


def cases(text: bytes) -> list[tuple[bytes, str]]:
    found = []
    for case in text.split(b"#data\n")[1:]:
        data, _, encoding = case.partition(b"\n#encoding\n")
        found.append((data, encoding.split(b"\n")[0].decode().lower()))
    return found


def test_the_cases_of_html5lib() -> None:
    """The encodings of html5lib's test pages."""
    wrong = set()
    judged = 0
    for file in sorted(vectors("charset").glob("*.dat")):
        for number, (data, label) in enumerate(cases(file.read_bytes())):
            judged += 1
            if webencodings.lookup(label).name != sniff(data, None):
                wrong.add((file.name, number))
    assert judged > 60
    assert wrong == set()


@pytest.mark.parametrize("data", [b"", b"ascii", "schön".encode()])
def test_utf8_is_not_copied(data: bytes) -> None:
    """UTF-8 is returned as the same object."""
    assert to_utf8(data, "utf-8") is data


def test_ascii_is_not_copied() -> None:
    """ASCII is UTF-8 in any encoding that does not give its bytes another meaning."""
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
    """The text is UTF-8 without a mark; invalid bytes are replaced."""
    assert expected == to_utf8(data, encoding).decode()


# Digests of what the indexes of the Encoding standard (2024-09-18) hold: of each lead byte from 80 on with each trail
# byte from 40 on that stands for something, in order.
_TWO_BYTES = {
    "shift_jis": "13dfc48f55064d44af98a9ce9e7ea5e9",
    "euc-jp": "05cc975946f3186438562aff29151007",
    "gbk": "85373408efe24c652c0a2f37997df8c6",
    "gb18030": "85373408efe24c652c0a2f37997df8c6",
    "big5": "e7920b36af3300c668f66ce3c6533c95",
    "euc-kr": "f49bf642f090c1ce9815815ce783022b",
}
# The same of the bytes 80 to FF in all of these.
_ONE_BYTE = (
    "ibm866", "iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16", "iso-8859-2", "iso-8859-3",
    "iso-8859-4", "iso-8859-5", "iso-8859-6", "iso-8859-7", "iso-8859-8", "koi8-r", "koi8-u", "macintosh",
    "windows-1250", "windows-1251", "windows-1252", "windows-1253", "windows-1254", "windows-1255", "windows-1256",
    "windows-1257", "windows-1258", "windows-874", "x-mac-cyrillic",
)  # fmt: skip
_ONE_BYTE_DIGEST = "71124440edd342e3ac6776cb6abac132"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@pytest.mark.parametrize("encoding", _TWO_BYTES)
def test_double_byte_characters_are_those_of_the_standard(encoding: str) -> None:
    """The whole index, with the rows of NEC and IBM and the private use area."""
    leads = [lead for lead in range(0x80, 0x100) if "\ufffd" in to_utf8(bytes((lead,)), encoding).decode()]
    texts = (to_utf8(bytes((lead, trail)), encoding).decode() for lead in leads for trail in range(0x40, 0x100))
    assert _digest("".join(text for text in texts if "\ufffd" not in text)) == _TWO_BYTES[encoding]


def test_single_byte_characters_are_those_of_the_standard() -> None:
    """The index of each single-byte encoding."""
    upper = [bytes((code,)) for code in range(0x80, 0x100)]
    assert _digest("".join(to_utf8(byte, name).decode() for name in _ONE_BYTE for byte in upper)) == _ONE_BYTE_DIGEST


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"\x80 \x81\x30\x84\x36 \x95\x32\x82\x36", "gbk", "€ ¥ \U00020000"),
        (b"\xad\xa1 \xf9\xa1 \x8f\xb0\xa1 \x8e\xb1", "euc-jp", "① 纊 丂 ｱ"),
        (b"\x87\x40 \xed\x40 \xfa\x40", "shift_jis", "① 纊 ⅰ"),
        (b"\x88\x62 \x87\x40", "big5", "\xca\u0304 䏰"),
        (b"\x1b$B-!\x1b(B", "iso-2022-jp", "①"),
        (b"\x81\x8d\xad", "windows-1252", "\x81\x8d\xad"),
        (b"\xae\xbe", "koi8-u", "ўЎ"),
        (b"a\x80", "x-user-defined", "a\uf780"),
    ],
)
def test_differences_from_python_s_decoders(data: bytes, encoding: str, expected: str) -> None:
    """Characters that Python decodes otherwise than the standard."""
    assert expected == to_utf8(data, encoding).decode()


_WORDS = ("Größe", "œuvre", "привет", "日本語", "中文", "한국어", "café", "ไทย", "\U0001f600", "—", "żółw")
_UTF8_TEXT = st.lists(st.sampled_from((*_WORDS, "text", "<b>")), min_size=1, max_size=40).map(" ".join)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(_UTF8_TEXT, st.sampled_from([0, 1000, 65_530, 100_000]), st.integers(0, 3))
def test_utf8_needs_no_label(text: str, before: int, cut: int) -> None:
    """In any language, after any amount of ASCII, and cut within a character."""
    data = b"x" * before + text.encode()
    if any(byte >= 0x80 for byte in data):
        data += "日本".encode()[: 3 + cut]
        assert sniff(data, "text/html") == "utf-8"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Größe über Äpfel, süß und öde", "windows-1252"), (RUSSIAN, "windows-1251"), (RUSSIAN, "koi8-r"),
     ("日本語のページです。", "euc-jp"), ("日本語のページです。", "shift_jis"), ("这是一个中文网页的标题", "gbk"),
     ("這是一個中文網頁的標題", "big5"), ("한국어로 된 웹 페이지입니다", "cp949"), ("หน้าเว็บภาษาไทย", "tis-620"),
     ("Zażółć gęślą jaźń", "iso-8859-2"), ("ελληνικά κείμενα", "iso-8859-7")],
)  # fmt: skip
def test_other_encodings_are_not_taken_for_utf8(text: str, encoding: str) -> None:
    """Not even if a part is valid UTF-8."""
    data = (text.encode(encoding) + b" ") * 20
    assert sniff(data, None) != "utf-8"
    assert sniff("é ".encode() * 10 + data, None) != "utf-8"


@settings(deadline=None, max_examples=400, derandomize=True)
@given(
    st.binary(max_size=200),
    st.one_of(
        st.none(), st.text(max_size=30), st.sampled_from(sorted(webencodings.LABELS)).map("x/y; charset={}".format)
    ),
    st.sampled_from([b"", b"<meta charset=", b"<meta http-equiv=content-type content='charset=", b"<!--", b"<a b='"]),
)
def test_any_bytes_are_read(data: bytes, content_type: str | None, start: bytes) -> None:
    """For any bytes and header there is an encoding, and the text is UTF-8."""
    encoding = sniff(start + data, content_type)
    assert webencodings.lookup(encoding) is not None
    to_utf8(start + data, encoding).decode()
