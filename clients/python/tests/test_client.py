"""The client with threads, with both kinds of clusters."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Callable

import pytest
from rmom_testing.clusters import Cluster

import rmom
from rmom.producer import EXIT_TIMEOUT

Fresh = Callable[[str], str]


@pytest.fixture
def client(cluster: Cluster) -> Iterator[rmom.Client]:
    with rmom.Client(cluster.managers) as client:
        yield client


def texts(consumer: rmom.Consumer, count: int) -> list[str]:
    return [consumer.next(30).text for _ in range(count)]


def test_what_was_pushed_arrives_as_it_was(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Orders")
    queue = client.admin.create_queue(label)
    assert queue.label == label.lower()
    channel = client.admin.create_channel(label)
    with client.producer(label.upper()) as producer:
        first = producer.push("one", topic="Fish", headers={"lang": "en", "bytes": b"\xff"}, ttl=60)
        second = producer.push(b"two")
    assert (first.sequence, first.offset, first.duplicate) == (1, 1, False)
    with client.subscribe(channel) as consumer:
        one, two = consumer.next(30), consumer.next(30)
        assert consumer.position == rmom.Position(queue.id, 1, 2)
    assert (one.id, one.offset, one.text, one.topic, one.ttl) == (first.id, 1, "one", "fish", 60)
    assert one.headers == {"lang": b"en", "bytes": b"\xff"}
    assert (two.id, two.content, two.topic, two.headers) == (second.id, b"two", None, {})


def test_administration_shows_what_there_is(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Admin")
    queue = client.admin.create_queue(label)
    assert queue.id in [one.id for one in client.admin.queues()]
    everything = client.admin.create_channel(label)
    fish = client.admin.create_channel(label, "Fish", rmom.Start.LATEST)
    assert (everything.topic, fish.topic, fish.queue_label) == (None, "fish", label.lower())
    assert {one.id for one in client.admin.channels(label)} == {everything.id, fish.id}
    assert {everything.id, fish.id} <= {one.id for one in client.admin.channels()}
    assert client.admin.channel(str(fish.id)) == fish
    assert "fish" in client.admin.topics(label)
    with client.producer(label) as producer, client.subscribe(everything) as consumer:
        producer.push("x")
        consumer.next(30)
        live = client.admin.queue(label).live
        assert live is not None
        assert (live.last_offset, live.depth_messages) == (1, 1)
        assert [(one.channel_id, one.lag) for one in live.subscribers] == [(everything.id, 0)]
    assert sum(broker.live for broker in client.admin.brokers()) == 3
    client.admin.delete_channel(fish.id)
    with pytest.raises(rmom.Refused) as raised:
        client.admin.channel(fish.id)
    assert raised.value.code == "CHANNEL_NOT_FOUND"
    client.admin.delete_queue(label)
    with pytest.raises(rmom.Refused) as raised:
        client.admin.queue(label)
    assert raised.value.code == "QUEUE_NOT_FOUND"


def test_errors_have_the_servers_code_and_a_hint(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Errors")
    client.admin.create_queue(label)
    with pytest.raises(rmom.Refused, match="exists") as refused:
        client.admin.create_queue(label.upper())
    assert (refused.value.code, refused.value.retryable) == ("QUEUE_EXISTS", False)
    assert refused.value.hint == "use the queue that exists, or choose another label"
    with pytest.raises(rmom.Refused) as refused:
        client.admin.create_channel(label, start=1_000)
    assert refused.value.code == "OFFSET_OUT_OF_RANGE"
    with client.producer(fresh("missing")) as producer:
        with pytest.raises(rmom.NotDelivered) as lost:
            producer.push("x")
        assert (lost.value.code, lost.value.outcome_unknown) == ("QUEUE_NOT_FOUND", False)
        with pytest.raises(rmom.Refused):
            producer.push("x")
    # An exception that was seen is not raised again.
    producer = client.producer(fresh("missing"))
    producer.send("x")
    with pytest.raises(rmom.NotDelivered):
        producer.flush()
    producer.close()
    with client.subscribe(uuid.uuid4()) as consumer:
        for _ in range(2):
            with pytest.raises(rmom.Refused) as refused:
                consumer.next(30)
            assert refused.value.code == "CHANNEL_NOT_FOUND"
    with pytest.raises(rmom.InvalidName):
        client.producer(" ")
    with pytest.raises(rmom.InvalidArgument):
        client.subscribe("no id")


def test_a_channel_with_a_topic_receives_only_that(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Topics")
    client.admin.create_queue(label)
    fish = client.admin.create_channel(label, "FISH")
    with client.producer(label) as producer:
        for number, topic in enumerate(["fish", None, "Meat", "Fish"]):
            producer.send(str(number), topic=topic)
    with client.subscribe(fish) as consumer:
        assert texts(consumer, 2) == ["0", "3"]


def test_channels_start_where_they_were_told(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Starts")
    client.admin.create_queue(label)
    with client.producer(label) as producer:
        for number in range(1, 4):
            producer.push(str(number))
        latest = client.admin.create_channel(label, start=rmom.Start.LATEST)
        second = client.admin.create_channel(label, start=2)
        producer.push("4")
    with client.subscribe(latest) as consumer:
        assert texts(consumer, 1) == ["4"]
    with client.subscribe(second) as consumer:
        assert texts(consumer, 3) == ["2", "3", "4"]


def test_a_consumer_goes_on_where_another_stopped(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Resume")
    client.admin.create_queue(label)
    channel = client.admin.create_channel(label)
    with client.producer(label) as producer:
        for number in range(10):
            producer.send(str(number))
    with client.subscribe(channel) as consumer:
        assert consumer.position is None
        assert texts(consumer, 4) == ["0", "1", "2", "3"]
        saved = str(consumer.position)
    with client.subscribe(channel, resume_from=rmom.Position.parse(saved)) as consumer:
        assert texts(consumer, 6) == ["4", "5", "6", "7", "8", "9"]


def test_waiting_for_a_message_can_end_and_loses_nothing(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Timeouts")
    client.admin.create_queue(label)
    with client.producer(label) as producer, client.subscribe(client.admin.create_channel(label)) as consumer:
        for number in range(20):
            with pytest.raises(TimeoutError):
                consumer.next(0.001)
            producer.push(str(number))
            assert texts(consumer, 1) == [str(number)]


def test_closing_ends_the_iteration_and_the_threads(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Close")
    client.admin.create_queue(label)
    consumer = client.subscribe(client.admin.create_channel(label))
    producer = client.producer(label)
    producer.push("x")
    taken: list[str] = []
    thread = threading.Thread(target=lambda: taken.extend(message.text for message in consumer))
    thread.start()
    deadline = time.monotonic() + 30
    while not taken and time.monotonic() < deadline:
        time.sleep(0.01)
    consumer.close()
    producer.close()
    thread.join(30)
    assert taken == ["x"]
    with pytest.raises(rmom.Closed):
        consumer.next()
    with pytest.raises(rmom.Closed):
        producer.send("x")
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("rmom-")]
    assert names == []


def test_what_is_not_closed_ends_when_nobody_has_it_any_more(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Garbage")
    client.admin.create_queue(label)
    channel = client.admin.create_channel(label)
    client.producer(label).push("x")
    client.subscribe(channel).next(30)
    gc.collect()
    deadline = time.monotonic() + 30
    while any(thread.name.startswith("rmom-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_a_thread_that_cannot_start_leaves_nothing_behind(
    client: rmom.Client, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = fresh("Threads")
    client.admin.create_queue(label)
    channel = client.admin.create_channel(label)
    start = threading.Thread.start
    refusals = {"rmom-producer": 1, "rmom-consumer": 1}

    def refuse(thread: threading.Thread) -> None:
        for name, left in refusals.items():
            if thread.name.startswith(name) and left:
                refusals[name] -= 1
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        client.producer(label)
    assert client._blocking.running == set()
    assert client.producer(label).push("x").offset == 1
    consumer = client.subscribe(channel)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        consumer.next()
    assert consumer.next(30).text == "x"
    assert not any(refusals.values()), refusals
    client.close()
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("rmom-")]
    assert names == []


AT_EXIT = """
import atexit, sys, time
# Called last, since it is registered first.
atexit.register(lambda: print(time.monotonic() - ended))
import rmom
client = rmom.Client(sys.argv[1])
producer = client.producer(sys.argv[2])
for number in range(1_000):
    producer.send(str(number))
