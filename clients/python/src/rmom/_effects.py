"""What the state machines ask of the world.

Everything that decides is written once, as generators (*programs*) that yield effects and are sent their results;
``_threads`` and ``_tasks`` carry effects out, the one with threads, the other with asyncio. So the two clients cannot
differ in what they do, and the tests drive the same programs through a world of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Generic, Optional, Protocol, TypeVar

from ._proto import messages_pb2 as wire
from ._settings import Manager
from .errors import MoMError
from .model import Message, Position

T = TypeVar("T")


class Effect(Generic[T]):
    """Something to be done, with a result of type ``T``; fails with a :class:`MoMError`."""


#: A generator that yields effects, is sent their results, and returns a ``T``.
Program = Generator[Effect[Any], Any, T]


def do(effect: Effect[T]) -> Program[T]:
    """Has an effect carried out: ``result = yield from do(effect)``."""
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
    """Until the clock shows this."""

    at: float


@dataclass(frozen=True)
class OpenProducer(Effect[wire.OpenProducerResponse]):
    """A named producer takes its next incarnation."""

    authority: str
    request: wire.OpenProducerRequest
    timeout: float


class PushLine(Protocol):
    """An open stream of pushes."""

    @property
    def authority(self) -> str:
        """Where it leads."""

    @property
    def queue_id(self) -> int:
        """As the broker said when it opened the stream."""

    def send(self, request: wire.PushStreamRequest) -> None:
        """Puts a request on the stream without waiting. If the stream is over, the next :class:`NextAck` says so."""


@dataclass(frozen=True)
class OpenPush(Effect[PushLine]):
    """Opens a stream of pushes and waits until the broker says that it is open."""

    authority: str
    request: wire.PushStreamOpen
    timeout: float


@dataclass(frozen=True)
class NextAck(Effect[Optional[wire.PushAck]]):
    """The next acknowledgement; none: there is work, or the time has come. Fails with what ended the stream."""

    line: PushLine
    until: float | None


@dataclass(frozen=True)
class ClosePush(Effect[None]):
    """Ends a stream of pushes; in good order, so that the broker does not see it break off, if ``finish``."""

    line: PushLine
    finish: bool


@dataclass(frozen=True)
class WaitForWork(Effect[None]):
    """Until the application has pushed something, or is done. May end early."""


class Subscription(Protocol):
    """A connection that delivers."""

    @property
    def authority(self) -> str:
        """Whence."""

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
    """The next message of a subscription. Fails with what ended it."""

    subscription: Subscription


@dataclass(frozen=True)
class Unsubscribe(Effect[None]):
    """Ends a subscription."""

    subscription: Subscription


@dataclass(frozen=True)
class Deliver(Effect[None]):
    """Hands a message to the application; waits while it has enough of them."""

    message: Message
    position: Position


def run(program: Program[T], perform: Callable[[Effect[Any]], Any]) -> T:
    """Carries a program out with functions that block."""
    try:
        effect = next(program)
        while True:
            try:
                result = perform(effect)
            except MoMError as error:
                effect = program.throw(error)
            else:
                effect = program.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        program.close()


async def run_async(program: Program[T], perform: Callable[[Effect[Any]], Awaitable[Any]]) -> T:
    """Carries a program out with coroutines."""
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
