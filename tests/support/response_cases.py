"""Responses to one GET as the web sends them, and their results.

The tests of the reader, of the oracles and of the client over TLS share this table.
"""

from dataclasses import dataclass

from crawler.fetch.options import FetchOptions
from tests.support.responses import LIMITS

CLEAN, UNCLEAN = True, False
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SHORT_LINES = FetchOptions(max_chunk_line=12)
SHORT_TRAILERS = FetchOptions(max_trailers=20)
SMALL = FetchOptions(max_head=100, max_fields=4, max_informational=2, max_body=10, max_chunk_line=12, max_trailers=20)


@dataclass(frozen=True)
class Case:
    """A response and its result. `words`: as `words_of` returns them; with PROTOCOL_ERROR the reader raises. `payload`
    None: there is no head.
    """

    name: str
    data: bytes
    words: str
    payload: bytes | None = b""
    eof: bool | None = None
    status: int = 200
    limits: FetchOptions = LIMITS


def bad(name: str, data: bytes, payload: bytes | None = None, limits: FetchOptions = LIMITS) -> Case:
    """A refused response. `payload`: what came before a fault in the body."""
    words = "protocol_error cut:unspecified" if payload is not None else "protocol_error cut:unspecified incomplete"
    return Case(name, data, words, payload, limits=limits)


def bad_framing(name: str, fields: bytes) -> Case:
    return bad(name, OK + fields + b"\r\n5\r\nhello\r\n0\r\n\r\n", b"")


IN_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def lenient(name: str, fields: bytes, body: bytes = b"hello") -> Case:
    """A response with a fault in its head that is tolerated; its body is "hello"."""
    return Case(name, OK + fields + b"\r\n" + body, "tainted", b"hello")


