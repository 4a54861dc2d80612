"""Layers, and what comes out of them."""

import os
import tracemalloc
from pathlib import Path

import pytest

from crawler.core.options import NameSet, dump_rules, load_rules
from crawler.core.scope import Scope
from crawler.settings.configuration_errors import ConfigurationError
from crawler.settings.loading import load, load_paths
from crawler.settings.schema import SECTIONS, keys
from crawler.settings.settings import Settings
from crawler.settings.sources import check_seed_file


def write(folder: Path, text: str, name: str = "crawler.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_all_defaults() -> None:
    """Without a file, `crawl` starts on defaults, and says so of every key."""
    loaded = load(None, [], {}, "crawl")
    assert loaded.settings == Settings()
    assert loaded.origins == dict.fromkeys(keys(), "default")
    assert loaded.warnings == []


def test_a_later_layer_wins_and_is_named_as_origin(tmp_path: Path) -> None:
    """defaults < file < conf.d in name order < environment < -o."""
    path = write(
        tmp_path,
        "[engine]\nworkers = 1\nlease_size = 1\nmemory = '1GiB'\ndrain = '1s'\n[fetch]\nconnections = 1\n",
    )
    write(tmp_path, "engine = { lease_size = 3, memory = '3GiB', drain = '3s' }\n", "conf.d/20-b.toml")
    write(tmp_path, "engine.lease_size = 2\nengine.workers = 2\n", "conf.d/10-a.toml")
    environ = {"CRAWLER_ENGINE__MEMORY": "4GiB", "CRAWLER_ENGINE__DRAIN": "4s", "PATH": "/bin", "CRAWLER_HOME": "/x"}
    loaded = load(path, ["engine.drain=5s", "engine.drain=6s"], environ, "crawl")
    engine = loaded.settings.engine
    assert (engine.workers, engine.lease_size, engine.memory, engine.drain) == (2, 3, 4 * 1024**3, 6.0)
    assert {key: origin for key, origin in loaded.origins.items() if origin != "default"} == {
        "engine.workers": "conf.d/10-a.toml:2",
        "engine.lease_size": "conf.d/20-b.toml:1",
        "engine.memory": "environment CRAWLER_ENGINE__MEMORY",
        "engine.drain": "-o engine.drain",
        "fetch.connections": "crawler.toml:7",
    }


def test_files_beside_conf_d_that_are_no_configuration_do_not_count(tmp_path: Path) -> None:
    """Hidden files and other suffixes are what editors and package managers leave behind."""
    path = write(tmp_path, "")
    for name in (".#a.toml", ".hidden.toml", "a.toml~", "a.toml.dpkg-old", "README"):
        write(tmp_path, "not TOML", f"conf.d/{name}")
    assert load(path, [], {}, "crawl").settings == Settings()


def test_a_later_layer_replaces_lists_and_tables_whole(tmp_path: Path) -> None:
    """Nothing is joined: what a file says of a key is all there is to it."""
    path = write(tmp_path, "[network]\nallow_private = ['10.0.0.0/8']\nresolve = { 'a.test' = ['192.0.2.1'] }\n")
    write(tmp_path, "[network.resolve]\n'b.test' = ['10.0.0.1']\n", "conf.d/a.toml")
    network = load(path, ["network.allow_private=['10.0.0.1']"], {}, "crawl").settings.network
    assert network.allow_private == ("10.0.0.1/32",)
    assert network.resolve == {"b.test": ("10.0.0.1",)}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("politeness.delay=0", "politeness.delay", 0.0),
        ("politeness.delay=250ms", "politeness.delay", 0.25),
        ('politeness.delay="2s"', "politeness.delay", 2.0),
        ("fetch.max_body=1GB", "fetch.max_body", 10**9),
        ("output.warc=false", "output.warc", False),
        ("crawl.name=2026", "crawl.name", "2026"),
        ("crawl.name=2026-01-01", "crawl.name", "2026-01-01"),
        ("crawl.name=true", "crawl.name", "true"),
        ('crawl.name="quoted"', "crawl.name", "quoted"),
        ("tls.min_version=1.3", "tls.min_version", "1.3"),
        ("identity.from=me@example.org", "identity.from", "me@example.org"),
        ("identity.user_agent=a/1 (+https://e.org/?x=y)", "identity.user_agent", "a/1 (+https://e.org/?x=y)"),
        ("output.directory=some/where", "output.directory", "some/where"),
        ("output.directory=5", "output.directory", "5"),
        ("scope.max_depth=none", "scope.max_depth", None),
        ("scope.max_depth=0", "scope.max_depth", 0),
        ("scope.hosts=seed-domains", "scope.hosts", ("seed-domains",)),
        ("scope.hosts=*.Example.ORG", "scope.hosts", ("*.example.org",)),
        ('scope.hosts=["bücher.example"]', "scope.hosts", ("xn--bcher-kva.example",)),
        ('scope.hosts=["[::1]", "0x7f.1"]', "scope.hosts", ("[::1]", "127.0.0.1")),
        ("crawl.seeds=e.org/a#b", "crawl.seeds", ("e.org/a#b",)),
        ('crawl.seeds=["e.org", "f.org"]', "crawl.seeds", ("e.org", "f.org")),
        ("scope.include=re:^https://e\\.org/[ab]", "scope.include", ("re:^https://e\\.org/[ab]",)),
        ("fetch.encodings=[]", "fetch.encodings", ()),
        ("fetch.encodings=gzip", "fetch.encodings", ("gzip",)),
        ('fetch.headers={Accept-Language = "de"}', "fetch.headers", {"Accept-Language": "de"}),
        ('network.resolve={"*.A.test" = ["::1"]}', "network.resolve", {"*.a.test": ("::1",)}),
        ("network.nameservers=192.0.2.1:5353", "network.nameservers", ("192.0.2.1:5353",)),
        ("network.nameservers=['2001:db8::1', '[::1]:53']", "network.nameservers", ("2001:db8::1", "[::1]:53")),
        ("network.allow_private=fd00::/8", "network.allow_private", ("fd00::/8",)),
        (" politeness.key =host", "politeness.key", "host"),
    ],
)  # fmt: skip
def test_an_override_is_read_as_the_kind_its_key_holds(override: str, key: str, value: object) -> None:
    """TOML where it is TOML of that kind, else the text; one item stands for a list of one."""
    assert load(None, [override], {}, "crawl").settings.get(key) == value


