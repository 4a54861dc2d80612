"""What needs two keys, the mode, or the disk."""

from pathlib import Path

import certifi
import pytest
import trustme

from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load
from crawler.settings.settings import Mode

CONTACT = "identity.user_agent=mybot/1.0 (+https://example.org/bot)"


def errors(*overrides: str, mode: Mode = "crawl") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(None, overrides, {}, mode)
    return [problem.message for problem in caught.value.problems]


def warnings(*overrides: str, mode: Mode = "crawl") -> list[str]:
    return load(None, overrides, {}, mode).warnings


@pytest.mark.parametrize("contact", ["mybot/1 (+https://e.org)", "mybot/1 (http://e.org/)", "mybot/1 me@e.org"])
def test_a_user_agent_with_a_contact_is_accepted(contact: str) -> None:
    """By a URL or an e-mail address."""
    assert warnings(f"identity.user_agent={contact}", "output.directory=/x", "crawl.seeds=e.org", mode="run") == []


@pytest.mark.parametrize("anonymous", ["mybot/1", "mybot/1 (https)", "mybot/1 @here", "mybot/1 (+https://)"])
def test_a_daemon_without_a_contact_is_refused(anonymous: str) -> None:
    """`crawl` is somebody sitting there; `run` is not."""
    overrides = [f"identity.user_agent={anonymous}", "output.directory=/x", "crawl.seeds=e.org"]
    message = "identity.user_agent must say how to reach you, by a URL or an e-mail address"
    assert errors(*overrides, mode="run") == [message]
    assert warnings(*overrides) == []


def test_revisit_intervals_in_the_wrong_order_are_refused() -> None:
    """No interval would be right."""
    message = "recrawl.min_interval (2d) is longer than recrawl.max_interval (1d)"
    assert errors("recrawl.min_interval=2d", "recrawl.max_interval=1d") == [message]


def test_a_daemon_needs_an_output_directory() -> None:
    """Where a daemon happens to be started is no place for its data."""
    assert errors(CONTACT, "crawl.seeds=e.org", mode="run") == ["output.directory must be set for `crawler run`"]


def test_a_daemon_without_seeds_is_warned() -> None:
    """It would idle without a word; URLs may still come by `crawler add`."""
    assert warnings(CONTACT, "output.directory=/x", mode="run") == [
        "crawl.seeds and crawl.seed_files are empty: nothing is crawled until `crawler add`"
    ]


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        (
            ["politeness.connections_per_host=2"],
            "-o politeness.connections_per_host=2: politeness.connections_per_host = 2 has an effect only if the delay "
            "is 0; it is 1s",
        ),
        (
            ["politeness.delay=0", "politeness.connections_per_host=8", "politeness.connections_per_address=4"],
            "-o politeness.connections_per_host=8: politeness.connections_per_host = 8 is more than "
            "connections_per_address = 4 allows",
        ),
        (
            ['scope.include=["/**", "/", "re:/$", "/*/"]', 'scope.exclude=["/library/"]'],
            '-o scope.exclude=["/library/"]: scope.exclude "/library/" matches that one URL only '
            '(for the folder write "/library/**")',
        ),
        (
            ["politeness.robots=ignore"],
            '-o politeness.robots=ignore: politeness.robots = "ignore": hosts are crawled against their robots.txt',
        ),
        (
            ["identity.user_agent=Mozilla/5.0 (compatible; mybot/1.0)"],
            "-o identity.user_agent=Mozilla/5.0 (compatible; mybot/1.0): robots.txt is matched with "
            '"Mozilla", the first product in identity.user_agent '
            "(set identity.robots_token to the name of your crawler)",
        ),
        (
            ["fetch.read_timeout=1h"],
            "-o fetch.read_timeout=1h: fetch.read_timeout (1h) is longer than fetch.total_timeout (10m) and never ends "
            "a fetch",
        ),
        (
            ["fetch.total_timeout=15s", "fetch.first_byte_timeout=10s"],
            "-o fetch.total_timeout=15s: fetch.read_timeout (30s) is longer than fetch.total_timeout (15s) and never "
            "ends a fetch",
        ),
        (
            ["fetch.bandwidth=1MB", "fetch.bandwidth_per_host=2MB"],
            "-o fetch.bandwidth_per_host=2MB: fetch.bandwidth_per_host (2MB) is more than fetch.bandwidth (1MB) lets "
            "through",
        ),
        (
            ["fetch.content_types=['image/*']"],
            "-o fetch.content_types=['image/*']: fetch.content_types leaves out text/html: no page is read, and no "
            "link is found",
        ),
        (
            ["output.warc=false", "output.pages=false"],
            "-o output.warc=false: output.warc and output.pages are off: no page is kept",
        ),
        (
            ["tls.verify=false"],
            "-o tls.verify=false: tls.verify = false: anybody on the network path can impersonate a server",
        ),
        (
            ["network.resolve={'a.test'=['10.1.2.3', '192.0.2.1']}", "network.allow_private='192.0.2.0/24'"],
            "-o network.resolve={'a.test'=['10.1.2.3', '192.0.2.1']}: network.resolve: a.test will not be connected "
            "to: 10.1.2.3: private (RFC 1918) (network.allow_private lists the exceptions)",
        ),
        *(
            (
                [f"schedule.at=['daily','{never}']"],
                f"-o schedule.at=['daily','{never}']: schedule.at \"{never}\" never comes from now on "
                "(leave it out, or write a date that is still to come)",
            )
            for never in ("2020-01-01", "*-02-30 06:00 UTC", "Tue 2100-01-01")
        ),
        (
            ["scope.exclude=['re:[[:alpha:]]']"],
            "-o scope.exclude=['re:[[:alpha:]]']: scope.exclude \"re:[[:alpha:]]\": possible nested set at position 1; "
            'there is none here, its characters count one by one (for a letter write [A-Za-z], for a bracket "\\[")',
        ),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_a_warning(overrides: list[str], warning: str) -> None:
    """It says where the value was given, and does not stop anything."""
    assert warnings(*overrides) == [warning]


