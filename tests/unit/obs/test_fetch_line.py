"""The fetch.jsonl line of each outcome."""

import pytest

from crawler.core.body import BytesBody
from crawler.core.enums import (
    CodingFault,
    DenyReason,
    ErrorType,
    Next,
    ReadingFault,
    Source,
    TruncatedReason,
    UrlState,
)
from crawler.core.formatting import timestamp
from crawler.core.models import (
    ConnectionInfo,
    Denied,
    Discovered,
    Failed,
    Fetched,
    Head,
    NotModified,
    Origin,
    Outcome,
    PageInfo,
    Record,
    RecordLocation,
    Redirected,
    Settlement,
    Task,
    Timings,
)
from crawler.obs.fetch_line import fetch_line, next_of, redact, redact_text
from crawler.obs.log_files import encode_line

AT = 1_795_424_400.1234
TASK = Task(
    7, "https://e.org:8443/a?token=s3cret", via="https://u:p@e.org/", depth=2, hop_path="LL", source=Source.LINK
)


def fetched(status: int = 200, *, request_n: int = 5, **changes: object) -> Fetched:
    head = Head(status, "", "1.1", (("content-type", "Text/HTML; charset=utf-8"),))
    timings = Timings(0.001, 0.002, 0.003, 0.004, 0.005)
    connection = ConnectionInfo(17, request_n, "192.0.2.1", "1.3", True)
    values: dict[str, object] = {"head": head, "timings": timings, "connection": connection, **changes}
    return Fetched(
        request_bytes=b"", raw_head=b"", raw_body=BytesBody(b"5\r\nhello\r\n"), payload=BytesBody(b"hello"),
        started_at=AT, **values,  # type: ignore[arg-type]
    )  # fmt: skip


def settled(outcome: Outcome, state: UrlState = UrlState.DONE, **changes: object) -> Settlement:
    return Settlement(TASK, 1, outcome, state, finished_at=AT, **changes)  # type: ignore[arg-type]


