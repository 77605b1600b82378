"""A client like the original's: nine routes, eight methods, and the same way of coping with broken connections."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import messages_pb2
import messages_pb2_grpc
import requests

#: The original's consumers and pushers wait this long after an error, in seconds.
RETRY_DELAY = 0.1
#: How long a single call may take, in seconds. (The original has no deadlines; a test that hangs says nothing.)
CALL_TIMEOUT = 20


class Manager:
    """The nine routes. Calls return the status and the body."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        response = requests.request(method, self._url + path, timeout=CALL_TIMEOUT, **more)
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, response.text

    def create_queue(self, label: str) -> tuple[int, Any]:
        return self._ask("POST", f"/queues/{label}")

    def delete_queue(self, label: str) -> tuple[int, Any]:
        return self._ask("DELETE", f"/queues/{label}")

    def queue(self, label: str) -> tuple[int, Any]:
        return self._ask("GET", f"/queues/{label}")

    def queues(self) -> tuple[int, Any]:
        return self._ask("GET", "/queues")

    def topics(self, label: str) -> tuple[int, Any]:
        return self._ask("GET", f"/queue/{label}/topics")

    def create_channel(self, label: str, topic: str = "__none__") -> tuple[int, Any]:
        return self._ask("PUT", f"/queues/{label}/channels/{topic}", headers={"Content-type": "application/json"})

    def channel(self, channel_id: str) -> tuple[int, Any]:
        return self._ask("GET", f"/channels/{channel_id}")

    def channels(self) -> tuple[int, Any]:
        return self._ask("GET", "/channels")

    def delete_channel(self, channel_id: str) -> tuple[int, Any]:
        return self._ask("DELETE", f"/channels/{channel_id}")


def stub(place: str | dict[str, Any]) -> Any:
    """The eight methods of a broker, over a connection with no option set."""
    where = place if isinstance(place, str) else f"{place['host']}:{place['port']}"
    return messages_pb2_grpc.MessageStreamStub(grpc.insecure_channel(where))


class Pusher:
    """Pushes, and after an error asks for the queue's host again."""

    def __init__(self, manager: Manager, label: str) -> None:
        self._manager = manager
        self._label = label
        self._stub: Any = None
        #: Content pushed more than once, because the first attempt had failed: it may be stored twice.
        self.retried: set[str] = set()

    def push(self, content: str, topic: str = "__none__") -> None:
        """Repeats the call until it succeeds."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if self._stub is None:
                    status, place = self._manager.queue(self._label)
                    assert status == 200, place
                    self._stub = stub(place)
                request = messages_pb2.Push(content=content.encode(), topic=topic, queue_label=self._label)
                self._stub.PushToQueue(request, timeout=CALL_TIMEOUT)
                return
            except (grpc.RpcError, AssertionError, requests.RequestException):
                assert time.monotonic() < deadline, f"{content!r} could not be pushed"
                self._stub = None
                self.retried.add(content)
                time.sleep(RETRY_DELAY)


class Consumer:
    """Receives in a thread. When its stream breaks, it creates a new channel, and drops messages with known ids."""

    def __init__(self, manager: Manager, label: str, topic: str = "__none__") -> None:
        self._manager = manager
        self._label = label
        self._topic = topic
        self._stopped = threading.Event()
        self._call: Any = None
        self._known: set[str] = set()
        self.contents: list[str] = []
        self.channels = 0
        self._subscribe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _subscribe(self) -> None:
        status, channel = self._manager.create_channel(self._label, self._topic)
        assert status == 200, channel
        self.channels += 1
        request = messages_pb2.SubscriptionRequest(channel_id=channel["id"])
        self._call = stub(channel).SubscribeToChannel(request)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                for message in self._call:
                    if message.id not in self._known:
                        self._known.add(message.id)
                        self.contents.append(message.content.decode())
                raise AssertionError("a stream does not end without an error")
            except grpc.RpcError:
                time.sleep(RETRY_DELAY)
            while not self._stopped.is_set():
                try:
                    self._subscribe()
                    break
                except (AssertionError, requests.RequestException):
                    time.sleep(RETRY_DELAY)

    def wait_for(self, count: int) -> list[str]:
        """The contents, once there are this many different ones."""
        deadline = time.monotonic() + 60
        while len(set(self.contents)) < count:
            assert time.monotonic() < deadline, f"{len(self.contents)} of {count} messages came: {self.contents}"
            time.sleep(0.01)
        return self.contents

    def close(self) -> None:
        self._stopped.set()
        self._call.cancel()
        self._thread.join(30)