@pytest.mark.parametrize(
    "overrides",
    [
        ["politeness.delay=0", "politeness.connections_per_host=8"],
        ["politeness.delay=0", "politeness.connections_per_host=8", "politeness.connections_per_address=8"],
        ["identity.user_agent=Mozilla/5.0 (compatible; mybot/1.0)", "identity.robots_token=mybot"],
        ["network.resolve={'a.test'=['127.0.0.1']}", "network.allow_private=127.0.0.0/8"],
        ["network.bind_address=::1", "network.address_family=ipv6"],
        ["engine.memory=1MiB", "fetch.spool_over=1MiB"],
        [f"network.ca_file={certifi.where()}"],
        [r"scope.exclude=['re:[\[:alph]', 're:[a-z]+\.html']"],
        ["schedule.at=['daily','Mon *-02-29 06:00 utc','2060-01-01']"],
        ["fetch.bandwidth=1MB", "fetch.bandwidth_per_host=1MB", "fetch.content_types='text/*'"],
    ],
)
def test_what_is_in_order_is_not_warned_about(overrides: list[str]) -> None:
    """A warning for a sound configuration would teach people to skip warnings."""
    assert warnings(*overrides) == []


def test_a_body_held_in_memory_has_to_fit_the_budget() -> None:
    """Otherwise its reader would wait for bytes that only it could give back."""
    assert errors("engine.memory=1MiB", "fetch.spool_over=2MiB") == [
        "engine.memory must be at least fetch.spool_over (2MiB), not 1MiB"
    ]


def test_a_local_address_has_to_be_of_the_family() -> None:
    """No connection could ever be made."""
    assert errors("network.bind_address=::1", "network.address_family=ipv4") == [
        'network.bind_address is an IPv6 address, network.address_family is "ipv4"'
    ]


def test_a_certificate_authority_is_accepted(tmp_path: Path) -> None:
    """In PEM form, text around it allowed; the path is shown to the fetch room as it is."""
    file = tmp_path / "ca.pem"
    file.write_bytes("# größer\n".encode() + trustme.CA().cert_pem.bytes())
    settings = load(None, [f"network.ca_file={file}"], {}, "crawl").settings
    assert settings.network_options().ca_file == str(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no certificate in PEM form, or a damaged one"),
        (b"not a certificate", "holds no certificate in PEM form, or a damaged one"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds no certificate in PEM form, or a damaged one",
        ),
    ],
)
def test_a_file_without_a_certificate_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """At start, not at the first handshake."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    assert errors(f"network.ca_file={file}") == [f"network.ca_file {file}: {complaint}"]


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    """Also further up; what does not exist yet will be made."""
    file = tmp_path / "file"
    file.touch()
    assert warnings(f"output.directory={tmp_path}/new/er") == []
    assert errors(f"output.directory={file}") == [f"output.directory {file}: {file} is not a directory"]
    assert errors(f"log.directory={file}/x/y") == [f"log.directory {file}/x/y: {file} is not a directory"]
    assert errors(f"frontier.path={file}/f.db") == [f"frontier.path {file}/f.db: {file} is not a directory"]
    assert errors(f"frontier.path={tmp_path}") == [f"frontier.path {tmp_path}: is a directory"]
    assert errors(f"admin.socket={tmp_path}") == [f"admin.socket {tmp_path}: is a directory"]


def test_a_path_that_cannot_be_looked_at_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    """A name too long stands for any error of the system; none of them gets out of a check as a traceback."""
    too_long = f"{tmp_path}/{'x' * 300}"
    overrides = [f"output.directory={too_long}", f"frontier.path={too_long}", "admin.socket=/x"]
    assert warnings(*overrides) == []


def test_a_crawl_named_as_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output directory that follows from the name is checked as one that is written down."""
    (tmp_path / "taken").touch()
    monkeypatch.chdir(tmp_path)
    assert errors("crawl.name=taken") == ["output.directory taken: taken is not a directory"]


def test_a_socket_may_have_a_path_of_any_length() -> None:
    """The kernel binds 107 bytes; a longer path is reached through its folder (`admin.unix_socket`)."""
    assert warnings(f"admin.socket=/{'é' * 54}/s") == []
    assert warnings(f"output.directory=/tmp/{'x' * 100}") == []


def test_a_finding_stands_at_the_line_of_its_key(tmp_path: Path) -> None:
    """Errors with the line shown, warnings with its number; of two keys the first that was given."""
    path = tmp_path / "crawler.toml"
    path.write_text("[engine]\nmemory = '1KiB'\n[tls]\n  verify = false\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path, [], {}, "crawl")
    assert str(caught.value).startswith(f"{path}:2:10: engine.memory must be at least")
    assert "\n    memory = '1KiB'\n             ^" in str(caught.value)
    path.write_text("[tls]\n  verify = false\n")
    assert load(path, [], {}, "crawl").warnings[0].startswith(f"{path}:2:12: tls.verify = false")
