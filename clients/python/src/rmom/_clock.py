"""Time that never goes back, and includes the machine's sleep.

`time.monotonic()` stands still while a laptop or a virtual machine is suspended, but brokers go on. A second here can
be an hour there, after which they have forgotten a producer's pushes and would store them a second time.
"""

from __future__ import annotations

import threading
import time


class SecondOpinion:
    """The monotonic clock plus the time that the wall clock has gained on it, for systems without a clock that counts
    sleep. If the wall clock is set forward, a producer gives up early and reports an unknown outcome."""

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
