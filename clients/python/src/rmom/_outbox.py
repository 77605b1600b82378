"""State shared by the application and a producer's program: messages that wait to be sent, limits, outcomes, and the
end."""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Callable, NamedTuple

from ._proto import messages_pb2 as wire
from .errors import Closed, MoMError, anew
from .model import Receipt

#: Limit on the messages of one request.
MAX_BATCH_MESSAGES = 1_000
#: Limit on the bytes of one request, unless a single message is larger.
MAX_BATCH_BYTES = 1 << 20
#: Added to the content of each message for the limit on bytes in flight.
MESSAGE_OVERHEAD_BYTES = 64
#: Limit on the unseen failures that are kept for the next flush, which raises the first.
MAX_UNSEEN_FAILURES = 1_000


@dataclass(frozen=True)
class Acknowledged:
    """The part of an acknowledgement that concerns some messages."""

    producer: uuid.UUID
    queue_id: int
    #: Everything up to this sequence had been stored before.
    duplicates_through: int
    #: The offset of the message with sequence ``known_sequence``; 0 means that it is not known.
    offset: int
    known_sequence: int
    #: True if no other producer's message lies between, so that the other offsets follow from this one.
    gapless: bool

    def receipt(self, sequence: int) -> Receipt:
        """The receipt of one message."""
        offset: int | None = None
        if self.offset and (self.gapless or sequence == self.known_sequence):
            offset = self.offset - (self.known_sequence - sequence)
        return Receipt(
            sequence=sequence,
            id=message_id(self.producer, self.queue_id, sequence),
            offset=offset,
            duplicate=sequence <= self.duplicates_through,
        )


def message_id(producer: uuid.UUID, queue_id: int, sequence: int) -> uuid.UUID:
    """The id of a producer's message; brokers derive the same. It is a UUID of version 8: 64 bits of the hash of
    producer and queue, then the sequence."""
    digest = hashlib.sha1(producer.bytes + queue_id.to_bytes(8, "big"), usedforsecurity=False).digest()
    high = int.from_bytes(digest[:8], "big") & ~0xF000 | 0x8000
    low = sequence & ((1 << 62) - 1) | 0b10 << 62
    return uuid.UUID(int=high << 64 | low)


class Through(NamedTuple):
    """Numbers of messages and bytes up to and including a message, of all that were ever accepted."""

    messages: int = 0
    bytes: int = 0


class Pending:
    """The outcome of one message. The message is pushed even if this is never awaited."""

    __slots__ = ("_message", "_outcome", "_seen", "_sequence", "_since", "_size", "_through")

    def __init__(self, message: wire.PushMessage) -> None:
        self._message: wire.PushMessage | None = message
        self._size = 0
        self._through = Through()
        # When it was accepted.
        self._since = 0.0
        self._sequence = 0
        self._seen = False
        self._outcome: Acknowledged | MoMError | None = None

    def done(self) -> bool:
        """True if the message is stored or given up."""
        return self._outcome is not None

    def _receipt(self) -> Receipt:
        outcome = self._outcome
        assert outcome is not None, "nobody asks before it is done"
        if isinstance(outcome, MoMError):
            self._seen = True
            raise anew(outcome)
        return outcome.receipt(self._sequence)

    def _told(self) -> None:
        """Called when the outcome has been set."""


@dataclass
class Run:
    """Consecutive messages that are sent together and have no outcome yet."""

    messages: Sequence[Pending]

    @property
    def since(self) -> float:
        """The time at which the first of them was accepted. A batch can fill for a long time before it is sent, and the
        messages at the front leave it first."""
        return self.messages[0]._since

    def wire_messages(self) -> list[wire.PushMessage]:
        """The messages as sent."""
        return [pending._message for pending in self.messages if pending._message is not None]


