"""The simple layer, under the names of rusty-mom's ``momlib``. Code written for ``momlib`` runs with

    from rmom.momlib import MoMClient, Pusher, Subscriber

and gains three things that the original lacked: a retried push is stored once, a subscriber outlives its broker, and
errors are raised instead of printed.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import Callable, NamedTuple, TypedDict, TypeVar

from ._settings import check_count, check_number
from .client import Client
from .errors import ConfigError, MoMError, NotDelivered, Refused, authority
from .model import NO_TOPIC, Content, Message
from .producer import Producer

log = logging.getLogger("rmom")

T = TypeVar("T")

#: Default pauses in seconds, and default number of attempts.
DEFAULT_RETRY_DELAY = 1.0
DEFAULT_MAX_ATTEMPTS = 10


class MoMInfo:
    """The address of a queue's broker. It also remembers the client that found it: pushers and subscribers find the
    queue again when it has moved."""

    def __init__(self, host: str, port: int, client: Client | None = None) -> None:
        self.host = host
        self.port = port
        self._client = client

    def __repr__(self) -> str:
        return f"MoMInfo(host={self.host!r}, port={self.port})"

    def _require_client(self) -> Client:
        if self._client is None:
            raise ConfigError("mom_info", "it names a broker only; use what a MoMClient returned")
        return self._client


class Channel(NamedTuple):
    """A channel's id and topic; the topic is ``__none__`` if it has none."""

    id: str
    topic: str


class Received(TypedDict):
    """A message as passed to the original's callbacks; :meth:`Subscriber.next` returns more fields."""

    id: str
    content: bytes


