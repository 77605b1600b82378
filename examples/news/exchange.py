"""One end of the exchange: sends into one queue, and keeps what comes out of another."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Callable
from urllib.parse import urlsplit

from rmom.momlib import MoMClient, Pusher, Received, Subscriber


@dataclass(frozen=True)
class Item:
    """Something that was received. Numbers count 1, 2, 3 … in the order of the queue."""

    number: int
    text: str


class Board:
    """What was received, in order. Grows from one thread, is read from many."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._grown = threading.Condition()

    def add(self, text: str) -> None:
        with self._grown:
            self._items.append(Item(len(self._items) + 1, text))
            self._grown.notify_all()

    def after(self, number: int, wait: float = 0) -> list[Item]:
        """The items behind this one; waits up to so many seconds until there are any."""
        with self._grown:
            self._grown.wait_for(lambda: len(self._items) > number, wait)
            return self._items[number:]


class Exchange:
    """Creates both queues, whichever application comes first, and receives until it is closed."""

    def __init__(self, manager: str, send_to: str, receive_from: str, topic: str) -> None:
        url = urlsplit(manager)
        self._client = MoMClient(url.hostname or "127.0.0.1", url.port or 8082)
        self._send_to = send_to
        self.board = Board()
        for label in (send_to, receive_from):
            self._client.create_queue(label)
        # The channel starts at the oldest message that is still there, so a new start shows all of them.
        where, self._channel = self._client.create_channel(receive_from, topic)
        self._subscriber = Subscriber(where, self._channel)
        self._pusher = Pusher(self._client.get_queue_info(send_to)[1])
        threading.Thread(target=self._subscriber.consume, args=(self._on_message,), daemon=True).start()

    def _on_message(self, message: Received) -> None:
        self.board.add(message["content"].decode(errors="replace"))

    def send(self, text: str, topic: str) -> None:
        """Returns when the message is durable."""
        self._pusher.push(text, self._send_to, topic=topic)

    def on_received(self, react: Callable[[Item], None]) -> None:
        """Calls back with each item, from a thread of its own."""

        def run() -> None:
            seen = 0
            while True:
                for item in self.board.after(seen, wait=60):
                    react(item)
                    seen = item.number

        threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        """Leaves no channel behind."""
        self._subscriber.close()
        self._client.delete_channel(self._channel.id)
        self._client.close()
