"""The promises of the original's documentation about its routes and methods."""

from __future__ import annotations

import itertools
import uuid
from typing import Callable

import grpc
import messages_pb2
import pytest
from rmom_testing.clusters import Cluster
from rmom_testing.process import eventually

from .original import CALL_TIMEOUT, Consumer, Manager, Pusher, stub

Fresh = Callable[[str], str]


@pytest.fixture
def manager(cluster: Cluster) -> Manager:
    return Manager(cluster.managers[0])


def test_queues_are_created_once_shown_listed_and_deleted(cluster: Cluster, manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    assert manager.create_queue(label) == (200, "")
    assert manager.create_queue(label)[0] == 400
    assert manager.create_queue(label.upper())[0] == 400
    for spelled in (label, label.upper(), label.lower()):
        status, queue = manager.queue(spelled)
        assert (status, queue["label"]) == (200, label.lower())
        assert set(queue) == {"label", "host", "port"}
        assert isinstance(queue["port"], int)
        assert f"{queue['host']}:{queue['port']}" in cluster.brokers
    status, labels = manager.queues()
    assert (status, labels.count(label.lower())) == (200, 1)
    assert manager.delete_queue(label.upper())[0] == 200
    assert manager.delete_queue(label)[0] == 404
    assert manager.queue(label)[0] == 404
    assert label.lower() not in manager.queues()[1]


def test_channels_are_created_shown_listed_and_deleted(cluster: Cluster, manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    assert manager.create_channel(label)[0] == 404
    manager.create_queue(label)
    created = {}
    for topic, expected in (("Sports", "sports"), ("__none__", "__none__"), ("SPORTS", "sports"), ("Arts", "arts")):
        status, channel = manager.create_channel(label.swapcase(), topic)
        assert (status, channel["topic"]) == (200, expected)
        assert set(channel) == {"id", "host", "port", "topic"}
        assert f"{channel['host']}:{channel['port']}" in cluster.brokers
        assert str(uuid.UUID(channel["id"])) == channel["id"]
        created[channel["id"]] = channel
    assert len(created) == 4
    for channel_id, channel in created.items():
        assert manager.channel(channel_id) == (200, channel)
    assert set(created) <= set(manager.channels()[1])
    status, topics = manager.topics(label.upper())
    assert status == 200
    assert {"sports", "arts"} <= set(topics)
    assert manager.topics(fresh("missing"))[0] == 404
    one = next(iter(created))
    assert manager.delete_channel(one)[0] == 200
    assert manager.delete_channel(one)[0] == 404
    assert manager.channel(one)[0] == 404
    assert one not in manager.channels()[1]
    assert manager.channel("no-id")[0] in (404, 422)


def test_two_consumers_get_everything_that_matches(manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    manager.create_queue(label)
    everything = [Consumer(manager, label) for _ in range(2)]
    sports = [Consumer(manager, label.upper(), topic) for topic in ("Sports", "SPORTS")]
    pusher = Pusher(manager, label.swapcase())
    for number, topic in zip(range(40), itertools.cycle(("Sports", "__none__", "arts", "sPORTS"))):
        pusher.push(f"{topic} {number}", topic)
    for consumer in everything:
        assert [int(content.split()[1]) for content in consumer.wait_for(40)] == list(range(40))
    for consumer in sports:
        contents = consumer.wait_for(20)
        assert [int(content.split()[1]) for content in contents] == [n for n in range(40) if n % 4 in (0, 3)]
    for consumer in everything + sports:
        assert consumer.channels == 1
        consumer.close()


def test_what_is_pushed_before_anyone_subscribes_reaches_the_first_subscriber(manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    manager.create_queue(label)
    _, channel = manager.create_channel(label, "News")
    Pusher(manager, label).push("early", "nEWS")
    call = stub(channel).SubscribeToChannel(messages_pb2.SubscriptionRequest(channel_id=channel["id"]), timeout=30)
    message = next(call)
    assert (message.content, message.topic) == (b"early", "news")
    assert str(uuid.UUID(message.id)) == message.id
    call.cancel()


def test_pushes_and_subscriptions_that_cannot_be_are_refused(manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    manager.create_queue(label)
    broker = stub(manager.queue(label)[1])
    missing = messages_pb2.Push(content=b"x", topic="__none__", queue_label=fresh("missing"))
    with pytest.raises(grpc.RpcError) as raised:
        broker.PushToQueue(missing, timeout=CALL_TIMEOUT)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    for channel_id, code in (
        (str(uuid.uuid4()), grpc.StatusCode.NOT_FOUND),
        ("no-id", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            next(broker.SubscribeToChannel(messages_pb2.SubscriptionRequest(channel_id=channel_id), timeout=30))
        assert raised.value.code() is code


def test_deleting_a_channel_or_its_queue_ends_its_subscriptions(manager: Manager, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    manager.create_queue(label)
    calls = []
    for _ in range(2):
        _, channel = manager.create_channel(label)
        request = messages_pb2.SubscriptionRequest(channel_id=channel["id"])
        call = stub(channel).SubscribeToChannel(request, timeout=30)
        calls.append((channel["id"], call))
    Pusher(manager, label).push("x")
    for _, call in calls:
        assert next(call).content == b"x"
    manager.delete_channel(calls[0][0])
    manager.delete_queue(label)
    for _, call in calls:
        with pytest.raises(grpc.RpcError) as raised:
            next(call)
        assert raised.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_methods_of_a_broker_do_what_the_routes_do(cluster: Cluster, manager: Manager, fresh: Fresh) -> None:
    label = fresh("Direct-Queue")
    broker = stub(cluster.brokers[0])
    broker.GetHeartbeat(messages_pb2.HeartbeatRequest(), timeout=CALL_TIMEOUT)
    broker.CreateQueue(messages_pb2.CreateQueueRequest(queue_label=label), timeout=CALL_TIMEOUT)
    with pytest.raises(grpc.RpcError) as raised:
        broker.CreateQueue(messages_pb2.CreateQueueRequest(queue_label=label.upper()), timeout=CALL_TIMEOUT)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert label.lower() in manager.queues()[1]
    broker.RebuildQueue(messages_pb2.RebuildQueueRequest(queue_label=label), timeout=CALL_TIMEOUT)
    request = messages_pb2.CreateChannelRequest(queue_label=label.upper(), topic="Fish")
    channel_id = broker.CreateChannel(request, timeout=CALL_TIMEOUT).channel_id
    assert manager.channel(channel_id)[1]["topic"] == "fish"
    broker.PushToQueue(messages_pb2.Push(content=b"x", topic="FISH", queue_label=label), timeout=CALL_TIMEOUT)
    call = broker.SubscribeToChannel(messages_pb2.SubscriptionRequest(channel_id=channel_id), timeout=30)
    assert next(call).content == b"x"
    broker.DeleteChannel(messages_pb2.DeleteChannelRequest(channel_id=channel_id), timeout=CALL_TIMEOUT)
    eventually("the channel is gone", lambda: manager.channel(channel_id)[0] == 404)
    broker.DeleteQueue(messages_pb2.DeleteQueueRequest(queue_label=label.swapcase()), timeout=CALL_TIMEOUT)
    assert manager.queue(label)[0] == 404


def test_pusher_and_consumer_survive_the_death_of_the_hosting_broker(
    cluster: Cluster, manager: Manager, fresh: Fresh
) -> None:
    label = fresh("Comments-Queue")
    manager.create_queue(label)
    consumers = [Consumer(manager, label), Consumer(manager, label.upper(), "Odd")]
    pusher = Pusher(manager, label.swapcase())
    for number in range(200):
        if number == 100:
            cluster.kill_broker(cluster.host_of(label))
        pusher.push(f"comment {number}", "ODD" if number % 2 else "even")
    for consumer, step in zip(consumers, (1, 2)):
        expected = [f"comment {number}" for number in range(step - 1, 200, step)]
        contents = consumer.wait_for(len(expected))
        consumer.close()
        assert consumer.channels >= 2, "it made a new channel"
        # A message pushed once comes once. (A retried push is a second message in the original, too.)
        seen = list(dict.fromkeys(contents))
        assert seen == expected
        assert {content for content in contents if contents.count(content) > 1} <= pusher.retried
    assert len(pusher.retried) <= 2
