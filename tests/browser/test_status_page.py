"""The status page in a headless Chromium: accessible, usable by keyboard, readable on a phone, in light and dark."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.admin import status_page
from crawler.admin.control_socket import Command
from crawler.admin.status_page import ACTIONS, PageActions, WebServer
from crawler.core.enums import OutcomeLabel
from crawler.engine.engine import SystemClock
from tests.support.browser import CHROMIUM, Page, axe_core, browser, contrast
from tests.support.shown_crawl import ShownCrawl, shown_crawl
from tests.support.sockets import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

CRAWL = shown_crawl()
IDLE = shown_crawl(is_idle=True)


@asynccontextmanager
async def shown(crawl: ShownCrawl, actions: PageActions | None = None, **screen: int | bool) -> AsyncIterator[Page]:
    port = free_port()
    server = WebServer(f"127.0.0.1:{port}", crawl, SystemClock(), actions)
    await server.open()
    try:
        async with browser() as page:
            await page.open(f"http://127.0.0.1:{port}/?still", **screen)  # type: ignore[arg-type]  # by its name
            yield page
            assert page.problems == []
    finally:
        await server.close()


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("crawl", [CRAWL, IDLE], ids=["crawl", "idle"])
async def test_it_has_no_violation_of_accessibility(crawl: ShownCrawl, width: int, is_dark: bool) -> None:
    """Also with the attempts of a host and an explanation on it; and it is never wider than the screen."""
    axe = axe_core()
    if axe is None:
        pytest.skip("npm cannot install axe-core")
    async with shown(crawl, width=width, is_dark=is_dark) as page:
        assert await page.violations(axe) == []
        await page.run("showHost('https://h1.test')")
        await page.run("why('https://h1.test/a')")
        assert await page.violations(axe) == []
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_what_needs_attention_comes_first() -> None:
    """And leads to the part of the page that has more."""
    async with shown(CRAWL) as page:
        first = await page.run("document.querySelector('main h2').textContent")
        assert first == "Needs attention"
        texts = await page.run("[...document.querySelectorAll('#attention li')].map((one) => one.textContent)")
        assert any("hosts are held" in text for text in texts)
        assert any("reload_failed" in text for text in texts)
        await page.run("document.querySelector('#attention [data-key=\"hosts:held\"]').click()")
        await page.until("document.getElementById('count').textContent.includes('match')")
        states = await page.run(
            "[...document.querySelectorAll('#hosts tbody td:nth-child(2)')].map((td) => td.textContent)"
        )
        assert set(states) == {"held"}
    async with shown(IDLE) as page:
        assert await page.run("document.getElementById('attention').textContent") == (
            "Nothing: the crawl does what it should."
        )


async def test_figures_of_this_run_are_told_from_those_of_all_runs() -> None:
    """After a restart few pages are stored in this run, while most URLs are fetched."""
    async with shown(CRAWL) as page:
        assert " URLs found in all runs: " in await page.run("document.getElementById('progress').textContent")
        since = await page.run("document.getElementById('run').textContent")
        assert re.fullmatch(r"In this run, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ:", since)
        assert await page.run("document.getElementById('run').nextElementSibling.id") == "figures"


async def test_hosts_are_filtered_and_broken_ones_come_first() -> None:
    """The number of all is there, and which attempts a host had is one key away."""
    async with shown(CRAWL) as page:
        assert await page.run("at('count').textContent") == "20 of 70 hosts shown"
        states = await page.run(
            "[...document.querySelectorAll('#hosts tbody td:nth-child(2)')].map((td) => td.textContent)"
        )
        broken = [state for state in states if state in ("held", "backoff", "blocked")]
        assert broken
        assert states[: len(broken)] == broken
        await page.run("at('filter').elements.text.value = 'h42'; findHosts()")
        await page.until("document.querySelectorAll('#hosts tbody tr').length === 1")
        await page.run("document.querySelector('#hosts button').focus()")
        await page.press_enter()
        await page.until("!at('host').hidden && document.activeElement.id === 'h-host'")
        assert "read_timeout" in await page.run("at('attempts').textContent")


async def test_the_focus_stays_where_it_is_when_tables_are_filled_anew() -> None:
    """Otherwise who uses the keyboard starts from the top every few seconds."""
    async with shown(CRAWL) as page:
        await page.run("document.querySelectorAll('#hosts button')[3].focus()")
        before = await page.run("document.activeElement.textContent")
        await page.run("showHosts(first.hosts)")
        assert await page.run("document.activeElement.textContent") == before


async def test_actions_are_done_with_the_token_alone(tmp_path: Path) -> None:
    """They are there if the crawl offers them; the page says how each went."""
    done: list[tuple[str, Mapping[str, Any]]] = []

    def command(name: str) -> Command:
        async def carry_out(arguments: Mapping[str, Any]) -> object:
            done.append((name, arguments))
            return {}

        return carry_out

    file = tmp_path / "token"
    crawl = replace(CRAWL, now=CRAWL.now | {"token_file": str(file)})
    actions = PageActions(file, {name: command(name) for name in ACTIONS}, lambda *logged: None)
    async with shown(crawl, actions, width=360) as page:
        if (axe := axe_core()) is not None:
            assert await page.violations(axe) == []
        await page.run("at('pause').click()")
        await page.until("at('done-action').textContent.includes('token is missing')")
        assert done == []
        await page.run(f"at('token').elements.token.value = '{file.read_text().strip()}'; at('resume').click()")
        await page.until("at('done-action').textContent === 'resume: done'")
        await page.run("document.querySelector('#errors [data-key^=retry]').click()")
        await page.until("at('done-action').textContent === 'requeue: done'")
        await page.run("showHost('https://h1.test').then(() => at('unblock').click())")
        await page.until("at('done-action').textContent === 'unblock: done'")
        page.problems.clear()  # the browser logs the 403
    assert done == [("resume", {}), ("requeue", {"host": "h0.test", "status": "503"}), ("unblock", {"name": "h1.test"})]


async def test_each_plot_is_told_in_words_and_has_one_unit() -> None:
    """Its description has the last value and the largest."""
    async with shown(CRAWL, width=360) as page:
        plots = await page.run(
            "[...document.querySelectorAll('figure')].map((one) => [one.querySelector('figcaption').textContent, "
            "document.getElementById(one.querySelector('[role=img]').getAttribute('aria-describedby')).textContent])"
        )
        assert len(plots) == 6
        assert all(("now" in words and "at most" in words) or "nothing yet" in words for _, words in plots), plots
        assert await page.run("document.querySelectorAll('canvas').length") == 6


def test_lines_and_texts_stand_out_from_their_ground() -> None:
    """By WCAG 2.2: 4.5:1 for texts, 3:1 for lines of plots and borders of controls, in both themes."""
    css = (status_page.STATIC / "page.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in css.split("prefers-color-scheme: dark")[:2]
    )
    for theme in (light, dark):
        for ground in (theme["paper"], theme["card"]):
            for name in ("ink", "dim", "link", "good", "bad", "warn"):
                assert contrast(theme[name], ground) >= 4.5, (name, ground)
            for name in ("edge", *OutcomeLabel):
                assert contrast(theme[name], ground) >= 3, (name, ground)
