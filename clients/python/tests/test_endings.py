"""What was accepted is delivered, or somebody is told: objects that are dropped, closed, cancelled and interrupted."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Coroutine, Iterator
from typing import Any, Callable

import pytest
from rmom_testing.clusters import DevCluster
from rmom_testing.process import eventually

import rmom
from rmom import _effects as fx
from rmom import aio
from rmom._tasks import Waiting, within

Fresh = Callable[[str], str]

#: Limit in seconds on anything that must not wait for the delivery timeout, which is two minutes.
SOON = 10.0


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a manager that does not run: connections are refused, and no other process takes the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def began() -> Iterator[float]:
    """The start of a test that has to end soon."""
    started = time.monotonic()
    yield started
    assert time.monotonic() - started < SOON


def soon(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, SOON))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def stored(dev: DevCluster, label: str) -> int:
    with rmom.Client(dev.managers) as client:
        live = client.admin.queue(label).live
        assert live is not None
        return live.last_offset


def test_a_client_delivers_what_dropped_producers_accepted(dev: DevCluster, fresh: Fresh) -> None:
    label = fresh("Dropped")
    with rmom.Client(dev.managers) as client:
        client.admin.create_queue(label)
        producer = client.producer(label)
        for number in range(5):
            producer.send(str(number))
        del producer
        gc.collect()
    assert stored(dev, label) == 5

    async def main() -> None:
        async with aio.Client(dev.managers) as client:
            producer = await client.producer(label).open()
            for number in range(5):
                await producer.send(str(number))
            del producer
            gc.collect()

    soon(main())
    assert stored(dev, label) == 10


def test_a_closed_client_says_so(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    client = rmom.Client(nobody)
    producer, consumer = client.producer("q"), client.subscribe("00000000-0000-0000-0000-000000000000")
    client.close()
    attempts: list[Callable[[], object]] = [
        lambda: producer.push("x"),
        lambda: consumer.next(SOON),
        lambda: client.producer("q"),
        lambda: client.subscribe("00000000-0000-0000-0000-000000000000"),
        client.admin.queues,
    ]
    for attempt in attempts:
        with pytest.raises(rmom.Closed):
            attempt()

    async def main() -> None:
        client = aio.Client(nobody)
        producer, consumer = client.producer("q"), client.subscribe("00000000-0000-0000-0000-000000000000")
        await client.close()
        with pytest.raises(rmom.NotDelivered, match="the client is closed"):
            await (await producer.open()).push("x")
        with pytest.raises(rmom.Closed):
            await consumer.next()
        with pytest.raises(rmom.Closed):
            client.producer("q")
        with pytest.raises(rmom.Closed):
            await client.admin.queues()

    soon(main())
    assert errors(caplog) == []


@pytest.mark.usefixtures("began")
def test_closing_gives_up_when_its_time_is_up(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    client = rmom.Client(nobody)
    producer = client.producer("q")
    deliveries = [producer.send(str(number)) for number in range(3)]
    with pytest.raises(TimeoutError, match="3 messages without outcome"):
        producer.flush(timeout=0.1)
    with pytest.raises(TimeoutError, match="still being delivered"):
        producer.push("x", timeout=0.1)
    with pytest.raises(rmom.NotDelivered, match=r"close\(\) waited for 0.1 s") as raised:
        producer.close(timeout=0.1)
    assert not raised.value.outcome_unknown
    for delivery in deliveries:
        with pytest.raises(rmom.NotDelivered):
            delivery.result()
    client.producer("q").send("x")
    with pytest.raises(rmom.NotDelivered, match=r"the client's close\(\)"):
        client.close(timeout=0.1)

    async def main() -> None:
        client = aio.Client(nobody)
        producer = await client.producer("q").open()
        await producer.send("x")
        with pytest.raises(TimeoutError, match="1 messages without outcome"):
            await producer.flush(timeout=0.1)
        with pytest.raises(TimeoutError, match="still being delivered"):
            await producer.push("x", timeout=0.1)
        with pytest.raises(rmom.NotDelivered, match=r"close\(\) waited for 0.1 s"):
            await producer.close(timeout=0.1)
        other = await client.producer("q").open()
        await other.send("x")
        with pytest.raises(rmom.NotDelivered, match=r"the client's close\(\)"):
            await client.close(timeout=0.1)

    soon(main())
    told = [line.split(": the producer")[0] for line in errors(caplog)]
    assert told == [
        f"a producer of q leaves {n} messages undelivered: 0 may be stored, {n} are not stored" for n in (4, 1, 2, 1)
    ]


@pytest.mark.usefixtures("began")
def test_room_is_awaited_as_long_as_was_told(nobody: str) -> None:
    client = rmom.Client(nobody)
    producer = client.producer("q", max_in_flight=1)
    producer.send("x")
    with pytest.raises(TimeoutError, match="not accepted"):
        producer.push("y", timeout=0.1)
    with pytest.raises(rmom.NotDelivered):
        client.close(timeout=0)


@pytest.mark.usefixtures("began")
def test_an_exception_does_not_wait_for_the_delivery_timeout(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    for left_by in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(left_by):
            _send_and_raise(nobody, left_by())

    async def main() -> None:
        async with aio.Client(nobody) as client, client.producer("q") as producer:
            await producer.send("x")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        soon(main())
    assert len(errors(caplog)) == 4
    assert all("leaves 1 messages undelivered: 0 may be stored, 1 are not stored" in line for line in errors(caplog))
    assert all("the last failure: cannot reach" in line for line in errors(caplog))


def _send_and_raise(url: str, error: BaseException) -> None:
    with rmom.Client(url) as client, client.producer("q") as producer:
        producer.send("x")
        raise error


def test_what_was_accepted_before_an_exception_is_delivered(dev: DevCluster, fresh: Fresh) -> None:
    label = fresh("Exception")

    def fail() -> None:
        with rmom.Client(dev.managers) as client:
            client.admin.create_queue(label)
            with client.producer(label) as producer:
                for number in range(100):
                    producer.send(str(number))
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert stored(dev, label) == 100


INTERRUPTED = """
import signal, sys, rmom
# A shell may start this with the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = rmom.Client(sys.argv[1])
with client.producer("q") as producer:
    producer.send("x")
    print("ready", flush=True)
    {what}
