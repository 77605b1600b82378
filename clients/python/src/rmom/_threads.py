"""Carries out effects with threads: one for each producer and each consumer, and one that reads each stream of
pushes."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Callable

import grpc

from . import _clock
from . import _effects as fx
from ._consuming import QUEUE_ID_HEADER
from ._fork import Process
from ._grpc import (
    FINISH_TIMEOUT,
    bad_opening,
    channel_credentials,
    channel_options,
    error_of,
    error_of_subscription,
    headers_of,
    stream_ended,
    stub_of,
)
from ._http import exchange
from ._inbox import Inbox
from ._proto import messages_pb2 as wire
from ._rest import MAX_ANSWER_BYTES
from ._settings import Settings
from .errors import Closed, DeadlineExceeded, MoMError

log = logging.getLogger("rmom")


class Stopped(Exception):
    """The result is no longer needed."""


def when_collected(owner: object, callback: Callable[[], object]) -> None:
    """Calls back when ``owner`` has been collected, but not at the end of the program, nor in a forked child."""
    process = Process()
    finalizer = weakref.finalize(owner, lambda: process.is_this() and callback())
    finalizer.atexit = False  # type: ignore[misc]  # the stub of the type has it wrong


class Changed(threading.Condition):
    """Guards what a thread and the application share, and tells of its changes, in the process that made it.

    To hold it, use ``with changed.lock``. A condition's own ``with`` runs Python code, in which a signal's handler can
    raise an exception that leaves the lock held for ever."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        super().__init__(self.lock)
        self.process = Process()


class Blocking:
    """Effects shared by administration, producers and consumers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._credentials = channel_credentials(settings)
        self._tls = settings.tls.context() if settings.tls else None
        #: The producers that still deliver, whether the application has them or not.
        self.running: set[Any] = set()
        self._closed = False

    def close(self) -> None:
        self._closed = True

    def check_open(self) -> None:
        """Fails once the client is closed."""
        if self._closed:
            raise Closed("the client")

    def channel(self, authority: str) -> grpc.Channel:
        """A channel to the broker: one connection, opened by the first call."""
        options = channel_options(self.settings)
        if self._credentials is not None:
            return grpc.secure_channel(authority, self._credentials, options)
        return grpc.insecure_channel(authority, options)

    def http(self, effect: fx.Http) -> fx.Answer:
        """Makes one request, within its time."""
        self.check_open()
        return exchange(effect, self._tls, self.settings.connect_timeout, MAX_ANSWER_BYTES)

    def open_producer(self, effect: fx.OpenProducer) -> wire.OpenProducerResponse:
        channel = self.channel(effect.authority)
        try:
            response: wire.OpenProducerResponse = stub_of(channel).OpenProducer(effect.request, timeout=effect.timeout)
            return response
        except grpc.RpcError as error:
            raise error_of(effect.authority, error) from None
        finally:
            channel.close()

    def perform(self, effect: fx.Effect[Any]) -> Any:
        """Carries out the effects of programs that only call managers."""
        assert isinstance(effect, fx.Http)
        return self.http(effect)


class _Line:
    """An open stream of pushes. Its reading thread puts acknowledgements and errors into ``events``, with the line."""

    def __init__(self, channel: grpc.Channel, effect: fx.OpenPush, events: queue.SimpleQueue[Any]) -> None:
        self.authority = effect.authority
        self.queue_id = 0
        self._channel = channel
        self._events = events
        self._requests: queue.SimpleQueue[wire.PushStreamRequest | None] = queue.SimpleQueue()
        self._requests.put(wire.PushStreamRequest(open=effect.request))
        self._call = stub_of(channel).PushStream(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="rmom-acks", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for ack in self._call:
                self._events.put((self, ack))
            self._events.put((self, stream_ended(self.authority)))
        except grpc.RpcError as error:
            self._events.put((self, error_of(self.authority, error)))

    def send(self, request: wire.PushStreamRequest) -> None:
        self._requests.put(request)

    def close(self, *, finish: bool) -> None:
        self._requests.put(None)
        if finish:
            self._reader.join(FINISH_TIMEOUT)
        self._call.cancel()
        self._channel.close()


class ProducerHands:
    """Effects of one producer. ``wake`` may be called from any thread."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking
        # The events: (line, acknowledgement or error), or ``None``, which means "look for work".
        self._events: queue.SimpleQueue[tuple[_Line, wire.PushAck | MoMError] | None] = queue.SimpleQueue()
        #: Set at the first connection.
        self.connected = threading.Event()
        self._stopped = threading.Event()
        self._line: _Line | None = None

    def wake(self) -> None:
        self._events.put(None)

    def stop(self) -> None:
        """Ends any wait but that for an answer that has a limit of its own. May be called from any thread."""
        self._stopped.set()
        self.wake()

    def release(self) -> None:
        """Ends everything that the program may have left open."""
        if self._line is not None:
            self._line.close(finish=False)

    def perform(self, effect: fx.Effect[Any]) -> Any:
        if self._stopped.is_set():
            raise Stopped
        return self._DO[type(effect)](self, effect)

    def _sleep(self, effect: fx.SleepUntil) -> None:
        self._stopped.wait(max(0.0, effect.at - _clock.now()))

    def _open_push(self, effect: fx.OpenPush) -> fx.PushLine:
        line = self._line = _Line(self._blocking.channel(effect.authority), effect, self._events)
        try:
            deadline = _clock.now() + effect.timeout
            while True:
                ack = self._next(line, deadline)
                if ack is not None:
                    break
                if self._stopped.is_set():
                    raise Stopped
                if _clock.now() >= deadline:
                    what = f"opening a stream of pushes at {effect.authority}"
                    raise DeadlineExceeded(what, effect.timeout, sent=False)
            failure = bad_opening(effect.authority, ack)
            if failure is not None:
                raise failure
        except MoMError:
            self._end(line, finish=False)
            raise
        line.queue_id = ack.queue_id
        self.connected.set()
        return line

    def _next_ack(self, effect: fx.NextAck) -> wire.PushAck | None:
        return self._next(effect.line, effect.until)

    def _next(self, line: fx.PushLine, until: float | None) -> wire.PushAck | None:
        while True:
            try:
                event = self._events.get(timeout=None if until is None else max(0.0, until - _clock.now()))
            except queue.Empty:
                return None
            if event is None:
                return None
            source, arrived = event
            if source is not line:
                # The event was still on its way when an earlier line was closed.
                continue
            if isinstance(arrived, MoMError):
                raise arrived
            return arrived

    def _close_push(self, effect: fx.ClosePush) -> None:
        assert isinstance(effect.line, _Line)
        self._end(effect.line, finish=effect.finish)

    def _end(self, line: _Line, *, finish: bool) -> None:
        line.close(finish=finish)
        self._line = None

    def _wait_for_work(self, effect: fx.WaitForWork) -> None:
        self._events.get()

    _DO: Mapping[type, Callable[[ProducerHands, Any], Any]] = {
        fx.Http: lambda self, effect: self._blocking.http(effect),
        fx.OpenProducer: lambda self, effect: self._blocking.open_producer(effect),
        fx.SleepUntil: _sleep,
        fx.OpenPush: _open_push,
        fx.NextAck: _next_ack,
        fx.ClosePush: _close_push,
        fx.WaitForWork: _wait_for_work,
    }