def test_the_environment_is_read_as_overrides_are() -> None:
    """The same readings, under CRAWLER_SECTION__KEY."""
    environ = {"CRAWLER_SCOPE__HOSTS": "e.org", "CRAWLER_IDENTITY__FROM": "me@e.org", "CRAWLER_LOG__KEEP": "0"}
    settings = load(None, [], environ, "crawl").settings
    assert (settings.scope.hosts, settings.identity.from_address, settings.log.keep) == (("e.org",), "me@e.org", 0)


def test_paths_of_a_file_are_taken_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of overrides from where one stands; absolute ones stay."""
    path = write(
        tmp_path, "[output]\ndirectory = 'out'\n[log]\ndirectory = '/var/log/x'\n[crawl]\nseed_files = ['s']\n"
    )
    write(tmp_path, "e.org\n", "s")
    write(tmp_path, "frontier.path = 'f.db'", "conf.d/a.toml")
    monkeypatch.chdir("/")
    settings = load(path, ["admin.socket=c.sock"], {}, "crawl").settings
    assert settings.output_directory == tmp_path / "out"
    assert settings.log_directory == Path("/var/log/x")
    assert settings.frontier_path == tmp_path / "conf.d/f.db"
    assert settings.control_socket == Path("c.sock")
    assert settings.first_seed == "e.org"


def test_places_below_the_output_directory_follow_it() -> None:
    """What is not set stands below output.directory, and that is named as the crawl."""
    settings = load(None, ["crawl.name=news"], {}, "crawl").settings
    assert [Path("news"), Path("news/frontier.db"), Path("news/control.sock"), Path("news/logs")] == [
        settings.output_directory,
        settings.frontier_path,
        settings.control_socket,
        settings.log_directory,
    ]


def test_seeds_come_from_the_list_and_then_from_the_files(tmp_path: Path) -> None:
    """Blank lines and comments count for nothing; a "#" inside a URL stays."""
    write(tmp_path, "\ufeff# ours\r\nhttps://a.test/#x\r\n\r\n  b.test:8443/y  # a note\n\t# z\nc.test\t#d", "one.txt")
    write(tmp_path, "", "empty.txt")
    path = write(tmp_path, "[crawl]\nseeds = ['z.test']\nseed_files = ['one.txt', 'empty.txt']\n")
    settings = load(path, [], {}, "crawl").settings
    assert (settings.seed_count, settings.first_seed) == (4, "z.test")
    options = settings.engine_configuration("crawl")
    assert list(options.all_seeds()) == ["z.test", "https://a.test/#x", "b.test:8443/y", "c.test"]
    assert options.seed_hosts == {"z.test"}
    assert options.seed_names == NameSet.of(["a.test", "b.test", "c.test"])


def test_hosts_of_seed_files_are_in_memory_only_if_the_scope_follows_from_them(tmp_path: Path) -> None:
    """They may be millions, and a list of hosts in scope needs none of them."""
    seeds = write(tmp_path, "https://www.a.test/\n", "seeds.txt")
    for scope, hosts in (("seed-hosts", ["www.a.test"]), ("seed-domains", ["a.test"]), ("['a.test']", [])):
        settings = load(None, [f"crawl.seed_files={seeds}", f"scope.hosts={scope}"], {}, "crawl").settings
        options, rules = settings.engine_configuration("crawl"), settings.rules()
        assert (options.seed_hosts, rules.seed_hosts) == (set(), ())
        assert options.seed_names == rules.seed_names == NameSet.of(hosts)
        for judging in (options.judging_scope(), Scope.by(rules)):
            assert judging.has_host("www.a.test") == (scope != "['a.test']")
            assert judging.has_host("b.a.test") == (scope == "seed-domains")


def test_hosts_of_many_seeds_are_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each seed, in whatever order they are."""
    monkeypatch.setattr("crawler.settings.sources._HASHES_HELD", 160)
    seeds = write(tmp_path, "".join(f"h{n % 7}.test/{n}\n" for n in range(200)), "seeds.txt")
    file, _ = check_seed_file(seeds, "seed-hosts")
    assert (file.count, file.names) == (200, NameSet.of(f"h{n}.test" for n in range(7)))


