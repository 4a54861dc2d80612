"""The secrets file: what it may say, who may read it, and that nobody is shown it."""

import os
from pathlib import Path

import pytest

from crawler.core.models import Origin
from crawler.fetch.credentials import basic, bearer
from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load, load_paths
from crawler.settings.settings import Settings, changes

GOOD = """
[origin."https://Intranet.Example.org"]
username = "reader"
password = "s3cr3t"

[origin."http://api.example.org:8080/"]
bearer = "t0k3n"

[proxy]
username = "crawler"
password = ""
"""


def write(folder: Path, text: str, mode: int = 0o600, name: str = "secrets.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def loaded(path: Path, *overrides: str) -> Settings:
    return load(None, [f"identity.secrets={path}", *overrides], {}, "crawl").settings


def test_credentials_are_kept_by_origin(tmp_path: Path) -> None:
    """As the URL standard writes origins; the proxy's beside them."""
    settings = loaded(write(tmp_path, GOOD), "network.proxy=http://proxy.test:3128")
    assert settings.secrets.authorization == {
        Origin("https", "intranet.example.org", 443): basic("reader", "s3cr3t"),
        Origin("http", "api.example.org", 8080): bearer("t0k3n"),
    }
    proxy = settings.network_options().proxy
    assert proxy is not None
    assert proxy.authorization == basic("crawler", "")


def test_the_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    """As every path is; and shown, while its content is not."""
    write(tmp_path, GOOD)
    config = tmp_path / "crawler.toml"
    config.write_text("[identity]\nsecrets = 'secrets.toml'\n")
    found = load(config, [], {}, "crawl")
    assert found.settings.identity.secrets == str(tmp_path / "secrets.toml")
    shown = repr([(item.text, item.value) for item in found.masked()]) + repr(found.settings) + repr(found.warnings)
    assert not any(secret in shown for secret in ("s3cr3t", "t0k3n", basic("reader", "s3cr3t")))
    assert found.origins["identity.secrets"] == "crawler.toml:2"


def test_what_systemd_hands_over_is_read(tmp_path: Path) -> None:
    """$CREDENTIALS_DIRECTORY/secrets.toml, unless the configuration names a file; without that file, nothing."""
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(None, [], environ, "crawl").settings.secrets.authorization == {}
    path = write(tmp_path, GOOD, 0o400)
    found = load(None, [], environ, "crawl")
    assert len(found.settings.secrets.authorization) == 2
    assert found.settings.identity.secrets == str(path)
    assert found.origins["identity.secrets"] == "environment CREDENTIALS_DIRECTORY"
    other = write(tmp_path, "", name="other.toml")
    assert load(None, [f"identity.secrets={other}"], environ, "crawl").settings.secrets.authorization == {}


def test_a_credentials_directory_that_may_not_be_looked_into_is_none(tmp_path: Path) -> None:
    """Systemd names it to ExecReload= as well, and opens it to the service alone: whoever only wants to find the crawl
    must not fall over it.
    """
    directory = tmp_path / "credentials"
    directory.mkdir()
    write(directory, GOOD)
    directory.chmod(0)
    environ = {"CREDENTIALS_DIRECTORY": str(directory)}
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)  # root may look into everything
    try:
        assert load(None, [], environ, "crawl").settings.secrets.authorization == {}
        assert load_paths(None, [], environ)[1] == []
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o700)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o644, "may be read by everyone (mode 0644)"),
        (0o604, "may be read by everyone (mode 0604)"),
        (0o602, "may be changed by everyone (mode 0602)"),
        (0o666, "may be read by everyone (mode 0666)"),
        (0o640, None),
        (0o660, None),
        (0o400, None),
    ],
)
def test_a_file_that_everyone_may_read_is_refused(tmp_path: Path, mode: int, words: str | None) -> None:
    """Owner and group are the operator's to choose."""
    path = write(tmp_path, GOOD, mode)
    if words is None:
        assert loaded(path).secrets.authorization
        return
    with pytest.raises(ConfigurationError) as caught:
        loaded(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.message, problem.hint) == (str(path), words, f"chmod o-rw {path}")


ORIGIN_HINT = 'as in [origin."https://example.org"]; a name with dots stands in quotes'

