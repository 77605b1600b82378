"""The client with threads, and administration. ``rmom.aio`` is the same for asyncio."""

from __future__ import annotations

import time
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

from . import _admin
from ._check import check_timeout, id_of_channel
from ._effects import run
from ._rest import Managers
from ._settings import Settings, Tls, settings_of
from ._threads import Blocking
from .consumer import Consumer
from .errors import MoMError
from .model import Broker, Channel, Position, Queue, Start, StartAt
from .producer import Producer, time_after


class Client:
    """A client of one rmom cluster. ``managers`` are URLs, such as ``"http://127.0.0.1:8082"``: one, several in a list,
    or several in one text, separated by commas. ``settings`` are fields of :class:`rmom.Settings`, such as
    ``delivery_timeout=30``.

    It has no connection of its own: each producer and each consumer has one, to the broker that hosts its queue. All
    methods may be called from any thread.
    """

    def __init__(self, managers: str | Sequence[str], *, tls: Tls | None = None, **settings: Any) -> None:
        self._settings = settings_of(managers, tls, settings)
        self._blocking = Blocking(self._settings)
        self._consumers: weakref.WeakSet[Consumer] = weakref.WeakSet()
        #: Administration: queues, channels, topics, brokers.
        self.admin = Admin(self._settings, self._blocking)

    def producer(
        self,
        queue_label: Queue | str,
        *,
        name: str | None = None,
        max_in_flight: int = 16_384,
        max_bytes_in_flight: int = 32 << 20,
        delivery_timeout: float | None = None,
    ) -> Producer:
        """A producer for the queue with this label (case-insensitive).

        A ``name`` outlives the process. A producer opened again under the name, perhaps elsewhere, learns how many
        messages of this queue it has stored (``stored_before``), so that an import can continue where it stopped.
        Opening it shuts out the producer that used the name before. Names are case-sensitive, and apply per queue.

        ``max_in_flight`` and ``max_bytes_in_flight`` limit the messages and bytes that are accepted and not yet
        acknowledged.
        """
        self._blocking.check_open()
        return Producer(
            self._blocking,
            queue_label,
            name,
            max_in_flight,
            max_bytes_in_flight,
            self._settings.delivery_timeout if delivery_timeout is None else delivery_timeout,
        )

    def subscribe(
        self,
        channel: Channel | uuid.UUID | str,
        *,
        resume_from: Position | None = None,
        give_up_after: float | None = None,
    ) -> Consumer:
        """A consumer of this channel. :meth:`Admin.create_channel` creates channels. It connects when the first message
        is requested. ``resume_from`` is the position after which it continues; by default it begins at the channel's
        start. ``give_up_after`` is the time in seconds for which a consumer without a connection tries to get one
        before it fails; ``None`` means for ever."""
        self._blocking.check_open()
        consumer = Consumer(self._blocking, id_of_channel(channel), resume_from, give_up_after)
        self._consumers.add(consumer)
        return consumer

    def close(self, timeout: float | None = None) -> None:
        """Closes the producers, which deliver the messages that they accepted, also those that the application has
        dropped; and the consumers. Fails like :meth:`Producer.close`. After ``timeout`` seconds in all, the remaining
        messages are given up."""
        timeout = check_timeout(timeout)
        self._close(timeout, f"the client's close() waited for {timeout} s")

    def _close(self, timeout: float | None, why: str) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        delivering = list(self._blocking.running)
        for one in delivering:
            one.finish()
        failure: MoMError | None = None
        try:
            for one in delivering:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                found = one.wait(left, why)
                failure = failure or found
        except BaseException as error:
            for one in delivering:
                one.abandon(f"{type(error).__name__} ended the wait for its messages")
            raise
        finally:
            for consumer in list(self._consumers):
                consumer.close()
            self._blocking.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Like :meth:`close`. After an exception it waits for one second only (after ``SystemExit``, five), and that
        exception is raised."""
        try:
            self._close(time_after(error), f"{kind.__name__ if kind else None} left the client's `with` block")
        except MoMError:
            if error is None:
                raise


class Admin:
    """Administrative calls. A call that changes something is made once, at the first manager that can be reached; a
    call that only reads goes on to the next manager if one does not answer. Errors carry the managers' codes. If
    ``outcome_unknown`` is true, the request may have been carried out. Queues, channels and brokers are named by
    themselves or by their labels and ids."""

    def __init__(self, settings: Settings, blocking: Blocking) -> None:
        self._managers = Managers(settings)
        self._perform = blocking.perform

    def create_queue(self, label: str, *, exist_ok: bool = False) -> Queue:
        """Creates a queue and waits until a broker serves it. With ``exist_ok``, returns the queue that has
        the label, if there is one. Codes: ``QUEUE_EXISTS``, ``NO_BROKER``, …"""
        return run(_admin.create_queue(self._managers, label, exist_ok), self._perform)

    def delete_queue(self, label: Queue | str) -> None:
        """Deletes a queue, its channels and its messages, for good."""
        run(_admin.delete_queue(self._managers, label), self._perform)

    def queue(self, label: Queue | str) -> Queue:
        """A queue, with its broker's description."""
        return run(_admin.queue(self._managers, label), self._perform)

    def queues(self, *, live: bool = False) -> list[Queue]:
        """All queues. With ``live``, each has its broker's description, at one call for each broker and page."""
        return run(_admin.queues(self._managers, live), self._perform)

    def topics(self, label: Queue | str) -> list[str]:
        """The topics of a queue's channels."""
        return run(_admin.topics(self._managers, label), self._perform)

    def create_channel(self, label: Queue | str, topic: str | None = None, start: StartAt = Start.EARLIEST) -> Channel:
        """Creates a channel on a queue. With a topic, it receives only messages with the same topic
        (case-insensitive)."""
        return run(_admin.create_channel(self._managers, label, topic, start), self._perform)

    def channel(self, channel_id: Channel | uuid.UUID | str) -> Channel:
        """A channel."""
        return run(_admin.channel(self._managers, channel_id), self._perform)

    def channels(self, label: Queue | str | None = None) -> list[Channel]:
        """The channels of a queue, or of all queues."""
        return run(_admin.channels(self._managers, label), self._perform)

    def delete_channel(self, channel_id: Channel | uuid.UUID | str) -> None:
        """Deletes a channel; its subscriptions end."""
        run(_admin.delete_channel(self._managers, channel_id), self._perform)

    def brokers(self) -> list[Broker]:
        """All brokers."""
        return run(_admin.brokers(self._managers), self._perform)

    def drain(self, broker: Broker | int) -> None:
        """Moves a broker's queues to other brokers, and gives it no new ones."""
        run(_admin.set_draining(self._managers, broker, True), self._perform)

    def undrain(self, broker: Broker | int) -> None:
        """Undoes :meth:`drain`."""
        run(_admin.set_draining(self._managers, broker, False), self._perform)

    def forget(self, broker: Broker | int, *, force: bool = False) -> None:
        """Removes a broker that is gone for good; with ``force``, also one that died within the last minute. A broker
        whose lease is running is never removed."""
        run(_admin.forget(self._managers, broker, force), self._perform)

    def rebalance(self) -> int:
        """Moves some queues from brokers with many to brokers with few, now. Returns the number of queues left to move;
        call it again while that is not 0."""
        return run(_admin.rebalance(self._managers), self._perform)
