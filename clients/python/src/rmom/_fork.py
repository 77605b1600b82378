"""Threads and event loops do not exist in a forked child, so what was made before the fork cannot work there; and what
is done at the end of a process, whichever way it was started."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Callable

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


_at_end: list[Callable[[], None]] = []
# The generation of the process in which the functions of ``_at_end`` are known to be called.
_ensured: int | None = None


def at_end(function: Callable[[], None]) -> Callable[[], None]:
    """Calls the function at the end of the process."""
    atexit.register(function)
    _at_end.append(function)
    return function


def ensure_end() -> None:
    """Sees to it that this process calls the functions at its end. A forked child of ``multiprocessing`` ends without
    ``atexit``'s functions, and calls its own."""
    global _ensured  # noqa: PLW0603 (there is one process)
    if _ensured == _generation:
        return
    _ensured = _generation
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is not None and util is not None and process.parent_process() is not None:
        for function in _at_end:
            util.Finalize(None, function, exitpriority=0)
