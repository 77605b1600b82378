"""The words of rmom as values: messages, receipts, positions, queues, channels, brokers."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from ._proto import messages_pb2 as wire

#: How "no topic" is spelled on the wire; the empty string means the same.
NO_TOPIC = "__none__"


@dataclass(frozen=True)
class Position:
    """What a consumer needs to go on: the last message it was given. Keep it with what was made of the message, in the
    same transaction if there is one, and every message is processed once. ``str`` writes it, :meth:`parse` reads it.
    """

    #: The queue; one that has the same label later has another id.
    queue_id: int
    #: How often the queue had been activated when the message was delivered.
    epoch: int
    #: The message's offset.
    offset: int

    def __str__(self) -> str:
        return f"{self.queue_id}:{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads ``QUEUE_ID:EPOCH:OFFSET``; anything else is a ``ValueError``."""
        match = re.fullmatch(r"([0-9]{1,20}):([0-9]{1,20}):([0-9]{1,20})", text)
        numbers = [int(part) for part in match.groups()] if match else []
        if not numbers or max(numbers) >= 1 << 64:
            raise ValueError(f"{text[:64]!r} is no position; it has to look like QUEUE_ID:EPOCH:OFFSET, three numbers")
        return cls(*numbers)


@dataclass(frozen=True)
class Message:
    """A message as a consumer is given it."""

    #: The same for every copy of one push.
    id: uuid.UUID
    #: Its position in the queue: 1, 2, 3 …; a consumer sees them strictly increasing.
    offset: int
    #: The payload.
    content: bytes
    #: Its topic, in lower case.
    topic: str | None = None
    #: What the pusher added; of several headers with one name, the last.
    headers: Mapping[str, bytes] = field(default_factory=dict)
    #: For how many seconds it lives once it is stored: as it was pushed, or the broker's default; none: for ever.
    ttl: float | None = None

    @property
    def text(self) -> str:
        """The content as UTF-8."""
        return self.content.decode()


def message_from_wire(message: wire.Message) -> Message:
    """Says what is wrong in a ``ValueError``."""
    if message.offset == 0:
        raise ValueError("a message without an offset")
    try:
        identity = uuid.UUID(message.id)
    except ValueError:
        raise ValueError(f"a message whose id is no UUID: {message.id!r}") from None
    topic = message.topic
    return Message(
        id=identity,
        offset=message.offset,
        content=message.content,
        topic=None if topic in ("", NO_TOPIC) else topic,
        headers={header.name: header.value for header in message.headers},
        ttl=message.ttl_millis / 1000 if message.ttl_millis else None,
    )


@dataclass(frozen=True)
class Receipt:
    """A message that is durable."""

    #: Its number within its producer.
    sequence: int
    #: The message's id, as the receivers see it.
    id: uuid.UUID
    #: Its offset in the queue, where it is known: always for a push that is alone in flight and for the last message of
    #: an acknowledgement; for others if nobody else pushed in between.
    offset: int | None
    #: An earlier attempt had stored it already. It is stored once all the same.
    duplicate: bool


class Start(enum.Enum):
    """Where a new channel starts; an offset is given as a number."""

    #: At the oldest message that is still there.
    EARLIEST = "earliest"
    #: After the newest message at the time of creation.
    LATEST = "latest"


#: Where a new channel starts.
StartAt = Union[Start, int]


@dataclass(frozen=True)
class Subscriber:
    """A subscription, as the hosting broker sees it."""

    channel_id: uuid.UUID
    topic: str | None
    #: Address of the client's end of the connection.
    peer: str
    #: Everything up to this offset was handed to the connection.
    offset: int
    #: Offsets between that and the newest message.
    lag: int


@dataclass(frozen=True)
class LiveQueue:
    """What the hosting broker knows about a queue."""

    #: ``served``, ``waiting`` (its broker claims it, or recovers) or ``halted`` (until an operator looks).
    state: str
    #: Why it is not served.
    reason: str | None
    #: How often the queue was activated.
    epoch: int
    #: The newest message's offset; 0: none yet.
    last_offset: int
    depth_messages: int
    depth_bytes: int
    #: Age of the oldest live message in seconds.
    oldest_age: float
    subscriber_count: int
    #: Offsets between what the slowest of them was handed and the newest message.
    largest_lag: int
    #: The subscribers; only from ``admin.queue``.
    subscribers: list[Subscriber]


@dataclass(frozen=True)
class Queue:
    """A queue."""

    #: Its id, never used again.
    id: int
    #: Its label, in lower case.
    label: str
    #: Where the broker is that is to host it; none: no broker yet.
    host: str | None
    port: int | None
    #: What the hosting broker says; from ``admin.queue`` and ``admin.queues(live=True)``, only while it answers.
    live: LiveQueue | None = None
    #: Why there is no ``live``.
    live_error: str | None = None


@dataclass(frozen=True)
class Channel:
    """A channel."""

    id: uuid.UUID
    #: The queue that it reads.
    queue_id: int
    queue_label: str
    #: What it lets through; none: everything.
    topic: str | None
    #: The first offset that a subscription without a position is given, or the first live one beyond it.
    start: int
    #: Where the broker is that is to host the queue; none: no broker yet.
    host: str | None
    port: int | None


@dataclass(frozen=True)
class Broker:
    """A broker."""

    #: None: listed in the managers' configuration, but never seen.
    id: int | None
    host: str
    port: int
    #: ``up``, ``draining``, ``stopped`` or ``unregistered``.
    state: str
    #: The manager that answers counts it as alive.
    live: bool
    #: How many queues are assigned to it.
    queues: int
    #: It has not been alive for long, and has no queues: it can be forgotten.
    gone: bool = False


#: Headers as an application gives them.
Headers = Mapping[str, Union[bytes, str]]
#: Content as an application gives it; text becomes UTF-8.
Content = Union[bytes, bytearray, memoryview, str]
