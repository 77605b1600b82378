"""The effects that the state machines request.

All decisions are written once, as generators (*programs*) that yield effects and are sent their results. ``_threads``
and ``_tasks`` carry out the effects, the former with threads, the latter with asyncio. So the two clients cannot behave
differently, and tests run the same programs in a simulated world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, Protocol, TypeVar

from ._proto import messages_pb2 as wire
from ._settings import Manager
from .errors import MoMError
from .model import Message, Position

T = TypeVar("T")


class Effect(Generic[T]):
    """An action with a result of type ``T``; fails with a :class:`MoMError`."""


_NO_TURN: AbstractContextManager[object] = nullcontext()

#: A generator that yields effects, is sent their results, and returns a ``T``.
Program = Generator[Effect[Any], Any, T]


def do(effect: Effect[T]) -> Program[T]:
    """Yields an effect and returns its result: ``result = yield from do(effect)``."""
    result: T = yield effect
    return result


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Http(Effect[Answer]):
    """One request to one manager."""

    manager: Manager
    method: str
    path: str
    body: Mapping[str, Any] | None
    timeout: float


@dataclass(frozen=True)
class SleepUntil(Effect[None]):
    """Sleeps until the clock shows this time."""

    at: float


@dataclass(frozen=True)
class OpenProducer(Effect[wire.OpenProducerResponse]):
    """Takes the next epoch of a named producer."""

    authority: str
    request: wire.OpenProducerRequest
    timeout: float


class PushLine(Protocol):
    """An open stream of pushes."""

    @property
    def authority(self) -> str:
        """The broker's address."""

    @property
    def queue_id(self) -> int:
        """The queue's id, from the broker's answer when it opened the stream."""

    def send(self, request: wire.PushStreamRequest) -> None:
        """Puts a request on the stream without waiting. If the stream is over, the next :class:`NextAck` fails."""


@dataclass(frozen=True)
class OpenPush(Effect[PushLine]):
    """Opens a stream of pushes and waits until the broker confirms it."""

    authority: str
    request: wire.PushStreamOpen
    timeout: float


@dataclass(frozen=True)
class NextAck(Effect[Optional[wire.PushAck]]):
    """The next acknowledgement. ``None`` means that there is work, or that the time has come. Fails with the error that
    ended the stream."""

    line: PushLine
    until: float | None


@dataclass(frozen=True)
class ClosePush(Effect[None]):
    """Ends a stream of pushes. With ``finish``, ends it in good order, so that the broker does not see it as broken."""

    line: PushLine
    finish: bool


@dataclass(frozen=True)
class WaitForWork(Effect[None]):
    """Waits until the application has pushed something, or has finished. May return early."""


class Subscription(Protocol):
    """A connection that delivers."""

    @property
    def authority(self) -> str:
        """The broker's address."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's headers."""


@dataclass(frozen=True)
class Subscribe(Effect[Subscription]):
    """Opens a subscription and waits for its headers."""

    authority: str
    request: wire.SubscriptionRequest
    timeout: float


@dataclass(frozen=True)
class NextMessage(Effect[wire.Message]):
    """The next message of a subscription. Fails with the error that ended it."""

    subscription: Subscription


@dataclass(frozen=True)
class Unsubscribe(Effect[None]):
    """Ends a subscription."""

    subscription: Subscription


@dataclass(frozen=True)
class Deliver(Effect[None]):
    """Hands a message to the application; waits while it has enough messages."""

    message: Message
    position: Position


def run(
    program: Program[T],
    perform: Callable[[Effect[Any]], Any],
    turn: AbstractContextManager[object] = _NO_TURN,
) -> T:
    """Runs a program with functions that block. The program itself runs only within ``turn``."""
    try:
        with turn:
            effect = next(program)
        while True:
            try:
                result = perform(effect)
            except MoMError as error:
                with turn:
                    effect = program.throw(error)
            else:
                with turn:
                    effect = program.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        program.close()


async def run_async(program: Program[T], perform: Callable[[Effect[Any]], Awaitable[Any]]) -> T:
    """Runs a program with coroutines."""
    try:
        effect = next(program)
        while True:
            try:
                result = await perform(effect)
            except MoMError as error:
                effect = program.throw(error)
            else:
                effect = program.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        program.close()
