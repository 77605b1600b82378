"""The client for asyncio: :class:`rmom.Client` and its objects, with ``await``.

Both clients run the same code; only the way of waiting differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
import uuid
import weakref
from collections.abc import Generator, Sequence
from typing import Any

from . import _admin
from ._check import check_position, check_producer_name, check_timeout, id_of_channel, label_of, new_message
from ._consuming import Consuming
from ._effects import run_async
from ._fork import Process
from ._inbox import Inbox
from ._outbox import Outbox, Pending
from ._producing import Producing
from ._rest import Managers
from ._running import ConsumingTask, DeliveringTask, call_in_loop
from ._settings import Settings, Tls, check_count, check_delivery_timeout, check_give_up_after, settings_of
from ._tasks import ConsumerHands, ProducerHands, Waiting, within
from ._threads import when_collected
from .errors import Closed, ConfigError, MoMError
from .model import Broker, Channel, Content, Headers, Message, Position, Queue, Receipt, Start, StartAt
from .producer import time_after

log = logging.getLogger("rmom")


class Client:
    """Like :class:`rmom.Client`. Belongs to one event loop."""

    def __init__(self, managers: str | Sequence[str], *, tls: Tls | None = None, **settings: Any) -> None:
        self._settings = settings_of(managers, tls, settings)
        self._waiting = Waiting(self._settings)
        self._consumers: weakref.WeakSet[Consumer] = weakref.WeakSet()
        #: Administration: queues, channels, topics, brokers.
        self.admin = Admin(self._settings, self._waiting)

    def producer(
        self,
        queue_label: Queue | str,
        *,
        name: str | None = None,
        max_in_flight: int = 16_384,
        max_bytes_in_flight: int = 32 << 20,
        delivery_timeout: float | None = None,
    ) -> Producer:
        """Like :meth:`rmom.Client.producer`. Open it with ``async with``, or with ``await producer.open()``."""
        timeout = self._settings.delivery_timeout if delivery_timeout is None else delivery_timeout
        self._waiting.check_open()
        return Producer(self._waiting, queue_label, name, max_in_flight, max_bytes_in_flight, timeout)

    def subscribe(
        self,
        channel: Channel | uuid.UUID | str,
        *,
        resume_from: Position | None = None,
        give_up_after: float | None = None,
    ) -> Consumer:
        """Like :meth:`rmom.Client.subscribe`."""
        self._waiting.check_open()
        consumer = Consumer(self._waiting, id_of_channel(channel), resume_from, give_up_after)
        self._consumers.add(consumer)
        return consumer

    async def close(self, timeout: float | None = None) -> None:
        """Like :meth:`rmom.Client.close`. Cancelling it gives up the messages that have no outcome yet."""
        timeout = check_timeout(timeout)
        await self._close(timeout, f"the client's close() waited for {timeout} s")

    async def _close(self, timeout: float | None, why: str) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        delivering = [one for one in self._waiting.running if isinstance(one, DeliveringTask)]
        for one in delivering:
            one.finish()
        failure: MoMError | None = None
        try:
            for one in delivering:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                found = await one.wait(left, why)
                failure = failure or found
        except BaseException as error:
            for one in delivering:
                one.abandon(f"{type(error).__name__} ended the wait for its messages")
            raise
        finally:
            for consumer in list(self._consumers):
                await consumer.close()
            for task in [one for one in self._waiting.running if isinstance(one, ConsumingTask)]:
                await task.close()
            await self._waiting.close()
        if failure is not None:
            raise failure

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Like :meth:`rmom.Client.__exit__`."""
        try:
            await self._close(time_after(error), f"{kind.__name__ if kind else None} left the client's `with` block")
        except MoMError:
            if error is None:
                raise


