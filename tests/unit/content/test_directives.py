"""What pages ask of robots."""

import pytest

from crawler.content.page_headers import Directives, page_directives

Meta = list[tuple[str | None, str]]


@pytest.mark.parametrize(
    ("meta", "fields", "expected"),
    [
        ([], [], Directives()),
        ([(None, "")], [""], Directives()),
        ([(None, "index, follow, all")], ["all"], Directives()),
        ([(None, "NoIndex")], [], Directives(noindex=True)),
        ([(None, "noindex nofollow")], [], Directives(noindex=True, nofollow=True)),
        ([(None, "none")], [], Directives(noindex=True, nofollow=True)),
        ([(None, "follow"), (None, "nofollow")], [], Directives(nofollow=True)),
        ([(None, "index")], ["noindex"], Directives(noindex=True)),
        ([("ourbot", "noarchive")], [], Directives()),
        ([("otherbot", "none")], [], Directives()),
        ([("ourbot", "all"), (None, "noindex")], [], Directives(noindex=True)),
        ([], ["noindex", "nofollow, noarchive"], Directives(noindex=True, nofollow=True)),
        ([], ["OurBot: nofollow"], Directives(nofollow=True)),
        ([], ["otherbot: none"], Directives()),
        ([], ["otherbot: noindex, nofollow"], Directives()),
        ([], ["otherbot: noindex, ourbot: nofollow"], Directives(nofollow=True)),
        ([], ["ourbot: noindex, nofollow"], Directives(noindex=True, nofollow=True)),
        ([], ["unavailable_after: 25 Jun 2010 15:00:00 PST"], Directives()),
        ([], ["unavailable_after: Fri, 25 Jun 2010 15:00:00 PST, nofollow"], Directives(nofollow=True)),
        ([], ["max-snippet: 5, noindex"], Directives(noindex=True)),
        ([], ["nonsense, nofollows, no-index"], Directives()),
    ],
)
def test_directives(meta: Meta, fields: list[str], expected: Directives) -> None:
    """Everything asked of all and of us is joined, what is asked of others ignored."""
    assert expected == page_directives(meta, fields, "ourBot")
