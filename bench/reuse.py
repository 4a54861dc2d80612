"""`python -m bench.reuse`: requests for each TLS handshake, by the server's log, with and without reuse."""

import argparse
import shutil
from pathlib import Path

from bench.serve import JAVADOC, connections, nginx
from bench.site import ROOT, crawler, run

MODES: dict[str, dict[str, str]] = {
    "as it is": {},
    "a connection serves 100 requests": {"fetch.max_requests_per_connection": "100"},
    "a connection serves one request": {"fetch.max_requests_per_connection": "1"},
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reuse", description=__doc__)
    parser.add_argument("--site", type=Path, default=JAVADOC, help="folder of HTML to serve")
    chosen = parser.parse_args(argv)
    print(
        "| | responses | connections | requests each | TLS resumed | wall s | CPU s |\n" + "|---" * 7 + "|", flush=True
    )
    with nginx(chosen.site) as served:
        for words, extra in MODES.items():
            mark = served.mark()
            output = served.folder / "out"
            cost = run(crawler(served, output, extra), ROOT)
            shutil.rmtree(output)
            requests = served.since(mark)
            opened, resumed = connections(requests)
            print(
                f"| {words} | {len(requests):,} | {opened:,} | {len(requests) / max(1, opened):,.1f} | {resumed:,} "
                f"| {cost.wall_s:.1f} | {cost.cpu_s:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