def test_the_fingerprint_is_that_of_the_hosts_however_the_files_have_them(tmp_path: Path) -> None:
    """So a start with a sorted list, or with a list in two files, judges nothing anew."""

    def of(*texts: str, listed: str = "", scope: str = "seed-hosts") -> str:
        files = [str(write(tmp_path, text, f"{n}.txt")) for n, text in enumerate(texts)]
        given = [f"crawl.seed_files={files}", f"scope.hosts={scope}", *([f"crawl.seeds={listed}"] if listed else [])]
        return load(None, given, {}, "crawl").settings.engine_configuration("crawl").fingerprint

    same = [
        of("a.test\nb.test\nc.test\n"),
        of("c.test/x\nhttp://b.test\na.test\nc.test\n"),
        of("c.test\nb.test\n", "b.test/y\na.test\n"),
        of("c.test\nb.test\n", listed="a.test"),
    ]
    assert len(set(same)) == 1
    assert of("a.test\nb.test\n") != same[0]
    assert of("www.a.test\n", scope="seed-domains") == of("a.test\nb.a.test\n", scope="seed-domains")


def test_directories_of_seeds_are_in_memory_only_if_the_scope_is_these(tmp_path: Path) -> None:
    """And in the rules of run.json, and the fingerprint of what URLs are judged by."""
    seeds = write(tmp_path, "https://a.test/docs/x?y\nb.test\n", "seeds.txt")
    given = [f"crawl.seed_files={seeds}", "crawl.seeds=https://c.test/n/"]
    settings = load(None, [*given, "scope.hosts=seed-prefix"], {}, "crawl").settings
    directories = ("https://a.test/docs/", "https://b.test/", "https://c.test/n/")
    options = settings.engine_configuration("crawl")
    assert options.seed_directories == set(directories)
    assert settings.rules().seed_directories == directories
    names = options.seed_names
    assert load_rules(dump_rules(settings.rules()), {names.digest: names}.get) == settings.rules()
    assert options.judging_scope().seed_directories == Scope.by(settings.rules()).seed_directories == set(directories)
    other = load(None, [given[0], "crawl.seeds=https://c.test/m/", "scope.hosts=seed-prefix"], {}, "crawl").settings
    assert other.engine_configuration("crawl").fingerprint != options.fingerprint
    by_host = load(None, given, {}, "crawl").settings
    assert by_host.rules().seed_directories == ()
    assert by_host.engine_configuration("crawl").seed_directories == set()
    assert by_host.file_seeds[0].directories == set()


