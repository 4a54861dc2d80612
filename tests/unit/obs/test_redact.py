"""Secrets in URLs."""

import pytest

from crawler.obs.fetch_line import redact, redact_text


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
    """Userinfo and the values of parameters that name a secret are replaced, all else stays."""
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
def test_what_is_no_secret_stays(url: str) -> None:
    """A log must stay readable: names that merely look alike are left alone."""
    assert redact(url) == url


def test_urls_inside_a_message_are_redacted() -> None:
    """A library's message may quote a URL."""
    assert redact_text('GET "https://u:p@e.org/?key=1" failed, then http://f.org/?key=2.') == (
        'GET "https://***@e.org/?key=***" failed, then http://f.org/?key=***'
    )
    assert redact_text("u:p@e.org") == "u:p@e.org"
