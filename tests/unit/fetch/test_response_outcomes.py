"""Responses as the web sends them, over TLS: outcome, error, and whether the connection
lived, however the bytes were split on their way.

The table is the reader's own (`response_cases`); here the client as a whole is held to it. `LINES` names the lines of
the list of framing outcomes and the cases that stand for each.
"""

import random

import pytest

from crawler.core.models import Fetched, Origin
from crawler.core.outcomes import outcome_label
from crawler.fetch.options import FetchOptions
from tests.support.fetching import client, until
from tests.support.response_cases import BY_NAME, CASES, CLEAN, UNCLEAN, Case
from tests.support.responses import single_bytes, split_at
from tests.support.scripted_server import Certificates, ok, serve

# What an exchange cannot end with: the answer is not whole and the server says nothing more. Deadlines end those.
WITHOUT_END = {
    case.name
    for case in CASES
    if "incomplete" in case.words and case.eof is None and "protocol_error" not in case.words
}
ENDING = [case for case in CASES if case.name not in WITHOUT_END]
LIMITS = sorted({case.limits for case in CASES}, key=repr)


def expected(case: Case) -> tuple[str, str | None, bool]:
    """Outcome, error_type, and whether the connection stays open."""
    words = set(case.words.split())
    if "protocol_error" in words:
        return "error", "protocol_error", False
    if "server_closed" in words:
        return "error", "server_closed", False
    if "truncated" in words:
        return ("error" if "incomplete" in words else "truncated"), "truncated", False
    if "cut:length" in words:
        return "truncated", None, False
    return (
        ("http_error" if case.status >= 400 or case.status == 304 else "ok"),
        None,
        words == {"reusable"} and case.eof is None,
    )


