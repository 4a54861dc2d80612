"""Crawls whose store is a PostgreSQL database, from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import Crawl, problems, run
from tests.support.nginx import Nginx, Site, nginx
from tests.support.postgresql import new_database, shared_server
from tests.support.site_crawls import DOCS, OTHER, assert_everything_is_stored_once, sections

pytestmark = pytest.mark.e2e


def in_database(dsn: str) -> dict[str, object]:
    return {"store": "postgresql", "dsn": dsn}


def test_a_crawl_moves_from_one_store_to_the_other(tmp_path: Path) -> None:
    """Begun in SQLite, continued in a database, ended in SQLite again: every page is stored once, and all commands that
    read the store find the same.
    """
    dsn = new_database()
    with nginx(Site({DOCS: 60, OTHER: 40})) as server:
        keys = sections(server, DOCS, OTHER)
        crawl = Crawl.of(tmp_path, keys)
        assert crawl.run("--limit", "20").code == 0
        copied = run("frontier", "copy", crawl.output, dsn)
        assert copied.code == 0, copied.stderr
        (crawl.output / "frontier.db").rename(tmp_path / "old.db")
        crawl = Crawl.of(tmp_path, keys | {"frontier": in_database(dsn)})
        assert crawl.run("--limit", "60").code == 0
        assert not (crawl.output / "frontier.db").exists()
        for command in (["why", server.url(DOCS), "--output", crawl.output], ["verify", crawl.output],
                        ["hosts", "-c", crawl.config, "--output", crawl.output],
                        ["report", "-c", crawl.config, "--output", crawl.output]):  # fmt: skip
            looked = run(*command)
            assert (looked.code, "Traceback" in looked.stderr) == (0, False), looked.stderr
        rows = run("export", "urls", "--state", "done", "-c", crawl.config, "--output", crawl.output).stdout
        back = run("frontier", "copy", dsn, crawl.output / "frontier.db")
        assert back.code == 0, back.stderr
        crawl = Crawl.of(tmp_path, keys)
        assert run("export", "urls", "--state", "done", "-c", crawl.config, "--output", crawl.output).stdout == rows
        last = crawl.run()
        assert (last.code, problems(last.stderr), last.summary["stopped_by"]) == (0, "", "empty")
        assert_everything_is_stored_once(server, crawl)
        checked = run("verify", crawl.output)
        assert (checked.code, checked.stdout) == (0, ""), checked.stderr


@pytest.fixture(scope="module")
def small_server() -> Iterator[Nginx]:
    with nginx(Site({DOCS: 5})) as server:
        yield server


def test_a_database_and_an_output_directory_belong_together(small_server: Nginx, tmp_path: Path) -> None:
    """Another database or another directory is refused. What is changed while no crawl runs is in the database."""
    dsn, other = new_database(), new_database()
    keys = sections(small_server, DOCS)
    crawl = Crawl.of(tmp_path, keys | {"frontier": in_database(dsn)})
    assert crawl.run().code == 0
    assert run("block", DOCS, "-c", crawl.config, "--output", crawl.output).code == 0
    fetched = run("fetch", small_server.url(DOCS), "-c", crawl.config, "--json")
    assert "blocked" in fetched.stdout, fetched.stderr
    there = Crawl.of(tmp_path, keys | {"frontier": in_database(dsn)}, output=tmp_path / "there").run()
    assert (there.code, "name its directory in output.directory" in there.stderr) == (65, True), there.stderr
    emptied = Crawl.of(tmp_path, keys | {"frontier": in_database(other)}).run()
    assert (emptied.code, "the database is empty" in emptied.stderr) == (65, True), emptied.stderr


def test_no_password_of_a_database_is_shown(small_server: Nginx, tmp_path: Path) -> None:
    """Neither in messages nor in logs nor by `config show`; the one of the secrets file is used."""
    secrets = tmp_path / "secrets.toml"
    secrets.write_text('[postgresql]\npassword = "geheim-2"\n')
    secrets.chmod(0o600)
    dsn = new_database()
    keys = sections(small_server, DOCS, identity={"secrets": str(secrets)})
    crawl = Crawl.of(tmp_path, keys | {"frontier": in_database(dsn)})
    assert crawl.run().code == 0  # the server trusts everyone
    wrong = dsn.replace("crawler@", "stranger:geheim-1@")
    crawl = Crawl.of(tmp_path, keys | {"frontier": in_database(wrong)})
    refused = crawl.run()
    shown = run("config", "show", "-c", crawl.config)
    assert (refused.code, "user or password is wrong" in refused.stderr) == (74, True), refused.stderr
    assert "stranger" not in shown.stdout
    texts = [refused.stderr, refused.stdout, shown.stdout, shown.stderr]
    texts += [
        path.read_text(errors="replace") for path in crawl.output.rglob("*") if path.suffix in (".jsonl", ".json")
    ]
    assert not [text for text in texts if "geheim" in text]
    assert shared_server().execute("SELECT 1", "postgres")