CASES = [
    # Content-Length
    Case("length", OK + b"Content-Length: 5\r\n\r\nhello", "reusable", b"hello"),
    Case("length zero", OK + b"Content-Length: 0\r\n\r\n", "reusable"),
    Case("length with leading zeros", OK + b"Content-Length: 005\r\n\r\nhello", "reusable", b"hello"),
    Case("length between tabs", OK + b"content-LENGTH:\t5 \t\r\n\r\nhello", "reusable", b"hello"),
    Case("length twice", OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "reusable", b"hello"),
    Case("length twice in one field", OK + b"Content-Length: 5, 5\r\n\r\nhello", "reusable", b"hello"),
    Case("body not whole yet", OK + b"Content-Length: 5\r\n\r\nhel", "incomplete", b"hel"),
    bad_framing("lengths differ", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    bad_framing("lengths differ in one field", b"Content-Length: 5, 6\r\n"),
    bad_framing("length with an empty twin", b"Content-Length: 5,\r\n"),
    bad_framing("length negative", b"Content-Length: -5\r\n"),
    bad_framing("length with plus", b"Content-Length: +5\r\n"),
    bad_framing("length hexadecimal", b"Content-Length: 0x5\r\n"),
    bad_framing("length with underscore", b"Content-Length: 1_0\r\n"),
    bad_framing("length fraction", b"Content-Length: 5.0\r\n"),
    bad_framing("length in superscript", b"Content-Length: \xb2\r\n"),
    bad_framing("length empty", b"Content-Length:\r\n"),
    bad_framing("length two numbers", b"Content-Length: 5 5\r\n"),
    bad_framing("length of 2^63", b"Content-Length: 9223372036854775808\r\n"),
    bad_framing("length of 40 digits", b"Content-Length: " + b"9" * 40 + b"\r\n"),
    Case("length of 2^63 - 1", OK + b"Content-Length: 9223372036854775807\r\n\r\nx", "incomplete", b"x"),
    Case(
        "fewer bytes than promised",
        OK + b"Content-Length: 5\r\n\r\nhel",
        "closes cut:disconnect truncated",
        b"hel",
        CLEAN,
    ),
    Case("end before the body", OK + b"Content-Length: 5\r\n\r\n", "closes cut:disconnect truncated", b"", UNCLEAN),
    Case("end after the body", OK + b"Content-Length: 5\r\n\r\nhello", "reusable", b"hello", CLEAN),
    Case("bytes after the body", OK + b"Content-Length: 5\r\n\r\nhello!", "extra", b"hello"),
    Case("a second response after the body", (OK + b"Content-Length: 1\r\n\r\nx") * 2, "extra", b"x"),
    Case("an empty line after the body", OK + b"Content-Length: 1\r\n\r\nx\r\n", "extra", b"x"),
    # chunked
    Case("chunked", CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "reusable", b"hello world"),
    Case("chunked empty", CHUNKED + b"0\r\n\r\n", "reusable"),
    Case(
        "chunk sizes in either case",
        CHUNKED + b"a\r\n0123456789\r\n0A\r\n0123456789\r\n000\r\n\r\n",
        "reusable",
        b"0123456789" * 2,
    ),
    Case("chunk extensions", CHUNKED + b'1;a\r\nx\r\n1 ; b = "c;\\"d" ;e=f\r\ny\r\n0;z\r\n\r\n', "reusable", b"xy"),
    Case("trailers", CHUNKED + b"1\r\nx\r\n0\r\nDigest: a\r\nX-Two:\r\n\r\n", "reusable", b"x"),
    Case("trailer folded", CHUNKED + b"1\r\nx\r\n0\r\nDigest: a\r\n b\r\n\r\n", "tainted", b"x"),
    Case("trailer with bare LF", CHUNKED + b"1\r\nx\r\n0\r\nDigest: a\n\r\n", "tainted", b"x"),
    Case("trailers ended by bare LF", CHUNKED + b"1\r\nx\r\n0\r\n\n", "tainted", b"x"),
    Case("chunk size padded", CHUNKED + b"1  \r\nx\r\n0 \r\n\r\n", "tainted", b"x"),
    Case("chunk extension empty", CHUNKED + b"1;\r\nx\r\n0\r\n\r\n", "tainted", b"x"),
    Case("chunk extension unbalanced", CHUNKED + b'1;a="b\r\nx\r\n0\r\n\r\n', "tainted", b"x"),
    Case("chunked, in capitals", OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "reusable"),
    Case("chunked among empty elements", OK + b"Transfer-Encoding: , chunked,\r\n\r\n0\r\n\r\n", "reusable"),
    Case("chunked not whole yet", CHUNKED + b"5\r\nhel", "incomplete", b"hel"),
    Case("bytes after the chunks", CHUNKED + b"1\r\nx\r\n0\r\n\r\nHTTP", "extra", b"x"),
    Case("end inside a chunk", CHUNKED + b"5\r\nhel", "closes cut:disconnect truncated", b"hel", CLEAN),
    Case("end between chunks", CHUNKED + b"3\r\nhel\r\n", "closes cut:disconnect truncated", b"hel", CLEAN),
    Case("end inside the last size", CHUNKED + b"3\r\nhel\r\n0\r", "closes cut:disconnect truncated", b"hel", UNCLEAN),
    Case("end before the trailers' end", CHUNKED + b"3\r\nhel\r\n0\r\n", "closes tainted", b"hel", CLEAN),
    Case("end inside the trailers", CHUNKED + b"3\r\nhel\r\n0\r\nDig", "closes tainted", b"hel", UNCLEAN),
    bad("chunk size missing", CHUNKED + b"\r\nx", b""),
    bad("chunk size not hexadecimal", CHUNKED + b"1\r\nx\r\ng\r\nx", b"x"),
    bad("chunk size negative", CHUNKED + b"-1\r\nx\r\n", b""),
    bad("chunk size with plus", CHUNKED + b"+1\r\nx\r\n", b""),
    bad("chunk size with 0x", CHUNKED + b"0x1\r\nx\r\n", b""),
    bad("chunk size with underscore", CHUNKED + b"1_0\r\nx\r\n", b""),
    bad("chunk size after a space", CHUNKED + b" 1\r\nx\r\n", b""),
    bad("chunk size of 2^63", CHUNKED + b"8000000000000000\r\nx", b""),
    bad("chunk size of 17 digits", CHUNKED + b"00000000000000001\r\nx", b""),
    Case("chunk size of 2^63 - 1", CHUNKED + b"7fffffffffffffff\r\nx", "incomplete", b"x"),
    bad("chunk size ended by bare LF", CHUNKED + b"1\nx\r\n0\r\n\r\n", b""),
    bad("chunk extension without semicolon", CHUNKED + b"1 a\r\nx\r\n0\r\n\r\n", b""),
    bad("NUL in a chunk extension", CHUNKED + b"1;\x00\r\nx\r\n0\r\n\r\n", b""),
    bad("CR in a chunk extension", CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n", b""),
    bad("no CR LF after a chunk", CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n", b"x"),
    bad("LF alone after a chunk", CHUNKED + b"1\r\nx\n0\r\n\r\n", b"x"),
    bad("two bytes and LF after a chunk", CHUNKED + b"1\r\nx\r\r\n0\r\n\r\n", b"x"),
    Case("trailer not a field", CHUNKED + b"0\r\nfoo\r\n\r\n", "tainted"),
    bad("trailer not a field, of a length", CHUNKED + b"0\r\nContent-Length 5\r\n\r\n", b""),
    bad("trailer with space before the colon", CHUNKED + b"0\r\nX : 5\r\n\r\n", b""),
    bad("trailer folded at once", CHUNKED + b"0\r\n foo\r\n\r\n", b""),
    bad("NUL in a trailer", CHUNKED + b"0\r\nA: \x00\r\n\r\n", b""),
    bad("NUL in a folded trailer", CHUNKED + b"0\r\nA: b\r\n \x00\r\n\r\n", b""),
    bad("CR in a folded trailer", CHUNKED + b"0\r\nA: b\r\n c\rd\r\n\r\n", b""),
    # transfer codings
    Case(
        "length beside chunked",
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "tainted",
        b"x",
    ),
    Case(
        "bad length beside chunked",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: x\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "tainted",
        b"x",
    ),
    Case(
        "chunked in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "tainted",
        b"x",
    ),
    bad_framing("coding unknown", b"Transfer-Encoding: gzip\r\n"),
    bad_framing("coding below chunked", b"Transfer-Encoding: gzip, chunked\r\n"),
    bad_framing("chunked not last", b"Transfer-Encoding: chunked, gzip\r\n"),
    bad_framing("chunked not last, two fields", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
    lenient("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", IN_CHUNKS),
    lenient("chunked twice in one field", b"Transfer-Encoding: chunked, chunked\r\n", IN_CHUNKS),
    lenient(
        "chunked twice beside a length", b"Transfer-Encoding: chunked, chunked\r\nContent-Length: 3\r\n", IN_CHUNKS
    ),
    Case(
        "chunked twice, and so coded",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\nf\r\n" + IN_CHUNKS + b"\r\n0\r\n\r\n",
        "tainted",
        IN_CHUNKS,
    ),
    lenient("identity and chunked", b"Transfer-Encoding: identity, chunked\r\n", IN_CHUNKS),
    lenient("chunked and identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", IN_CHUNKS),
    bad_framing("chunkedchunked", b"Transfer-Encoding: chunkedchunked\r\n"),
    bad_framing("chunked with a parameter", b"Transfer-Encoding: chunked;a=b\r\n"),
    bad_framing("chunked after a vertical tab", b"Transfer-Encoding: \x0bchunked\r\n"),
    lenient("coding empty", b"Transfer-Encoding:\r\nContent-Length: 5\r\n"),
    lenient("coding identity", b"Transfer-Encoding: Identity\r\nContent-Length: 5\r\n"),
    Case(
        "coding identity until close",
        OK + b"Transfer-Encoding: identity\r\n\r\nhello",
        "closes tainted",
        b"hello",
        CLEAN,
    ),
    bad_framing("coding identity, bad length", b"Transfer-Encoding: identity\r\nContent-Length: x\r\n"),
    bad_framing("chunked folded", b"Transfer-Encoding: chunked\r\n abc\r\n"),
    # no length
    Case("until close", OK + b"\r\nhello", "closes", b"hello", CLEAN),
    Case("until close, nothing", OK + b"\r\n", "closes", b"", CLEAN),
    Case("until close, not closed", OK + b"\r\nhello", "closes incomplete", b"hello"),
    Case("until close, cut off", OK + b"\r\nhello", "closes cut:disconnect truncated", b"hello", UNCLEAN),
    Case("until close despite keep-alive", OK + b"Connection: keep-alive\r\n\r\nhello", "closes", b"hello", CLEAN),
    # status codes without content
    Case("204", b"HTTP/1.1 204 No Content\r\n\r\n", "reusable", status=204),
    Case("204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "reusable", status=204),
    Case("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "extra", status=204),
    Case("304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "reusable", status=304),
    Case(
        "304 with chunked", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "reusable", status=304
    ),
    Case("304 with bytes after it", b"HTTP/1.1 304 Not Modified\r\n\r\nx", "extra", status=304),
    Case(
        "205 is framed like any other",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        "reusable",
        status=205,
    ),
    # informational
    Case("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", "reusable", b"x"),
    Case(
        "103 with fields, twice",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 7\r\n\r\n" * 2 + OK + b"Content-Length: 1\r\n\r\nx",
        "reusable",
        b"x",
    ),
    Case("eight informational", b"HTTP/1.1 102 Processing\r\n\r\n" * 8 + OK + b"Content-Length: 0\r\n\r\n", "reusable"),
    bad("nine informational", b"HTTP/1.1 102 Processing\r\n\r\n" * 9 + OK + b"Content-Length: 0\r\n\r\n"),
    Case(
        "an empty line after 100",
        b"HTTP/1.1 100 Continue\r\n\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx",
        "tainted",
        b"x",
    ),
    Case("bare LF in 100", b"HTTP/1.1 100 Continue\n\n" + OK + b"Content-Length: 1\r\n\r\nx", "tainted", b"x"),
    bad("101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"),
    Case("only 100", b"HTTP/1.1 100 Continue\r\n\r\n", "incomplete", None),
    Case("end after 100", b"HTTP/1.1 100 Continue\r\n\r\n", "incomplete closes cut:disconnect truncated", None, CLEAN),
    # persistence
    Case("close", OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", "closes", b"x"),
    Case("close among others", OK + b"Connection: foo, Close\r\nContent-Length: 1\r\n\r\nx", "closes", b"x"),
    Case(
        "close and keep-alive",
        OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        "closes",
        b"x",
    ),
    Case("closed is not close", OK + b"Connection: closed\r\nContent-Length: 1\r\n\r\nx", "reusable", b"x"),
    Case(
        "Proxy-Connection means nothing",
        OK + b"Proxy-Connection: close\r\nContent-Length: 1\r\n\r\nx",
        "reusable",
        b"x",
    ),
    Case("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "closes", b"x"),
    Case(
        "HTTP/1.0 keep-alive",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\nx",
        "reusable",
        b"x",
    ),
    Case(
        "HTTP/1.0 keep-alive without length",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nx",
        "closes",
        b"x",
        CLEAN,
    ),
    bad(
        "HTTP/1.0 keep-alive, bad length",
        b"HTTP/1.0 200 OK\r\nContent-Length: a\r\nConnection: keep-alive\r\n\r\nx",
        b"",
    ),
    Case("HTTP/1.2 is read as 1.1", b"HTTP/1.2 200 OK\r\nContent-Length: 1\r\n\r\nx", "reusable", b"x"),
    # the head's form
    Case("no reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "reusable"),
    Case("empty reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "reusable"),
    Case("reason in latin-1", b"HTTP/1.1 501 Ori\xebntatie\r\nContent-Length: 0\r\n\r\n", "reusable", status=501),
    Case("status 999", b"HTTP/1.1 999 Request denied\r\nContent-Length: 0\r\n\r\n", "reusable", status=999),
    Case("empty value", OK + b"Pragma: \r\nContent-Length: 0\r\nX:\r\n\r\n", "reusable"),
    Case("bare LF throughout", b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", "tainted", b"x"),
    Case("bare LF at one line", OK + b"A: b\nContent-Length: 1\r\n\r\nx", "tainted", b"x"),
    Case("bare LF before the empty line", OK + b"Content-Length: 1\n\r\nx", "tainted", b"x"),
    Case("bare LF for the empty line", OK + b"Content-Length: 1\r\n\nx", "tainted", b"x"),
    Case(
        "bare LF, CR LF CR LF in the body",
        b"HTTP/1.1 200 OK\nContent-Length: 6\n\nx\r\n\r\ny",
        "tainted",
        b"x\r\n\r\ny",
    ),
    Case("folded field", OK + b"A: b\r\n\t c\r\nContent-Length: 1\r\n\r\nx", "tainted", b"x"),
    Case("field folded onto nothing", OK + b"Content-Length: 1\r\nA:\r\n \r\n  b\r\n\r\nx", "tainted", b"x"),
    Case("control character in a value", OK + b"A: b\x01\x7f\x0c\r\nContent-Length: 1\r\n\r\nx", "tainted", b"x"),
    Case("control character in the reason", b"HTTP/1.1 200 \x1b\r\nContent-Length: 1\r\n\r\nx", "tainted", b"x"),
    Case("an empty line first", b"\r\n" + OK + b"Content-Length: 1\r\n\r\nx", "tainted", b"x"),
    Case("two empty lines first", b"\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", "tainted", b"x"),
    bad("three empty lines first", b"\r\n\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx"),
    bad("length folded", OK + b"Content-Length: 1\r\n 2\r\n\r\nx", b""),
    bad("fold before any field", OK + b" A: b\r\nContent-Length: 1\r\n\r\nx"),
    bad("NUL in a value", OK + b"A: b\x00\r\n\r\n"),
    bad("NUL in a name", OK + b"A\x00: b\r\n\r\n"),
    bad("NUL in a fold", OK + b"A: b\r\n \x00\r\n\r\n"),
    bad("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n"),
    bad("CR in a value", OK + b"Foo: 1\rBar: 2\r\n\r\n"),
    bad("CR in a fold", OK + b"A: b\r\n c\rd\r\n\r\n"),
    bad("CR CR LF", b"HTTP/1.1 200 OK\r\r\nA: b\r\n\r\n"),
    bad("space before the colon", OK + b"Content-Length : 1\r\n\r\nx"),
    lenient("space in a name", b"en-US Content-Type: a\r\nContent-Length: 5\r\n"),
    lenient("no name", b": b\r\nContent-Length: 5\r\n"),
    lenient("no colon", b"Content-Length: 5\r\nfoo bar\r\n"),
    lenient("no colon, folded", b"Content-Length: 5\r\nfoo\r\n bar: c\r\n\tbaz\r\n"),
    lenient("no colon, chunked", b"foo\r\nTransfer-Encoding: chunked\r\n", IN_CHUNKS),
    lenient("name in latin-1", b"\xe9: b\r\nContent-Length: 5\r\n"),
    lenient("name with a control character", b"A\x01: b\r\nContent-Length: 5\r\n"),
    bad("no colon after a length", OK + b"Content-Length 5\r\n\r\nhello"),
    bad("space in a name with a length", OK + b"X content-length: 5\r\n\r\nhello"),
    bad("no name before a coding", OK + b": Transfer-Encoding: chunked\r\n\r\n" + IN_CHUNKS),
    bad("space before the colon of any name", OK + b"X : 1\r\nContent-Length: 5\r\n\r\nhello"),
    bad("CR in a line without colon", OK + b"foo\rbar\r\nContent-Length: 5\r\n\r\nhello"),
    bad("NUL in a line without colon", OK + b"foo\x00\r\nContent-Length: 5\r\n\r\nhello"),
    bad("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n"),
    bad("tab before the status", b"HTTP/1.1\t200 OK\r\n\r\n"),
    bad("status of two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
    bad("status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
    bad("status 099", b"HTTP/1.1 099 OK\r\n\r\n"),
    bad("status negative", b"HTTP/1.1 -20 OK\r\n\r\n"),
    bad("no status", b"HTTP/1.1\r\n\r\n"),
    bad("HTTP/0.9", b"HTTP/0.9 200 OK\r\n\r\n"),
    bad("HTTP/2 status line", b"HTTP/2 200\r\n\r\n"),
    bad("HTTP/2.0 status line", b"HTTP/2.0 200 OK\r\n\r\n"),
    bad("HTTP/01.1", b"HTTP/01.1 200 OK\r\n\r\n"),
    bad("HTTP/1.10", b"HTTP/1.10 200 OK\r\n\r\n"),
    bad("lower case", b"http/1.1 200 OK\r\n\r\n"),
    bad("HTTP/0.9 answer", b"<html>"),
    bad("ICY", b"ICY 200 OK\r\n\r\n"),
    bad("RTSP", b"RTSP/1.0 200 OK\r\n\r\n"),
    bad("HTTP/2 preface settings", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    bad("TLS alert", b"\x15\x03\x03\x00\x02\x02\x28"),
    bad("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
    bad("junk before the head", b"xx" + OK),
    # limits
    Case("head of exactly the cap", OK + b"A: " + b"b" * 76 + b"\r\n\r\n", "closes incomplete", b"", limits=SMALL),
    bad("head one byte over the cap", OK + b"A: " + b"b" * 77 + b"\r\n\r\n", limits=SMALL),
    bad("head without end at the cap", OK + b"A: " + b"b" * 80, limits=SMALL),
    Case("fields of exactly the cap", OK + b"A: b\r\n" * 4 + b"\r\n", "closes incomplete", b"", limits=SMALL),
    bad("one field over the cap", OK + b"A: b\r\n" * 5 + b"\r\n", limits=SMALL),
    Case(
        "each informational head has the cap to itself",
        (b"HTTP/1.1 103 OK\r\nA: " + b"b" * 60 + b"\r\n\r\n") * 2 + OK + b"Content-Length: 0\r\n\r\n",
        "reusable",
        limits=SMALL,
    ),
    Case(
        "length of exactly the cap",
        OK + b"Content-Length: 10\r\n\r\n0123456789",
        "reusable",
        b"0123456789",
        limits=SMALL,
    ),
    Case(
        "length over the cap", OK + b"Content-Length: 11\r\n\r\n0123456789a", "cut:length", b"0123456789", limits=SMALL
    ),
    Case(
        "length over the cap, cut at the cap",
        OK + b"Content-Length: 99\r\n\r\n0123456789",
        "cut:length",
        b"0123456789",
        limits=SMALL,
    ),
    Case(
        "length over the cap, end before it",
        OK + b"Content-Length: 99\r\n\r\n012345678",
        "closes cut:disconnect truncated",
        b"012345678",
        CLEAN,
        limits=SMALL,
    ),
    Case("until close, exactly the cap", OK + b"\r\n0123456789", "closes", b"0123456789", CLEAN, limits=SMALL),
    Case("until close, over the cap", OK + b"\r\n0123456789a", "closes cut:length", b"0123456789", limits=SMALL),
    Case("chunked, exactly the cap", CHUNKED + b"0\r\nA: b\r\n\r\n"[:-1], "incomplete", b"", limits=SMALL),
    Case("chunked, the cap to the byte", CHUNKED + b"0;ab\r\n\r\n", "reusable", b"", limits=SMALL),
    Case("chunked, over the cap", CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n", "cut:length", b"abcd", limits=SMALL),
    Case(
        "chunked, over the cap inside a chunk", CHUNKED + b"20\r\n" + b"x" * 32, "cut:length", b"xxxxxx", limits=SMALL
    ),
    Case(
        "chunk size line of exactly the cap",
        CHUNKED + b"5;abcdefgh\r\nhello\r\n0\r\n\r\n",
        "reusable",
        b"hello",
        limits=SHORT_LINES,
    ),
    bad("trailers over the cap", CHUNKED + b"0\r\nA: bbbbbbbbbb\r\nA: bbbb\r\n\r\n", b"", limits=SHORT_TRAILERS),
    bad("chunk size line over the cap", CHUNKED + b"5;abcdefghi\r\nhello\r\n0\r\n\r\n", b"", limits=SHORT_LINES),
    # nothing, or too little
    Case("nothing", b"", "incomplete", None),
    Case("nothing, then the end", b"", "incomplete closes cut:disconnect server_closed", None, CLEAN),
    Case("end inside the head", OK + b"Content-", "incomplete closes cut:disconnect truncated", None, CLEAN),
    Case("end inside the version", b"HTT", "incomplete closes cut:disconnect truncated", None, UNCLEAN),
    Case("end inside the leading empty line", b"\r", "incomplete closes cut:disconnect truncated", None, UNCLEAN),
]
BY_NAME = {case.name: case for case in CASES}