# RFC 9112 as met in practice: a line of the list, what becomes of it, and the cases that show it.
OK_LIVES, OK_CLOSED = ("ok", None, True), ("ok", None, False)
REFUSED, CUT, TRUNCATED = (
    ("error", "protocol_error", False),
    ("truncated", None, False),
    ("truncated", "truncated", False),
)
LINES = {
    "Content-Length, keep-alive": (OK_LIVES, "length|length zero|length with leading zeros"),
    "identical duplicate Content-Length": (OK_LIVES, "length twice|length twice in one field"),
    "different duplicates; negative, +5, hex, empty, over the cap": (
        REFUSED,
        "lengths differ|lengths differ in one field|length negative|length with plus|length hexadecimal|length empty|"
        "length of 2^63|length of 40 digits|length with an empty twin",
    ),
    "Content-Length and Transfer-Encoding": (OK_CLOSED, "length beside chunked|bad length beside chunked"),
    "unknown coding, chunked not last": (
        REFUSED,
        "coding unknown|coding below chunked|chunked not last|chunked not last, two fields|chunked with a parameter",
    ),
    "`chunked` twice, `identity`; a line without colon, with an empty name or a space in it": (
        OK_CLOSED,
        "chunked twice|chunked twice in one field|chunked twice beside a length|identity and chunked|"
        "chunked and identity|coding identity|coding identity until close|coding empty|no colon|no colon, folded|"
        "no name|space in a name|name in latin-1",
    ),
    "… where the body's end is in doubt": (
        REFUSED,
        "no colon after a length|space in a name with a length|no name before a coding",
    ),
    "fewer bytes than Content-Length; chunked without last chunk": (
        TRUNCATED,
        "fewer bytes than promised|end before the body|end inside a chunk|end between chunks|end inside the last size",
    ),
    "bytes after the body": (
        OK_CLOSED,
        "bytes after the body|a second response after the body|an empty line after the body|bytes after the chunks",
    ),
    "chunk size overflow, negative, missing CRLF, endless extension; endless trailers": (
        REFUSED,
        "chunk size of 2^63|chunk size of 17 digits|chunk size negative|no CR LF after a chunk|LF alone after a chunk|"
        "chunk size line over the cap|trailers over the cap",
    ),
    "bare LF, obs-fold": (OK_CLOSED, "bare LF throughout|bare LF at one line|folded field|trailer folded"),
    "NUL in a header, `Name :`": (REFUSED, "NUL in a value|NUL in a name|NUL in a fold|space before the colon"),
    "1xx before the response": (OK_LIVES, "100 first|103 with fields, twice|eight informational"),
    "more than 8 of them, and an unasked 101": (REFUSED, "nine informational|101 unasked"),
    "204 with bytes after the head": (OK_CLOSED, "204 with a body"),
    "304 with bytes after the head; here nobody asked for it": (("http_error", None, False), "304 with bytes after it"),
    "HTTP/0.9, ICY, HTTP/2 status line, garbage": (
        REFUSED, "HTTP/0.9|HTTP/0.9 answer|ICY|HTTP/2 status line|HTTP/2 preface settings|junk before the head|SSH"
    ),
    "HTTP/1.0": (OK_CLOSED, "HTTP/1.0|HTTP/1.0 keep-alive without length"),
    "HTTP/1.0 with keep-alive and a valid length": (OK_LIVES, "HTTP/1.0 keep-alive"),
    "no length, no chunked": (OK_CLOSED, "until close|until close, nothing|until close despite keep-alive"),
    "no length, no chunked, no close_notify": (TRUNCATED, "until close, cut off"),
    "head over the cap, too many fields, endless head": (
        REFUSED, "head one byte over the cap|one field over the cap|head without end at the cap"
    ),
    "body over fetch.max_body": (
        CUT,
        "length over the cap|until close, over the cap|chunked, over the cap|chunked, over the cap inside a chunk",
    ),
    "`Connection: close`": (OK_CLOSED, "close|close among others|close and keep-alive"),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_list_has_its_outcome(line: str) -> None:
    """Each case of a line has that line's outcome; the tests below check the client with each case."""
    outcome, names = LINES[line]
    for name in names.split("|"):
        assert (name, outcome) == (name, expected(BY_NAME[name]))
        assert name not in WITHOUT_END


def options_of(case_limits) -> FetchOptions:
    return FetchOptions(
        max_head=case_limits.max_head,
        max_fields=case_limits.max_fields,
        max_informational=case_limits.max_informational,
        max_body=case_limits.max_body,
        max_chunk_line=case_limits.max_chunk_line,
        max_trailers=case_limits.max_trailers,
        first_byte_timeout_s=20.0,
        read_timeout_s=20.0,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("manner", ["whole", "byte by byte", "split 1", "split 2", "split 3"])
@pytest.mark.parametrize(
    "limits",
    LIMITS,
    ids=lambda limits: f"head {limits.max_head}, line {limits.max_chunk_line}, trailers {limits.max_trailers}",
)
async def test_what_the_web_sends_has_one_outcome_over_tls(certificates, limits, manner) -> None:
    """Each case from a TLS server has the outcome, error_type and connection state of the table."""
    cases = [case for case in ENDING if case.limits == limits]
    rng = random.Random(manner)

    def pieces(data: bytes) -> list[bytes]:
        if manner == "whole" or len(data) < 2:
            return [data]
        return single_bytes(data) if manner == "byte by byte" else split_at(data, rng.randrange(1, len(data)))

    async def script(a):
        while path := await a.request():
            if path == "/again":
                await a.send(ok(b"again"))
                continue
            case = cases[int(path[1:])]
            for piece in pieces(case.data):
                if a.writer.transport.is_closing():
                    return
                await a.send(piece)
            if case.eof is CLEAN:
                return
            if case.eof is UNCLEAN:
                await a.cut()
                return

    tls = certificates.server("a.test")
    async with (
        serve(script, tls=tls) as server,
        client(ca_file=certificates.ca_file, fetch=options_of(limits)) as c,
    ):
        url, origin = f"https://a.test:{server.port}", Origin("https", "a.test", server.port)
        for number, case in enumerate(cases):
            result = await c.get(f"{url}/{number}")
            error = None if result.error_type is None else result.error_type.value
            outcome, error_type, lives = expected(case)
            assert (case.name, outcome_label(result), error) == (case.name, outcome, error_type)
            if isinstance(result, Fetched):
                assert (case.name, result.head.status_code) == (case.name, case.status)
                assert (case.name, b"".join(result.payload.chunks())) == (case.name, case.payload)
                assert result.tainted == ("tainted" in case.words)
            if lives:
                again = await c.get(f"{url}/again")
                assert (case.name, again.connection.id) == (case.name, result.connection.id)
                assert again.payload.prefix(9) == b"again"
            else:  # a byte too many, or the end, may come a moment after the response
                await until(lambda: origin not in c.pool._slots)
        assert c.address_limiter.is_balanced


def test_only_cases_that_a_deadline_ends_are_left_out() -> None:
    """They are few, and each is an incomplete response."""
    assert all(BY_NAME[name].eof is None for name in WITHOUT_END)
    assert len(WITHOUT_END) < 12
