"""The producer with threads."""

from __future__ import annotations

import atexit
import logging
import threading
from typing import Any

from . import _clock
from ._check import check_producer_name, label_of, new_message
from ._effects import run
from ._outbox import Outbox, Pending
from ._producing import Producing
from ._rest import Managers
from ._settings import check_delivery_timeout
from ._threads import Blocking, ProducerHands, when_collected
from .errors import Closed, ConfigError, MoMError
from .model import Content, Headers, Queue, Receipt

log = logging.getLogger("rmom")

#: How long closing a producer waits for its thread, which only has to close its connection, in seconds.
_JOIN_TIMEOUT = 2.0
#: How long the end of the program waits for producers that were not closed, in seconds.
EXIT_TIMEOUT = 5.0


class Delivery(Pending):
    """The outcome of one message. The message is pushed even if the outcome is never requested."""

    __slots__ = ("_changed",)

    def __init__(self, message: Any, changed: threading.Condition) -> None:
        super().__init__(message)
        self._changed = changed

    def result(self, timeout: float | None = None) -> Receipt:
        """Waits until the message is durable. Fails with :class:`rmom.NotDelivered` if it was given up, and with
        ``TimeoutError`` after ``timeout`` seconds, in which case it may still become durable."""
        if not self.done():
            with self._changed:
                if not self._changed.wait_for(self.done, timeout):
                    raise TimeoutError(f"no outcome within {timeout} s")
        return self._receipt()


class Producer:
    """Pushes messages to one queue. Until the delivery timeout, they are stored once and in the order in which they
    were accepted, whatever breaks in between. Use it in a ``with`` statement, or :meth:`close` it. A producer that is
    not closed goes on delivering in the background, but has only a few seconds left when the program ends.

    When the delivery timeout of the oldest message passes, that message and all later ones fail, because they must not
    overtake it. If some of them may be stored (``outcome_unknown``), an unnamed producer continues under a new
    identity; a named producer stops with :class:`rmom.Poisoned`, and has to be opened again to learn what is stored. A
    message that a broker refuses, for example because it is too large, fails alone.
    """

    def __init__(
        self,
        blocking: Blocking,
        label: Queue | str,
        name: str | None,
        max_messages: int,
        max_bytes: int,
        delivery_timeout: float,
    ) -> None:
        label = label_of(label)
        check_delivery_timeout(delivery_timeout)
        if max_messages <= 0 or max_bytes <= 0:
            raise ConfigError("max_in_flight", "neither limit can be zero")
        hands = ProducerHands(blocking)
        producing = Producing(Managers(blocking.settings), label, name, delivery_timeout)
        #: The last sequence that a named producer had stored in this queue when it was opened; new messages continue
        #: from there. 0 means that there was none, or that the producer has no name.
        self.stored_before = 0
        if name is not None:
            check_producer_name(name)
            self.stored_before = run(producing.open_named(), hands.perform)
        self._changed = threading.Condition()
        self._max_message_bytes = blocking.settings.max_message_bytes
        self._outbox = Outbox(
            max_messages, max_bytes, blocking.settings.clock, self._changed, hands.wake, self._changed.notify_all
        )
        # The thread has no reference to this object, so that it can be collected; then the outbox ends.
        arguments = (producing, self._outbox, hands)
        name = f"rmom-producer-{label}"
        self._thread = threading.Thread(target=_produce, args=arguments, name=name, daemon=True)
        _delivering[self._thread] = self._outbox
        self._thread.start()
        when_collected(self, self._outbox.end)

    def push(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Pushes a message and waits until it is durable. ``ttl`` is its lifetime in seconds once it is stored;
        ``None`` means the broker's default. To push many, use :meth:`send`, and do not wait for each."""
        return self.send(content, topic=topic, headers=headers, ttl=ttl).result()

    def send(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
    ) -> Delivery:
        """Accepts a message, and waits only while too much is in flight. An error means that the message was not
        accepted: either every broker would refuse it, or the producer has ended."""
        message = new_message(content, topic, headers, ttl, self._max_message_bytes)
        delivery = Delivery(message, self._changed)
        with self._changed:
            while not self._outbox.offer(delivery):
                self._changed.wait()
        return delivery

    def flush(self) -> None:
        """Waits until all messages accepted before are durable or given up. Fails with the first failure since the last
        flush that no delivery has raised."""
        with self._changed:
            accepted = self._outbox.accepted
            self._changed.wait_for(lambda: self._outbox.resolved >= accepted)
            failure = self._outbox.take_failure()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Accepts no more messages and waits like :meth:`flush`."""
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
            # The application's own exception matters more than a failure that it may have caused.
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


#: The threads that deliver, with their messages.
_delivering: dict[threading.Thread, Outbox] = {}


@atexit.register
def _deliver_at_exit() -> None:
    """Gives accepted messages a last chance, since the threads end with the program."""
    deadline = _clock.now() + EXIT_TIMEOUT
    for outbox in list(_delivering.values()):
        outbox.end()
    for thread, outbox in list(_delivering.items()):
        thread.join(max(0.0, deadline - _clock.now()))
        if outbox.resolved < outbox.accepted:
            undelivered = outbox.accepted - outbox.resolved
            log.error("the program ends with %d undelivered messages; close producers to wait for them", undelivered)
