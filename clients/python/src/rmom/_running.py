"""The asyncio tasks behind producers and consumers, which outlive these objects if the application drops them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Callable

from ._consuming import Consuming
from ._effects import run_async
from ._fork import Process, at_end, ensure_end
from ._inbox import Inbox
from ._outbox import Outbox
from ._producing import Producing
from ._tasks import ConsumerHands, ProducerHands, Waiting, within
from .errors import Closed, MoMError

log = logging.getLogger("rmom")

#: How long closing a producer waits for its task, which only has to close its connection, in seconds.
_JOIN_TIMEOUT = 2.0

#: The tasks that have not ended; event loops hold tasks weakly.
_running: set[Any] = set()


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Calls back in the loop, for a finalizer, which can run in any thread."""
    with contextlib.suppress(RuntimeError):  # The loop is closed.
        loop.call_soon_threadsafe(callback)


class DeliveringTask:
    """A producer's task, and what it works on. It has no reference to the producer, which can be collected: then no more
    messages are accepted, and those accepted before are still delivered."""

    def __init__(
        self, waiting: Waiting, producing: Producing, outbox: Outbox, hands: ProducerHands, changed: asyncio.Event
    ) -> None:
        ensure_end()
        self.process = Process()
        self._producing = producing
        self.outbox = outbox
        self._hands = hands
        self._changed = changed
        self._homes: tuple[set[Any], ...] = (waiting.running, _running)
        for home in self._homes:
            home.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())
        # Not a `finally` of the task: a task that is cancelled before its first step never enters it.
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        try:
            await run_async(self._producing.run(), self._hands.perform)
        except Exception:
            log.exception("a producer ends by a defect")
        finally:
            await self._hands.release()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._producing.abandon(Closed("the producer", "its task was cancelled" if task.cancelled() else None))
        for home in self._homes:
            home.discard(self)

    def abandon(self, why: str | None) -> None:
        """Ends the program, whatever it waits for: what has no outcome yet is not delivered."""
        self._producing.abandon(Closed("the producer", why))
        self._task.cancel()

    def finish(self) -> None:
        """No more messages are accepted."""
        self.outbox.end()

    async def until_resolved(self, accepted: int, timeout: float | None) -> bool:
        """Waits until that many messages have an outcome; false after ``timeout``."""

        async def wait() -> None:
            while self.outbox.resolved < accepted:
                self._changed.clear()
                await self._changed.wait()

        try:
            await within(wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    async def wait(self, timeout: float | None, why: str) -> MoMError | None:
        """Waits until all messages have an outcome. What has none after ``timeout``, or when the wait is cancelled, is
        given up for the reason ``why``. Returns the first failure that was not raised yet."""
        try:
            done = await self.until_resolved(self.outbox.accepted, timeout)
            if done:
                # It only has to close its connection.
                await asyncio.wait([self._task], timeout=_JOIN_TIMEOUT)
        except BaseException as error:
            self.abandon(f"{type(error).__name__} ended the wait for its messages")
            raise
        if not done:
            self.abandon(why)
        return self.outbox.take_failure()


@at_end
def _tell_what_was_left() -> None:
    """An event loop that was closed with tasks in it never ends them."""
    for one in list(_running):
        if isinstance(one, DeliveringTask) and one.process.is_this() and one.outbox.in_flight():
            what = "the program ends with %d undelivered messages, whose event loop was closed; close producers before"
            log.error(what, one.outbox.in_flight())


class ConsumingTask:
    """A consumer's task, and what it works on. It has no reference to the consumer, which can be collected: then it
    ends."""

    def __init__(
        self, waiting: Waiting, consuming: Consuming, inbox: Inbox, hands: ConsumerHands, arrived: asyncio.Event
    ) -> None:
        self._consuming = consuming
        self._inbox = inbox
        self._hands = hands
        self._arrived = arrived
        self._homes: tuple[set[Any], ...] = (waiting.running, _running)
        for home in self._homes:
            home.add(self)
        self._failure: MoMError = Closed("the consumer")
        self._task = asyncio.get_running_loop().create_task(self._run())
        # Not a `finally` of the task: a task that is cancelled before its first step never enters it.
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        try:
            await run_async(self._consuming.run(), self._hands.perform)
        except MoMError as error:
            self._failure = error
        except Exception as error:
            self._failure = Closed("the consumer", f"it ended by a defect ({type(error).__name__}: {error})")
            log.exception("a consumer ends by a defect")
        finally:
            await self._hands.release()

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._inbox.fail(self._failure)
        self._arrived.set()
        for home in self._homes:
            home.discard(self)

    def cancel(self) -> None:
        """Ends it."""
        self._task.cancel()

    async def close(self) -> None:
        """Ends it, and waits until its connection is closed."""
        self._task.cancel()
        await asyncio.wait([self._task])