class Admin:
    """Like :class:`rmom.Admin`."""

    def __init__(self, settings: Settings, waiting: Waiting) -> None:
        self._managers = Managers(settings)
        self._perform = waiting.perform

    async def create_queue(self, label: str, *, exist_ok: bool = False) -> Queue:
        """Creates a queue and waits until a broker serves it. With ``exist_ok``, returns the queue that has
        the label, if there is one."""
        return await run_async(_admin.create_queue(self._managers, label, exist_ok), self._perform)

    async def delete_queue(self, label: Queue | str) -> None:
        """Deletes a queue, its channels and its messages, for good."""
        await run_async(_admin.delete_queue(self._managers, label), self._perform)

    async def queue(self, label: Queue | str) -> Queue:
        """A queue, with its broker's description."""
        return await run_async(_admin.queue(self._managers, label), self._perform)

    async def queues(self, *, live: bool = False) -> list[Queue]:
        """All queues. With ``live``, each has its broker's description, at one call for each broker and page."""
        return await run_async(_admin.queues(self._managers, live), self._perform)

    async def topics(self, label: Queue | str) -> list[str]:
        """The topics of a queue's channels."""
        return await run_async(_admin.topics(self._managers, label), self._perform)

    async def create_channel(
        self, label: Queue | str, topic: str | None = None, start: StartAt = Start.EARLIEST
    ) -> Channel:
        """Creates a channel on a queue. With a topic, it receives only messages with the same topic
        (case-insensitive)."""
        return await run_async(_admin.create_channel(self._managers, label, topic, start), self._perform)

    async def channel(self, channel_id: Channel | uuid.UUID | str) -> Channel:
        """A channel."""
        return await run_async(_admin.channel(self._managers, channel_id), self._perform)

    async def channels(self, label: Queue | str | None = None) -> list[Channel]:
        """The channels of a queue, or of all queues."""
        return await run_async(_admin.channels(self._managers, label), self._perform)

    async def delete_channel(self, channel_id: Channel | uuid.UUID | str) -> None:
        """Deletes a channel; its subscriptions end."""
        await run_async(_admin.delete_channel(self._managers, channel_id), self._perform)

    async def brokers(self) -> list[Broker]:
        """All brokers."""
        return await run_async(_admin.brokers(self._managers), self._perform)

    async def drain(self, broker: Broker | int) -> None:
        """Moves a broker's queues to other brokers, and gives it no new ones."""
        await run_async(_admin.set_draining(self._managers, broker, True), self._perform)

    async def undrain(self, broker: Broker | int) -> None:
        """Undoes :meth:`drain`."""
        await run_async(_admin.set_draining(self._managers, broker, False), self._perform)

    async def forget(self, broker: Broker | int, *, force: bool = False) -> None:
        """Removes a broker that is gone for good; with ``force``, also one that died within the last minute. A broker
        whose lease is running is never removed."""
        await run_async(_admin.forget(self._managers, broker, force), self._perform)

    async def rebalance(self) -> int:
        """Moves some queues from brokers with many to brokers with few, now. Returns the number of queues left to move;
        call it again while that is not 0."""
        return await run_async(_admin.rebalance(self._managers), self._perform)


