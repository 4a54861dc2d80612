"""Runs the crawler's command, and writes the longest callback of its event loop to METER_FILE, in CPU milliseconds.

    METER_FILE=turns.json python -m tests.support.loop_meter crawl …

A timer fires each millisecond. The CPU time of the loop's thread since the last time is that of the callback that
delayed it, and at most a millisecond of others. It is CPU time, so that a busy machine changes nothing.
"""

import json
import os
import time
from pathlib import Path

import uvloop

from crawler.cli import main

EVERY_S = 0.001


class Meter:
    """Measures the longest callback of the loop that it was started on."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s = 0.0

    def start(self, loop) -> None:
        self._loop = loop
        self._last_s = time.thread_time()
        loop.call_later(EVERY_S, self._measure)

    def _measure(self) -> None:
        now_s = time.thread_time()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s
        self._loop.call_later(EVERY_S, self._measure)


def run() -> None:
    meter = Meter()
    original = uvloop.run

    def metered(main, **more):
        async def measured():
            import asyncio

            # start-up (opening the store, reading certificates) is not measured
            asyncio.get_running_loop().call_later(1.0, meter.start, asyncio.get_running_loop())
            return await main

        return original(measured(), **more)

    uvloop.run = metered
    try:
        main()
    finally:
        Path(os.environ["METER_FILE"]).write_text(json.dumps({"longest_ms": round(meter.longest_s * 1e3, 2)}))


if __name__ == "__main__":
    run()
