"""Finds the broker that hosts a queue, and finds it again."""

from __future__ import annotations

import logging
from typing import Any

from ._effects import Program
from ._rest import Managers
from .errors import MoMError, Refused, authority, hosted_at

log = logging.getLogger("rmom")

#: Limit on the hints in a row that are followed at once; after that the client waits. A hint is a broker's word on
#: where the queue is.
MAX_HINTS_IN_A_ROW = 2

# Codes by which a manager that has the facts says that the object does not exist.
_DEFINITE = frozenset(
    {
        "QUEUE_NOT_FOUND",
        "CHANNEL_NOT_FOUND",
        "INVALID_NAME",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    }
)


def _place(answer: Any) -> str:
    host, port = answer["host"], answer["port"]
    if not isinstance(host, str) or not host or not isinstance(port, int) or not 0 < port < 65_536:
        raise ValueError(f"{host!r:.80} and {port!r:.80} are not a broker's address")
    return authority(host, port)


class Route:
    """The route to a queue's host. ``path`` is the REST path for the look-up."""

    def __init__(self, managers: Managers, path: str) -> None:
        self._managers = managers
        self._path = path
        self._host: str | None = None
        self._hint: str | None = None
        self._hints_in_a_row = 0

    def find(self, until: float | None = None) -> Program[str]:
        """The ``host:port`` to try now: a broker's hint, the managers' answer, or, while no manager answers, the
        queue's last known address. Does not wait for a manager beyond ``until``."""
        hint, self._hint = self._hint, None
        found = hint
        if found is None:
            try:
                found = yield from self._ask_managers(until)
            except MoMError as error:
                definite = isinstance(error, Refused) and error.code in _DEFINITE
                if definite or self._host is None:
                    raise
                log.debug("no manager says where the queue is (%s); trying %s, where it was last", error, self._host)
                found = self._host
        self._host = found
        return found

    def _ask_managers(self, until: float | None) -> Program[str]:
        settings = self._managers.settings
        timeout = settings.lookup_timeout
        if until is not None:
            timeout = max(0.001, min(timeout, until - settings.clock()))
        return (yield from self._managers.json("GET", self._path, None, timeout, _place))

    def failed(self, error: MoMError) -> bool:
        """An attempt failed. True if the next can be made at once, because a broker named an address."""
        hint = hosted_at(error)
        self._hint = hint if hint != self._host else None
        self._hints_in_a_row = self._hints_in_a_row + 1 if self._hint else 0
        return 1 <= self._hints_in_a_row <= MAX_HINTS_IN_A_ROW

    def arrived(self) -> None:
        """An attempt succeeded."""
        self._hints_in_a_row = 0
