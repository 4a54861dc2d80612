"""`make bench`: everything that is measured, one after the other, within 20 minutes; `--quick`: wget2 alone.

Each part is a command of its own (`python -m bench.site` and so on) with options of its own. What runs beside it spoils
it: a machine of two cores should do nothing else.
"""

import argparse
import time

from bench import reuse, site, trips


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the whole site beside wget2, nothing else")
    chosen = parser.parse_args()
    parts = {
        "A whole site, beside its peers": lambda: site.main(["--quick"] if chosen.quick else []),
        "How far one handshake goes": lambda: reuse.main([]),
        "What a warmed pool saves": lambda: trips.main([]),
    }
    for words, part in parts.items():
        begun = time.monotonic()
        print(f"\n== {words}", flush=True)
        part()
        print(f"({time.monotonic() - begun:.0f} s)", flush=True)
        if chosen.quick:
            break


if __name__ == "__main__":
    main()
