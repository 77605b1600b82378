"""Carries out effects with asyncio: a task for each producer and each consumer, and one that reads each stream of
pushes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any, Callable, TypeVar

import grpc
import grpc.aio
import httpx

from . import _clock
from . import _effects as fx
from ._consuming import QUEUE_ID_HEADER
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
from ._inbox import Inbox
from ._proto import messages_pb2 as wire
from ._rest import MAX_ANSWER_BYTES
from ._settings import Settings
from .errors import Closed, DeadlineExceeded, MoMError, ProtocolViolation, Unreachable

T = TypeVar("T")


def http_request(effect: fx.Http, settings: Settings) -> dict[str, Any]:
    """The arguments of a request."""
    connect = min(settings.connect_timeout, effect.timeout)
    return {
        "method": effect.method,
        "url": effect.manager.url + effect.path,
        "json": effect.body,
        "headers": {"accept": "application/json"},
        "timeout": httpx.Timeout(effect.timeout, connect=connect),
    }


@contextlib.contextmanager
def http_failures(effect: fx.Http) -> Iterator[None]:
    """Turns the library's errors into ours."""
    authority = effect.manager.authority
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Unreachable(authority, str(error) or "no connection in time", sent=False) from None
    except httpx.TimeoutException:
        what = f"{effect.method} {effect.path} at {authority}"
        raise DeadlineExceeded(what, effect.timeout, sent=True) from None
    except httpx.HTTPError as error:
        raise Unreachable(authority, str(error) or type(error).__name__, sent=True) from None


async def within(awaitable: Awaitable[T], seconds: float | None) -> T:
    """Like ``asyncio.wait_for``, which before Python 3.12 forgets a cancellation that comes together with the result."""
    if seconds is None:
        return await awaitable
    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(_seen)
    try:
        await asyncio.wait([task], timeout=seconds)
        late = task.cancel()
        if late:
            await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
    if late and task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


def _seen(task: asyncio.Future[Any]) -> None:
    """asyncio warns of exceptions that nobody has seen, also if nobody waits for the task any more."""
    if not task.cancelled():
        task.exception()


async def close_channel(channel: grpc.aio.Channel) -> None:
    """Closes it. gRPC raises ``CancelledError`` for its own calls, which must not be taken for the caller's."""
    closing = asyncio.ensure_future(channel.close())
    closing.add_done_callback(_seen)
    await asyncio.wait([closing])


