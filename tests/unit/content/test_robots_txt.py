"""robots.txt: what may be fetched, and the line that decides."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

from crawler.content.robots_txt import MAX_BYTES, RobotsTxt, RobotsVerdict, policy_for_status
from tests.support.vectors import vectors

SITE = "https://example.org"


def judge(text: str | bytes, path: str, token: str = "ourbot") -> tuple[bool, int | None, str | None]:
    body = text if isinstance(text, bytes) else text.encode()
    verdict = RobotsTxt.parse(body).allows(SITE + path, token)
    return verdict.allowed, verdict.line, verdict.rule


@pytest.mark.parametrize(
    ("status_code", "policy"),
    [(200, "rules"), (204, "rules"), (301, "allow"), (400, "allow"), (401, "allow"), (403, "allow"), (404, "allow"),
     (410, "allow"), (429, "unreachable"), (500, "unreachable"), (503, "unreachable"), (599, "unreachable")],
)  # fmt: skip
def test_what_a_status_means(status_code: int, policy: str) -> None:
    """2xx has rules, 5xx and 429 allow nothing, other statuses allow everything."""
    assert policy == policy_for_status(status_code)


RFC_GROUPS = """User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot

EOF
"""
RFC_LONGEST = """User-Agent: foobot
Allow: /example/page/
Disallow: /example/page/disallowed.gif
"""


@pytest.mark.parametrize(
    ("text", "token", "path", "expected"),
    [
        (RFC_GROUPS, "otherbot", "/a/b.gif", (False, 2, "Disallow: *.gif$")),
        (RFC_GROUPS, "otherbot", "/a/b.gif?x", (True, None, None)),
        (RFC_GROUPS, "otherbot", "/example/x", (False, 3, "Disallow: /example/")),
        (RFC_GROUPS, "otherbot", "/publications/", (True, 4, "Allow: /publications/")),
        (RFC_GROUPS, "FooBot", "/x", (False, 7, "Disallow: /")),
        (RFC_GROUPS, "foobot", "/example/page.html", (True, 8, "Allow: /example/page.html")),
        (RFC_GROUPS, "barbot", "/example/page.html", (False, 13, "Disallow: /example/page.html")),
        (RFC_GROUPS, "bazbot", "/example/page.html", (False, 13, "Disallow: /example/page.html")),
        (RFC_GROUPS, "bazbot", "/example/x", (True, None, None)),
        (RFC_GROUPS, "quxbot", "/example/x", (True, None, None)),
        (RFC_LONGEST, "foobot", "/example/page/x", (True, 2, "Allow: /example/page/")),
        (RFC_LONGEST, "foobot", "/example/page/disallowed.gif", (False, 3, "Disallow: /example/page/disallowed.gif")),
        (RFC_LONGEST, "barbot", "/example/page/disallowed.gif", (True, None, None)),
    ],
)
def test_the_examples_of_the_standard(
    text: str, token: str, path: str, expected: tuple[bool, int | None, str | None]
) -> None:
    """RFC 9309 §5.1 and §5.2."""
    assert expected == judge(text, path, token)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("", "/", (True, None)),
        ("Disallow: /", "/", (True, None)),
        ("User-agent: *\nDisallow: /", "/x", (False, 2)),
        ("User-agent: *\nDisallow:", "/x", (True, None)),
        ("User-agent: *\nDisallow: /x\nAllow: /x", "/x", (True, 3)),
        ("User-agent: *\nDisallow: /x\nDisallow: /x", "/x", (False, 2)),
        ("User-agent: *\nAllow: /\nDisallow: /a*c$", "/abc", (False, 3)),
        ("User-agent: *\nAllow: /\nDisallow: /a*c$", "/abcd", (True, 2)),
        ("User-agent: *\nDisallow: /\nAllow: /a/index.html", "/a/", (True, 3)),
        ("User-agent: *\nDisallow: /%7euser", "/~user", (False, 2)),
        ("User-agent: *\nDisallow: /~user", "/%7Euser", (False, 2)),
        ("User-agent: *\nDisallow: /é", "/%C3%A9", (False, 2)),
        ("User-agent: *\nDisallow: /a?b", "/a?bc", (False, 2)),
        ("User-agent: *\nDisallow: x", "/x", (True, None)),
        ("User-agent: *\nDisallow: *x", "/ax", (False, 2)),
        ("User-agent: *\nDisallow: /x # why", "/x", (False, 2)),
        ("user agent * \n disallow /x", "/x", (False, 2)),
        ("User-agent: *\nDissallow: /x", "/x", (False, 2)),
        ("User-agent: *\n\n\nDisallow: /x", "/x", (False, 4)),
        ("User-agent: *\nSitemap: https://h/s\nDisallow: /x", "/x", (False, 3)),
        ("User-agent: a\nSitemap: s\nUser-agent: ourbot\nDisallow: /x", "/x", (False, 4)),
        ("User-agent: *\nDisallow: /\nUser-agent: ourbot\nDisallow:", "/x", (True, None)),
        ("User-agent: *\nDisallow: /x\nUser-agent: OURBOT/1.0 (x)\nDisallow: /y", "/x", (True, None)),
        ("User-agent: *\nDisallow: /x\nUser-agent: OURBOT/1.0 (x)\nDisallow: /y", "/y", (False, 4)),
        ("User-agent: our\nUser-agent: ourbots\nUser-agent: bot\nUser-agent: our-bot\nDisallow: /", "/x", (True, None)),
        (
            "User-agent: ourbot\nDisallow: /x\nUser-agent: a\nDisallow: /\nUser-agent: ourbot\nDisallow: /y",
            "/x",
            (False, 2),
        ),
        (
            "User-agent: ourbot\nDisallow: /x\nUser-agent: a\nDisallow: /\nUser-agent: ourbot\nDisallow: /y",
            "/y",
            (False, 6),
        ),
        ("User-agent:\nDisallow: /x", "/x", (True, None)),
        ("User-agent: ourbot\nUser-agent:\nDisallow: /x", "/x", (False, 3)),
        ("User-agent: ourbot\nDisallow:\nUser-agent: a\nDisallow: /x", "/x", (True, None)),
        ("<!DOCTYPE html><html><p>User-agent: *</p>\n<p>Disallow: /</p>", "/x", (True, None)),
    ],
)
def test_rules(text: str, path: str, expected: tuple[bool, int | None]) -> None:
    """The verdict on the path, and the line that decides."""
    assert expected == judge(text, path)[:2]


RULES = "User-agent: *\nDisallow: /x\n"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (RULES.encode(), 2),
        (b"\xef\xbb\xbf" + RULES.encode(), 2),
        (b"\xff\xfe" + RULES.encode("utf-16-le"), 2),
        (b"\xfe\xff" + RULES.encode("utf-16-be"), 2),
        (RULES.replace("\n", "\r").encode(), 2),
        (RULES.replace("\n", "\r\n").encode(), 2),
        (b"User-agent: *\0\nDis\0allow: /x\0\n", 2),
        (b"\xff\xf0\x80\n" + RULES.encode(), 3),
        (b"x" * 1_000_000 + b"\n" + RULES.encode(), None),  # beyond the 500 KiB that are read
        (b"x" * 400_000 + b"\n" + RULES.encode(), 3),
        (b"# \x0b \x0c \x1c \xc2\x85 \xe2\x80\xa8\n" + RULES.encode(), 3),  # no line ends, whatever str.splitlines says
        (b"User-agent: *\n" + b"#" * (MAX_BYTES - 20) + b"\nDisallow: /x-and-more", None),  # cut through a line
        (b"\0" * 1000, None),
        (b"User-agent: *\nDisallow: /\xe9\xff", None),
        (bytes(range(256)) * 100, None),
    ],
)
def test_odd_files(body: bytes, line: int | None) -> None:
    """Encodings, line ends and sizes of all kinds are read, and lines are counted as in an editor."""
    assert (line is None, line) == judge(body, "/x")[:2]


OTHER_RECORDS = [
    "Noindex: /x", "No-index: /x", "Content-Signal: search=yes,ai-train=no", "Content-Signals: /signals.json",
    "Content-Usage: train-ai=n", "License: https://h/license.xml", "LLM-Policy: /llms.txt", "Clean-param: s /",
    "Request-rate: 1/5", "Visit-time: 0600-0845", "Host: h", "Sitemap: https://h/s", "Comment: x", "Whatever-comes: 1",
    "Empty:", "no field at all", "Crawl-delay: 3", "Crawl-delay:",
]  # fmt: skip


@pytest.mark.parametrize("record", OTHER_RECORDS)
def test_another_record_does_not_end_a_group(record: str) -> None:
    """It is ignored between agents, among rules and before them (RFC 9309 §2.2.4, as google/robotstxt)."""
    agents = f"{record}\nUser-agent: ourbot\n{record}\nUser-agent: *\n{record}\nDisallow: /a\n{record}\nDisallow: /b\n"
    for token in ("ourbot", "other"):
        assert judge(agents, "/a", token)[:2] == (False, 6)
        assert judge(agents, "/b", token)[:2] == (False, 8)
    after = f"User-agent: ourbot\nDisallow: /a\n{record}\nUser-agent: other\n{record}\nDisallow: /b\n"
    assert judge(after, "/b") == (True, None, None)
    assert judge(after, "/a", "other") == (True, None, None)


def test_a_delay_is_for_the_agents_before_it() -> None:
    """It is for them alone; the rules after it are for later agents too."""
    rules = RobotsTxt.parse(
        b"User-agent: a\nUser-agent: b\nNoindex: /\nUser-agent: c\nCrawl-delay: 1\nUser-agent: d\nDisallow: /x\n"
        b"Crawl-delay: 2\nUser-agent: e\nDisallow:\nUser-agent: a\nDisallow: /y\n"
    )
    assert [rules.crawl_delay(token) for token in "abcde"] == [1.0, 1.0, 1.0, 2.0, None]
    for path, refused in (("/x", "abcd"), ("/y", "a")):
        assert "".join(token for token in "abcde" if not rules.allows(SITE + path, token).allowed) == refused


@pytest.mark.parametrize("rule", [b"/caf\xe9", b"/caf%E9", b"/caf%e9"])
def test_a_path_that_is_no_utf8_is_compared_byte_by_byte(rule: bytes) -> None:
    """File names of a server may have another encoding: only that file is meant."""
    body = b"User-agent: *\nDisallow: " + rule
    assert judge(body, "/caf%E9/x")[0] is False
    assert judge(body, "/caf%e9")[0] is False
    assert judge(body, "/caf%E8")[0] is True
    assert judge(body, "/caf%EF%BF%BD")[0] is True
    assert judge(body, "/caf%C3%A9")[0] is True
    assert RobotsTxt.parse(b"Sitemap: /caf\xe9.xml").sitemaps == ("/caf%E9.xml",)


def test_delays_and_sitemaps() -> None:
    """A crawl delay belongs to its group, sitemaps to the whole file."""
    rules = RobotsTxt.parse(
        b"User-agent: *\nCrawl-delay: 10\nSitemap: https://h/a\nUser-agent: ourbot\nCrawl-delay: 1.5\n"
        b"User-agent: a\nCrawl-delay: x\nUser-agent: b\nCrawl-delay: -1\nUser-agent: c\nCrawl-delay: inf\n"
        b"User-agent: d\nDisallow: /\nSitemap: b\nsitemap: https://h/a\n"
    )
    assert [rules.crawl_delay(token) for token in ("other", "OurBot", "a", "b", "c", "d")] == [
        10.0,
        1.5,
        None,
        None,
        None,
        None,
    ]
    assert rules.sitemaps == ("https://h/a", "b")


_TOKENS = ["ourbot", "a", "b"]
_LINES = st.sampled_from(
    ["User-agent: *", "User-agent: ourbot", "User-agent: a", "user-agent: B", "Disallow:", "Disallow: /", "Allow: /",
     "Disallow: /a", "Allow: /a/b", "Disallow: /*b", "Allow: /a*$", "Disallow: /a$", "Disallow: /a/*/c", "Allow: /%61",
     "Disallow: /a/index.html", "Allow: /a/index.html", "Crawl-delay: 3", "Sitemap: /s", "", "# note", "Host: x",
     "Noindex: /", "Content-Signal: search=yes",
     "Disallow: /a?b=", "Allow: *", "Disallow: /é", "Allow: /$", "Disallow: $", "Disallow: /a$b", "nonsense"]
)  # fmt: skip
_PATHS = st.sampled_from(
    ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/x/c", "/b", "/ab", "/a?b=c", "/%C3%A9", "/a$b", "/A", "//a"]
)


@settings(deadline=None, max_examples=600, derandomize=True)
@given(st.lists(_LINES, max_size=14), _PATHS, st.sampled_from(_TOKENS))
def test_verdicts_are_those_of_protego(lines: list[str], path: str, token: str) -> None:
    """For any file the verdict is Protego's, and the line named has that verdict.

    To Protego any field but Sitemap and Host ends a group: it is given the records that RFC 9309 defines, and for
    the delay those and Crawl-delay.
    """
    defined = [line for line in lines if line.lower().startswith(("user-agent", "allow", "disallow"))]
    rules = RobotsTxt.parse("\n".join(lines).encode())
    verdict = rules.allows(SITE + path, token)
    assert Protego.parse("\n".join(defined)).can_fetch(SITE + path, token) == verdict.allowed
    delays = Protego.parse("\n".join(line for line in lines if line in defined or line.startswith("Crawl-delay")))
    assert delays.crawl_delay(token) == rules.crawl_delay(token)
    if verdict.line is None:
        assert verdict.allowed
    else:
        named = lines[verdict.line - 1]
        assert named.lower() == (verdict.rule or "").lower()
        assert named.startswith("Allow" if verdict.allowed else "Disallow")
        alone = f"User-agent: *\n{named}\n" + ("Disallow: /" if verdict.allowed else "")
        assert Protego.parse(alone).can_fetch(SITE + path, token) == verdict.allowed


def test_real_files_are_read_as_protego_reads_them() -> None:
    """For the files of crawler-commons verdicts, delays and sitemaps are Protego's, for tokens that both read alike."""
    judged = 0
    extended = ("crawl-delay-group-merging.txt", "extensions-group-merging.txt")  # Protego reads other groups in them
    paths = [
        "/",
        "/foo",
        "/foo/bar",
        "/tmp/bar",
        "/wishlist/",
        "/wishlist/universal/x",
        "/search?q=a",
        "/a.gif",
        "/gp/cart/x",
    ]
    for file in sorted(vectors("robots").glob("*.txt")):
        body = file.read_bytes()
        if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            text = body.decode("utf-16")
        else:
            text = body.decode("utf-8-sig", "replace")
        oracle = Protego.parse(text)
        rules = RobotsTxt.parse(body)
        assert list(dict.fromkeys(oracle.sitemaps)) == list(rules.sitemaps), file.name
        if file.name in extended:
            continue
        for token in ("testy", "wget", "foobot", "unnamed", "Slurp", "yandex"):
            for path in paths:
                judged += 1
                verdict = rules.allows(SITE + path, token)
                assert oracle.can_fetch(SITE + path, token) == verdict.allowed, (file.name, token, path)
                assert verdict.allowed or verdict.line is not None
    assert judged > 500


