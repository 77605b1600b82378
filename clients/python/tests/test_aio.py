"""The client for asyncio with both kinds of clusters. Its logic is the same code; these tests cover its waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Callable, TypeVar

import pytest
from rmom_testing.clusters import Cluster

import rmom
from rmom import aio

T = TypeVar("T")
Fresh = Callable[[str], str]


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, 30)


def test_push_and_receive(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(cluster.managers) as client:
            label = fresh("Orders")
            queue = await client.admin.create_queue(label)
            channel = await client.admin.create_channel(label, "Fish")
            async with client.producer(label, max_in_flight=100) as producer:
                receipt = await producer.push("first", topic="fish", headers={"a": "b"}, ttl=60)
                deliveries = [await producer.send(str(number), topic="Fish") for number in range(1_000)]
                await producer.send("meat", topic="meat")
                receipts = await asyncio.gather(*deliveries)
            assert (receipt.sequence, receipt.offset) == (1, 1)
            assert [one.sequence for one in receipts] == list(range(2, 1_002))
            async with client.subscribe(channel) as consumer:
                first = await soon(consumer.next())
                assert (first.text, first.headers, first.ttl) == ("first", {"a": b"b"}, 60)
                taken = []
                async for message in consumer:
                    taken.append(message.text)
                    if len(taken) == 1_000:
                        break
                assert taken == [str(number) for number in range(1_000)]
                position = consumer.position
            assert position == rmom.Position(queue.id, 1, 1_001)
            with pytest.raises(rmom.Closed):
                await consumer.next()
            with pytest.raises(rmom.Closed):
                await producer.send("x")

    asyncio.run(main())


def test_administration(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(["http://127.0.0.1:1", *cluster.managers]) as client:
            label = fresh("Admin")
            queue = await client.admin.create_queue(label)
            with pytest.raises(rmom.Refused) as raised:
                await client.admin.create_queue(label)
            assert raised.value.code == "QUEUE_EXISTS"
            channel = await client.admin.create_channel(label, "T", rmom.Start.LATEST)
            assert await client.admin.channel(channel.id) == channel
            assert await client.admin.channels(label) == [channel]
            assert await client.admin.topics(label) == ["t"]
            assert (await client.admin.queue(label)).id == queue.id
            assert queue.id in [one.id for one in await client.admin.queues()]
            assert len([broker for broker in await client.admin.brokers() if broker.live]) == 3
            await client.admin.delete_channel(channel.id)
            await client.admin.delete_queue(label)
            with pytest.raises(rmom.Refused):
                await client.admin.queue(label)
        async with aio.Client("http://127.0.0.1:1") as client:
            with pytest.raises(rmom.Unreachable):
                await client.admin.queues()

    asyncio.run(main())


def test_a_cancelled_call_loses_nothing(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(cluster.managers) as client:
            label = fresh("Cancel")
            await client.admin.create_queue(label)
            channel = await client.admin.create_channel(label)
            async with client.producer(label) as producer, client.subscribe(channel) as consumer:
                for number in range(20):
                    # Cancelled while it looks for the broker, while it connects, while it waits.
                    for seconds in (0, 0.0005, 0.002):
                        with pytest.raises(asyncio.TimeoutError):
                            await asyncio.wait_for(consumer.next(), seconds)
                    delivery = await producer.send(str(number))
                    waiting = [asyncio.ensure_future(_wait(delivery)) for _ in range(3)]
                    await asyncio.sleep(0)
                    waiting[1].cancel()
                    assert {(await soon(waiting[at])).sequence for at in (0, 2)} == {number + 1}
                    assert (await delivery).sequence == number + 1
                    assert (await soon(consumer.next())).text == str(number)

    asyncio.run(main())


async def _wait(delivery: aio.Delivery) -> rmom.Receipt:
    return await delivery


def test_a_named_producer(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(cluster.managers) as client:
            label = fresh("Import")
            await client.admin.create_queue(label)
            for number in range(3):
                async with client.producer(label, name="import") as producer:
                    assert producer.stored_before == number
                    assert (await producer.push("x")).sequence == number + 1
            with pytest.raises(rmom.ConfigError):
                await client.producer(label).push("x")

    asyncio.run(main())


def test_a_producer_that_two_tasks_open_is_opened_once(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(cluster.managers) as client:
            label = fresh("Open")
            await client.admin.create_queue(label)
            for name in (None, "import"):
                producer = client.producer(label, name=name)
                assert await asyncio.gather(*[producer.open() for _ in range(3)]) == [producer] * 3
                assert len(client._waiting.running) == 1
                for delivery in [await producer.send(str(number)) for number in range(1_000)]:
                    await delivery
                await producer.close()

    asyncio.run(main())


def test_failures_reach_whoever_waits(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        async with aio.Client(cluster.managers) as client:
            producer = await client.producer(fresh("missing")).open()
            deliveries = [await producer.send("x") for _ in range(3)]
            for delivery in deliveries:
                with pytest.raises(rmom.NotDelivered, match="QUEUE_NOT_FOUND"):
                    await delivery
            await producer.close()
            producer = await client.producer(fresh("missing")).open()
            await producer.send("x")
            with pytest.raises(rmom.NotDelivered):
                await producer.close()
            async with client.subscribe("00000000-0000-0000-0000-000000000000") as consumer:
                for _ in range(2):
                    with pytest.raises(rmom.Refused, match="CHANNEL_NOT_FOUND"):
                        await consumer.next()

    asyncio.run(main())
