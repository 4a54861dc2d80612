"""Puts lines into a buffer at once, and onto their destination from a thread of its own.

Owns the buffer, the thread and the count of dropped lines. It does not know what a line says or where lines end up (a
file in `files`, stderr for the journal). Lines are best effort.
Invariant: `append` never waits for I/O and never raises. A slow or failing destination costs lines; each is counted.
"""

import threading
from collections.abc import Callable
from typing import Final, Protocol

KIB: Final = 1024
FLUSH_INTERVAL_S: Final = 0.2
BUFFER: Final = 64 * KIB  # bytes that are written without waiting for the interval
PENDING_LIMIT: Final = 4096 * KIB  # bytes held for a destination that is stuck: seconds of a crawl at full speed
CLOSE_TIMEOUT_S: Final = 5.0
IDLE_S: Final = 5.0  # looks again even if not woken: a finaliser's line may come between the look and the sleep


class Destination(Protocol):
    """Where lines go. Both methods are called from the writer's thread alone."""

    def write(self, data: bytes) -> None:
        """Take whole lines, all or none. Raises OSError: none was taken, and a later write may work again."""

    def close(self) -> None:
        """Let go of what is open. Raises OSError."""


class LineWriter:
    """A buffer before a destination. `append` may be called from any thread.

    `on_recovered(n)` is called from the writer's thread when lines are written again after `n` were dropped. Times in
    seconds, sizes in bytes.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        buffer: int = BUFFER,
        pending_limit: int = PENDING_LIMIT,
        on_recovered: Callable[[int], None] | None = None,
    ) -> None:
        self._destination = destination
        self._flush_interval_s = flush_interval_s
        self._buffer = buffer
        self._pending_limit = pending_limit
        self._on_recovered = on_recovered
        # One lock under both conditions: taking it directly costs a quarter of entering a Condition. Reentrant, because
        # a finaliser may run at any allocation, and what it warns of is logged here too.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_writing = False
        self._flushes = 0  # callers waiting in flush()
        self._is_closing = False
        self._dropped = 0
        self._reported = 0
        # A daemon, so that a write that never returns cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._dropped

    @property
    def pending_bytes(self) -> int:
        """Bytes held and not yet handed on."""
        return self._pending_bytes

    def append(self, line: bytes) -> None:
        """Take one line, its newline included; dropped and counted if the destination is too far behind."""
        with self._lock:
            before = self._pending_bytes
            after = before + len(line)
            if self._is_closing or after > self._pending_limit:
                self._dropped += 1
                return
            self._pending.append(line)
            self._pending_bytes = after
            if before == 0 or before < self._buffer <= after:
                self._work.notify()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all that was appended is written or dropped. Returns False if that took too long."""
        with self._lock:
            self._flushes += 1
            self._work.notify()
            try:
                return self._idle.wait_for(lambda: not self._pending and not self._is_writing, timeout_s)
            finally:
                self._flushes -= 1

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is pending and end the thread, waiting no longer than `timeout_s` for a destination that hangs."""
        with self._lock:
            self._is_closing = True
            self._work.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._work.wait_for(lambda: self._pending or self._is_closing, IDLE_S):
                    continue
                self._work.wait_for(self._is_urgent, self._flush_interval_s)
                lines, self._pending = self._pending, []
                self._pending_bytes = 0
                is_last = self._is_closing
                self._is_writing = True
            is_written = self._write(lines)
            with self._lock:
                self._is_writing = False
                self._idle.notify_all()
                lost = self._dropped - self._reported if is_written else 0
                self._reported += lost
            if lost and self._on_recovered is not None:
                self._on_recovered(lost)
            if is_last:
                self._close()
                return

    def _is_urgent(self) -> bool:
        return self._pending_bytes >= self._buffer or self._is_closing or self._flushes > 0

    def _write(self, lines: list[bytes]) -> bool:
        """Hand lines on. Returns whether any were taken."""
        if not lines:
            return False
        try:
            self._destination.write(b"".join(lines))
        except OSError:  # counted, and reported once a write works: there is nowhere to report it to now
            with self._lock:
                self._dropped += len(lines)
            return False
        return True

    def _close(self) -> None:
        try:
            self._destination.close()
        except OSError:  # what was written is as durable as a log needs to be
            return