"""


@pytest.mark.usefixtures("began")
@pytest.mark.parametrize("what", ["producer.push('y')", "producer.flush()", "producer.close()", "pass"])
def test_one_interrupt_ends_a_program_that_waits(what: str, nobody: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(what=what), nobody]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=SOON)
    assert running.returncode == -signal.SIGINT
    assert "messages undelivered: 0 may be stored" in said


AT_EXIT = """
import sys, threading, time, rmom, rmom.producer
client = rmom.Client(sys.argv[1])
producer = client.producer(sys.argv[2])
def push():
    for number in range(100):
        producer.send(str(number))
def start(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")
if sys.argv[3] == "new threads are forbidden":
    # What Python 3.12.0 to 3.12.2 do, where the client waits for its connection.
    rmom.producer._NO_THREADS_AT_EXIT = True
    push()
    threading.Thread.start = start
else:
    threading.Thread(target=lambda: (time.sleep(0.5), push())).start()
"""


@pytest.mark.parametrize("what", ["new threads are forbidden", "a thread goes on"])
def test_the_end_of_the_program_delivers(what: str, dev: DevCluster, fresh: Fresh) -> None:
    label = fresh("AtExit")
    with rmom.Client(dev.managers) as client:
        client.admin.create_queue(label)
    command = [sys.executable, "-c", AT_EXIT, dev.managers[0], label, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert stored(dev, label) == 100


def test_the_end_of_an_event_loop_says_what_is_not_delivered(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    async def send() -> None:
        producer = await aio.Client(nobody).producer("q").open()
        for number in range(100):
            await producer.send(str(number))

    asyncio.run(send())
    assert [line.split(": the")[0] for line in errors(caplog)] == [
        "a producer of q leaves 100 messages undelivered: 0 may be stored, 100 are not stored"
    ]
    caplog.clear()

    async def close_in_time() -> None:
        producer = await aio.Client(nobody).producer("q").open()
        await producer.send("x")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(producer.close(), 0.1)

    soon(close_in_time())
    assert "leaves 1 messages undelivered" in errors(caplog)[0]
    assert "CancelledError ended the wait" in errors(caplog)[0]


@pytest.mark.usefixtures("began")
def test_cancellation_ends_at_once(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    async def pump(client: aio.Client) -> None:
        async with client.producer("q") as producer:
            await producer.push("x")

    async def main() -> None:
        async with aio.Client(nobody) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(*[pump(client) for _ in range(3)]), 0.3)

    soon(main())
    assert len(errors(caplog)) == 3


@pytest.mark.usefixtures("began")
def test_a_mistake_in_main_is_seen(nobody: str) -> None:
    async def pump(client: aio.Client) -> None:
        async with client.producer("q") as producer:
            await producer.push("x")

    async def main() -> None:
        async with aio.Client(nobody) as client:
            task = asyncio.create_task(pump(client))
            task.add_done_callback(lambda _: None)
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        asyncio.run(main())


@pytest.mark.parametrize("what", ["flush", "close", "push", "next"])
def test_a_task_that_is_cancelled_before_its_first_step_leaves_nobody_waiting(what: str, nobody: str) -> None:
    async def main() -> None:
        client = aio.Client(nobody)
        before = asyncio.all_tasks()
        producer = await client.producer("q").open()
        consumer = client.subscribe("00000000-0000-0000-0000-000000000000")
        waits: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "flush": producer.flush,
            "close": producer.close,
            "push": functools.partial(producer.push, "y"),
            "next": consumer.next,
        }
        waiting = waits[what]()
        if what == "next":
            waiting.send(None)
        elif what != "push":
            await producer.send("x")
        for task in asyncio.all_tasks() - before:
            task.cancel()
        if what == "next":
            await asyncio.sleep(0)
            waiting.close()
            waiting = consumer.next()
        with pytest.raises(rmom.MoMError) as raised:
            await waiting
        assert raised.value.code == "CLOSED"

    soon(main())


def test_a_consumer_can_be_closed_at_the_moment_of_an_answer(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        answer = asyncio.get_running_loop().create_future()
        asked = asyncio.Event()

        async def exchange(_: Waiting, __: fx.Http) -> fx.Answer:
            asked.set()
            await answer
            return fx.Answer(503, b"")

        monkeypatch.setattr(Waiting, "_exchange", exchange)
        async with aio.Client(nobody) as client:
            consumer = client.subscribe("00000000-0000-0000-0000-000000000000")
            asking = asyncio.ensure_future(consumer.next())
            await asked.wait()
            answer.set_result(None)
            await consumer.close()
            with pytest.raises(rmom.Closed):
                await asking

    soon(main())


def test_a_cancellation_at_the_moment_of_the_result_is_not_forgotten() -> None:
    async def main() -> None:
        result = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(result, SOON))
        await asyncio.sleep(0)
        result.set_result(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.TimeoutError):
            await within(asyncio.sleep(SOON), 0.01)
        assert await within(asyncio.sleep(0, "result"), SOON) == "result"

    soon(main())


async def only_tasks(count: int) -> None:
    """Waits until there are no more tasks than that. (gRPC's own end a moment later.)"""
    deadline = time.monotonic() + SOON
    while len(asyncio.all_tasks()) > count:
        assert time.monotonic() < deadline, asyncio.all_tasks()
        await asyncio.sleep(0.01)


def test_asyncio_consumers_that_are_left_end(dev: DevCluster, fresh: Fresh) -> None:
    async def main() -> None:
        label = fresh("Left")
        alone = len(asyncio.all_tasks())
        async with aio.Client(dev.managers) as client:
            await client.admin.create_queue(label)
            channel = await client.admin.create_channel(label)
            async with client.producer(label) as producer:
                await producer.push("x")
            before = len(asyncio.all_tasks())
            for _ in range(3):
                async for message in client.subscribe(channel):
                    assert message.text == "x"
                    break
            dropped = client.subscribe(channel)
            await dropped.next()
            del dropped
            forgotten = await client.producer(label).open()
            await forgotten.push("x")
            del forgotten
            gc.collect()
            await only_tasks(before)
            async for _ in client.subscribe(channel):
                break
            left = client.subscribe(channel)
            await left.next()
        # Closing the client ends the rest.
        await only_tasks(alone)
        async for _ in left:
            raise AssertionError("it is closed")

        def no_subscribers() -> bool:
            with rmom.Client(dev.managers) as client:
                live = client.admin.queue(label).live
                return live is not None and live.subscriber_count == 0

        await asyncio.get_running_loop().run_in_executor(None, eventually, "all subscribers are gone", no_subscribers)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_next_ends_in_time_and_loses_nothing(dev: DevCluster, fresh: Fresh) -> None:
    async def main() -> None:
        label = fresh("Timeout")
        async with aio.Client(dev.managers) as client:
            await client.admin.create_queue(label)
            consumer = client.subscribe(await client.admin.create_channel(label))
            async with client.producer(label) as producer:
                for number in range(20):
                    with pytest.raises(TimeoutError, match=r"no message within 0.001 s"):
                        await consumer.next(timeout=0.001)
                    await producer.push(str(number))
                    assert (await consumer.next(SOON)).text == str(number)

    soon(main())


@pytest.mark.parametrize("waits_for", ["push", "flush", "result"])
def test_a_producer_whose_message_failed_is_collected(waits_for: str, dev: DevCluster, fresh: Fresh) -> None:
    too_large = b"x" * (6 << 20)

    def use(producer: rmom.Producer) -> None:
        if waits_for == "push":
            producer.push(too_large)
        delivery = producer.send(too_large)
        if waits_for == "result":
            delivery.result()
        producer.flush()

    def fail(client: rmom.Client) -> weakref.ref[rmom.Producer]:
        producer = client.producer(label)
        with pytest.raises(rmom.NotDelivered):
            use(producer)
        return weakref.ref(producer)

    async def use_in_a_task(producer: aio.Producer) -> None:
        if waits_for == "push":
            await producer.push(too_large)
        delivery = await producer.send(too_large)
        if waits_for == "result":
            await delivery
        await producer.flush()

    async def fail_in_a_task(client: aio.Client) -> weakref.ref[aio.Producer]:
        producer = await client.producer(label).open()
        with pytest.raises(rmom.NotDelivered):
            await use_in_a_task(producer)
        return weakref.ref(producer)

    label = fresh("Failed")
    with rmom.Client(dev.managers, max_message_bytes=16 << 20) as client:
        client.admin.create_queue(label)
        dropped = fail(client)
        gc.collect()
        assert dropped() is None

    async def main() -> None:
        async with aio.Client(dev.managers, max_message_bytes=16 << 20) as client:
            dropped = await fail_in_a_task(client)
            gc.collect()
            assert dropped() is None

    soon(main())
