"""WARC records as bytes."""

import base64
import hashlib
import os
import uuid

import pytest

from crawler.core.digest import digest_text
from crawler.sinks.files import utc_text
from crawler.sinks.warc import RecordIds, mask_request, warcinfo_record


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256))])
def test_digests_are_base_32_with_padding(data: bytes) -> None:
    """As base64.b32encode has them."""
    digest = hashlib.sha256(data).digest()
    assert digest_text(digest) == "sha256:" + base64.b32encode(digest).decode()


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32, b"\x00" * 31 + b"\x01", b"\x80" + b"\x00" * 31])
def test_digests_keep_every_bit(digest: bytes) -> None:
    """Also the first and the last."""
    assert base64.b32decode(digest_text(digest).removeprefix("sha256:")) == digest


def test_record_ids_are_distinct_version_4_uuids() -> None:
    """Past the size of a batch of random bytes, which is asked for once a batch."""
    asked = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    ids = RecordIds(random_bytes)
    taken = [ids.take() for _ in range(600)]
    assert len(set(taken)) == 600
    assert asked == [4096] * 3
    for text in taken:
        assert text[0] + text[-1] == "<>"
        parsed = uuid.UUID(text[1:-1].removeprefix("urn:uuid:"))
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert text == f"<urn:uuid:{parsed}>"


HEAD = b"GET /?cookie:x HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "stored"),
    [
        (HEAD + b"\r\n", HEAD + b"\r\n"),
        (HEAD + b"cookie: a=1; b=2\r\n\r\n", HEAD + b"cookie: masked\r\n\r\n"),
        (HEAD + b"Authorization: Basic eDp5\r\n\r\n", HEAD + b"Authorization: masked\r\n\r\n"),
        (
            HEAD + b"AUTHORIZATION:Bearer x\r\naccept: */*\r\n\r\n",
            HEAD + b"AUTHORIZATION: masked\r\naccept: */*\r\n\r\n",
        ),
        (HEAD + b"Proxy-Authorization: Basic eDp5\r\n\r\n", HEAD + b"Proxy-Authorization: masked\r\n\r\n"),
        (HEAD + b"cookie: a\r\ncookie: b\r\n\r\n", HEAD + b"cookie: masked\r\ncookie: masked\r\n\r\n"),
        (HEAD + b"x-cookie: a\r\ncookies: b\r\n\r\n", HEAD + b"x-cookie: a\r\ncookies: b\r\n\r\n"),
    ],
)
def test_secret_values_are_masked(request_bytes: bytes, stored: bytes) -> None:
    """Whatever the case of the name; everything else stays as it was sent."""
    assert mask_request(request_bytes) == stored


def test_a_request_without_secrets_is_not_copied() -> None:
    """The usual request is handed on as it is."""
    request = HEAD + b"\r\n"
    assert mask_request(request) is request


def test_a_configured_value_cannot_add_fields() -> None:
    """A line break in a user agent stays within its value."""
    record = warcinfo_record(
        [("http-header-user-agent", "me\r\nrobots: ignore")], record_id="<urn:x>", file_name="f", date="d"
    )
    assert record.split(b"\r\n\r\n")[1] == b"http-header-user-agent: me robots: ignore"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_795_424_400.0, "2026-11-23T09:00:00.000000Z"),
        (1_795_424_400.123456, "2026-11-23T09:00:00.123456Z"),
    ],
)
def test_dates_have_microseconds(at: float, text: str) -> None:
    """Always six digits, always UTC."""
    assert utc_text(at) == text
