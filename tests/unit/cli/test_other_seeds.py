"""A crawl with other seeds than the last one in its output directory."""

import asyncio
from pathlib import Path

import pytest

from crawler.core.options import Rules
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
        "scope now (3 queued); with that seed named too they come back\n"
    )
    assert (message in ran.stderr) is is_said
    assert ("the rules were changed: 2 queued URLs denied now, 0 denied URLs queued again\n" in ran.stderr) is is_said
