"""Makes the README's pictures of a real crawl, of the demo's site: `make pictures`. Needs tmux and Chromium.

progress.svg is what a terminal shows while it runs, status.png the status page at that moment. `made-of.sha256` has the
digests of the files that draw them, and tests/unit/test_docs.py fails when one of them changed since.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LISTEN = "127.0.0.1:9190"
COLUMNS, LINES = 100, 20
TMUX = ("tmux", "-L", "crawler-pictures")
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--window-size=1000,1060",
)  # fmt: skip


def sources() -> list[Path]:
    """The files that decide what the pictures show."""
    package = ROOT / "crawler"
    static = [path for path in (package / "admin/static").iterdir() if path.suffix in (".html", ".css", ".js")]
    return sorted([package / "cli/progress.py", *static])


def digests() -> str:
    """As sha256sum prints them."""
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}\n" for path in sources())


def screen() -> str:
    return subprocess.run([*TMUX, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True).stdout


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise SystemExit(f"not seen within {seconds} s; the screen:\n{screen()}")
        time.sleep(0.2)


def pages() -> int:
    found = re.search(r"pages +(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", screen()))
    return int(found[1]) if found else 0


def write_svg(ansi: str, path: Path) -> None:
    """Draw a screen without asking any server for a font."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi(ansi.rstrip()))
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    path.write_text(console.export_svg(title="crawler crawl", code_format=form, unique_id="crawl"))


def main() -> None:
    """Crawl, and look at it in the middle."""
    with tempfile.TemporaryDirectory() as scratch:
        command = (
            f"{sys.executable} -m crawler.demo --output {scratch}/example "
            f"-o 'politeness.delay=\"250ms\"' -o 'admin.listen=\"{LISTEN}\"'"
        )
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        subprocess.run([*TMUX, "new-session", "-d", *size, command], cwd=ROOT, check=True)
        try:
            wait_for(lambda: pages() >= 40)
            write_svg(screen(), HERE / "progress.svg")
            shot = [*CHROMIUM, f"--user-data-dir={scratch}/chromium", f"--screenshot={HERE / 'status.png'}"]
            subprocess.run([*shot, f"http://{LISTEN}/?still"], capture_output=True, timeout=60, check=True)
        finally:
            subprocess.run([*TMUX, "kill-server"], check=False)
    (HERE / "made-of.sha256").write_text(digests())


if __name__ == "__main__":
    if not all(shutil.which(program) for program in ("tmux", "chromium")):
        raise SystemExit("tmux and chromium are needed (apt-get install tmux chromium)")
    main()
