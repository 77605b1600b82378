"""What the application and a producer's program share: messages that wait to be sent, limits, outcomes, and the end."""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Callable

from ._proto import messages_pb2 as wire
from .errors import Closed, MoMError
from .model import Receipt

#: Most messages of one request.
MAX_BATCH_MESSAGES = 1_000
#: Most bytes of one request, unless a single message is larger.
MAX_BATCH_BYTES = 1 << 20
#: What a message counts beyond its content towards the limit on bytes in flight.
MESSAGE_OVERHEAD_BYTES = 64
#: How many failures that nobody has seen are kept for the next flush; it tells of the first.
MAX_UNSEEN_FAILURES = 1_000


@dataclass(frozen=True)
class Acknowledged:
    """An acknowledgement, as far as it concerns some messages."""

    producer: uuid.UUID
    queue_id: int
    #: Everything up to this sequence had been stored before.
    duplicates_through: int
    #: The offset of the message with sequence ``known_sequence``; 0: not known.
    offset: int
    known_sequence: int
    #: Nobody else's message lies between, so the other offsets follow from this one.
    gapless: bool

    def receipt(self, sequence: int) -> Receipt:
        """What it says about one message."""
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
    """The id of a producer's message; brokers derive the same: 64 bits of the hash of producer and queue, then the
    sequence, as a UUID of version 8."""
    digest = hashlib.sha1(producer.bytes + queue_id.to_bytes(8, "big"), usedforsecurity=False).digest()
    high = int.from_bytes(digest[:8], "big") & ~0xF000 | 0x8000
    low = sequence & ((1 << 62) - 1) | 0b10 << 62
    return uuid.UUID(int=high << 64 | low)


class Pending:
    """The fate of one message. The message is pushed whether or not anybody waits for this."""

    __slots__ = ("_cost", "_message", "_outcome", "_seen", "_sequence", "_since")

    def __init__(self, message: wire.PushMessage) -> None:
        self._message: wire.PushMessage | None = message
        self._cost = 0
        # When it was accepted.
        self._since = 0.0
        self._sequence = 0
        self._seen = False
        self._outcome: Acknowledged | MoMError | None = None

    def done(self) -> bool:
        """The message is stored, or given up."""
        return self._outcome is not None

    def _receipt(self) -> Receipt:
        outcome = self._outcome
        assert outcome is not None, "nobody asks before it is done"
        if isinstance(outcome, MoMError):
            self._seen = True
            raise outcome.with_traceback(None)
        return outcome.receipt(self._sequence)

    def _told(self) -> None:
        """The outcome was just set."""


@dataclass
class Run:
    """Consecutive messages that are sent together, none of which has an outcome yet."""

    messages: Sequence[Pending]

    @property
    def since(self) -> float:
        """When the first of them was accepted. A batch can fill for long before it is sent, and those in front leave it
        first."""
        return self.messages[0]._since

    def wire_messages(self) -> list[wire.PushMessage]:
        """As they travel."""
        return [pending._message for pending in self.messages if pending._message is not None]


class _Filling:
    """A batch that still takes messages."""

    def __init__(self) -> None:
        self.messages: list[Pending] = []
        self.size = 0

    def is_full_for(self, size: int) -> bool:
        return bool(self.messages) and (len(self.messages) >= MAX_BATCH_MESSAGES or self.size + size > MAX_BATCH_BYTES)


class Outbox:
    """See the module. ``lock`` guards it; ``wake`` tells the program that there is something to send or that the
    application is done; ``changed`` tells the application that messages have outcomes."""

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
        wake: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = lock
        self._wake = wake
        self._changed = changed
        self._waiting: deque[_Filling] = deque()
        self._messages = 0
        self._bytes = 0
        self._ended: MoMError | None = None
        # Failures since the last flush that nobody has seen, as far as they are remembered.
        self._failed: deque[Pending] = deque()
        #: How many messages were accepted, and how many of them have an outcome.
        self.accepted = 0
        self.resolved = 0

    def offer(self, pending: Pending) -> bool:
        """Accepts a message; false if too much is in flight. Fails with why the producer ended. Call with the lock."""
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        assert pending._message is not None
        size = pending._message.ByteSize()
        # A message that is larger than the room there is may be alone in it.
        cost = min(size + MESSAGE_OVERHEAD_BYTES, self._max_bytes)
        if self._messages >= self._max_messages or self._bytes + cost > self._max_bytes:
            return False
        was_empty = not self._waiting
        if was_empty or self._waiting[-1].is_full_for(size):
            self._waiting.append(_Filling())
        batch = self._waiting[-1]
        batch.messages.append(pending)
        batch.size += size
        pending._cost = cost
        pending._since = self._clock()
        self._messages += 1
        self._bytes += cost
        self.accepted += 1
        if was_empty:
            self._wake()
        return True

    def take(self) -> Run | None:
        """The oldest messages that wait to be sent."""
        with self._lock:
            if not self._waiting:
                return None
            batch = self._waiting.popleft()
            return Run(batch.messages)

    def waiting_since(self) -> float | None:
        """When the oldest message that waits to be sent was accepted."""
        with self._lock:
            return self._waiting[0].messages[0]._since if self._waiting else None

    def end(self, reason: MoMError | None = None) -> None:
        """No more messages are taken, for this reason (none: closed); those that were are still delivered."""
        with self._lock:
            if self._ended is None:
                self._ended = reason or Closed()
            self._wake()
            self._changed()

    def is_ended(self) -> bool:
        """No more messages are taken."""
        with self._lock:
            return self._ended is not None

    def resolve(self, messages: Sequence[Pending], first_sequence: int, outcome: Acknowledged | MoMError) -> None:
        """Messages have an outcome."""
        with self._lock:
            for at, pending in enumerate(messages):
                pending._message = None
                pending._sequence = first_sequence + at
                pending._outcome = outcome
                pending._told()
                self._bytes -= pending._cost
            self._messages -= len(messages)
            self.resolved += len(messages)
            if isinstance(outcome, MoMError):
                self._forget_seen_failures()
                self._failed.extend(messages[: MAX_UNSEEN_FAILURES - len(self._failed)])
            self._changed()

    def _forget_seen_failures(self) -> None:
        while self._failed and self._failed[0]._seen:
            self._failed.popleft()

    def take_failure(self) -> MoMError | None:
        """The first failure that nobody was told of, neither by its delivery nor by a flush. Call with the lock."""
        self._forget_seen_failures()
        failure = self._failed[0]._outcome if self._failed else None
        self._failed.clear()
        assert failure is None or isinstance(failure, MoMError)
        return failure
