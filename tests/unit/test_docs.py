"""The pages of docs/ say what the code says, and no link in them leads nowhere."""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from crawler.cli import COMMANDS
from crawler.core.enums import Exit
from crawler.obs.events import CATALOGUE, Event
from tests.e2e.test_output import ALWAYS, SOMETIMES, WITH_A_RESPONSE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, its head left out."""
    section = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def words(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def test_fetch_fields_are_those_that_a_crawl_writes() -> None:
    """Each with its type, meaning, and when it is there."""
    table = rows("reference/log-fields.md", "fetch.jsonl")
    assert set().union(*(words(row[0]) for row in table)) == ALWAYS | WITH_A_RESPONSE | SOMETIMES
    assert all(all(row) for row in table)
    assert set().union(*(words(row[0]) for row in table if row[3] == "always")) == ALWAYS


def test_event_fields_are_those_of_the_catalogue() -> None:
    """What is always there stands before the brackets, the rest in them."""
    table = {Event(row[0].strip("`")): row for row in rows("reference/log-fields.md", "events.jsonl")}
    assert table.keys() == CATALOGUE.keys()
    for event, (_, meaning, fields) in table.items():
        always, _, optional = fields.partition("(")
        assert meaning
        assert (words(always), words(optional)) == (CATALOGUE[event].required, CATALOGUE[event].optional), event


def test_keys_are_current() -> None:
    """If not, run `make generated`."""
    made = subprocess.run(
        [sys.executable, "docs/keys.py"], cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    assert (DOCS / "reference/keys.md").read_text() == made.stdout


def test_pictures_show_what_is_shown_today() -> None:
    """The files that draw them have not changed since. If they have, run `make pictures`, and look at them."""
    made_of = [line.split("  ") for line in (DOCS / "pictures/made-of.sha256").read_text().splitlines()]
    changed = [name for digest, name in made_of if sha256((ROOT / name).read_bytes()).hexdigest() != digest]
    assert changed == []
    assert len(made_of) >= 4


def test_every_command_has_a_row() -> None:
    """In the table of commands."""
    text = (DOCS / "reference/commands.md").read_text()
    assert [name for name in COMMANDS if f"`crawler {name}" not in text] == []


def test_every_exit_code_has_a_row() -> None:
    """In the table of exit codes."""
    text = (DOCS / "reference/exit-codes.md").read_text()
    found = {int(code) for line in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in line.split(",")}
    assert {code for name, code in vars(Exit).items() if not name.startswith("_")} <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading of it."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else page.parent / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target
