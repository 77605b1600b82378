"""The consumer with threads."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from types import TracebackType

from ._check import check_position, check_timeout
from ._consuming import Consuming
from ._effects import run
from ._inbox import Inbox
from ._rest import Managers
from ._settings import check_give_up_after
from ._threads import Blocking, Changed, ConsumerHands, Stopped, when_collected
from .errors import Closed, MoMError
from .model import Message, Position

log = logging.getLogger("rmom")

#: How long closing a consumer waits for its thread, which only has to close its connection, in seconds.
_JOIN_TIMEOUT = 2.0


class Consumer:
    """Receives the messages of a channel, each once and in order, for the life of this object; and across restarts if
    the application stores :attr:`position` and passes it to :meth:`Client.subscribe`. Use it in a ``with`` statement,
    or :meth:`close` it. Iterate over it, or call :meth:`next` for a message.

    When its connection breaks, or the queue moves to another broker, the consumer finds the queue again and continues
    after the last message. While no message is requested, it takes few messages, and loses none.
    """

    def __init__(
        self,
        blocking: Blocking,
        channel: uuid.UUID,
        position: Position | None,
        give_up_after: float | None,
    ) -> None:
        check_position(position)
        give_up_after = check_give_up_after(give_up_after)
        #: The channel.
        self.channel = channel
        self._consuming = Consuming(Managers(blocking.settings), channel, position, give_up_after)
        self._changed = Changed()
        self._inbox = Inbox(position)
        self._hands = ConsumerHands(blocking, self._inbox, self._changed)
        self._thread: threading.Thread | None = None
        self._closed = False
        when_collected(self, self._hands.stop)

    def next(self, timeout: float | None = None) -> Message:
        """The next message; waits until there is one. Fails with ``TimeoutError`` after ``timeout`` seconds, without
        losing a message.

        Other errors are failures that cannot be recovered from: the channel or its queue was deleted
        (``CHANNEL_NOT_FOUND``, ``QUEUE_REPLACED``), the position does not belong to this queue
        (``OFFSET_OUT_OF_RANGE``, ``STORE_ROLLED_BACK``), or :class:`rmom.GaveUp`. Later calls raise the same error.
        """
        timeout = check_timeout(timeout)
        self._changed.process.check("the consumer")
        with self._changed.lock:
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
            thread = threading.Thread(target=_consume, args=arguments, name=name, daemon=True)
            thread.start()
            self._thread = thread

    @property
    def position(self) -> Position | None:
        """The position of the last message that was handed to the application. ``None`` before the first message,
        unless the consumer resumed from a position."""
        return self._inbox.position

    @property
    def reconnects(self) -> int:
        """How often the consumer has reconnected after its connection had broken."""
        return max(0, self._consuming.connections - 1)

    @property
    def duplicates_dropped(self) -> int:
        """Number of messages that arrived a second time and were dropped."""
        return self._consuming.duplicates

    def close(self) -> None:
        """Ends the subscription. Messages that were received and not taken are dropped; :attr:`position` does not
        include them."""
        if not self._changed.process.is_this():
            return
        self._closed = True
        with self._changed.lock:
            self._inbox.end(Closed("the consumer"))
        self._hands.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT)

    def __iter__(self) -> Iterator[Message]:
        """Messages as they arrive, until :meth:`close` is called."""
        while True:
            try:
                yield self.next()
            except Closed:
                if self._closed:
                    return
                raise

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _consume(consuming: Consuming, inbox: Inbox, hands: ConsumerHands, changed: Changed) -> None:
    failure: MoMError = Closed("the consumer")
    try:
        run(consuming.run(), hands.perform)
    except Stopped:
        pass
    except MoMError as error:
        failure = error
    except Exception as error:
        failure = Closed("the consumer", f"it ended by a defect ({type(error).__name__}: {error})")
        log.exception("a consumer ends by a defect")
    finally:
        hands.release()
    with changed.lock:
        inbox.fail(failure)
        changed.notify_all()
