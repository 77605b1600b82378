"""The producer with threads."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

from ._check import check_producer_name, check_timeout, label_of, new_message
from ._effects import run
from ._fork import at_end, ensure_end
from ._outbox import Outbox, Pending
from ._producing import Producing
from ._rest import Managers
from ._settings import check_count, check_delivery_timeout
from ._threads import Blocking, Changed, ProducerHands, Stopped, when_collected
from .errors import Closed, MoMError, NotDelivered
from .model import Content, Headers, Queue, Receipt

log = logging.getLogger("rmom")

#: How long closing a producer waits for its thread, which only has to close its connection, in seconds.
_JOIN_TIMEOUT = 2.0
#: How long the end of the program waits for producers that were not closed, in seconds.
EXIT_TIMEOUT = 5.0
#: How long accepted messages have left when an exception leaves the producer's ``with`` block, in seconds.
EXCEPTION_TIMEOUT = 1.0
#: These versions of Python start no threads once the main thread has ended, so no connection can be made then.
_NO_THREADS_AT_EXIT = (3, 12, 0) <= sys.version_info[:3] <= (3, 12, 2)


def time_after(error: BaseException | None) -> float | None:
    """How long closing waits after this exception. ``sys.exit()`` ends the program, and has as long as its end."""
    if error is None:
        return None
    return EXIT_TIMEOUT if isinstance(error, SystemExit) else EXCEPTION_TIMEOUT


class Delivery(Pending):
    """The outcome of one message. The message is pushed even if the outcome is never requested."""

    __slots__ = ("_changed",)

    def __init__(self, message: Any, changed: Changed) -> None:
        super().__init__(message)
        self._changed = changed

    def result(self, timeout: float | None = None) -> Receipt:
        """Waits until the message is durable. Fails with :class:`rmom.NotDelivered` if it was given up, and with
        ``TimeoutError`` after ``timeout`` seconds, in which case it may still become durable."""
        timeout = check_timeout(timeout)
        if not self.done():
            try:
                self._changed.process.check("the producer")
            except Closed as closed:
                # The parent goes on delivering it.
                raise NotDelivered(closed, outcome_unknown=True) from None
            with self._changed.lock:
                if not self._changed.wait_for(self.done, timeout):
                    raise TimeoutError(f"no outcome within {timeout} s; the message is still being delivered")
        return self._receipt()


class _Turn:
    """The program's turn to run; not given any more once the producer is abandoned, because another thread has told the
    outcomes then."""

    def __init__(self) -> None:
        #: For other threads. In the main thread a signal's handler could leave it held, if it were taken by ``with turn``.
        self.lock = threading.Lock()
        self.over = False

    def __enter__(self) -> None:
        self.lock.acquire()
        if self.over:
            self.lock.release()
            raise Stopped

    def __exit__(self, *exc: object) -> None:
        self.lock.release()


class Delivering:
    """A producer's thread, and what it works on. It has no reference to the producer, which can be collected: then no
    more messages are accepted, and those accepted before are still delivered."""

    def __init__(self, blocking: Blocking, producing: Producing, outbox: Outbox, changed: Changed, label: str) -> None:
        ensure_end()
        self.outbox = outbox
        self._changed = changed
        self._producing = producing
        self._hands = hands = ProducerHands(blocking)
        outbox.when_there_is_work(hands.wake)
        self._turn = _Turn()
        self._homes: tuple[set[Any], ...] = (blocking.running, _delivering)
        self._thread = threading.Thread(target=self._run, name=f"rmom-producer-{label}", daemon=True)
        for home in self._homes:
            home.add(self)
        try:
            self._thread.start()
        except BaseException:
            # The system has no more threads, or a signal's handler raised an exception when the thread had started.
            outbox.end()
            for home in self._homes:
                home.discard(self)
            raise

    def _run(self) -> None:
        why = None
        try:
            run(self._producing.run(), self._hands.perform, self._turn)
        except Stopped:
            pass
        except Exception as error:
            why = f"it ended by a defect ({type(error).__name__})"
            if not self._turn.over:
                log.exception("a producer ends by a defect")
        finally:
            self.abandon(why)
            self._hands.release()
            self._hands.connected.set()
            for home in self._homes:
                home.discard(self)

    def abandon(self, why: str | None) -> None:
        """Ends the program, whatever it waits for: what has no outcome yet is not delivered."""
        if not self._changed.process.is_this():
            return
        with self._turn.lock:
            if self._turn.over:
                return
            self._producing.abandon(Closed("the producer", why))
            self._turn.over = True
        self._hands.stop()

    def finish(self) -> None:
        """No more messages are accepted."""
        if self._changed.process.is_this():
            self.outbox.end()

    def wait_for_a_connection(self, timeout: float) -> None:
        """Waits for the first connection, or the end."""
        self._hands.connected.wait(timeout)

    def wait(self, timeout: float | None, why: str) -> MoMError | None:
        """Waits until all messages have an outcome. What has none after ``timeout``, or when an exception such as
        Ctrl-C ends the wait, is given up for the reason ``why``. Returns the first failure that was not raised yet."""
        if not self._changed.process.is_this():
            # The parent delivers what it accepted.
            return None
        try:
            with self._changed.lock:
                done = self._changed.wait_for(lambda: self.outbox.in_flight() == 0, timeout)
        except BaseException as error:
            self.abandon(f"{type(error).__name__} ended the wait for its messages")
            raise
        if done and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT if timeout is None else min(timeout, _JOIN_TIMEOUT))
        elif not done:
            self.abandon(why)
        with self._changed.lock:
            return self.outbox.take_failure()


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
        delivery_timeout = check_delivery_timeout(delivery_timeout)
        if name is not None:
            check_producer_name(name)
        max_messages = check_count("max_in_flight", max_messages)
        max_bytes = check_count("max_bytes_in_flight", max_bytes)
        self._changed = Changed()
        clock = blocking.settings.clock
        self._outbox = Outbox(max_messages, max_bytes, clock, self._changed.lock, self._changed.notify_all)
        producing = Producing(Managers(blocking.settings), label, name, delivery_timeout, self._outbox)
        #: The last sequence that a named producer had stored in this queue when it was opened; new messages continue
        #: from there. 0 means that there was none, or that the producer has no name.
        self.stored_before = 0
        if name is not None:
            self.stored_before = run(producing.open_named(), ProducerHands(blocking).perform)
        self._max_message_bytes = blocking.settings.max_message_bytes
        self._delivering = Delivering(blocking, producing, self._outbox, self._changed, label)
        when_collected(self, self._delivering.finish)

    def push(
        self,
        content: Content,
        *,
        topic: str | None = None,
        headers: Headers | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Pushes a message and waits until it is durable. ``ttl`` is its lifetime in seconds once it is stored;
        ``None`` means the broker's default. Fails with ``TimeoutError`` after ``timeout`` seconds, in which case it may
        still become durable; ``None`` means the delivery timeout. To push many, use :meth:`send`, and do not wait for
        each."""
        timeout = check_timeout(timeout)
        started = time.monotonic()
        delivery = self._accept(new_message(content, topic, headers, ttl, self._max_message_bytes), timeout)
        return delivery.result(None if timeout is None else max(0.0, timeout - (time.monotonic() - started)))

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
        return self._accept(new_message(content, topic, headers, ttl, self._max_message_bytes), None)

    def _accept(self, message: Any, timeout: float | None) -> Delivery:
        self._changed.process.check("the producer")
        delivery = Delivery(message, self._changed)
        with self._changed.lock:
            if not self._changed.wait_for(lambda: self._outbox.offer(delivery), timeout):
                raise TimeoutError(f"no room within {timeout} s; the message was not accepted, and is not stored")
        if _NO_THREADS_AT_EXIT and self._outbox.accepted == 1:
            # The program may end after this message.
            self._delivering.wait_for_a_connection(EXIT_TIMEOUT if timeout is None else min(timeout, EXIT_TIMEOUT))
        return delivery

    def flush(self, timeout: float | None = None) -> None:
        """Waits until all messages accepted before are durable or given up. Fails with the first failure since the last
        flush that no delivery has raised, and with ``TimeoutError`` after ``timeout`` seconds, in which case the
        messages are still being delivered."""
        timeout = check_timeout(timeout)
        self._changed.process.check("the producer")
        with self._changed.lock:
            accepted = self._outbox.accepted
            if not self._changed.wait_for(lambda: self._outbox.resolved >= accepted, timeout):
                left = accepted - self._outbox.resolved
                raise TimeoutError(f"{left} messages without outcome after {timeout} s; they are still being delivered")
            failure = self._outbox.take_failure()
        if failure is not None:
            raise failure

    def close(self, timeout: float | None = None) -> None:
        """Accepts no more messages, waits until all are durable or given up, and fails like :meth:`flush`. What is not
        durable after ``timeout`` seconds is given up, and so is the rest if an exception such as ``KeyboardInterrupt``
        ends the wait; the log says how many messages may be stored, and how many are not."""
        timeout = check_timeout(timeout)
        self._close(timeout, f"close() waited for {timeout} s")

    def _close(self, timeout: float | None, why: str) -> None:
        self._delivering.finish()
        failure = self._delivering.wait(timeout, why)
        if failure is not None:
            raise failure

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Like :meth:`close`. After an exception it waits for one second only (after ``SystemExit``, five), and that
        exception is raised."""
        try:
            self._close(time_after(error), f"{kind.__name__ if kind else None} left its `with` block")
        except MoMError:
            # The application's own exception matters more than a failure that it may have caused.
            if error is None:
                raise


#: What still delivers, for the end of the program.
_delivering: set[Delivering] = set()


@at_end
def _deliver_at_exit() -> None:
    """Gives accepted messages a last chance, since the threads end with the program."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    for one in list(_delivering):
        one.finish()
    for one in list(_delivering):
        why = f"the program ended, and waited for {EXIT_TIMEOUT:g} s; close producers to wait for their messages"
        one.wait(max(0.0, deadline - time.monotonic()), why)
