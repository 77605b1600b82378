"""Brokers die under traffic, and clients notice nothing but a pause."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

import pytest
from rmom_testing.clusters import Cluster, ProcessCluster

import rmom
from rmom import aio

Fresh = Callable[[str], str]

#: Messages before and after the fault.
PUSHES = 400
PATIENCE = 60.0


@dataclass
class Traffic:
    """A producer that waits for each message, and one that does not, each in a thread of its own."""

    client: rmom.Client
    label: str
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: list[str] = field(default_factory=list)
    pipelined: list[tuple[str, rmom.Delivery]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.threads = [threading.Thread(target=self._run, args=(what,)) for what in (self._one_by_one, self._all)]
        for thread in self.threads:
            thread.start()

    def _run(self, what: Callable[[rmom.Producer], None]) -> None:
        try:
            with self.client.producer(self.label, max_in_flight=256) as producer:
                what(producer)
        except BaseException as error:
            self.failures.append(error)

    def _one_by_one(self, producer: rmom.Producer) -> None:
        while not self.stop.is_set():
            text = f"one {len(self.acknowledged)}"
            producer.push(text)
            self.acknowledged.append(text)
            time.sleep(0.001)

    def _all(self, producer: rmom.Producer) -> None:
        while not self.stop.is_set():
            text = f"all {len(self.pipelined)}"
            self.pipelined.append((text, producer.send(text)))
            time.sleep(0.0005)

    def progress(self, pushes: int) -> None:
        """Waits until this many more pushes of the producer that waits for each were acknowledged."""
        goal, deadline = len(self.acknowledged) + pushes, time.monotonic() + PATIENCE
        while len(self.acknowledged) < goal:
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"no progress within {PATIENCE} s"
            time.sleep(0.01)

    def finish(self) -> tuple[list[str], list[str]]:
        """Each producer's messages, all of them acknowledged."""
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.failures, self.failures
        for _, delivery in self.pipelined:
            assert delivery.done()
            delivery.result()
        return self.acknowledged, [text for text, _ in self.pipelined]


def check(taken: list[str], pushed: tuple[list[str], list[str]]) -> None:
    """Checks that each message is there once, and each producer's are in order."""
    for name, expected in zip(("one", "all"), pushed):
        assert [text for text in taken if text.startswith(name)] == expected


def survive(cluster: Cluster, label: str, fault: Callable[[], None]) -> rmom.Consumer:
    """Causes a fault of a queue under load. The present subscriber and a reader from the beginning get all messages."""
    with rmom.Client(cluster.managers) as client:
        client.admin.create_queue(label)
        channel = client.admin.create_channel(label)
        consumer = client.subscribe(channel)
        taken: list[str] = []
        taking = threading.Thread(target=lambda: taken.extend(message.text for message in consumer))
        taking.start()
        traffic = Traffic(client, label)
        traffic.progress(PUSHES)
        fault()
        traffic.progress(PUSHES)
        pushed = traffic.finish()
        count = sum(len(one) for one in pushed)
        with client.subscribe(channel) as audit:
            check([audit.next(PATIENCE).text for _ in range(count)], pushed)
            with pytest.raises(TimeoutError):
                audit.next(0.2)
        deadline = time.monotonic() + PATIENCE
        while len(taken) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        consumer.close()
        taking.join(PATIENCE)
        check(taken, pushed)
        return consumer


def test_the_hosting_broker_is_killed(cluster: Cluster, fresh: Fresh) -> None:
    label = fresh("Killed")
    hosts: list[int] = []

    def kill() -> None:
        hosts.append(cluster.host_of(label))
        cluster.kill_broker(hosts[0])

    consumer = survive(cluster, label, kill)
    assert consumer.reconnects >= 1
    assert cluster.host_of(label) not in hosts


def test_all_brokers_are_killed_and_started_again(processes: ProcessCluster, fresh: Fresh) -> None:
    def kill() -> None:
        for number in range(3):
            processes.kill_broker(number)
        time.sleep(0.5)
        for number in range(3):
            processes.start_broker(number)

    survive(processes, fresh("AllKilled"), kill)


def test_the_hosting_broker_is_paused_beyond_its_lease(processes: ProcessCluster, fresh: Fresh) -> None:
    label = fresh("Paused")

    def pause() -> None:
        host = processes.host_of(label)
        processes.pause_broker(host)
        # Its connections stay open, but no data comes; only an unanswered ping shows that.
        deadline = time.monotonic() + PATIENCE
        while processes.host_of(label) == host and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(4)
        processes.resume_broker(host)

    survive(processes, label, pause)


def test_an_idle_consumer_notices_a_broker_that_vanished(processes: ProcessCluster, fresh: Fresh) -> None:
    label = fresh("Idle")
    with rmom.Client(processes.managers) as client:
        client.admin.create_queue(label)
        with client.subscribe(client.admin.create_channel(label)) as consumer, client.producer(label) as producer:
            producer.push("before")
            assert consumer.next(30).text == "before"
            host = processes.host_of(label)
            processes.pause_broker(host)
            try:
                # Neither the producer's nor the consumer's connection is ever closed.
                producer.push("after")
                assert consumer.next(30).text == "after"
            finally:
                processes.resume_broker(host)


def test_asyncio_survives_the_hosting_brokers_death(cluster: Cluster, fresh: Fresh) -> None:
    async def main() -> None:
        label = fresh("Asyncio")
        async with aio.Client(cluster.managers) as client:
            await client.admin.create_queue(label)
            channel = await client.admin.create_channel(label)
            async with client.producer(label, max_in_flight=64) as producer, client.subscribe(channel) as consumer:

                async def take(count: int) -> list[str]:
                    return [(await consumer.next()).text for _ in range(count)]

                taking = asyncio.ensure_future(take(3_000))
                deliveries = []
                for number in range(3_000):
                    if number == 1_000:
                        host = cluster.host_of(label)
                        await asyncio.get_running_loop().run_in_executor(None, cluster.kill_broker, host)
                    deliveries.append(await producer.send(str(number)))
                receipts = await asyncio.wait_for(asyncio.gather(*deliveries), PATIENCE)
                assert [receipt.sequence for receipt in receipts] == list(range(1, 3_001))
                assert await asyncio.wait_for(taking, PATIENCE) == [str(number) for number in range(3_000)]
                assert consumer.reconnects >= 1

    asyncio.run(main())