def line_of(settlement: Settlement, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {"links_found": 0, "links_new": 0, "written": None, **changes}
    return fetch_line(settlement, crawl="news", run_id="r1", fetch_id=3, **values)  # type: ignore[arg-type]


START = {
    "ts": "2026-11-23T09:00:00.123Z", "event": "fetch", "level": "info", "crawl": "news", "run_id": "r1", "fetch_id": 3,
    "url_full": "https://e.org:8443/a?token=***", "server_address": "e.org", "via": "https://***@e.org/",
    "depth": 2, "hop_path": "LL", "source": "link", "attempt": 1,
}  # fmt: skip
ANSWERED = {
    "http_request_resend_count": 0, "http_response_body_size": 5, "content_type": "text/html",
    "sent_at": "2026-11-23T09:00:00.123Z", "ttfb_ms": 4.0, "body_ms": 5.0,
    "conn_id": 17, "conn_request_n": 5, "network_peer_address": "192.0.2.1",
    "tls_protocol_version": "1.3", "tls_resumed": True,
}  # fmt: skip


def test_a_page() -> None:
    """All fields of a stored page, without secrets."""
    answer = fetched()
    record = Record(TASK, answer, "sha256:ABC", PageInfo(content_type="text/html", links_count=44, content_size=190))
    line = line_of(
        settled(answer, record=record, next_at=AT + 1),
        links_new=9, links_found=44, written=RecordLocation("w.warc.gz", 12), queue_ms=1.006, politeness_ms=0.0,
        dur_ms=20.0,
    )  # fmt: skip
    assert line == START | ANSWERED | {
        "outcome": "ok", "http_response_status_code": 200, "content_size": 190, "content_digest": "sha256:ABC",
        "queue_ms": 1.01, "politeness_ms": 0.0, "dur_ms": 20.0, "links_found": 44, "links_new": 9,
        "warc_file": "w.warc.gz", "warc_offset": 12, "next": "revisit", "next_at": "2026-11-23T09:00:01.123Z",
    }  # fmt: skip


def test_the_first_request_of_a_connection_has_the_times_of_opening_it() -> None:
    """DNS, connection and TLS times are in one line for each connection, so that sums are right."""
    line = line_of(settled(fetched(request_n=1)))
    assert (line["dns_ms"], line["connect_ms"], line["tls_ms"]) == (1.0, 2.0, 3.0)
    assert "dns_ms" not in line_of(settled(fetched(request_n=2)))


def test_a_redirect() -> None:
    """The target is redacted, and counts as a found link."""
    target = Discovered("https://e.org/b?sid=1", Origin("https", "e.org", 443), 1, 2, "LLR", Source.REDIRECT)
    outcome = Redirected(fetched(301), target.url)
    line = line_of(settled(outcome, discovered=(target,)), links_found=1, links_new=1)
    assert line == START | ANSWERED | {
        "outcome": "redirect", "http_response_status_code": 301, "redirect_to": "https://e.org/b?sid=***",
        "links_found": 1, "links_new": 1, "next": "done",
    }  # fmt: skip


def test_not_modified() -> None:
    """A 304 has an outcome of its own."""
    line = line_of(settled(NotModified(fetched(304))))
    assert (line["outcome"], line["http_response_status_code"]) == ("not_modified", 304)


def test_a_truncated_response_has_its_error() -> None:
    """The error that cut the body is beside the status."""
    answer = fetched(truncated=TruncatedReason.DISCONNECT, error_type=ErrorType.RESET)
    line = line_of(settled(answer, UrlState.WAITING, next_at=AT))
    assert (line["outcome"], line["error_type"], line["next"]) == ("truncated", "reset", "retry")
    assert line["truncated"] == "disconnect"


def test_lenient_framing_and_coding_faults_are_logged() -> None:
    """A response with lenient framing, and a page whose coding differs from its header."""
    answer = fetched(tainted=True)
    page = PageInfo(coding_fault=CodingFault.NOT_CODED, reading_fault=ReadingFault.LIMIT)
    line = line_of(settled(answer, record=Record(TASK, answer, "sha256:ABC", page)))
    assert (line["outcome"], line["tainted"], line["coding_fault"]) == ("ok", True, "not_coded")
    assert line["reading_fault"] == "limit"
    assert {"tainted", "truncated", "coding_fault", "reading_fault"}.isdisjoint(line_of(settled(fetched())))


def test_a_failure_before_the_connection() -> None:
    """Only the phases that took time, and no connection."""
    outcome = Failed(ErrorType.CONNECT_REFUSED, "refused", True, Timings(0.001, 0.002))
    assert line_of(settled(outcome, UrlState.GAVE_UP), dur_ms=3.0) == START | {
        "outcome": "error", "error_type": "connect_refused", "http_request_resend_count": 0,
        "dns_ms": 1.0, "connect_ms": 2.0, "dur_ms": 3.0, "next": "gave_up",
    }  # fmt: skip


def test_a_failure_on_a_connection() -> None:
    """The line has the connection."""
    connection = ConnectionInfo(9, 3, "192.0.2.1")
    failed = Failed(ErrorType.READ_TIMEOUT, "", True, connection=connection, started_at=AT - 5)
    line = line_of(settled(failed, UrlState.WAITING))
    assert (line["conn_id"], line["conn_request_n"], line["sent_at"]) == (9, 3, "2026-11-23T08:59:55.123Z")
    assert "tls_resumed" not in line


def test_a_denial() -> None:
    """The line has the reason, and no field of a request."""
    line = line_of(settled(Denied(DenyReason.ROBOTS, "line 7"), UrlState.DENIED))
    assert line == START | {"outcome": "denied", "deny_reason": "robots", "next": "done"}


@pytest.mark.parametrize(
    ("state", "outcome", "next_at", "word"),
    [
        (UrlState.DONE, fetched(), None, Next.DONE),
        (UrlState.DONE, fetched(), AT, Next.REVISIT),
        (UrlState.WAITING, fetched(), AT, Next.REVISIT),
        (UrlState.WAITING, fetched(404), AT, Next.REVISIT),
        (UrlState.WAITING, fetched(503), AT, Next.RETRY),
        (UrlState.WAITING, fetched(429), AT, Next.RETRY),
        (UrlState.WAITING, Failed(ErrorType.RESET, "", True), AT, Next.RETRY),
        (UrlState.QUEUED, Failed(ErrorType.RESET, "", True), None, Next.RETRY),
        (UrlState.GAVE_UP, Failed(ErrorType.RESET, "", True), None, Next.GAVE_UP),
        (UrlState.DENIED, Denied(DenyReason.ROBOTS, ""), None, Next.DONE),
        (UrlState.DENIED, Denied(DenyReason.ROBOTS, ""), AT, Next.REVISIT),
    ],
)
def test_what_happens_next(state: UrlState, outcome: Outcome, next_at: float | None, word: Next) -> None:
    """After a final response a URL waits for a revisit, after anything else for a retry."""
    assert next_of(settled(outcome, state, next_at=next_at)) == word


def test_a_line_is_json() -> None:
    """Every value has a JSON type."""
    assert encode_line(line_of(settled(fetched()))).startswith(b'{"ts":"2026-11-23T09:00:00.123Z","event":"fetch"')


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://e.org/", "e.org"),
        ("http://e.org:81/a:b@c", "e.org"),
        ("https://[2001:db8::1]:81/", "2001:db8::1"),
        ("https://[2001:db8::1]/", "2001:db8::1"),
    ],
)
def test_server_address_is_the_host_alone(url: str, host: str) -> None:
    """Without port and brackets, as OpenTelemetry's server.address."""
    line = fetch_line(
        Settlement(Task(1, url), 1, Denied(DenyReason.ROBOTS, ""), UrlState.DENIED),
        crawl="n", run_id="r", fetch_id=1, links_found=0, links_new=0, written=None,
    )  # fmt: skip
    assert line["server_address"] == host