def test_seed_files_are_read_again_and_a_pipe_is_not(tmp_path: Path) -> None:
    """A file is read at each use. What cannot be read twice stays in memory."""
    seeds = write(tmp_path, "a.test\n", "seeds.txt")
    file = load(None, [f"crawl.seed_files={seeds}"], {}, "crawl").settings.file_seeds[0]
    seeds.write_text("b.test\nno seed\n")
    assert list(file.read()) == ["b.test", "no seed"]
    out, into = os.pipe()
    os.write(into, b"a.test\rb.test\n")
    os.close(into)
    file = load(None, [f"crawl.seed_files=/dev/fd/{out}"], {}, "crawl").settings.file_seeds[0]
    os.close(out)
    assert list(file.read()) == list(file.read()) == ["a.test", "b.test"]
    assert file.count == 2


def test_checking_a_seed_file_keeps_no_line(tmp_path: Path) -> None:
    """20,000 lines of 100 bytes are 2 MB."""
    seeds = write(tmp_path, "".join(f"https://a.test/{n:0100}\n" for n in range(20_000)), "seeds.txt")
    tracemalloc.start()
    try:
        file, problems = check_seed_file(seeds, "seed-hosts")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (file.count, problems, file.names) == (20_000, [], NameSet.of(["a.test"]))
    assert peak < 500_000


def test_a_seed_file_that_is_something_else_is_reported_briefly(tmp_path: Path) -> None:
    """Ten lines are shown, the others are counted."""
    seeds = write(tmp_path, "mailto:x\n" * 1_000, "seeds.txt")
    with pytest.raises(ConfigurationError) as caught:
        load(None, [f"crawl.seed_files={seeds}"], {}, "crawl")
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1].headline == f"{seeds}:11:1: 990 more lines are no seeds"


def test_scope_rules_know_the_line_they_stand_on(tmp_path: Path) -> None:
    """Each pattern of a list its own; `why` shows them."""
    path = write(tmp_path, "[scope]\ninclude = [\n  'a/**', # x\n\n  'b/**',\n]\n")
    write(tmp_path, "scope.exclude = ['re:c', 're:d']", "conf.d/x.toml")
    options = load(path, [], {}, "crawl").settings.scope_options()
    assert [(r.pattern, r.place) for r in options.include] == [("a/**", "crawler.toml:3"), ("b/**", "crawler.toml:5")]
    assert [(r.pattern, r.place) for r in options.exclude] == [("re:c", "conf.d/x.toml:1"), ("re:d", "conf.d/x.toml:1")]
    overridden = load(path, ["scope.include=e/**"], {}, "crawl").settings.scope_options()
    assert [(r.pattern, r.place) for r in overridden.include] == [("e/**", "-o scope.include")]


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    """A file written on another system is read the same, lines counted the same."""
    path = tmp_path / "crawler.toml"
    path.write_bytes(b"\xef\xbb\xbf[crawl]\r\n# x\r\nname = 'x'\r\n")
    assert load(path, [], {}, "crawl").origins["crawl.name"] == "crawler.toml:3"


