"""Calls to the managers; any of them can answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Callable, TypeVar
from urllib.parse import quote

from ._effects import Http, Program, do
from ._settings import Settings
from ._telling import Telling
from .errors import MoMError, ProtocolViolation, Refused

log = logging.getLogger("rmom")

T = TypeVar("T")

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

    def json(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float, read: Callable[[Any], T]
    ) -> Program[T]:
        """A call whose answer is JSON, which ``read`` makes a value of."""
        return self.call(method, path, body, timeout, lambda answer: read(json.loads(answer)))

    def done(self, method: str, path: str) -> Program[None]:
        """A call whose answer has no content."""

        def nothing(answer: bytes) -> None:
            if answer:
                raise ValueError(f"it should be empty, and is {answer!r:.60}")

        return self.call(method, path, None, self.settings.request_timeout, nothing)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float, read: Callable[[bytes], T]
    ) -> Program[T]:
        """Tries one manager after the other, each for at most ``timeout``, until one answers as a manager does. A call
        that changes something is not repeated once a manager may have read it; in that case, the next call begins with
        another manager, so that a caller that repeats it is not stuck with a manager that cannot reach the store, or
        with a server that is not a manager."""
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
                if 200 <= answer.status < 300:
                    result = _read(manager.authority, method, path, answer.body, read)
                    self._preferred = index
                    self._telling.over()
                    return result
            except MoMError as error:
                failure = error
                if method != "GET" and error.outcome_unknown:
                    self._preferred = (index + 1) % len(managers)
                    break
                continue
            failure = refusal(manager.authority, method, path, answer.status, answer.body)
            # Another server, or an older manager, knows nothing of this.
            if isinstance(failure, ProtocolViolation) or failure.code == "NO_SUCH_ROUTE":
                continue
            # A manager that cannot reach the store knows less than the next one may.
            if answer.status < 500:
                break
            if method != "GET":
                self._preferred = (index + 1) % len(managers)
                break
        assert failure is not None, "the settings see to it that there is a manager"
        raise failure


def _read(authority: str, method: str, path: str, answer: bytes, read: Callable[[bytes], T]) -> T:
    try:
        return read(answer)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ProtocolViolation(authority, f"its answer to {method} {path} is not a manager's: {error!r}") from None


def refusal(authority: str, method: str, path: str, status: int, answer: bytes) -> Refused | ProtocolViolation:
    """A manager's error. An answer without one of rmom's codes is from a proxy, or from a server that is not a manager;
    its "not found" says nothing about our queues."""
    try:
        problem = json.loads(answer)
    except ValueError:
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    code = problem.pop("code", None)
    detail, title = problem.pop("detail", None), problem.pop("title", None)
    text = " ".join(answer.decode(errors="replace").split())[:200]
    message = str(detail or title or (f"status {status}: {text}" if text else f"status {status}"))
    if not isinstance(code, str):
        code = _code_of_a_proxy(status)
    if code is None:
        reason = f"it answered {method} {path} as no manager does, with {message}; is this a manager's address?"
        return ProtocolViolation(authority, reason)
    facts = {name: str(value) for name, value in problem.items() if isinstance(value, (str, int, float))}
    return Refused(authority, code, message, facts)


def _code_of_a_proxy(status: int) -> str | None:
    """The code for a status that came without one."""
    if status in (401, 403):
        return "UNAUTHENTICATED" if status == 401 else "PERMISSION_DENIED"
    # A manager behind a proxy is down, or has not opened its store yet.
    return "STORE_UNAVAILABLE" if status >= 500 else None
