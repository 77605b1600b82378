"""Calls to the managers; any of them can answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ._effects import Http, Program, do
from ._settings import Settings
from ._telling import Telling
from .errors import MoMError, ProtocolViolation, Refused

log = logging.getLogger("rmom")

#: The largest answer that is read. A list of all queues of a cluster, with descriptions, is smaller.
MAX_ANSWER_BYTES = 64 << 20


def segment(text: str) -> str:
    """One segment of a path, escaped."""
    return quote(text, safe="")


class Managers:
    """All managers. The one that answered last is asked first."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._preferred = 0
        self._telling = Telling(settings.clock)

    def json(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> Program[Any]:
        """A call whose answer is JSON."""
        authority, answer = yield from self.call(method, path, body, timeout)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ProtocolViolation(authority, f"the answer to {path} is not as expected: {error}") from None

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> Program[tuple[str, bytes]]:
        """Tries one manager after the other, each for at most ``timeout``, until one answers. A call that changes
        something is not repeated once it may have been read; in that case, the next call begins with another manager,
        so that a caller that repeats it is not stuck with a manager that cannot reach the store. Returns the manager
        that answered, and its answer."""
        managers = self.settings.managers
        failure: MoMError | None = None
        first, started = self._preferred, self.settings.clock()
        for step in range(len(managers)):
            index = (first + step) % len(managers)
            manager = managers[index]
            if failure is not None and self._telling.is_due(started, 0.0):
                log.warning("manager %s is asked now, because: %s", manager.authority, failure)
            try:
                answer = yield from do(Http(manager, method, path, body, timeout))
            except MoMError as error:
                failure = error
                if method != "GET" and error.outcome_unknown:
                    self._preferred = (index + 1) % len(managers)
                    break
                continue
            if 200 <= answer.status < 300:
                self._preferred = index
                self._telling.over()
                return manager.authority, answer.body
            failure = refusal(manager.authority, path, answer.status, answer.body)
            # A manager that cannot reach the store knows less than the next one may.
            if answer.status < 500:
                break
            if method != "GET":
                self._preferred = (index + 1) % len(managers)
                break
        assert failure is not None, "the settings see to it that there is a manager"
        raise failure


def refusal(authority: str, path: str, status: int, answer: bytes) -> Refused:
    """The manager's own code, if it gave one; an answer that is not rmom's has only a status."""
    try:
        problem = json.loads(answer)
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    code = problem.pop("code", None)
    detail, title = problem.pop("detail", None), problem.pop("title", None)
    text = answer.decode(errors="replace").strip()[:200]
    message = detail or title or (f"status {status}: {text}" if text else f"status {status}")
    facts = {name: str(value) for name, value in problem.items() if isinstance(value, (str, int, float))}
    return Refused(authority, code if isinstance(code, str) else _code_of(path, status), str(message), facts)


def _code_of(path: str, status: int) -> str:
    if status == 404:
        for part, code in (("/channels/", "CHANNEL_NOT_FOUND"), ("/brokers/", "BROKER_NOT_FOUND")):
            if part in path:
                return code
        return "QUEUE_NOT_FOUND"
    named = {503: "NO_BROKER", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
    if status in named:
        return named[status]
    return "INVALID_ARGUMENT" if status < 500 else "STORE_UNAVAILABLE"
