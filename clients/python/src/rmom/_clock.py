"""Time that never goes back, and goes on while the machine sleeps.

`time.monotonic()` stands still while a laptop or a virtual machine is suspended, and brokers do not: what looks like a
second here can be an hour there, after which they have forgotten what a producer pushed, and would store it a second time.
"""

from __future__ import annotations

import threading
import time


class SecondOpinion:
    """The monotonic clock, and what the wall clock has gained on it, where the system has no clock that counts sleep. A wall
    clock that is set forward makes a producer give up early, which is said to be of unknown outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apart = time.time() - time.monotonic()
        self._asleep = 0.0

    def __call__(self) -> float:
        with self._lock:
            monotonic = time.monotonic()
            self._asleep = max(self._asleep, time.time() - monotonic - self._apart)
            return monotonic + self._asleep


if hasattr(time, "CLOCK_BOOTTIME"):

    def now() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    now = SecondOpinion()
