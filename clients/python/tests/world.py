"""A world for the programs: a clock that only moves during waits, managers, and brokers that follow a script."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Callable

import grpc

from rmom import _effects as fx
from rmom._outbox import Outbox, Pending
from rmom._proto import messages_pb2 as wire
from rmom._rest import Managers
from rmom._settings import Settings, parse_managers
from rmom.errors import CallFailed, DeadlineExceeded, MoMError, Refused, Unreachable
from rmom.model import Receipt

QUEUE_ID = 7
EPOCH = 3


def gone() -> MoMError:
    """A broken connection."""
    return CallFailed("b1:1", grpc.StatusCode.UNAVAILABLE, "gone")


def refusal(code: str, **details: str) -> MoMError:
    """A broker's refusal."""
    return Refused("b1:1", code, "because", details)


@dataclass
class Script:
    """The behaviour of one opened stream of pushes."""

    #: The opening fails with this.
    refuse: MoMError | None = None
    #: After this many runs were acknowledged …
    runs: int = 1_000_000
    #: … the next one is nevertheless stored, or not …
    store: bool = False
    #: … and the stream ends with this error, or falls silent if it is ``None``.
    end: MoMError | None = None
    #: It acknowledges messages that it was not sent.
    lies: bool = False


@dataclass
class Line:
    """A stream of pushes, with its pending answers."""

    authority: str
    script: Script
    producer: bytes
    queue_id: int = QUEUE_ID
    runs: int = 0
    duplicates: int = 0
    over: bool = False
    answers: deque[wire.PushAck | MoMError] = field(default_factory=deque)
    store: Callable[[Line, wire.PushStreamRequest], None] = lambda line, request: None

    def send(self, request: wire.PushStreamRequest) -> None:
        """The broker reads it at once."""
        if not self.over:
            self.store(self, request)


@dataclass
class Delivering:
    """A subscription that delivers these offsets, then fails; without an error it falls silent."""

    authority: str
    headers: Mapping[str, str]
    offsets: deque[int]
    error: MoMError | None


