"""`make bench`: the site, connection reuse and round trips, one after the other, within 20 minutes.

`--quick`: the site beside wget2 alone. Each part is a command with options of its own, such as `python -m bench.site`.
A machine of two cores should do nothing else meanwhile.
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
        "Requests for each TLS handshake": lambda: reuse.main([]),
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
