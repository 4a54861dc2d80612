"""Runs the crawler's command as usual, and notes in METER_FILE the longest turn of its event loop, in CPU milliseconds.

    METER_FILE=turns.json python -m tests.support.loop_meter crawl …

A timer comes by each millisecond; what the loop's thread spent since is the turn that held it up, and a millisecond at
most of others. CPU time, not the clock's: a busy machine must not make it fail.
"""

import json
import os
import time
from pathlib import Path

import uvloop

from crawler.cli import main

EVERY_S = 0.001


class Meter:
    """What the loop it was started on has spent at once, at most."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._last_s = 0.0

    def start(self, loop) -> None:
        self._loop = loop
        self._last_s = time.thread_time()
        loop.call_later(EVERY_S, self._look)

    def _look(self) -> None:
        now_s = time.thread_time()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s
        self._loop.call_later(EVERY_S, self._look)


def run() -> None:
    meter = Meter()
    original = uvloop.run

    def metered(main, **more):
        async def measured():
            import asyncio

            # what start-up does at once (opening the store, reading certificates) is not about answers
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
