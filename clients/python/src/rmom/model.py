"""rmom's objects as values: messages, receipts, positions, queues, channels, brokers."""

from __future__ import annotations

import enum
import operator
import re
import reprlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from ._proto import messages_pb2 as wire
from .errors import InvalidArgument

#: The spelling of "no topic" on the wire; the empty string means the same.
NO_TOPIC = "__none__"


@dataclass(frozen=True)
class Position:
    """The position of the last message that a consumer received, from which another can continue. Store it with the
    result of processing the message, in the same transaction if possible: then every message is processed exactly once.
    ``str`` writes it, :meth:`parse` reads it."""

    #: The queue's id. A later queue with the same label has another id.
    queue_id: int
    #: How often the queue had been activated when the message was delivered.
    epoch: int
    #: The message's offset.
    offset: int

    def __post_init__(self) -> None:
        for name in ("queue_id", "epoch", "offset"):
            value = getattr(self, name)
            try:
                number = -1 if isinstance(value, bool) else operator.index(value)
            except TypeError:
                number = -1
            if not 0 <= number < 1 << 64:
                raise InvalidArgument(f"position.{name}", f"it is {value!r:.80}; it takes 0 to {(1 << 64) - 1}")
            object.__setattr__(self, name, number)

    def __str__(self) -> str:
        return f"{self.queue_id}:{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads ``QUEUE_ID:EPOCH:OFFSET``; anything else is an :class:`rmom.InvalidArgument`, a ``ValueError``."""
        pattern = r"([0-9]{1,20}):([0-9]{1,20}):([0-9]{1,20})"
        match = re.fullmatch(pattern, text) if isinstance(text, str) else None
        numbers = [int(part) for part in match.groups()] if match else []
        if not numbers or max(numbers) >= 1 << 64:
            reason = f"{reprlib.repr(text)} has to look like QUEUE_ID:EPOCH:OFFSET, three numbers"
            raise InvalidArgument("position", reason)
        return cls(*numbers)


@dataclass(frozen=True)
class Message:
    """A message as delivered to a consumer."""

    #: The same for every copy of one push.
    id: uuid.UUID
    #: Its position in the queue: 1, 2, 3 …; a consumer sees them strictly increasing.
    offset: int
    #: The payload.
    content: bytes
    #: Its topic, in lower case.
    topic: str | None = None
    #: The headers that the application added when pushing; of several with the same name, the last.
    headers: Mapping[str, bytes] = field(default_factory=dict)
    #: Its lifetime in seconds once it is stored: the pushed one, or the broker's default. ``None`` means for ever.
    ttl: float | None = None

    @property
    def text(self) -> str:
        """The content as UTF-8."""
        return self.content.decode()


def message_from_wire(message: wire.Message) -> Message:
    """Reads a message; a ``ValueError`` names the fault."""
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
    #: The message's id, as consumers see it.
    id: uuid.UUID
    #: Its offset in the queue, if known. It is known for a push that is alone in flight, for the last message of an
    #: acknowledgement, and for others if no other producer pushed in between.
    offset: int | None
    #: True if an earlier attempt had already stored it. It is stored only once.
    duplicate: bool


class Start(enum.Enum):
    """The offset at which a new channel starts; a specific offset is given as a number."""

    #: At the oldest message still stored.
    EARLIEST = "earliest"
    #: After the newest message at the time of creation.
    LATEST = "latest"


#: The start of a new channel.
StartAt = Union[Start, int]


@dataclass(frozen=True)
class Subscriber:
    """A subscription, as the hosting broker sees it."""

    channel_id: uuid.UUID
    topic: str | None
    #: Address of the client's end of the connection.
    peer: str
    #: The offset up to which everything was handed to the connection.
    offset: int
    #: Number of offsets from there to the newest message.
    lag: int


@dataclass(frozen=True)
class LiveQueue:
    """A queue as its hosting broker describes it."""

    #: ``served``, ``waiting`` (its broker is claiming or recovering it) or ``halted`` (until an operator acts).
    state: str
    #: The reason why it is not served.
    reason: str | None
    #: How often the queue was activated.
    epoch: int
    #: The newest message's offset. 0 means that there is none yet.
    last_offset: int
    depth_messages: int
    depth_bytes: int
    #: Age of the oldest live message in seconds.
    oldest_age: float
    subscriber_count: int
    #: Number of offsets by which the slowest subscriber is behind the newest message.
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
    #: The host of its assigned broker. ``None`` means that it has none yet.
    host: str | None
    port: int | None
    #: The hosting broker's description; from ``admin.queue`` and ``admin.queues(live=True)``, only while it answers.
    live: LiveQueue | None = None
    #: The reason why ``live`` is missing.
    live_error: str | None = None


@dataclass(frozen=True)
class Channel:
    """A channel."""

    id: uuid.UUID
    #: The queue that it reads.
    queue_id: int
    queue_label: str
    #: The topic of the messages that it receives. ``None`` means all messages.
    topic: str | None
    #: The first offset for a subscription without a position, or the first live one after it.
    start: int
    #: The host of the broker assigned to its queue. ``None`` means that it has none yet.
    host: str | None
    port: int | None


@dataclass(frozen=True)
class Broker:
    """A broker."""

    #: ``None`` means that the broker is in the managers' configuration but was never seen.
    id: int | None
    host: str
    port: int
    #: ``up``, ``draining``, ``stopped`` or ``unregistered``.
    state: str
    #: True if the manager that answers counts it as alive.
    live: bool
    #: Number of queues assigned to it.
    queues: int
    #: True if it has not been alive for long and has no queues: it can be forgotten.
    gone: bool = False


#: Headers as passed by an application.
Headers = Mapping[str, Union[bytes, str]]
#: Content as passed by an application; text becomes UTF-8.
Content = Union[bytes, bytearray, memoryview, str]
