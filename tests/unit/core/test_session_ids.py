"""Which parts of a URL are session identifiers, and which only have such a name."""

import random
import string

import pytest

from crawler.core.url import canonical, session_ids, without_session

SITE = "https://e.org"
MD5 = "9f86d081884c7d659a2feaa0c55ad015"

SESSIONS = [
    f"/a?sid={MD5}", f"/a?SID={MD5.upper()}", f"/a?s={MD5}", f"/a?session={MD5}", f"/a?sess={MD5}",
    f"/a?session_id={MD5}", f"/a?sessionid={MD5}", f"/a?sess_id={MD5}", f"/a?sessid={MD5}",  # phpBB, vBulletin
    "/a?PHPSESSID=i2f3vt3qlmrk8p0mqcgq5nfr61", f"/a?PHPSESSID={MD5}", "/a?phpsessid=tq1,k-8l5u2b7h0m3v9c6x4z1q",
    f"/a;jsessionid={MD5.upper()}", f"/a;jsessionid={MD5}.node1", "/a;jsessionid=1k5xq7wrzq3w1t",  # Tomcat, Jetty
    "/a;JSESSIONID=0000Zr5kX3bQ9w2LmN8pT1vY7cD", f"/a?jsessionid={MD5}",
    "/a?ASPSESSIONIDQQGGQWYP=HBPJCKMCNKPBGHJDFLAKFOPE",  # Internet Information Server
    f"/a?osCsid={MD5}", f"/a?zenid={MD5}",
    "/a?CFID=1234567&CFTOKEN=67890123", "/a?cfid=1234567&cftoken=a1b2c3d4e5f60718-98A7B6C5-D4E3",
]  # fmt: skip
CONTENT = [
    "/?s=covid-19", "/?s=2024", "/?s=iphone-15-pro-max-256gb-vs-galaxy-s24-ultra-512gb", "/?s=iphone15promaxcase256gb",
    "/?s=windows10vswindows11comparison2024", "/article.php?sid=20240131",
    "/article.php?sid=20240131123456789012345678", "/article.php?sid=12", "/talks?session_id=42", "/a?sessionid=7",
    "/talks?session=keynote-2024-day-1", "/talks?sess=b2",
    "/a?sid=abcdefghijklmnopqrstuvwxyz", "/a?sid=", "/a?s", "/a?session_id=550e8400-e29b-41d4-a716-446655440000",
    "/a?PHPSESSID=1", "/a?phpsessid=how-to-use-phpsessid-in-2024", "/a;jsessionid=1", "/a;jsessionid=about-sessions-2",
    "/a?aspsessionid=what-is-it", "/a?cfid=1234567", "/a?cftoken=67890123", "/a?cfid=x&cftoken=67890123",
    f"/a?class={MD5}", f"/a?ids={MD5}", f"/a?id={MD5}", f"/{MD5}?x=1", f"/sid={MD5}", f"/a?q=sid={MD5}",
]  # fmt: skip


@pytest.mark.parametrize("target", SESSIONS)
def test_a_session_identifier_is_removed_from_the_key(target: str) -> None:
    """Identifiers as servers make them, alone and among other parameters."""
    assert canonical(SITE + target) == f"{SITE}/a"
    more = target.replace("?", "?x=1&", 1) if "?" in target else f"{target}?x=1"
    assert canonical(f"{SITE}{more}&y=s") == f"{SITE}/a?x=1&y=s"
    found = session_ids(SITE + target)
    assert found
    assert all(one in target for one in found)


@pytest.mark.parametrize("target", CONTENT)
def test_other_values_of_such_names_stay(target: str) -> None:
    """Search words, dates, numbers and titles stay, whatever their parameter is called."""
    assert canonical(SITE + target) == SITE + target
    assert session_ids(SITE + target) == []


def test_random_identifiers_are_recognised_in_any_alphabet() -> None:
    """Of a thousand random ones of 32 characters nearly all are recognised."""
    rng = random.Random(14)
    for alphabet in ("0123456789abcdef", string.digits + "abcdefghijklmnopqrstuv"):
        ids = ["".join(rng.choices(alphabet, k=32)) for _ in range(1_000)]
        assert sum(without_session(f"{SITE}/?sid={one}") == f"{SITE}/?" for one in ids) > 980