@pytest.mark.parametrize(
    ("name", "delays", "refused"),
    [
        ("crawl-delay-group-merging", (10.0, None, 30.0), ("/private/", "/private/ /login/", "")),
        (
            "extensions-group-merging",
            (None, None, None),
            ("/private/ /login/", "/private/ /login/", "/ /private/ /login/"),
        ),
    ],
)
def test_groups_of_files_with_extensions_are_merged(
    name: str, delays: tuple[float | None, ...], refused: tuple[str, ...]
) -> None:
    """As the comments in these files of crawler-commons require."""
    rules = RobotsTxt.parse((vectors("robots") / f"{name}.txt").read_bytes())
    tokens = ("mybot", "yourbot", "other")
    assert tuple(map(rules.crawl_delay, tokens)) == delays
    for token, paths in zip(tokens, refused, strict=True):
        judged = [path for path in ("/", "/private/", "/login/") if not rules.allows(SITE + path, token).allowed]
        assert " ".join(judged) == paths, token


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.binary(max_size=120),
    st.sampled_from([b"", b"User-agent: *\nDisallow: ", b"User-agent: ", b"\xff\xfe", b"Crawl-delay: "]),
)
def test_any_bytes_are_read(data: bytes, start: bytes) -> None:
    """There is a verdict for any bytes."""
    rules = RobotsTxt.parse(start + data)
    assert isinstance(rules.allows(SITE + "/x?y", "ourbot"), RobotsVerdict)
    delay = rules.crawl_delay("ourbot")
    assert delay is None or delay >= 0