class Delivery(Pending):
    """The outcome of one message. Awaiting it returns the :class:`rmom.Receipt`. The message is pushed even if this is
    never awaited."""

    __slots__ = ("_waiter",)

    def __init__(self, message: Any) -> None:
        super().__init__(message)
        self._waiter: asyncio.Future[None] | None = None

    def __await__(self) -> Generator[Any, None, Receipt]:
        if not self.done():
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            # Cancelling a task that waits must not cancel the others.
            yield from asyncio.shield(self._waiter).__await__()
        return self._receipt()

    def _told(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Producer:
    """Like :class:`rmom.Producer`, for ``async with``."""

    def __init__(
        self,
        waiting: Waiting,
        label: Queue | str,
        name: str | None,
        max_messages: int,
        max_bytes: int,
        delivery_timeout: float,
    ) -> None:
        label = label_of(label)
        delivery_timeout = check_delivery_timeout(delivery_timeout)
        max_messages = check_count("max_in_flight", max_messages)
        max_bytes = check_count("max_bytes_in_flight", max_bytes)
        if name is not None:
            check_producer_name(name)
        #: See :class:`rmom.Producer`.
        self.stored_before = 0
        self._named = name is not None
        self._waiting = waiting
        self._process = Process()
        self._hands = ProducerHands(waiting)
        self._max_message_bytes = waiting.settings.max_message_bytes
        self._changed = asyncio.Event()
        # Two tasks may open it at once.
        self._opening = asyncio.Lock()
        clock = waiting.settings.clock
        self._outbox = Outbox(max_messages, max_bytes, clock, contextlib.nullcontext(), self._changed.set)
        self._outbox.when_there_is_work(self._hands.wake)
        self._producing = Producing(Managers(waiting.settings), label, name, delivery_timeout, self._outbox)
        self._delivering: DeliveringTask | None = None

    async def open(self) -> Producer:
        """Starts the producer. A named one asks the hosting broker what it has stored; an unnamed one connects at its
        first message."""
        async with self._opening:
            if self._delivering is None:
                if self._named:
                    self.stored_before = await run_async(self._producing.open_named(), self._hands.perform)
                arguments = (self._producing, self._outbox, self._hands, self._changed)
                self._delivering = DeliveringTask(self._waiting, *arguments)
                finish = self._delivering.finish
                when_collected(self, functools.partial(call_in_loop, asyncio.get_running_loop(), finish))
        return self

    async def push(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Like :meth:`rmom.Producer.push`."""
        timeout = check_timeout(timeout)
        self._opened()

        async def stored() -> Receipt:
            return await (await self.send(content, topic=topic, headers=headers, ttl=ttl))

        try:
            return await within(stored(), timeout)
        except asyncio.TimeoutError:
            reason = f"no outcome within {timeout} s; if the message was accepted, it is still being delivered"
            raise TimeoutError(reason) from None

    async def send(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
    ) -> Delivery:
        """Accepts a message, and waits only while too much is in flight."""
        self._opened()
        delivery = Delivery(new_message(content, topic, headers, ttl, self._max_message_bytes))
        while not self._outbox.offer(delivery):
            self._changed.clear()
            await self._changed.wait()
        return delivery

    def _opened(self) -> DeliveringTask:
        self._process.check("the producer")
        if self._delivering is None:
            raise ConfigError("producer", "it is not open; use it in `async with`, or `await producer.open()`")
        return self._delivering

    async def flush(self, timeout: float | None = None) -> None:
        """Like :meth:`rmom.Producer.flush`."""
        timeout = check_timeout(timeout)
        accepted = self._outbox.accepted
        if accepted and not await self._opened().until_resolved(accepted, timeout):
            left = accepted - self._outbox.resolved
            raise TimeoutError(f"{left} messages without outcome after {timeout} s; they are still being delivered")
        failure = self._outbox.take_failure()
        if failure is not None:
            raise failure

    async def close(self, timeout: float | None = None) -> None:
        """Like :meth:`rmom.Producer.close`. Cancelling it gives up the messages that have no outcome yet."""
        timeout = check_timeout(timeout)
        await self._close(timeout, f"close() waited for {timeout} s")

    async def _close(self, timeout: float | None, why: str) -> None:
        if not self._process.is_this():
            # The parent delivers what it accepted.
            return
        self._outbox.end()
        if self._delivering is not None:
            failure = await self._delivering.wait(timeout, why)
            if failure is not None:
                raise failure

    async def __aenter__(self) -> Producer:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Like :meth:`rmom.Producer.__exit__`."""
        try:
            await self._close(time_after(error), f"{kind.__name__ if kind else None} left its `with` block")
        except MoMError:
            # The application's own exception matters more than a failure that it may have caused.
            if error is None:
                raise


class Consumer:
    """Like :class:`rmom.Consumer`, for ``async with`` and ``async for``."""

    def __init__(
        self,
        waiting: Waiting,
        channel: uuid.UUID,
        position: Position | None,
        give_up_after: float | None,
    ) -> None:
        check_position(position)
        give_up_after = check_give_up_after(give_up_after)
        #: The channel.
        self.channel = channel
        self._consuming = Consuming(Managers(waiting.settings), channel, position, give_up_after)
        self._inbox = Inbox(position)
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._hands = ConsumerHands(waiting, self._inbox, self._arrived, self._room)
        self._waiting = waiting
        self._process = Process()
        self._closed = False
        self._running: ConsumingTask | None = None

    async def next(self, timeout: float | None = None) -> Message:
        """The next message; waits until there is one. Fails with ``TimeoutError`` after ``timeout`` seconds. Nothing is
        lost then, nor if the call is cancelled.

        Fails like :meth:`rmom.Consumer.next`.
        """
        timeout = check_timeout(timeout)
        self._process.check("the consumer")
        if self._running is None and self._inbox.error is None:
            arguments = (self._consuming, self._inbox, self._hands, self._arrived)
            self._running = ConsumingTask(self._waiting, *arguments)
            when_collected(self, functools.partial(call_in_loop, asyncio.get_running_loop(), self._running.cancel))
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self._inbox.take()
            if message is not None:
                self._room.set()
                return message
            self._arrived.clear()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                await within(self._arrived.wait(), left)
            except asyncio.TimeoutError:
                raise TimeoutError(f"no message within {timeout} s") from None

    @property
    def position(self) -> Position | None:
        """See :attr:`rmom.Consumer.position`."""
        return self._inbox.position

    @property
    def reconnects(self) -> int:
        """How often the consumer has reconnected after its connection had broken."""
        return max(0, self._consuming.connections - 1)

    @property
    def duplicates_dropped(self) -> int:
        """Number of messages that arrived a second time and were dropped."""
        return self._consuming.duplicates

    async def close(self) -> None:
        """Ends the subscription. Messages that were received and not taken are dropped; :attr:`position` does not
        include them."""
        if not self._process.is_this():
            return
        self._closed = True
        self._inbox.end(Closed("the consumer"))
        self._arrived.set()
        if self._running is not None:
            await self._running.close()

    def __aiter__(self) -> Consumer:
        """Messages as they arrive, until :meth:`close` is called."""
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.next()
        except Closed:
            if self._closed:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