ended = time.monotonic()
"""


def test_what_was_accepted_is_delivered_when_the_program_ends(
    cluster: Cluster, client: rmom.Client, fresh: Fresh
) -> None:
    label = fresh("AtExit")
    command = [sys.executable, "-c", AT_EXIT, cluster.managers[0], label]
    # The queue does not exist. The program logs that at its end, or `send()` raises it if the refusal comes sooner.
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "QUEUE_NOT_FOUND" in done.stderr
    client.admin.create_queue(label)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    assert float(done.stdout) < EXIT_TIMEOUT, "it waits no longer than it has to"
    with client.subscribe(client.admin.create_channel(label)) as consumer:
        assert texts(consumer, 1_000) == [str(number) for number in range(1_000)]


def test_a_named_producer_learns_what_it_has_stored_and_shuts_out_its_twin(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Import")
    client.admin.create_queue(label)
    with client.producer(label, name="import") as producer:
        assert producer.stored_before == 0
        assert producer.push("1").sequence == 1
    twin = client.producer(label, name="import")
    assert twin.stored_before == 1
    with client.producer(label, name="import") as producer:
        assert producer.push("2").sequence == 2
        with pytest.raises(rmom.NotDelivered) as raised:
            twin.push("3")
        assert raised.value.code == "PRODUCER_FENCED"


def test_many_threads_share_a_producer(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Threads")
    client.admin.create_queue(label)
    with client.producer(label, max_in_flight=50) as producer:

        def push(name: str) -> None:
            for number in range(500):
                producer.send(f"{name} {number}")

        threads = [threading.Thread(target=push, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with client.subscribe(client.admin.create_channel(label)) as consumer:
        taken = texts(consumer, 2_000)
    for name in "abcd":
        assert [text for text in taken if text[0] == name] == [f"{name} {number}" for number in range(500)]


def test_large_messages_up_to_the_limit(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Large")
    client.admin.create_queue(label)
    # A broker keeps 4 KiB for what it adds to a message.
    content = bytes(4_194_304 - 4_096 - 100)
    with client.producer(label) as producer:
        producer.push(content)
        with pytest.raises(rmom.MessageTooLarge):
            producer.push(bytes(4_194_304))
    with client.subscribe(client.admin.create_channel(label)) as consumer:
        assert consumer.next(30).content == content


def test_a_message_beyond_the_clients_own_limit_ends_the_consumer(cluster: Cluster, fresh: Fresh) -> None:
    label = fresh("Larger")
    with rmom.Client(cluster.managers) as client:
        client.admin.create_queue(label)
        channel = client.admin.create_channel(label)
        with client.producer(label) as producer:
            producer.push(bytes(200_000))
    # The same message would come again, so that subscribing again cannot help.
    small = rmom.Client(cluster.managers, max_message_bytes=1_024)
    with small, small.subscribe(channel) as consumer, pytest.raises(rmom.Refused) as refused:
        consumer.next(30)
    assert (refused.value.code, refused.value.retryable) == ("MESSAGE_TOO_LARGE", False)


def test_a_deleted_queue_ends_its_consumers_and_producers(client: rmom.Client, fresh: Fresh) -> None:
    label = fresh("Deleted")
    client.admin.create_queue(label)
    with client.producer(label) as producer, client.subscribe(client.admin.create_channel(label)) as consumer:
        producer.push("x")
        consumer.next(30)
        client.admin.delete_queue(label)
        client.admin.create_queue(label)
        with pytest.raises(rmom.Refused) as refused:
            consumer.next(30)
        assert refused.value.code in ("CHANNEL_NOT_FOUND", "QUEUE_REPLACED", "QUEUE_NOT_FOUND")
        with pytest.raises(rmom.NotDelivered) as lost:
            producer.push("x")
        assert lost.value.code == "QUEUE_REPLACED"


def test_the_first_manager_that_answers_is_used(cluster: Cluster, fresh: Fresh) -> None:
    with rmom.Client(["http://127.0.0.1:1", *cluster.managers]) as client:
        label = fresh("Managers")
        client.admin.create_queue(label)
        assert client.admin.queue(label).label == label.lower()
    with rmom.Client("http://127.0.0.1:1") as client, pytest.raises(rmom.Unreachable) as raised:
        client.admin.queues()
    assert (raised.value.code, raised.value.outcome_unknown) == ("UNREACHABLE", False)
