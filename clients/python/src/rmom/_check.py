"""The brokers' requirements on labels, topics and messages. They are checked here as well, so that bad input fails
before it takes a sequence."""

from __future__ import annotations

import unicodedata

from ._proto import messages_pb2 as wire
from .errors import InvalidArgument, InvalidName, MessageTooLarge
from .model import NO_TOPIC, Content, Headers

#: Longest label or topic in bytes, after lower-casing.
MAX_NAME_BYTES = 255
#: Longest name of a producer in bytes.
MAX_PRODUCER_NAME_BYTES = 255
#: Limit on the headers of one message.
MAX_HEADERS = 64
#: Longest header name in bytes.
MAX_HEADER_NAME_BYTES = 255
#: Longest lifetime of a message in milliseconds: a hundred years.
MAX_TTL_MILLIS = 100 * 365 * 24 * 3600 * 1000
#: The least that delivery adds to a pushed message: its id, its offset, gRPC's prefix.
DELIVERY_OVERHEAD_BYTES = 38 + 2 + 5


def check_label(label: str) -> None:
    """Refuses a label that every broker would refuse."""
    if not label:
        raise InvalidName("queue_label", f"is empty; give it 1 to {MAX_NAME_BYTES} bytes")
    if label.lower() == NO_TOPIC:
        raise InvalidName("queue_label", f"is the reserved word {NO_TOPIC!r}; choose another")
    _check_text("queue_label", label)


def check_topic(topic: str) -> None:
    """Refuses a topic that every broker would refuse. An empty string means "no topic", and passes."""
    _check_text("topic", topic)


def check_producer_name(name: str) -> None:
    """Refuses a name that is too short or too long."""
    size = len(name.encode())
    if not 1 <= size <= MAX_PRODUCER_NAME_BYTES:
        raise InvalidName("producer name", f"has {size} bytes; it takes 1 to {MAX_PRODUCER_NAME_BYTES}")


def _check_text(field: str, text: str) -> None:
    if len(text) <= MAX_NAME_BYTES and text.isascii() and text.isprintable() and " " not in text:
        return
    for at, char in enumerate(text):
        at_an_end = at in (0, len(text) - 1)
        control = unicodedata.category(char) == "Cc"
        if control or char in "\u2028\u2029\ufeff" or (at_an_end and char.isspace()):
            where = f"{char!r} at character {at}"
            raise InvalidName(field, f"has a character that cannot be printed, or white space at an end: {where}")
    try:
        size = len(text.lower().encode())
    except UnicodeEncodeError:
        raise InvalidName(field, "has half of a surrogate pair, which is no character") from None
    if size > MAX_NAME_BYTES:
        raise InvalidName(field, f"has {size} bytes after lower-casing; the limit is {MAX_NAME_BYTES}")


def as_bytes(content: Content) -> bytes:
    """Content as sent."""
    return content.encode() if isinstance(content, str) else bytes(content)


def new_message(
    content: Content,
    topic: str | None,
    headers: Headers | None,
    ttl: float | None,
    max_message_bytes: int,
) -> wire.PushMessage:
    """A message for pushing. Refuses messages that every broker would refuse."""
    message = wire.PushMessage(content=as_bytes(content))
    if topic:
        check_topic(topic)
        message.topic = topic
    if headers:
        if len(headers) > MAX_HEADERS:
            raise InvalidArgument("headers", f"there are {len(headers)}; the limit is {MAX_HEADERS}")
        for name, value in headers.items():
            size = len(name.encode())
            if not 1 <= size <= MAX_HEADER_NAME_BYTES:
                raise InvalidArgument("headers", f"a name has {size} bytes; it takes 1 to {MAX_HEADER_NAME_BYTES}")
            message.headers.add(name=name, value=as_bytes(value))
    if ttl is not None:
        millis = ttl * 1000
        if not 1 <= millis <= MAX_TTL_MILLIS:
            raise InvalidArgument("ttl", f"it is {ttl} s; it takes 0.001 to {MAX_TTL_MILLIS // 1000} s")
        message.ttl_millis = int(millis)
    size = message.ByteSize() + DELIVERY_OVERHEAD_BYTES
    if size > max_message_bytes:
        raise MessageTooLarge(size, max_message_bytes)
    return message
