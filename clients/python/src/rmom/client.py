"""The client with threads: :class:`Client`, :class:`Producer`, :class:`Consumer`. ``rmom.aio`` has the same for asyncio."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Callable

from . import _admin
from ._check import check_label, check_producer_name, new_message
from ._consuming import Consuming
from ._effects import run
from ._inbox import Inbox
from ._outbox import Outbox, Pending
from ._producing import Producing
from ._rest import Managers
from ._settings import Settings, Tls, check_delivery_timeout, parse_managers
from ._threads import Blocking, ConsumerHands, ProducerHands, Stopped
from .errors import Closed, ConfigError, MoMError
from .model import Broker, Channel, Content, Headers, Message, Position, Queue, Receipt, Start, StartAt

log = logging.getLogger("rmom")

#: How long closing a producer or consumer waits for its thread, which has only to close its connection, in seconds.
_JOIN_TIMEOUT = 2.0
#: How long the end of the program waits for producers that were not closed, in seconds.
EXIT_TIMEOUT = 5.0


class Client:
    """A client of one rmom cluster. ``managers`` are URLs, such as ``"http://127.0.0.1:8082"``: one, several in a list, or
    several in one text, separated by commas. ``settings`` are fields of :class:`rmom.Settings`, such as
    ``delivery_timeout=30``.

    It holds no connection of its own; producers and consumers have one each, to the broker that hosts their queue. All
    methods may be called from any thread.
    """

    def __init__(self, managers: str | Sequence[str], *, tls: Tls | None = None, **settings: Any) -> None:
        self._settings = Settings(parse_managers(managers, tls), tls, **settings)
        self._blocking = Blocking(self._settings)
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        #: Administration: queues, channels, topics, brokers.
        self.admin = Admin(self._settings, self._blocking)

    def producer(
        self,
        queue_label: str,
        *,
        name: str | None = None,
        max_in_flight: int = 16_384,
        max_bytes_in_flight: int = 32 << 20,
        delivery_timeout: float | None = None,
    ) -> Producer:
        """A producer for the queue of this label (case-insensitive).

        A ``name`` outlives the process: opened again under it, perhaps elsewhere, the producer learns how many messages of
        this queue it has stored (``stored_before``), so that an import goes on where it stopped. Opening it shuts out
        whoever used the name before. Names are case-sensitive, and per queue.

        ``max_in_flight`` and ``max_bytes_in_flight``: how much may be accepted and not yet acknowledged.
        """
        producer = Producer(
            self._blocking,
            queue_label,
            name,
            max_in_flight,
            max_bytes_in_flight,
            self._settings.delivery_timeout if delivery_timeout is None else delivery_timeout,
        )
        self._open.add(producer)
        return producer

    def subscribe(
        self,
        channel: Channel | uuid.UUID | str,
        *,
        resume_from: Position | None = None,
        give_up_after: float | None = None,
    ) -> Consumer:
        """A consumer of this channel, which :meth:`Admin.create_channel` created. It connects when it is first asked for
        a message. ``resume_from``: go on after this position, instead of at the channel's start. ``give_up_after``: for
        how many seconds a consumer without a connection tries to get one before it fails; none: for ever.
        """
        channel_id = channel.id if isinstance(channel, Channel) else _admin.parse_channel_id(channel)
        consumer = Consumer(self._blocking, channel_id, resume_from, give_up_after)
        self._open.add(consumer)
        return consumer

    def close(self) -> None:
        """Closes the producers (which deliver what they accepted) and the consumers. Fails
        as :meth:`Producer.close` does."""
        failure: MoMError | None = None
        for one in list(self._open):
            try:
                one.close()
            except MoMError as error:
                failure = failure or error
        self._blocking.close()
        if failure is not None:
            raise failure

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Admin:
    """Administrative calls. Each is made once, at the first manager that can be reached; those that only read go on to the
    next manager if one does not answer. Errors carry the managers' codes; where ``outcome_unknown`` is true, what was
    asked for may have happened.
    """

    def __init__(self, settings: Settings, blocking: Blocking) -> None:
        self._managers = Managers(settings)
        self._perform = blocking.perform

    def create_queue(self, label: str) -> Queue:
        """Creates a queue and waits until a broker serves it. Codes: ``QUEUE_EXISTS``, ``NO_BROKER``, …"""
        return run(_admin.create_queue(self._managers, label), self._perform)

    def delete_queue(self, label: str) -> None:
        """Deletes a queue, its channels and its messages, for good."""
        run(_admin.delete_queue(self._managers, label), self._perform)

    def queue(self, label: str) -> Queue:
        """A queue, with what its broker says about it."""
        return run(_admin.queue(self._managers, label), self._perform)

    def queues(self) -> list[Queue]:
        """All queues."""
        return run(_admin.queues(self._managers), self._perform)

    def topics(self, label: str) -> list[str]:
        """The topics of a queue's channels."""
        return run(_admin.topics(self._managers, label), self._perform)

    def create_channel(self, label: str, topic: str | None = None, start: StartAt = Start.EARLIEST) -> Channel:
        """Creates a channel on a queue. With a topic it receives only what has the same (case-insensitive)."""
        return run(_admin.create_channel(self._managers, label, topic, start), self._perform)

    def channel(self, channel_id: uuid.UUID | str) -> Channel:
        """A channel."""
        return run(_admin.channel(self._managers, channel_id), self._perform)

    def channels(self, label: str | None = None) -> list[Channel]:
        """The channels of a queue, or of all."""
        return run(_admin.channels(self._managers, label), self._perform)

    def delete_channel(self, channel_id: uuid.UUID | str) -> None:
        """Deletes a channel; its subscriptions end."""
        run(_admin.delete_channel(self._managers, channel_id), self._perform)

    def brokers(self) -> list[Broker]:
        """All brokers."""
        return run(_admin.brokers(self._managers), self._perform)

    def drain(self, broker: int) -> None:
        """Moves a broker's queues elsewhere, and gives it no new ones."""
        run(_admin.set_draining(self._managers, broker, True), self._perform)

    def undrain(self, broker: int) -> None:
        """Takes back :meth:`drain`."""
        run(_admin.set_draining(self._managers, broker, False), self._perform)