WRONG = [
    ("[origins]", 1, 2, 'unknown table "origins"', 'did you mean "origin"?'),
    ("hunter2 = 1", 1, 1, 'unknown table "hunter2"', ""),
    ("proxy = 'hunter2'", 1, 1, "proxy must be a table", ""),
    ("[origin]\n'https://a.test' = 'hunter2'", 2, 1, 'must be a table, as in [origin."https://example.org"]', ""),
    ("[origin.'a.test']\nbearer = 'hunter2'", 1, 9, "must be an origin: not a URL: 'a.test'", ORIGIN_HINT),
    ("[origin.'https://a.test/x']\nbearer = 'hunter2'", 1, 9, 'must be an origin alone, as "https://a.test"', ""),
    (
        "[origin.'https://u:hunter2@a.test']\nbearer = 'x'",
        1,
        9,
        'must be an origin alone, as "https://a.test"',
        "",
    ),
    ("[origin.'ftp://a.test']\nbearer = 'x'", 1, 9, "must be an origin: not http or https: ftp:", ORIGIN_HINT),
    (
        "[origin.'https://a.test']\nbearer='x'\n[origin.'https://A.test:443']\nbearer='hunter2'",
        3,
        9,
        "a second table for https://a.test",
        "",
    ),
    ("[proxy]\nuser = 'hunter2'", 2, 1, 'unknown key "user"', 'did you mean "username"?'),
    ("[proxy]\nusername = 1", 2, 1, "username must be text in quotes, not empty", ""),
    ("[proxy]\nusername = ''\npassword = 'hunter2'", 2, 1, "username must be text in quotes, not empty", ""),
    ("[proxy]\nusername = 'x'", 1, 2, "must have either username and password, or bearer", ""),
    ("[proxy]\nbearer = 'x'\npassword = 'hunter2'", 1, 2, "must have either username and password, or bearer", ""),
    ("[proxy]", 1, 2, "must have either username and password, or bearer", ""),
    ("[proxy]\nbearer = 'hunter2 '", 1, 2, 'bearer must be letters, digits and "-._~+/", then "=" if at all', ""),
    ("[proxy]\nusername = 'a:b'\npassword = 'hunter2'", 1, 2, 'username must not contain ":"', ""),
    ("[proxy]\npassword = 'hunter2", 2, 20, 'not TOML: expected "\'"', ""),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), WRONG)
def test_a_problem_has_its_location_and_never_the_secret(
    tmp_path: Path, text: str, line: int, column: int, message: str, hint: str
) -> None:
    """Line and column suffice to find it; a message may reach the journal."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        loaded(path)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message, problem.hint) == (line, column, message, hint)
    assert problem.file == str(path)
    assert problem.source_line == ""
    assert "hunter2" not in str(problem) or text.startswith("hunter2")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """As in every other file."""
    path = write(tmp_path, "[proxy]\nuser = 'x'\npass = 1\n[nothing]\n")
    with pytest.raises(ConfigurationError) as caught:
        loaded(path, "politeness.delay=x")
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is not a regular file"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: (path.write_bytes(b"#" * (1 << 21)), path.chmod(0o600)), "is larger than 1048576 bytes"),
        (lambda path: (path.write_bytes(b"\xff"), path.chmod(0o600)), "not UTF-8"),
    ],
)
def test_what_is_no_file_of_secrets_is_refused(tmp_path: Path, make, words: str) -> None:
    """A directory, a pipe nobody writes to, a file far too large."""
    path = tmp_path / "secrets.toml"
    make(path)
    with pytest.raises(ConfigurationError, match=words):
        loaded(path)


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        ([], "identity.secrets has credentials for a proxy, and network.proxy names none"),
        ([], "identity.secrets: the credentials for http://api.example.org:8080 are sent unencrypted"),
        (["fetch.headers={authorization='x'}"], "fetch.headers: authorization is sent to every host that is crawled"),
        (
            ["network.proxy=http://p:8080", "network.nameservers=9.9.9.9"],
            "network.resolve and network.nameservers only",
        ),
        (
            ["network.proxy=http://p:8080", "politeness.address_delay=1s"],
            "politeness.address_delay and connections_per",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(tmp_path: Path, overrides: list[str], warning: str) -> None:
    """Warnings, which stop nothing."""
    path = write(tmp_path, GOOD)
    warnings = load(None, [f"identity.secrets={path}", *overrides], {}, "crawl").warnings
    assert any(warning in text for text in warnings), warnings
    assert "s3cr3t" not in repr(warnings)


def test_a_proxys_credentials_stand_in_one_place(tmp_path: Path) -> None:
    """Both would be one too many."""
    path = write(tmp_path, GOOD)
    with pytest.raises(ConfigurationError, match="both have credentials for the proxy") as caught:
        loaded(path, "network.proxy=http://user:hunter2@p:8080")
    assert "hunter2" not in str(caught.value)


def test_a_proxys_userinfo_is_masked_wherever_it_is_shown() -> None:
    """config show; the user's name goes with the password."""
    found = load(None, ["network.proxy=http://user:hunter2@p.test:3128/"], {}, "crawl")
    (proxy,) = (item for item in found.masked() if item.key == "network.proxy")
    assert proxy.value == "http://***@p.test:3128"
    assert "hunter2" not in repr(found.masked())
    assert "hunter2" not in repr(found.settings.network_options())


def test_changed_secrets_need_a_restart(tmp_path: Path) -> None:
    """Also where the path is the same."""
    path = write(tmp_path, GOOD)
    old = loaded(path)
    write(tmp_path, GOOD.replace("t0k3n", "other"))
    assert changes(old, loaded(path)).restart == ("identity.secrets",)
    assert changes(old, old).restart == ()