@pytest.mark.parametrize(
    "line",
    [
        b"Disallow: /*a*b*c*d*e*f*g*h\n",
        b"Disallow: /x\n",
        b"Allow: /*\n",
        b"User-agent: *\n",
        b"User-agent: a%d\n",
        b"User-agent: ourbot\nCrawl-delay: 1\n",
        b"a b c\n",
    ],
)
def test_large_files_cost_no_more_than_their_length(line: bytes) -> None:
    """500 KiB of any line are read and judged in bounded time."""
    body = b"User-agent: *\n" + b"".join(line.replace(b"%d", b"%d" % n) for n in range(MAX_BYTES // len(line)))
    start = time.process_time()
    RobotsTxt.parse(body).allows(SITE + "/" + "abcdefg" * 250, "ourbot")
    assert time.process_time() - start < 2


def test_many_agents_share_many_rules_cheaply() -> None:
    """Rules are not copied for each of their agents."""
    agents = b"".join(b"User-agent: a%d\n" % n for n in range(14_000))
    body = agents + b"Disallow: /x\n" * 14_000
    start = time.process_time()
    verdict = RobotsTxt.parse(body).allows(SITE + "/x", "a13999")
    assert time.process_time() - start < 2
    assert (verdict.allowed, verdict.line) == (False, 14_001)