class _Subscription:
    """A connection that delivers."""

    def __init__(self, authority: str, channel: grpc.Channel, call: Any) -> None:
        self.authority = authority
        self.headers: Mapping[str, str] = {}
        self.channel = channel
        self.call = call


class ConsumerHands:
    """Effects of one consumer. ``changed`` guards the inbox and is notified of its changes."""

    def __init__(self, blocking: Blocking, inbox: Inbox, changed: Changed) -> None:
        self._blocking = blocking
        self._inbox = inbox
        self._changed = changed
        self._stopped = threading.Event()
        self._subscription: _Subscription | None = None

    def stop(self) -> None:
        """Ends any wait. May be called from any thread."""
        with self._changed.lock:
            self._stopped.set()
            if self._subscription is not None:
                self._subscription.call.cancel()
            self._changed.notify_all()

    def release(self) -> None:
        """Ends everything that the finished program may have left open."""
        if self._subscription is not None:
            self._end(self._subscription)

    def perform(self, effect: fx.Effect[Any]) -> Any:
        if self._stopped.is_set():
            raise Stopped
        return self._DO[type(effect)](self, effect)

    def _sleep(self, effect: fx.SleepUntil) -> None:
        self._stopped.wait(max(0.0, effect.at - _clock.now()))

    def _subscribe(self, effect: fx.Subscribe) -> fx.Subscription:
        channel = self._blocking.channel(effect.authority)
        call = stub_of(channel).SubscribeToChannel(effect.request)
        subscription = _Subscription(effect.authority, channel, call)
        with self._changed.lock:
            self._subscription = subscription
            if self._stopped.is_set():
                call.cancel()
        late = threading.Event()

        def time_is_up() -> None:
            late.set()
            call.cancel()

        timer = threading.Timer(effect.timeout, time_is_up)
        timer.daemon = True
        timer.start()
        try:
            subscription.headers = headers_of(call.initial_metadata())
            if QUEUE_ID_HEADER not in subscription.headers:
                # A refusal has no headers. The program judges any other answer that comes without them.
                self._next_message(fx.NextMessage(subscription))
        except MoMError:
            self._end(subscription)
            if late.is_set():
                raise DeadlineExceeded(f"subscribing at {effect.authority}", effect.timeout, sent=False) from None
            raise
        finally:
            timer.cancel()
        return subscription

    def _next_message(self, effect: fx.NextMessage) -> wire.Message:
        subscription = effect.subscription
        assert isinstance(subscription, _Subscription)
        try:
            message: wire.Message = next(subscription.call)
            return message
        except StopIteration:
            raise stream_ended(subscription.authority) from None
        except grpc.RpcError as error:
            raise error_of_subscription(subscription.authority, error) from None

    def _unsubscribe(self, effect: fx.Unsubscribe) -> None:
        assert isinstance(effect.subscription, _Subscription)
        self._end(effect.subscription)

    def _end(self, subscription: _Subscription) -> None:
        with self._changed.lock:
            self._subscription = None
        subscription.call.cancel()
        subscription.channel.close()

    def _deliver(self, effect: fx.Deliver) -> None:
        with self._changed.lock:
            self._changed.wait_for(lambda: self._stopped.is_set() or not self._inbox.is_full())
            if self._stopped.is_set():
                raise Stopped
            if self._inbox.is_empty():
                self._changed.notify_all()
            self._inbox.put(effect.message, effect.position)

    _DO: Mapping[type, Callable[[ConsumerHands, Any], Any]] = {
        fx.Http: lambda self, effect: self._blocking.http(effect),
        fx.SleepUntil: _sleep,
        fx.Subscribe: _subscribe,
        fx.NextMessage: _next_message,
        fx.Unsubscribe: _unsubscribe,
        fx.Deliver: _deliver,
    }
