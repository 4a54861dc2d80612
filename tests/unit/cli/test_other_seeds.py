"""A crawl with other seeds than the last one in its output directory, and with seeds that its rules refuse."""

import asyncio
from pathlib import Path

import pytest

from crawler.core.options import NameSet, Rules
from crawler.frontier.sqlite.store import SqliteFrontier
from crawler.output_directory import find_paths, write_run_file
from tests.support.commands import run
from tests.support.frontiers import NOW, found, links


async def _stored(output: Path) -> None:
    frontier = SqliteFrontier(output / "frontier.db")
    await frontier.open()
    await frontier.add([found("https://a.test/"), *links("https://a.test/1", "https://a.test/2")], now=NOW)
    await frontier.close(clean=True)
    write_run_file(find_paths(output), run_id="r", configuration=None, rules=Rules(seed_hosts=("a.test",)))


@pytest.mark.parametrize(("seeds", "is_said"), [(["b.test"], True), (["a.test", "b.test"], False)])
def test_queued_urls_out_of_scope_are_reported_at_the_start(tmp_path: Path, seeds: list[str], is_said: bool) -> None:
    """With the seed that would bring them back, and at the end of their re-evaluation with their number."""
    asyncio.run(_stored(tmp_path))
    ran = run("crawl", *seeds, "--output", tmp_path, "--max-duration", "300ms")
    message = (
        f"the last run in {tmp_path} had a seed on a.test, this one has none there: URLs found there are out of "
        "scope now (2 queued); with that seed named too they come back\n"
    )
    assert (message in ran.stderr) is is_said
    assert ("the rules were changed: 2 queued URLs denied now, 0 denied URLs queued again\n" in ran.stderr) is is_said


def test_seeds_of_a_file_that_are_gone_are_reported_and_the_same_seeds_are_not(tmp_path: Path) -> None:
    """Of a host that has queued URLs. The next start with the same hosts, in another order, judges nothing anew."""
    (tmp_path / "out").mkdir()
    asyncio.run(_stored(tmp_path / "out"))
    seeds = tmp_path / "seeds.txt"
    outputs = []
    for hosts in (["a.test", "b.test"], ["b.test", "a.test", "b.test"], ["b.test"]):
        seeds.write_text("".join(f"{host}\n" for host in hosts))
        ran = run("crawl", "-o", f"crawl.seed_files={seeds}", "--output", tmp_path / "out", "--max-duration", "300ms")
        outputs.append(ran.stderr)
    assert ["had a seed on a.test, this one has none there" in text for text in outputs] == [False, False, True]
    assert ["the rules were changed" in text for text in outputs] == [False, False, True]
    (names,) = (tmp_path / "out").glob("seed-hosts-*")
    assert names.name == f"seed-hosts-{NameSet.of(['b.test']).digest}"
    why = run("why", "https://b.test/x", "--output", tmp_path / "out").stdout
    assert "out of scope" not in why
    assert "out of scope" in run("why", "https://a.test/x", "--output", tmp_path / "out").stdout
    added = run("add", "https://c.test/", "--output", tmp_path / "out")
    assert added.stdout == "1 added, 0 known already, 0 refused\n"


def test_seeds_that_the_rules_refuse_are_named_with_the_rule(tmp_path: Path) -> None:
    """At the start, by `check` and by `why`; the first ten, the others counted."""
    config = tmp_path / "site.toml"
    config.write_text(
        '[crawl]\nseeds = ["https://x.invalid/", "https://off.invalid/"]\nseed_files = ["seeds.txt"]\n'
        '[identity]\nuser_agent = "mybot/1.0 (+https://example.org/bot)"\n[output]\ndirectory = "out"\n'
        '[[override]]\nhosts = ["off.invalid"]\nenabled = false\n'
        '[[override]]\nurls = ["x.invalid/no/**"]\nexclude = true\n'
    )
    (tmp_path / "seeds.txt").write_text("".join(f"https://x.invalid/no/{n}\n" for n in range(12)))
    off = 'denied by site.toml:8  override "off.invalid" enabled = false'
    no = 'denied by site.toml:11  override "x.invalid/no/**" exclude = true'
    expected = [
        f"seed https://off.invalid/: {off}",
        *(f"seed https://x.invalid/no/{n}: {no}" for n in range(9)),
        "3 other seeds: denied by the scope",
    ]
    ran = run("check", "-c", config)
    assert (ran.code, ran.stderr.splitlines()) == (0, [f"crawler: warning: {line}" for line in expected])
    ran = run("crawl", "-c", config, "--max-duration", "300ms")
    assert ran.stderr.splitlines()[: len(expected)] == [f"crawler: {line}" for line in expected]
    why = run("why", "x.invalid/no/3", "-c", config).stdout
    assert "a seed of the configuration, not stored; it would not be fetched: out of scope: site.toml:11" in why
