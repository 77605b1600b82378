"""The original's names: its usage works, and survives faults that the original did not."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest
from rmom_testing.clusters import Cluster

import rmom
from rmom.momlib import MoMClient, MoMInfo, Pusher, Received, Subscriber

Fresh = Callable[[str], str]


def connect(cluster: Cluster) -> MoMClient:
    manager = urlsplit(cluster.managers[0])
    return MoMClient(str(manager.hostname), int(manager.port or 0))


def test_administration_as_the_original_has_it(cluster: Cluster, fresh: Fresh) -> None:
    label = fresh("News-Queue")
    with connect(cluster) as client:
        client.create_queue(label)
        client.create_queue(label.upper())
        assert label.lower() in client.list_queues()
        found, where = client.get_queue_info(label)
        assert found == label.lower()
        assert f"{where.host}:{where.port}" in cluster.brokers
        _mom_info, channel = client.create_channel(label, "News")
        assert channel.topic == "news"
        assert client.get_channel_info(channel.id)[1] == channel
        assert client.create_channel(label)[1].topic == "__none__"
        assert "news" in client.get_queue_topics(label)
        assert channel.id in client.list_channels()
        client.delete_channel(channel.id)
        client.delete_queue(label)
        with pytest.raises(rmom.Refused, match="QUEUE_NOT_FOUND"):
            client.get_queue_info(label)


def test_pusher_and_subscriber_outlive_the_hosting_broker(cluster: Cluster, fresh: Fresh) -> None:
    label = fresh("Comments-Queue")
    with connect(cluster) as client:
        client.create_queue(label)
        mom_info, channel = client.create_channel(label, topic="comments")
        taken: list[str] = []
        subscriber = Subscriber(mom_info, channel)
        ids: set[str] = set()

        def on_message(message: Received) -> None:
            ids.add(message["id"])
            taken.append(message["content"].decode())

        thread = threading.Thread(target=subscriber.consume, args=(on_message,))
        thread.start()
        with Pusher(client.get_queue_info(label)[1]) as pusher:
            for number in range(60):
                if number == 30:
                    cluster.kill_broker(cluster.host_of(label))
                pusher.push(f"comment {number}", label, topic="Comments")
                pusher.push("of no interest", label)
        deadline = time.monotonic() + 60
        while len(taken) < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        subscriber.close()
        thread.join(30)
        assert len(ids) == 60
        assert taken == [f"comment {number}" for number in range(60)]


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(rmom.ConfigError, match="MoMClient"):
        Pusher(MoMInfo("127.0.0.1", 50051))
    with MoMClient("127.0.0.1", 1) as client:
        started = time.monotonic()
        with pytest.raises(rmom.Unreachable):
            client.list_queues(retry_delay=0.1, max_attempts=3)
        assert 0.2 <= time.monotonic() - started < 5


@pytest.mark.parametrize(("field", "value"), [("max_attempts", 0), ("max_attempts", 1.5), ("retry_delay", -1)])
def test_attempts_and_pauses_are_checked(field: str, value: float) -> None:
    with MoMClient("127.0.0.1", 1) as client:
        wrong: dict[str, Any] = {field: value}
        with pytest.raises(rmom.ConfigError, match=f"^{field}: "):
            client.list_queues(**wrong)
        with pytest.raises(rmom.ConfigError, match=f"^{field}: "):
            Pusher(MoMInfo("h", 1, client.client)).push("x", "q", **wrong)


def test_a_deletion_whose_answer_was_lost_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [rmom.DeadlineExceeded("DELETE", 1, sent=True), rmom.Refused("m:1", "QUEUE_NOT_FOUND", "gone")]

    def delete(_: str) -> None:
        raise outcomes.pop(0)

    with MoMClient("127.0.0.1", 1) as client:
        monkeypatch.setattr(client.client.admin, "delete_queue", delete)
        client.delete_queue("q", retry_delay=0)
        outcomes.append(rmom.Refused("m:1", "QUEUE_NOT_FOUND", "never was"))
        with pytest.raises(rmom.Refused):
            client.delete_queue("q", retry_delay=0)