class MoMClient:
    """Administration through the manager at ``http_host`` and ``http_port``.

    ``retry_delay`` and ``max_attempts`` are the pause in seconds between attempts and their number, used while no
    manager answers or no broker is there. A final refusal is raised at once.
    """

    def __init__(self, http_host: str, http_port: int) -> None:
        #: The full client, for everything that this layer lacks.
        self.client = Client(f"http://{authority(http_host, http_port)}")

    def create_queue(
        self, queue_label: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> None:
        """Creates a queue; succeeds if it exists already."""
        _retry(lambda: self.client.admin.create_queue(queue_label, exist_ok=True), retry_delay, max_attempts)

    def delete_queue(
        self, queue_label: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> None:
        """Deletes a queue with its channels and messages."""
        _delete(lambda: self.client.admin.delete_queue(queue_label), "QUEUE_NOT_FOUND", retry_delay, max_attempts)

    def get_queue_info(
        self, queue_label: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> tuple[str, MoMInfo]:
        """The queue's label and the address for pushing to it."""

        def ask() -> tuple[str, MoMInfo]:
            queue = self.client.admin.queue(queue_label)
            return queue.label, self._info(queue.host, queue.port)

        return _retry(ask, retry_delay, max_attempts)

    def get_queue_topics(
        self, queue_label: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> list[str]:
        """The topics of the queue's channels."""
        return _retry(lambda: self.client.admin.topics(queue_label), retry_delay, max_attempts)

    def list_queues(
        self, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> list[str]:
        """The labels of all queues."""
        return _retry(lambda: [queue.label for queue in self.client.admin.queues()], retry_delay, max_attempts)

    def create_channel(
        self,
        queue_label: str,
        topic: str = NO_TOPIC,
        *,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    ) -> tuple[MoMInfo, Channel]:
        """Creates a channel, which starts at the oldest message still stored."""

        def create() -> tuple[MoMInfo, Channel]:
            channel = self.client.admin.create_channel(queue_label, topic)
            return self._info(channel.host, channel.port), Channel(str(channel.id), channel.topic or NO_TOPIC)

        return _retry(create, retry_delay, max_attempts)

    def get_channel_info(
        self, channel_id: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> tuple[MoMInfo, Channel]:
        """The address for subscribing to a channel, and its topic."""

        def ask() -> tuple[MoMInfo, Channel]:
            channel = self.client.admin.channel(channel_id)
            return self._info(channel.host, channel.port), Channel(str(channel.id), channel.topic or NO_TOPIC)

        return _retry(ask, retry_delay, max_attempts)

    def delete_channel(
        self, channel_id: str, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> None:
        """Deletes a channel; its subscriptions end."""
        _delete(lambda: self.client.admin.delete_channel(channel_id), "CHANNEL_NOT_FOUND", retry_delay, max_attempts)

    def list_channels(
        self, *, retry_delay: float = DEFAULT_RETRY_DELAY, max_attempts: int = DEFAULT_MAX_ATTEMPTS
    ) -> list[str]:
        """The ids of all channels."""
        return _retry(lambda: [str(channel.id) for channel in self.client.admin.channels()], retry_delay, max_attempts)

    def close(self) -> None:
        """Closes the client, including its pushers and subscribers."""
        self.client.close()

    def __enter__(self) -> MoMClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _info(self, host: str | None, port: int | None) -> MoMInfo:
        if host is None or port is None:
            raise Refused("the manager", "NO_BROKER", "no broker hosts it yet")
        return MoMInfo(host, port, self.client)


def _retry(attempt: Callable[[], T], retry_delay: float, max_attempts: int) -> T:
    _check_retries(retry_delay, max_attempts)
    for left in range(max_attempts - 1, -1, -1):
        try:
            return attempt()
        except MoMError as error:
            if not error.retryable or not left:
                raise
            log.warning("tried again in %g s, and then up to %d times more: %s", retry_delay, left - 1, error)
            time.sleep(retry_delay)
    raise AssertionError("the last attempt returns or raises")


def _check_retries(retry_delay: float, max_attempts: int) -> None:
    check_count("max_attempts", max_attempts)
    if check_number("retry_delay", retry_delay) < 0:
        raise ConfigError("retry_delay", f"it is {retry_delay:g} s; it takes 0 or more")


def _delete(delete: Callable[[], None], gone: str, retry_delay: float, max_attempts: int) -> None:
    attempts = itertools.count()

    def attempt() -> None:
        again = next(attempts) > 0
        try:
            delete()
        except Refused as error:
            # An earlier attempt, whose answer was lost, has succeeded.
            if not (again and error.code == gone):
                raise

    _retry(attempt, retry_delay, max_attempts)


class Pusher:
    """Pushes to any queue, each message once and in order."""

    def __init__(self, mom_info: MoMInfo) -> None:
        self._client = mom_info._require_client()
        self._lock = threading.Lock()
        self._producers: dict[str, Producer] = {}

    def push(
        self,
        content: Content,
        queue_label: str,
        topic: str = NO_TOPIC,
        *,
        retry_delay: float = DEFAULT_RETRY_DELAY,
        max_attempts: int = 3,
    ) -> None:
        """Pushes a message and returns when it is durable. An attempt lasts as long as the client's delivery timeout,
        and is repeated only if it is certain that it did not store the message."""
        _check_retries(retry_delay, max_attempts)
        for number in range(1, max_attempts + 1):
            try:
                self._producer(queue_label).push(content, topic=topic)
                return
            except NotDelivered as error:
                if error.outcome_unknown or not error.retryable or number >= max_attempts:
                    raise
                time.sleep(retry_delay)

    def _producer(self, queue_label: str) -> Producer:
        with self._lock:
            producer = self._producers.get(queue_label)
            if producer is None:
                producer = self._producers[queue_label] = self._client.producer(queue_label)
            return producer

    def close(self) -> None:
        """Waits until all messages are pushed."""
        for producer in self._producers.values():
            producer.close()

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Subscriber:
    """Receives the messages of a channel, each once and in order, even when its broker dies."""

    def __init__(self, mom_info: MoMInfo, channel: Channel) -> None:
        self._consumer = mom_info._require_client().subscribe(channel.id)

    def consume(self, on_message: Callable[[Received], object]) -> None:
        """Calls back with each message, until :meth:`close` is called."""
        for message in self._consumer:
            on_message({"id": str(message.id), "content": message.content})

    def next(self, timeout: float | None = None) -> Message:
        """The next message, like :meth:`rmom.Consumer.next`."""
        return self._consumer.next(timeout)

    def close(self) -> None:
        """Ends :meth:`consume`."""
        self._consumer.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
