"""The brokers' requirements on labels, topics and messages. They are checked here as well, so that bad input fails
before it takes a sequence."""

from __future__ import annotations

import operator
import reprlib
import threading
import unicodedata
import uuid
from collections.abc import Mapping
from typing import Any

from ._proto import messages_pb2 as wire
from ._settings import finite
from .errors import InvalidArgument, InvalidName, MessageTooLarge
from .model import NO_TOPIC, Broker, Channel, Content, Headers, Position, Queue

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


def described(value: object) -> str:
    """A value of a wrong type, for messages: ``an int (42)``."""
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    return "None" if value is None else f"{article} {kind} ({reprlib.repr(value)})"


def label_of(queue: Queue | str) -> str:
    """The label of a queue, named by itself or by its label. Refuses a label that every broker would refuse."""
    label = queue.label if isinstance(queue, Queue) else queue
    check_label(label)
    return label


def id_of_channel(channel: Channel | uuid.UUID | str) -> uuid.UUID:
    """The id of a channel, named by itself or by its id."""
    found: Any = channel.id if isinstance(channel, Channel) else channel
    if isinstance(found, uuid.UUID):
        return found
    if not isinstance(found, str):
        reason = f"it is {described(found)}; pass a rmom.Channel, its id, or the id as a str"
        raise InvalidArgument("channel", reason)
    try:
        return uuid.UUID(found)
    except ValueError:
        reason = f"{found[:64]!r} is not the id of a channel, which is a UUID; create_channel returns it"
        raise InvalidArgument("channel", reason) from None


def id_of_broker(broker: Broker | int) -> int:
    """The id of a broker, named by itself or by its id."""
    if isinstance(broker, Broker):
        if broker.id is None:
            where = f"{broker.host}:{broker.port}"
            raise InvalidArgument("broker", f"the one at {where} was never seen, so it has no id yet; start it")
        broker = broker.id
    found = as_int("broker", broker, "pass a rmom.Broker, or its id, such as 1")
    if found < 0:
        raise InvalidArgument("broker", f"it is {found}; ids are above zero (admin.brokers() lists them)")
    return found


def as_int(field: str, value: Any, remedy: str) -> int:
    """An integer; a truth value is refused, although Python counts it among them."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise InvalidArgument(field, f"it is {described(value)}; {remedy}")


def as_number(field: str, value: Any, remedy: str) -> float:
    """A finite number; truth values and text are refused."""
    number = finite(value)
    if number is not None:
        return number
    raise InvalidArgument(field, f"it is {described(value)}; {remedy}")


def check_timeout(value: Any) -> float | None:
    """The seconds of a wait; ``None`` means no limit."""
    if value is None:
        return None
    seconds = as_number("timeout", value, "pass a number of seconds, such as 5, or None for no limit")
    return min(max(seconds, 0.0), threading.TIMEOUT_MAX)


def check_position(value: Any) -> None:
    """Refuses anything that is not a position; ``None`` means the channel's start."""
    if value is not None and not isinstance(value, Position):
        saved = f", such as rmom.Position.parse({value!r:.80})" if isinstance(value, str) else ""
        raise InvalidArgument("resume_from", f"it is {described(value)}; pass a rmom.Position{saved}")


def as_bool(field: str, value: Any) -> bool:
    """A truth value; ``"false"`` is true for Python, and refused here."""
    if not isinstance(value, bool):
        raise InvalidArgument(field, f"it is {described(value)}; pass True or False")
    return value


def check_label(label: Any) -> None:
    """Refuses a label that every broker would refuse."""
    if not isinstance(label, str):
        raise InvalidName("queue_label", f"is {described(label)}; pass a str")
    if not label:
        raise InvalidName("queue_label", f"is empty; give it 1 to {MAX_NAME_BYTES} bytes")
    if label.lower() == NO_TOPIC:
        raise InvalidName("queue_label", f"is the reserved word {NO_TOPIC!r}; choose another")
    if label in (".", ".."):
        # Libraries and proxies take these out of a path, also when they are escaped: another queue would be named.
        raise InvalidName("queue_label", f"is {label!r}, which cannot be part of a URL's path; choose another")
    _check_text("queue_label", label)


def check_topic(topic: Any) -> None:
    """Refuses a topic that every broker would refuse. An empty string means "no topic", and passes."""
    if not isinstance(topic, str):
        raise InvalidName("topic", f"is {described(topic)}; pass a str, or None for no topic")
    _check_text("topic", topic)


def check_producer_name(name: Any) -> None:
    """Refuses a name that is too short or too long."""
    if not isinstance(name, str):
        raise InvalidName("producer name", f"is {described(name)}; pass a str")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName("producer name", "has half of a surrogate pair, which is no character") from None
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


def as_bytes(field: str, value: Any) -> bytes:
    """Bytes as sent; text becomes UTF-8. Nothing else is converted: ``bytes(42)`` would be 42 zeros."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            reason = f"it has half of a surrogate pair at character {error.start}, which UTF-8 cannot express"
            raise InvalidArgument(field, f"{reason}; pass bytes if they are not text") from None
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, memoryview):
        if value.itemsize == 1:
            return value.tobytes()
        raise InvalidArgument(field, f"it is a memoryview of format {value.format!r}; pass view.cast('B')")
    how = f", such as str({value})" if isinstance(value, (int, float)) and abs(value) < 1e15 else ""
    raise InvalidArgument(field, f"it is {described(value)}; pass str or bytes{how}")


def _add_headers(message: wire.PushMessage, headers: Any) -> None:
    if not isinstance(headers, Mapping):
        raise InvalidArgument("headers", f"it is {described(headers)}; pass a dict of names and values")
    if len(headers) > MAX_HEADERS:
        raise InvalidArgument("headers", f"there are {len(headers)}; the limit is {MAX_HEADERS}")
    for name, value in headers.items():
        if not isinstance(name, str):
            raise InvalidArgument("headers", f"a name is {described(name)}; pass a str")
        size = len(as_bytes("headers", name))
        if not 1 <= size <= MAX_HEADER_NAME_BYTES:
            raise InvalidArgument("headers", f"a name has {size} bytes; it takes 1 to {MAX_HEADER_NAME_BYTES}")
        message.headers.add(name=name, value=as_bytes(f"header {name!r}", value))


def new_message(
    content: Content,
    topic: str | None,
    headers: Headers | None,
    ttl: float | None,
    max_message_bytes: int,
) -> wire.PushMessage:
    """A message for pushing. Refuses messages that every broker would refuse."""
    message = wire.PushMessage(content=as_bytes("content", content))
    if topic is not None:
        check_topic(topic)
        message.topic = topic
    if headers is not None:
        _add_headers(message, headers)
    if ttl is not None:
        limits = f"it takes 0.001 to {MAX_TTL_MILLIS // 1000} s"
        millis = as_number("ttl", ttl, limits) * 1000
        if not 1 <= millis <= MAX_TTL_MILLIS:
            raise InvalidArgument("ttl", f"it is {ttl} s; {limits}")
        message.ttl_millis = int(millis)
    size = message.ByteSize() + DELIVERY_OVERHEAD_BYTES
    if size > max_message_bytes:
        raise MessageTooLarge(size, max_message_bytes)
    return message