class Waiting:
    """Effects shared by administration, producers and consumers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._credentials = channel_credentials(settings)
        # One connection per call: whether a request was sent is then known for sure.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.AsyncClient(
            verify=settings.tls.context() if settings.tls else False, limits=limits, trust_env=False
        )
        #: The tasks of producers and consumers that have not ended, whether the application has these or not.
        self.running: set[Any] = set()
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await self._http.aclose()

    def check_open(self) -> None:
        """Fails once the client is closed."""
        if self._closed:
            raise Closed("the client")

    def channel(self, authority: str) -> grpc.aio.Channel:
        """A channel to the broker: one connection, opened by the first call."""
        options = channel_options(self.settings)
        if self._credentials is not None:
            return grpc.aio.secure_channel(authority, self._credentials, options)
        return grpc.aio.insecure_channel(authority, options)

    async def http(self, effect: fx.Http) -> fx.Answer:
        """Makes one request, within its time."""
        self.check_open()
        with http_failures(effect):
            try:
                return await within(self._exchange(effect), effect.timeout)
            except asyncio.TimeoutError:
                raise httpx.ReadTimeout("no answer") from None

    async def _exchange(self, effect: fx.Http) -> fx.Answer:
        async with self._http.stream(**http_request(effect, self.settings)) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ProtocolViolation(effect.manager.authority, f"an answer beyond {MAX_ANSWER_BYTES} bytes")
            return fx.Answer(response.status_code, bytes(body))

    async def open_producer(self, effect: fx.OpenProducer) -> wire.OpenProducerResponse:
        async with self.channel(effect.authority) as channel:
            try:
                response: wire.OpenProducerResponse = await stub_of(channel).OpenProducer(
                    effect.request, timeout=effect.timeout
                )
                return response
            except grpc.RpcError as error:
                raise error_of(effect.authority, error) from None

    async def perform(self, effect: fx.Effect[Any]) -> Any:
        """Carries out the effects of programs that only call managers."""
        assert isinstance(effect, fx.Http)
        return await self.http(effect)


async def sleep_until(at: float) -> None:
    """Sleeps until the clock shows this time."""
    await asyncio.sleep(max(0.0, at - _clock.now()))


class _Line:
    """An open stream of pushes. Its reading task puts acknowledgements and errors into ``events``, with the line."""

    def __init__(self, channel: grpc.aio.Channel, effect: fx.OpenPush, events: asyncio.Queue[Any]) -> None:
        self.authority = effect.authority
        self.queue_id = 0
        self._channel = channel
        self._events = events
        self._requests: asyncio.Queue[wire.PushStreamRequest | None] = asyncio.Queue()
        self._requests.put_nowait(wire.PushStreamRequest(open=effect.request))
        self._call = stub_of(channel).PushStream(self._outgoing())
        self._reader = asyncio.ensure_future(self._read())

    async def _outgoing(self) -> AsyncIterator[wire.PushStreamRequest]:
        while True:
            request = await self._requests.get()
            if request is None:
                return
            yield request

    async def _read(self) -> None:
        try:
            async for ack in self._call:
                self._events.put_nowait((self, ack))
            self._events.put_nowait((self, stream_ended(self.authority)))
        except grpc.RpcError as error:
            self._events.put_nowait((self, error_of(self.authority, error)))

    def send(self, request: wire.PushStreamRequest) -> None:
        self._requests.put_nowait(request)

    async def close(self, *, finish: bool) -> None:
        self._requests.put_nowait(None)
        if finish:
            await asyncio.wait([self._reader], timeout=FINISH_TIMEOUT)
        self._reader.cancel()
        self._call.cancel()
        await close_channel(self._channel)


class ProducerHands:
    """Effects of one producer."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._line: _Line | None = None
        # The events: (line, acknowledgement or error), or ``None``, which means "look for work".
        self._events: asyncio.Queue[tuple[_Line, wire.PushAck | MoMError] | None] = asyncio.Queue()

    def wake(self) -> None:
        self._events.put_nowait(None)

    async def release(self) -> None:
        """Ends everything that the finished program may have left open."""
        if self._line is not None:
            await self._line.close(finish=False)

    async def perform(self, effect: fx.Effect[Any]) -> Any:
        return await self._DO[type(effect)](self, effect)

    async def _open_push(self, effect: fx.OpenPush) -> fx.PushLine:
        line = self._line = _Line(self._waiting.channel(effect.authority), effect, self._events)
        try:
            deadline = _clock.now() + effect.timeout
            while True:
                ack = await self._next(line, deadline)
                if ack is not None:
                    break
                if _clock.now() >= deadline:
                    what = f"opening a stream of pushes at {effect.authority}"
                    raise DeadlineExceeded(what, effect.timeout, sent=False)
            failure = bad_opening(effect.authority, ack)
            if failure is not None:
                raise failure
        except MoMError:
            await self._end(line, finish=False)
            raise
        line.queue_id = ack.queue_id
        return line

    async def _next_ack(self, effect: fx.NextAck) -> wire.PushAck | None:
        return await self._next(effect.line, effect.until)

    async def _next(self, line: fx.PushLine, until: float | None) -> wire.PushAck | None:
        while True:
            timeout = None if until is None else max(0.0, until - _clock.now())
            try:
                event = self._events.get_nowait()
            except asyncio.QueueEmpty:
                try:
                    event = await within(self._events.get(), timeout)
                except asyncio.TimeoutError:
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

    async def _close_push(self, effect: fx.ClosePush) -> None:
        assert isinstance(effect.line, _Line)
        await self._end(effect.line, finish=effect.finish)

    async def _end(self, line: _Line, *, finish: bool) -> None:
        await line.close(finish=finish)
        self._line = None

    async def _wait_for_work(self, effect: fx.WaitForWork) -> None:
        await self._events.get()

    _DO: Mapping[type, Callable[[ProducerHands, Any], Awaitable[Any]]] = {
        fx.Http: lambda self, effect: self._waiting.http(effect),
        fx.OpenProducer: lambda self, effect: self._waiting.open_producer(effect),
        fx.SleepUntil: lambda self, effect: sleep_until(effect.at),
        fx.OpenPush: _open_push,
        fx.NextAck: _next_ack,
        fx.ClosePush: _close_push,
        fx.WaitForWork: _wait_for_work,
    }


