"""Threads and event loops do not exist in a forked child, so what was made before the fork cannot work there."""

from __future__ import annotations

import os

from .errors import Closed

_generation = 0


def _in_child() -> None:
    global _generation  # noqa: PLW0603 (there is one process)
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Process:
    """The process that made an object."""

    def __init__(self) -> None:
        self._generation = _generation

    def is_this(self) -> bool:
        """False in a forked child of the process. The locks of the object may be held there for ever."""
        return self._generation == _generation

    def check(self, what: str) -> None:
        """Fails in a forked child of the process."""
        if not self.is_this():
            raise Closed(what, "it was made before fork(), and works only in that process; make a new one in the child")