def _when_collected(owner: object, callback: Callable[[], object]) -> None:
    """Calls back when nobody holds ``owner`` any more, but not at the end of the program."""
    finalizer = weakref.finalize(owner, callback)
    finalizer.atexit = False  # type: ignore[misc]  # the stub of the type has it wrong


class Delivery(Pending):
    """The fate of one message. The message is pushed whether or not anybody waits for this."""

    __slots__ = ("_changed",)

    def __init__(self, message: Any, changed: threading.Condition) -> None:
        super().__init__(message)
        self._changed = changed

    def result(self, timeout: float | None = None) -> Receipt:
        """Waits until the message is durable. Fails with :class:`rmom.NotDelivered` if it was given up, and with
        ``TimeoutError`` after ``timeout`` seconds, when it may still become durable."""
        if not self.done():
            with self._changed:
                if not self._changed.wait_for(self.done, timeout):
                    raise TimeoutError(f"no outcome within {timeout} s")
        return self._receipt()


class Producer:
    """Pushes messages to one queue. They are stored once, and in the order in which they were accepted, whatever breaks in
    between, until the delivery timeout. Use it in a ``with`` statement, or :meth:`close` it: one that is not closed goes on
    delivering in the background, but when the program ends it has only a few seconds left.

    When the delivery timeout of the oldest message passes, that message and all behind it fail, because they must not
    overtake it. If some of them may be stored (``outcome_unknown``), an unnamed producer goes on as another one; a named
    producer stops with :class:`rmom.Poisoned`, and has to be opened again to learn what is stored. A message that a
    broker refuses, say because it is too large, fails alone.
    """

    def __init__(
        self,
        blocking: Blocking,
        label: str,
        name: str | None,
        max_messages: int,
        max_bytes: int,
        delivery_timeout: float,
    ) -> None:
        check_label(label)
        check_delivery_timeout(delivery_timeout)
        if max_messages <= 0 or max_bytes <= 0:
            raise ConfigError("max_in_flight", "neither limit can be zero")
        hands = ProducerHands(blocking)
        producing = Producing(Managers(blocking.settings), label, name, delivery_timeout)
        #: The last sequence that a named producer had stored in this queue when it was opened; messages sent now are
        #: numbered from there on. 0: none, or the producer has no name.
        self.stored_before = 0
        if name is not None:
            check_producer_name(name)
            self.stored_before = run(producing.open_named(), hands.perform)
        self._changed = threading.Condition()
        self._max_message_bytes = blocking.settings.max_message_bytes
        self._outbox = Outbox(
            max_messages, max_bytes, blocking.settings.clock, self._changed, hands.wake, self._changed.notify_all
        )
        # The thread knows nothing of this object, so that it can be collected; then the outbox ends.
        arguments = (producing, self._outbox, hands)
        name = f"rmom-producer-{label}"
        self._thread = threading.Thread(target=_produce, args=arguments, name=name, daemon=True)
        _delivering[self._thread] = self._outbox
        self._thread.start()
        _when_collected(self, self._outbox.end)

    def push(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Pushes a message and waits until it is durable. ``ttl``: how many seconds it lives once it is stored; none: as
        the broker has it. To push many, use :meth:`send`, and do not wait for each."""
        return self.send(content, topic=topic, headers=headers, ttl=ttl).result()

    def send(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
    ) -> Delivery:
        """Accepts a message, and waits only while too much is in flight. An error says that it was not accepted: that no
        broker would take it, or why the producer ended."""
        message = new_message(content, topic, headers, ttl, self._max_message_bytes)
        delivery = Delivery(message, self._changed)
        with self._changed:
            while not self._outbox.offer(delivery):
                self._changed.wait()
        return delivery

    def flush(self) -> None:
        """Waits until everything that was accepted before is durable or given up. Fails with the first failure since the
        last flush that no delivery has told of."""
        with self._changed:
            accepted = self._outbox.accepted
            self._changed.wait_for(lambda: self._outbox.resolved >= accepted)
            failure = self._outbox.take_failure()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Takes no more messages and waits as :meth:`flush` does."""
        self._outbox.end()
        try:
            self.flush()
        finally:
            self._thread.join(_JOIN_TIMEOUT)

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            self.close()
        except MoMError:
            # The application's own exception matters more than what it may have caused.
            if error is None:
                raise


def _produce(producing: Producing, outbox: Outbox, hands: ProducerHands) -> None:
    try:
        run(producing.run(outbox), hands.perform)
    except Exception:
        log.exception("a producer ends by a defect")
    finally:
        producing.abandon(Closed())
        _delivering.pop(threading.current_thread(), None)


#: The threads that deliver, and what they deliver.
_delivering: dict[threading.Thread, Outbox] = {}


@atexit.register
def _deliver_at_exit() -> None:
    """The program ends, and with it the threads: what was accepted gets a last chance."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    for outbox in list(_delivering.values()):
        outbox.end()
    for thread, outbox in list(_delivering.items()):
        thread.join(max(0.0, deadline - time.monotonic()))
        if outbox.resolved < outbox.accepted:
            undelivered = outbox.accepted - outbox.resolved
            log.error("the program ends with %d undelivered messages; close producers to wait for them", undelivered)


class Consumer:
    """Receives the messages of a channel, each once and in order, for the life of this object; across restarts if the
    application keeps :attr:`position` and hands it to :meth:`Client.subscribe`. Use it in a ``with`` statement, or
    :meth:`close` it; iterate over it, or ask for the :meth:`next` message.

    When its connection breaks, or the queue moves to another broker, it finds the queue again and goes on after the last
    message. A consumer that is not asked takes few messages, and loses none.
    """

    def __init__(
        self,
        blocking: Blocking,
        channel: uuid.UUID,
        position: Position | None,
        give_up_after: float | None,
    ) -> None:
        #: The channel.
        self.channel = channel
        self._consuming = Consuming(Managers(blocking.settings), channel, position, give_up_after)
        self._changed = threading.Condition()
        self._inbox = Inbox(position)
        self._hands = ConsumerHands(blocking, self._inbox, self._changed)
        self._thread: threading.Thread | None = None
        _when_collected(self, self._hands.stop)

    def next(self, timeout: float | None = None) -> Message:
        """The next message; waits until there is one, or fails with ``TimeoutError`` after ``timeout`` seconds, and loses
        nothing by that.

        Other errors come only when going on is impossible: the channel or its queue was deleted (``CHANNEL_NOT_FOUND``,
        ``QUEUE_REPLACED``), the position is none of this queue's (``OFFSET_OUT_OF_RANGE``, ``STORE_WENT_BACK``), or
        :class:`rmom.GaveUp`. The same error comes again from then on.
        """
        with self._changed:
            self._start()
            if not self._changed.wait_for(self._arrived, timeout):
                raise TimeoutError(f"no message within {timeout} s")
            if self._inbox.is_full():
                self._changed.notify_all()
            message = self._inbox.take()
            assert message is not None
            return message

    def _arrived(self) -> bool:
        return not self._inbox.is_empty() or self._inbox.error is not None

    def _start(self) -> None:
        if self._thread is None and self._inbox.error is None:
            arguments = (self._consuming, self._inbox, self._hands, self._changed)
            name = f"rmom-consumer-{self.channel}"
            self._thread = threading.Thread(target=_consume, args=arguments, name=name, daemon=True)
            self._thread.start()

    @property
    def position(self) -> Position | None:
        """The last message that was handed to the application. None before the first message, unless the consumer resumed
        from one."""
        return self._inbox.position

    @property
    def reconnects(self) -> int:
        """How often the consumer connected again after its connection had broken."""
        return max(0, self._consuming.connections - 1)

    @property
    def duplicates_dropped(self) -> int:
        """How many messages came a second time, and were dropped."""
        return self._consuming.duplicates

    def close(self) -> None:
        """Ends the subscription. What was received and not taken is dropped; :attr:`position` does not include it."""
        with self._changed:
            self._inbox.end(Closed("the consumer"))
        self._hands.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT)

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, until :meth:`close` is called."""
        while True:
            try:
                yield self.next()
            except Closed:
                return

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _consume(consuming: Consuming, inbox: Inbox, hands: ConsumerHands, changed: threading.Condition) -> None:
    failure: MoMError = Closed("the consumer")
    try:
        run(consuming.run(), hands.perform)
    except Stopped:
        pass
    except MoMError as error:
        failure = error
    except Exception:
        log.exception("a consumer ends by a defect")
    finally:
        hands.release()
    with changed:
        inbox.fail(failure)
        changed.notify_all()