class _Subscription:
    """A connection that delivers."""

    def __init__(self, authority: str, channel: grpc.aio.Channel, call: Any) -> None:
        self.authority = authority
        self.headers: Mapping[str, str] = {}
        self.channel = channel
        self.call = call


class ConsumerHands:
    """Effects of one consumer. ``arrived`` and ``room`` are set when the inbox changes."""

    def __init__(self, waiting: Waiting, inbox: Inbox, arrived: asyncio.Event, room: asyncio.Event) -> None:
        self._waiting = waiting
        self._inbox = inbox
        self._arrived = arrived
        self._room = room
        self._subscription: _Subscription | None = None

    async def release(self) -> None:
        """Ends everything that the finished program may have left open."""
        if self._subscription is not None:
            await self._end(self._subscription)

    async def perform(self, effect: fx.Effect[Any]) -> Any:
        return await self._DO[type(effect)](self, effect)

    async def _subscribe(self, effect: fx.Subscribe) -> fx.Subscription:
        channel = self._waiting.channel(effect.authority)
        call = stub_of(channel).SubscribeToChannel(effect.request)
        subscription = self._subscription = _Subscription(effect.authority, channel, call)
        try:
            subscription.headers = headers_of(await within(call.initial_metadata(), effect.timeout))
            if QUEUE_ID_HEADER not in subscription.headers:
                # A refusal has no headers. The program judges any other answer that comes without them.
                await self._next_message(fx.NextMessage(subscription))
        except asyncio.TimeoutError:
            await self._end(subscription)
            raise DeadlineExceeded(f"subscribing at {effect.authority}", effect.timeout, sent=False) from None
        except grpc.RpcError as error:
            await self._end(subscription)
            raise error_of(effect.authority, error) from None
        except MoMError:
            await self._end(subscription)
            raise
        return subscription

    async def _next_message(self, effect: fx.NextMessage) -> wire.Message:
        subscription = effect.subscription
        assert isinstance(subscription, _Subscription)
        try:
            message = await subscription.call.read()
        except grpc.RpcError as error:
            raise error_of_subscription(subscription.authority, error) from None
        if message is grpc.aio.EOF:
            raise stream_ended(subscription.authority)
        assert isinstance(message, wire.Message)
        return message

    async def _unsubscribe(self, effect: fx.Unsubscribe) -> None:
        assert isinstance(effect.subscription, _Subscription)
        await self._end(effect.subscription)

    async def _end(self, subscription: _Subscription) -> None:
        self._subscription = None
        subscription.call.cancel()
        await close_channel(subscription.channel)

    async def _deliver(self, effect: fx.Deliver) -> None:
        while self._inbox.is_full():
            self._room.clear()
            await self._room.wait()
        self._inbox.put(effect.message, effect.position)
        self._arrived.set()

    _DO: Mapping[type, Callable[[ConsumerHands, Any], Awaitable[Any]]] = {
        fx.Http: lambda self, effect: self._waiting.http(effect),
        fx.SleepUntil: lambda self, effect: sleep_until(effect.at),
        fx.Subscribe: _subscribe,
        fx.NextMessage: _next_message,
        fx.Unsubscribe: _unsubscribe,
        fx.Deliver: _deliver,
    }