class World:
    """See the module's documentation. Requests to brokers are recorded in ``seen``."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1_000.0
        self.host: str | None = "b1:1"
        self.up = {"m1", "b1:1", "b2:1"}
        self.queue_id = QUEUE_ID
        #: The stored contents, in order.
        self.contents: list[str] = []
        self.seen: list[str] = []
        #: Number of calls to brokers, reachable or not.
        self.attempts = 0
        #: The behaviour of the next streams and subscriptions; without a script they work normally.
        self.pushes: deque[Script] = deque()
        self.subscriptions: deque[tuple[list[int], MoMError | None]] = deque()
        #: Actions of the application, one after the other, whenever all its pushes have an outcome.
        self.idle: deque[Callable[[], object]] = deque()
        self.delivered: list[int] = []
        self.opened_last = 0
        self.epoch = 0
        self._last: dict[bytes, int] = {}
        chance = random.Random(1)  # noqa: S311 (tests have to be repeatable)
        managers = parse_managers("http://m1", None)
        self.settings = Settings(managers, clock=lambda: self.now, random=chance, **settings)
        self.managers = Managers(self.settings)

    def outbox(self, max_messages: int = 10_000) -> Outbox:
        """An application's end of the outbox."""
        return Outbox(max_messages, 1 << 30, lambda: self.now, nullcontext(), lambda: None)

    def perform(self, effect: fx.Effect[Any]) -> Any:
        """Carries an effect out."""
        return getattr(self, f"_{type(effect).__name__.lower()}")(effect)

    def _http(self, effect: fx.Http) -> fx.Answer:
        if "m1" not in self.up:
            raise Unreachable("m1:80", "refused", sent=False)
        if self.host is None:
            return fx.Answer(503, b'{"code": "NO_BROKER", "detail": "none is live"}')
        host, port = self.host.split(":")
        return fx.Answer(200, json.dumps({"host": host, "port": int(port)}).encode())

    def _sleepuntil(self, effect: fx.SleepUntil) -> None:
        self.now = max(self.now, effect.at)

    def _reach(self, authority: str) -> None:
        self.attempts += 1
        if authority not in self.up:
            raise CallFailed(authority, grpc.StatusCode.UNAVAILABLE, "refused")

    def _openproducer(self, effect: fx.OpenProducer) -> wire.OpenProducerResponse:
        self._reach(effect.authority)
        self.epoch += 1
        self.seen.append(f"{effect.authority} open producer")
        last = self._last.get(effect.request.producer_id, self.opened_last)
        return wire.OpenProducerResponse(producer_epoch=self.epoch, last_sequence=last, queue_id=self.queue_id)

    def _openpush(self, effect: fx.OpenPush) -> Line:
        self._reach(effect.authority)
        stamp = effect.request.producer
        self.seen.append(
            f"{effect.authority} from {stamp.lowest_unacknowledged} queue {effect.request.queue_id}"
            + (f" epoch {stamp.epoch}" if stamp.epoch else "")
        )
        script = self.pushes.popleft() if self.pushes else Script()
        if script.refuse is not None:
            raise script.refuse
        self._last.setdefault(stamp.id, stamp.lowest_unacknowledged - 1)
        return Line(effect.authority, script, stamp.id, self.queue_id, store=self._run)

    def _run(self, line: Line, request: wire.PushStreamRequest) -> None:
        messages = request.messages
        first, last = messages.first_sequence, messages.first_sequence + len(messages.messages) - 1
        self.seen.append(f"run {first}..{last} lowest {messages.lowest_unacknowledged}")
        ends = line.runs >= line.script.runs
        line.runs += 1
        if not ends or line.script.store:
            for sequence, message in enumerate(messages.messages, first):
                stored = self._last[line.producer]
                if sequence > stored + 1:
                    line.answers.append(refusal("SEQUENCE_GAP", expected=str(stored + 1)))
                    line.over = True
                    return
                if message.content == b"poison":
                    line.answers.append(refusal("MESSAGE_TOO_LARGE"))
                    line.over = True
                    return
                if sequence <= stored:
                    line.duplicates += 1
                    continue
                self._last[line.producer] = sequence
                self.contents.append(message.content.decode())
        if ends:
            line.over = True
            if line.script.end is not None:
                line.answers.append(line.script.end)
            return
        through = last + 5 if line.script.lies else last
        line.answers.append(
            wire.PushAck(
                through_sequence=through,
                offset=len(self.contents),
                queue_id=self.queue_id,
                duplicates=line.duplicates,
            )
        )

    def _nextack(self, effect: fx.NextAck) -> wire.PushAck | None:
        line = effect.line
        assert isinstance(line, Line)
        if line.answers:
            answer = line.answers.popleft()
            if isinstance(answer, MoMError):
                raise answer
            return answer
        if effect.until is None:
            # No answer is owed, so nothing else will happen.
            self._waitforwork(fx.WaitForWork())
            return None
        self.now = max(self.now, effect.until)
        return None

    def _closepush(self, effect: fx.ClosePush) -> None:
        assert isinstance(effect.line, Line)
        effect.line.over = True

    def _waitforwork(self, effect: fx.WaitForWork) -> None:
        assert self.idle, "it waits for ever"
        self.idle.popleft()()

    def _subscribe(self, effect: fx.Subscribe) -> Delivering:
        at = effect.request.position
        after = f"{at.queue_id}:{at.epoch}:{at.offset}" if effect.request.HasField("position") else "start"
        self.seen.append(f"{effect.authority} after {after}")
        self._reach(effect.authority)
        offsets, error = self.subscriptions.popleft()
        if not offsets and isinstance(error, Refused):
            raise error
        headers = {"rmom-queue-id": str(self.queue_id), "rmom-epoch": str(EPOCH)}
        return Delivering(effect.authority, headers, deque(offsets), error)

    def _nextmessage(self, effect: fx.NextMessage) -> wire.Message:
        subscription = effect.subscription
        assert isinstance(subscription, Delivering)
        if subscription.offsets:
            offset = subscription.offsets.popleft()
            return wire.Message(id="00000000-0000-0000-0000-000000000001", content=b"x", offset=offset)
        self.now += 0.01
        assert subscription.error is not None, "it waits for ever"
        raise subscription.error

    def _unsubscribe(self, effect: fx.Unsubscribe) -> None:
        pass

    def _deliver(self, effect: fx.Deliver) -> None:
        self.delivered.append(effect.message.offset)


def receipt(pending: Pending) -> Receipt:
    """The outcome."""
    return pending._receipt()


__all__ = ["DeadlineExceeded", "Script", "World", "gone", "receipt", "refusal"]
