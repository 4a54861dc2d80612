"""The HTML report in a headless Chromium: accessible, and readable on a phone, in light and dark."""

import re
from pathlib import Path

import pytest

from crawler.core.enums import OutcomeLabel
from crawler.inspection.log.totals import LogTotals
from crawler.inspection.report import EventTotals, report
from crawler.inspection.report_page import page as report_page
from tests.support.browser import CHROMIUM, axe_core, browser, contrast
from tests.support.log_lines import fetch_lines

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

TALLY = LogTotals(bin_s=300)
for line in fetch_lines(3_000, hosts=30, per_s=0.2):
    TALLY.add(line)
EVENTS = EventTotals()
EVENTS.add({"event": "host_state", "to": "backoff", "reason": "connect_refused"})
REPORT = report(TALLY, EVENTS, None)
HTML = report_page(REPORT, TALLY)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_it_has_no_violation_of_accessibility(tmp_path: Path, width: int, is_dark: bool) -> None:
    """Also with its tables unfolded; and it is never wider than the screen."""
    axe = axe_core()
    if axe is None:
        pytest.skip("npm cannot install axe-core")
    file = tmp_path / "report.html"
    file.write_text(HTML)
    async with browser() as page:
        await page.open(file.as_uri(), width=width, is_dark=is_dark)
        assert await page.violations(axe) == []
        await page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert await page.violations(axe) == []
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        assert await page.run("document.querySelectorAll('svg[role=img][aria-label]').length") == 4
        assert page.problems == []


def test_what_needs_attention_comes_first() -> None:
    """Shares of what failed, hosts that got no requests, and where most failed."""
    first = HTML[: HTML.index("class=tiles")]
    failed = REPORT["outcomes"]["error"] + REPORT["outcomes"].get("truncated", 0)
    assert f"{failed:,} of {sum(REPORT['outcomes'].values()):,} attempts at pages" in first
    assert "hosts backed off 1 time (connect_refused)" in first
    assert REPORT["faultiest_hosts"][0]["host"] in first


def test_the_table_below_a_plot_adds_up_to_the_attempts() -> None:
    """In 24 rows at most."""
    table = HTML[HTML.index("<summary>Attempts by outcome") :].partition("</table>")[0]
    rows = [
        [int(n.replace(",", "")) for n in re.findall("<td class=n>([^<]*)", row)] for row in table.split("<tr>")[2:]
    ]
    assert 0 < len(rows) <= 24
    assert sum(map(sum, rows)) == 3_000


def test_texts_and_bars_stand_out_from_their_ground() -> None:
    """By WCAG 2.2: 4.5:1 for texts, 3:1 for what is drawn, in both themes."""
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in HTML.split("prefers-color-scheme: dark")[:2]
    )
    for theme in (light, dark):
        for ground in (theme["paper"], theme["tile"]):
            assert min(contrast(theme["ink"], ground), contrast(theme["soft"], ground)) >= 4.5
            assert all(contrast(theme[word], ground) >= 3 for word in OutcomeLabel)
