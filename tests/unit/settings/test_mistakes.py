"""Mistakes that people make in a configuration: each has its place, what is wrong, and what to write instead.

Exact texts are in refusals.txt; this is the list of mistakes, as somebody types them.
"""

import re
from pathlib import Path

import pytest

from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load

# What was written, where the mistake is, what is said of it, and what to write instead (in the message or the hint).
MISTAKES = [
    # names
    ('[politenes]\ndelay = "1s"', "1:2", 'unknown section "politenes"', 'did you mean "politeness"?'),
    ('[Politeness]\ndelay = "1s"', "1:2", 'unknown section "Politeness"', 'did you mean "politeness"?'),
    ("[cookies]\nx = 1", "1:2", 'unknown section "cookies"', "the sections are crawl, identity, scope"),
    ('[politeness]\ndelya = "1s"', "2:1", 'unknown key "delya" in [politeness]', 'did you mean "delay"?'),
    ("[scope]\nmax-urls = 3", "2:1", 'unknown key "max-urls" in [scope]', 'did you mean "max_urls"?'),
    ("[politeness]\nmax_depth = 3", "2:1", 'unknown key "max_depth"', 'did you mean "scope.max_depth"?'),
    ("[identity]\nxyz = 1", "2:1", 'unknown key "xyz"', "its keys are user_agent, robots_token, from, secrets"),
    ('delay = "1s"', "1:1", '"delay" is outside of any section', "it belongs under [politeness]"),
    ("scope = 3", "1:9", "scope must be a section, not a value", "[scope]"),
    ("[[scope]]\nmax_urls = 3", "1:3", "[scope] must be one table", "write [scope]"),
    # the syntax of the file
    ("[scope]\nmax_urls = 3\nmax_urls = 4", "3:13", "already defined", "delete one of the two"),
    ("[scope]\nlazy = true\n[scope]\nmax_urls = 3", "3:7", "[scope] is already defined", "one of the two headings"),
    ("[scope\nmax_urls = 3", "1:7", "expected ']'", "']' at the end of a table"),
    ("[scope] max_urls = 3", "1:9", "expected newline", 'what follows the "]" on a line of its own'),
    ("[scope]\nmax_urls: 3", "2:9", "expected '='", "write max_urls = 3"),
    ("[scope]\nmax_urls 3", "2:10", "expected '='", "write max_urls = 3"),
    ("[scope]\nmax_urls =", "2:11", "invalid value", 'a value is missing behind "="'),
    ("// a comment\n[scope]", "1:1", "invalid statement", 'a comment begins with "#"'),
    ("[scope]\nmax_urls = 3 // three", "2:14", "expected newline", 'a comment begins with "#"'),
    ('[scope]\nhosts = "seed-hosts', "2:20", "must end on the line", "is a quote missing?"),
    ("[scope]\nhosts = 'seed-hosts\"", "2:21", 'expected "\'"', "is a quote missing?"),
    ("[scope]\ninclude = [“/x”]", "2:12", "invalid value", "write plain quotes"),
    ("[scope]\nhosts = [a.test]", "2:10", "invalid value", "the texts of a list stand in quotes"),
    ("[scope]\nhosts = seed-hosts", "2:9", "invalid value", 'write hosts = "seed-hosts"'),
    ('[scope]\nhosts = ["a.test" "b.test"]', "2:19", "unclosed array", "is a comma"),
    ('[scope]\ninclude = ["re:\\d+"]', "2:18", "unescaped", "write each backslash twice, or the text in single quotes"),
    # flags and numbers
    ("[scope]\nrequisites = yes", "2:14", "invalid value", "write true"),
    ("[scope]\nrequisites = False", "2:14", "invalid value", "write false"),
    ('[scope]\nrequisites = "on"', "2:14", 'must be true or false, not "on"', "write true"),
    ('[scope]\nmax_urls = "100"', "2:12", 'must be a whole number, not "100"', "write 100"),
    ("[scope]\nmax_urls = 100.0", "2:12", "must be a whole number, not 100.0", "write 100"),
    ("[scope]\nmax_urls = 1,000", "2:13", "expected newline", "write 1000"),
    ("[scope]\nmax_urls = 007", "2:13", "expected newline", "write 7"),
    ('[scope]\nmax_urls = "unlimited"', "2:12", "must be a whole number", 'no limit is "none"'),
    ("[scope]\nmax_urls = 0", "2:12", "not 0", "must be at least 1"),
    ("[scope]\nmax_depth = -3", "2:13", "not -3", "must be at least 0"),
    ("[engine]\nworkers = 100000000", "2:11", "engine.workers", "must be at most 20000"),
    # durations and sizes
    ("[politeness]\ndelay = 1s", "2:10", "expected newline", 'write delay = "1s"'),
    ('[politeness]\ndelay = "1"', "2:9", "must be a duration", 'a unit is missing: "1ms" or "1s"'),
    ('[politeness]\ndelay = "5 min"', "2:9", "must be a duration", 'did you mean "5m"?'),
    ('[recrawl]\nmin_interval = "2w"', "2:16", "must be a duration", 'did you mean "14d"?'),
    ('[politeness]\ndelay = "0,5s"', "2:9", "must be a duration", 'did you mean "0.5s"?'),
    ("[politeness]\ndelay = -1", "2:9", "politeness.delay", "must not be negative"),
    ('[politeness]\ndelay = "2d"', "2:9", "politeness.delay", "must be at most 1d"),
    ("[politeness]\ndelay = nan", "2:9", "politeness.delay", "must be a finite duration"),
    ('[crawl]\nmax_duration = "forever"', "2:16", "must be a duration", 'no limit is "none"'),
    ('[fetch]\nmax_body = "32M"', "2:12", "must be a size", 'did you mean "32MiB" (1024) or "32MB" (1000)?'),
    ('[fetch]\nmax_body = "5PiB"', "2:12", "must be a size", "units: B, KiB"),
    ('[fetch]\nbandwidth = "1MB/s"', "2:13", "must be a size", 'did you mean "1MB"?'),
    ('[output]\nmin_free = "10%"', "2:12", "must be a size", "units: B, KiB"),
    # words, lists and tables
    ('[log]\nlevel = "INFO"', "2:9", 'not "INFO"', 'did you mean "info"?'),
    ("[tls]\nmin_version = 1.2", "2:15", "not 1.2", "write it in quotes"),
    ("[politeness]\nrobots = false", "2:10", "not false", 'must be "obey" or "ignore"'),
    ('[scope]\nhosts = "a.test"', "2:9", 'not "a.test"', 'write ["a.test"]'),
    ('[scope]\nhosts = "seed-host"', "2:9", 'not "seed-host"', 'did you mean "seed-hosts"?'),
    ('[scope]\ninclude = "/x/**"', "2:11", "must be a list", 'write ["/x/**"]'),
    ('[fetch]\nencodings = ["gzipp"]', "2:14", 'not "gzipp"', 'did you mean "gzip"?'),
    ('[network]\nresolve = ["a.test"]', "2:11", "must be a table, not a list", "as in { NAME = VALUE }"),
    ("[output]\ndirectory = 2026", "2:13", "must be text in quotes, not 2026", 'write "2026"'),
    # hosts, patterns, URLs
    ('[scope]\nhosts = ["https://a.test/"]', "2:10", 'not "https://a.test/"', "a host stands without scheme"),
    ('[scope]\nhosts = ["*a.test"]', "2:10", 'not "*a.test"', '"*." may stand at the beginning only'),
    ('[scope]\ninclude = ["re:("]', "2:12", "not a regular expression", "missing ), unterminated subpattern"),
    ('[crawl]\nseeds = ["not a url"]', "2:10", "must be a URL", 'as in "https://example.org/"'),
    ('[crawl]\nseeds = ["ftp://a.test/"]', "2:10", "not http or https", 'as in "https://example.org/"'),
    ('[crawl]\nseeds = "https://a.test/"', "2:9", "must be a list", 'write ["https://a.test/"]'),
    ("[crawl]\nseeds = [https://a.test/]", "2:10", "invalid value", "the texts of a list stand in quotes"),
    # files, addresses, ports, times
    ('[crawl]\nseed_files = ["none.txt"]', "2:15", "none.txt: cannot be read", "No such file or directory"),
    ('[network]\nca_file = "none.pem"', "2:11", "none.pem: cannot be read", "No such file or directory"),
    ('[output]\ndirectory = "~/crawls"', "2:13", '"~" is not expanded', "must be complete"),
    ('[output]\ndirectory = "$HOME/crawls"', "2:13", '"$HOME" are not expanded', "must be complete"),
    ('[network]\nallow_private = ["10.0.0.1/8"]', "2:18", "must be a network", 'did you mean "10.0.0.0/8"?'),
    ('[network]\nnameservers = ["1.1.1.1:99999"]', "2:16", 'not "1.1.1.1:99999"', 'such as "192.0.2.1:53"'),
    ('[network]\nproxy = "proxy.test:3128"', "2:9", "network.proxy", 'such as "http://proxy.example.org:3128"'),
    ("[admin]\nlisten = 9090", "2:10", "must be text in quotes, not 9090", 'write "9090"'),
    ('[admin]\nlisten = ":9090"', "2:10", 'not ":9090"', 'did you mean "127.0.0.1:9090"?'),
    ('[admin]\nlisten = "0.0.0.0:9090"', "2:10", "must be a loopback address", "put a web server with one before it"),
    ('[fetch]\nhours = ["22-06"]', "2:10", 'not "22-06"', 'write it as in "22:00-06:00"'),
    ('[fetch]\nhours = ["Mo 1:00-2:00"]', "2:10", 'not "Mo 1:00-2:00"', '"Mo" is no day: Mon, Tue, Wed'),
    ('[fetch]\ncontent_types = ["html"]', "2:18", 'not "html"', 'did you mean "text/html"?'),
    # who you are
    ('[identity]\nfrom = "me"', "2:8", 'not "me"', 'an e-mail address, as in "operator@example.org"'),
    ('[identity]\nuser_agent = "bot/1"', "2:14", "must say how to reach you", 'as in user_agent = "mybot/1.0 (+https'),
    ('[identity]\nuser_agent = "(a@b.test)"', "2:14", "begins with a product", 'as in "mybot/1.0"'),
    ('[identity]\nrobots_token = "my bot"', "2:16", 'not "my bot"', 'as in "mybot"'),
    ('[fetch]\nheaders = { User-Agent = "x" }', "2:13", "the crawler sends it itself", "identity.user_agent sets it"),
]  # fmt: skip