def test_values_once_read_pass_again_unchanged() -> None:
    """Sections are built from checked values: each check has to accept what it returned."""
    overrides = [
        "scope.hosts=['*.Bücher.example', '0x7f.1']",
        "network.allow_private=['10.0.0.1']",
        "network.resolve={'*.B.test' = ['::0001']}",
        "network.nameservers=['2001:db8::1']",
        "fetch.headers={X = ' y '}",
        "scope.max_depth=none",
        "fetch.max_connection_age=1h",
        "identity.user_agent='a/1 '",
    ]
    settings = load(None, overrides, {}, "crawl").settings
    for name, model in SECTIONS.items():
        section = getattr(settings, name)
        assert model.model_validate(section.model_dump(by_alias=True)) == section


def test_sections_are_frozen() -> None:
    """A reload swaps the whole; nobody changes a part."""
    settings = load(None, [], {}, "crawl").settings
    with pytest.raises(ValueError, match="frozen"):
        settings.crawl.name = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        settings.crawl = settings.crawl  # type: ignore[misc]


def test_a_mistake_elsewhere_leaves_the_place_of_the_crawl_known(tmp_path: Path) -> None:
    """For who looks or steers: the keys that say where are read, the rest is told; secrets are not even opened."""
    path = write(
        tmp_path,
        "[output]\ndirectory = 'out'\n[log]\ndirectory = '/var/log/x'\n[politeness]\ndelay = 'soon'\nhaste = 1\n"
        "[identity]\nsecrets = '/nowhere'\n[crawl]\nseeds = [3]\n",
    )
    settings, problems = load_paths(path, ["admin.socket=/run/s"], {"CRAWLER_FRONTIER__PATH": "/fast.db"})
    assert settings.output_directory == tmp_path / "out"
    assert [str(one) for one in (settings.log_directory, settings.control_socket, settings.frontier_path)] == [
        "/var/log/x", "/run/s", "/fast.db",
    ]  # fmt: skip
    assert [problem.line for problem in problems] == [6, 7, 11]
    assert load_paths(write(tmp_path, "[output]\ndirectory = 'out'\n"), [], {})[1] == []


@pytest.mark.parametrize(
    "text",
    [
        "[output\n",
        "[output]\ndirectory = 3\n",
        "[output]\ndirectory = 'x'\n[log]\ndirectory = []\n",
        "[crawl]\nseeds = 3\n",  # without output.directory, the usual one is named after the first
    ],
)
def test_a_place_that_cannot_be_read_is_a_mistake_for_everybody(tmp_path: Path, text: str) -> None:
    """Rather than another place that somebody may have meant."""
    with pytest.raises(ConfigurationError):
        load_paths(write(tmp_path, text), [], {})


def test_an_override_that_is_wrong_is_refused(tmp_path: Path) -> None:
    """Whoever typed it is there to type it again."""
    path = write(tmp_path, "[output]\ndirectory = 'x'\n")
    with pytest.raises(ConfigurationError):
        load_paths(path, ["politeness.delay=soon"], {})


def test_a_later_layer_mends_the_place(tmp_path: Path) -> None:
    """What counts is the value that would hold."""
    path = write(tmp_path, "[output]\ndirectory = 3\n")
    settings, problems = load_paths(path, [], {"CRAWLER_OUTPUT__DIRECTORY": "/x"})
    assert (str(settings.output_directory), len(problems)) == ("/x", 1)
