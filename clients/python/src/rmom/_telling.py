"""Decides when the log tells of a failure that goes on."""

from __future__ import annotations

from typing import Callable

#: The longest interval in seconds between two lines on the same failure.
LONGEST = 60.0


class Telling:
    """A failure that goes on is told after a while, and then at growing intervals."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next: float | None = None
        self._interval = 1.0
        self._since: float | None = None

    def due_at(self, since: float, after: float) -> float:
        """The time of the next line on a failure that began at ``since`` and is told ``after`` so many seconds."""
        return since + after if self._next is None else self._next

    def is_due(self, since: float, after: float) -> bool:
        """True if the log has to tell of it now; the next time is later."""
        now = self._clock()
        if now < self.due_at(since, after):
            return False
        if self._since is None:
            self._since = since
        self._next = now + self._interval
        self._interval = min(2 * self._interval, LONGEST)
        return True

    def over(self) -> float | None:
        """The failure is over. Its length in seconds if the log has told of it, so that the log can tell its end."""
        since, self._since, self._next, self._interval = self._since, None, None, 1.0
        return None if since is None else self._clock() - since