REST = {
    "crawl": 'seeds = ["https://a.test/"]',
    "identity": 'user_agent = "bot/1 (a@b.test)"',
    "output": 'directory = "out"',
}


@pytest.mark.parametrize(
    ("written", "place", "wrong", "instead"), MISTAKES, ids=[re.sub(r"\s+", " ", written) for written, *_ in MISTAKES]
)
def test_a_mistake_says_where_what_and_what_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, place: str, wrong: str, instead: str
) -> None:
    """In the first message, before anything that the rest of the file may be without."""
    rest = "".join(f"\n[{name}]\n{line}" for name, line in REST.items() if f"[{name}]" not in written)
    (tmp_path / "crawler.toml").write_text(written + rest + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load(Path("crawler.toml"), (), {}, "run")
    problem = caught.value.problems[0]
    assert problem.location == f"crawler.toml:{place}"
    assert wrong in problem.message
    assert instead in f"{problem.message}\n{problem.hint}"
    assert "\n" not in problem.headline


def test_what_the_file_lacks_says_what_to_write(tmp_path: Path) -> None:
    """There is no line of it to show."""
    (tmp_path / "crawler.toml").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "crawler.toml", (), {}, "run")
    hints = {problem.message.partition(" ")[0]: problem.hint for problem in caught.value.problems}
    assert hints == {
        "identity.user_agent": 'as in user_agent = "mybot/1.0 (+https://example.org/bot)"',
        "output.directory": 'as in directory = "/var/lib/crawler"',
    }