def test_timestamps_cut_milliseconds() -> None:
    """No line is in the future, and all have the same width."""
    assert timestamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1.9999) == "1970-01-01T00:00:01.999Z"


# -- secrets in URLs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@e.org/", "https://***@e.org/"),
        ("https://user@e.org/", "https://***@e.org/"),
        ("https://a@b:c@e.org/", "https://***@e.org/"),
        ("https://e.org/?token=x", "https://e.org/?token=***"),
        ("https://e.org/?a=1&token=x&b=2", "https://e.org/?a=1&token=***&b=2"),
        ("https://e.org/?token=a?b=c", "https://e.org/?token=***"),
        ("https://e.org/?ACCESS_TOKEN=x", "https://e.org/?ACCESS_TOKEN=***"),
        ("https://e.org/?accessToken=x", "https://e.org/?accessToken=***"),
        ("https://e.org/?api_key=x&apikey=y&api-key=z", "https://e.org/?api_key=***&apikey=***&api-key=***"),
        ("https://e.org/?key=x", "https://e.org/?key=***"),
        ("https://e.org/?password=x;pwd=y", "https://e.org/?password=***;pwd=***"),
        ("https://e.org/?X-Amz-Signature=1&X-Amz-Date=2", "https://e.org/?X-Amz-Signature=***&X-Amz-Date=2"),
        ("https://e.org/?sig=x&auth=y", "https://e.org/?sig=***&auth=***"),
        ("https://e.org/?PHPSESSID=x&session=y&sid=z", "https://e.org/?PHPSESSID=***&session=***&sid=***"),
        ("https://e.org/?user[password]=x", "https://e.org/?user[password]=***"),
        ("https://e.org/?to%6Ben=x", "https://e.org/?to%6Ben=***"),
        ("https://e.org/a;jsessionid=A1?page=2", "https://e.org/a;jsessionid=***?page=2"),
        ("https://e.org/a;jsessionid=A1/b", "https://e.org/a;jsessionid=***/b"),
        ("https://e.org/#access_token=x", "https://e.org/#access_token=***"),
        ("https://e.org/?next=https%3A%2F%2Ff.org%2F%3Ftoken%3Dx", "https://e.org/?next=***"),
        ("https://e.org/?next=https%3A%2F%2Fu%3Ap%40f.org%2F", "https://e.org/?next=***"),
        ("https://e.org/?next=https://u:p@f.org/", "https://e.org/?next=***"),
    ],
)
def test_secrets_are_hidden(url: str, shown: str) -> None:
    """Userinfo and values of parameters with secret names are replaced, all else stays."""
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "https://e.org/",
        "https://e.org/@user/b@c?mail=a@b.c",
        "https://e.org/?keyword=x&monkey=y&design=z&page=2&passage=3&author=4",
        "https://e.org/?token=&a",
        "https://e.org/?next=https%3A%2F%2Ff.org%2F%3Fpage%3D2",
        "https://e.org/a;v=1/b?x=%40",
        "",
    ],
)
def test_other_values_stay(url: str) -> None:
    """Names that only look similar are not redacted."""
    assert redact(url) == url


def test_urls_inside_a_message_are_redacted() -> None:
    """A library's message may quote a URL."""
    assert redact_text('GET "https://u:p@e.org/?key=1" failed, then http://f.org/?key=2.') == (
        'GET "https://***@e.org/?key=***" failed, then http://f.org/?key=***'
    )
    assert redact_text("u:p@e.org") == "u:p@e.org"