class Outbox:
    """See the module's documentation. ``lock`` guards it; ``changed`` tells the application that messages have
    outcomes."""

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
        changed: Callable[[], None],
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = lock
        self._wake: Callable[[], None] = lambda: None
        self._changed = changed
        # The messages that wait to be sent. Everything else about accepted messages follows from this queue, so that a
        # message is accepted wholly or not at all when a signal's handler raises an exception in between.
        self._waiting: deque[Pending] = deque()
        self._taken = Through()
        self._resolved = Through()
        self._ended: MoMError | None = None
        # Unseen failures since the last flush, up to a limit.
        self._failed: deque[Pending] = deque()

    def when_there_is_work(self, wake: Callable[[], None]) -> None:
        """``wake`` tells the program that there is something to send, or that the application has finished."""
        self._wake = wake

    def offer(self, pending: Pending) -> bool:
        """Accepts a message; false if too much is in flight. Fails with the reason why the producer ended. Call with
        the lock."""
        if self._ended is not None:
            raise anew(self._ended)
        assert pending._message is not None
        size = pending._message.ByteSize()
        # A message larger than the room may be the only one in it.
        cost = min(size + MESSAGE_OVERHEAD_BYTES, self._max_bytes)
        before, resolved = self._accepted(), self._resolved
        if (
            before.messages - resolved.messages >= self._max_messages
            or before.bytes - resolved.bytes + cost > self._max_bytes
        ):
            return False
        pending._size = size
        pending._since = self._clock()
        pending._through = Through(before.messages + 1, before.bytes + cost)
        if not self._waiting:
            # The program cannot look before the lock is free. A signal's handler may end this call right after the
            # message is in the queue.
            self._wake()
        self._waiting.append(pending)
        return True

    def _accepted(self) -> Through:
        return self._waiting[-1]._through if self._waiting else self._taken

    @property
    def accepted(self) -> int:
        """Number of messages accepted."""
        with self._lock:
            return self._accepted().messages

    @property
    def resolved(self) -> int:
        """Number of accepted messages with an outcome."""
        return self._resolved.messages

    def take(self) -> Run | None:
        """The oldest messages that wait to be sent."""
        with self._lock:
            run: list[Pending] = []
            size = 0
            while self._waiting and len(run) < MAX_BATCH_MESSAGES:
                size += self._waiting[0]._size
                if run and size > MAX_BATCH_BYTES:
                    break
                run.append(self._waiting.popleft())
            if not run:
                return None
            self._taken = run[-1]._through
            return Run(run)

    def waiting_since(self) -> float | None:
        """The time at which the oldest message that waits to be sent was accepted."""
        with self._lock:
            return self._waiting[0]._since if self._waiting else None

    def in_flight(self) -> int:
        """Number of messages that are accepted and have no outcome yet."""
        return self.accepted - self.resolved

    def end(self, reason: MoMError | None = None) -> None:
        """Ends the acceptance of messages for this reason (``None`` means closed). Messages accepted before are still
        delivered."""
        with self._lock:
            if self._ended is None:
                self._ended = reason or Closed()
            self._wake()
            self._changed()

    def is_ended(self) -> bool:
        """True if no more messages are accepted."""
        with self._lock:
            return self._ended is not None

    def resolve(self, messages: Sequence[Pending], first_sequence: int, outcome: Acknowledged | MoMError) -> None:
        """Sets the outcome of messages."""
        with self._lock:
            for at, pending in enumerate(messages):
                pending._message = None
                pending._sequence = first_sequence + at
                pending._outcome = outcome
                pending._told()
            # Outcomes come in the order of acceptance.
            self._resolved = messages[-1]._through
            if isinstance(outcome, MoMError):
                self._forget_seen_failures()
                self._failed.extend(messages[: MAX_UNSEEN_FAILURES - len(self._failed)])
            self._changed()

    def _forget_seen_failures(self) -> None:
        while self._failed and self._failed[0]._seen:
            self._failed.popleft()

    def take_failure(self) -> MoMError | None:
        """The first failure that neither its delivery nor a flush has raised. Call with the lock."""
        self._forget_seen_failures()
        failure = self._failed[0]._outcome if self._failed else None
        self._failed.clear()
        assert failure is None or isinstance(failure, MoMError)
        return None if failure is None else anew(failure)
