"""Administration as programs. A call that changes something is made once, at the first manager that can be reached; a
call that only reads goes on to the next manager if one does not answer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from ._check import as_bool, as_int, check_label, check_topic, id_of_broker, id_of_channel, label_of
from ._effects import Program
from ._rest import Managers, segment
from .errors import InvalidArgument, ProtocolViolation, Refused
from .model import NO_TOPIC, Broker, Channel, LiveQueue, Queue, Start, StartAt, Subscriber

T = TypeVar("T")


def _get(managers: Managers, path: str, read: Callable[[Any], T]) -> Program[T]:
    return _json(managers, "GET", path, None, read)


def _json(
    managers: Managers, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]
) -> Program[T]:
    return managers.json(method, path, body, managers.settings.request_timeout, read)


def _pages(managers: Managers, path: str, field: str, read: Callable[[Any], T]) -> Program[list[T]]:
    """A whole list, which managers return page by page."""
    found: list[T] = []
    # Pages that led back to one of these would never end.
    seen: set[str] = set()
    after: str | None = None
    while True:
        joint = "&" if "?" in path else "?"
        page = path if after is None else f"{path}{joint}after={segment(after)}"
        entries, following = yield from _get(
            managers, page, lambda answer: ([read(one) for one in answer[field]], answer.get("next"))
        )
        if following is not None:
            if not entries or following in seen:
                raise ProtocolViolation("a manager", "a page of a list names a next page that does not go on")
            seen.add(following)
        after = following
        found += entries
        if after is None:
            return found


def create_queue(managers: Managers, label: str, exist_ok: bool) -> Program[Queue]:
    check_label(label)
    as_bool("exist_ok", exist_ok)
    return _create_queue(managers, label, exist_ok)


def _create_queue(managers: Managers, label: str, exist_ok: bool) -> Program[Queue]:
    try:
        return (yield from _json(managers, "POST", "/v1/queues", {"label": label}, _queue))
    except Refused as error:
        if not exist_ok or error.code != "QUEUE_EXISTS":
            raise
    return (yield from queue(managers, label))


def delete_queue(managers: Managers, label: Queue | str) -> Program[None]:
    return managers.done("DELETE", f"/v1/queues/{segment(label_of(label))}")


def queue(managers: Managers, label: Queue | str) -> Program[Queue]:
    return _get(managers, f"/v1/queues/{segment(label_of(label))}", _queue)


def queues(managers: Managers, live: bool) -> Program[list[Queue]]:
    return _pages(managers, "/v1/queues?live=true" if as_bool("live", live) else "/v1/queues", "queues", _queue)


def topics(managers: Managers, label: Queue | str) -> Program[list[str]]:
    path = f"/queues/{segment(label_of(label))}/topics"
    return _get(managers, path, lambda answer: [str(topic) for topic in answer])


def create_channel(managers: Managers, label: Queue | str, topic: str | None, start: StartAt) -> Program[Channel]:
    label = label_of(label)
    check_topic("" if topic is None else topic)
    body = {"topic": topic or None, "start": start.value if isinstance(start, Start) else _offset(start)}
    return _json(managers, "POST", f"/v1/queues/{segment(label)}/channels", body, _channel)


def _offset(start: Any) -> int:
    offset = as_int("start", start, "pass rmom.Start.EARLIEST, rmom.Start.LATEST, or an offset, such as 1")
    if not 0 <= offset < 1 << 64:
        raise InvalidArgument("start", f"it is {offset}; an offset takes 0 to {(1 << 64) - 1}")
    return offset


def channel(managers: Managers, channel_id: Channel | uuid.UUID | str) -> Program[Channel]:
    return _get(managers, f"/v1/channels/{id_of_channel(channel_id)}", _channel)


def channels(managers: Managers, label: Queue | str | None) -> Program[list[Channel]]:
    path = "/v1/channels" if label is None else f"/v1/queues/{segment(label_of(label))}/channels"
    return _pages(managers, path, "channels", _channel)


def delete_channel(managers: Managers, channel_id: Channel | uuid.UUID | str) -> Program[None]:
    return managers.done("DELETE", f"/v1/channels/{id_of_channel(channel_id)}")


def brokers(managers: Managers) -> Program[list[Broker]]:
    return _get(managers, "/v1/brokers", lambda answer: [_broker(one) for one in answer["brokers"]])


def set_draining(managers: Managers, broker: Broker | int, draining: bool) -> Program[None]:
    return managers.done("POST", f"/v1/brokers/{id_of_broker(broker)}/{'drain' if draining else 'undrain'}")


def forget(managers: Managers, broker: Broker | int, force: bool) -> Program[None]:
    query = "force=true" if as_bool("force", force) else "force=false"
    return managers.done("DELETE", f"/v1/brokers/{id_of_broker(broker)}?{query}")


def rebalance(managers: Managers) -> Program[int]:
    return _json(managers, "POST", "/v1/brokers/rebalance", None, lambda answer: int(answer["left"]))


def _topic(name: str | None) -> str | None:
    return None if name in (None, "", NO_TOPIC) else name


def _queue(answer: Any) -> Queue:
    live = answer.get("live")
    return Queue(
        id=int(answer["id"]),
        label=answer["label"],
        host=answer["host"],
        port=answer["port"],
        live=_live(live) if live else None,
        live_error=answer.get("live_error"),
    )


def _live(answer: Any) -> LiveQueue:
    subscribers = [_subscriber(one) for one in answer.get("subscribers", [])]
    return LiveQueue(
        # Managers that leave out the state describe only queues that are served.
        state=answer.get("state", "served"),
        reason=answer.get("reason"),
        epoch=int(answer["epoch"]),
        last_offset=int(answer["last_offset"]),
        depth_messages=int(answer["depth_messages"]),
        depth_bytes=int(answer["depth_bytes"]),
        oldest_age=answer["oldest_age_millis"] / 1000,
        subscriber_count=int(answer.get("subscriber_count", len(subscribers))),
        largest_lag=int(answer.get("largest_lag", max((one.lag for one in subscribers), default=0))),
        subscribers=subscribers,
    )


def _subscriber(answer: Any) -> Subscriber:
    return Subscriber(
        channel_id=uuid.UUID(answer["channel_id"]),
        topic=_topic(answer["topic"]),
        peer=answer["peer"],
        offset=int(answer["offset"]),
        lag=int(answer["lag"]),
    )


def _channel(answer: Any) -> Channel:
    return Channel(
        id=uuid.UUID(answer["id"]),
        queue_id=int(answer["queue_id"]),
        queue_label=answer["queue_label"],
        topic=_topic(answer["topic"]),
        start=int(answer["start"]),
        host=answer["host"],
        port=answer["port"],
    )


def _broker(answer: Any) -> Broker:
    return Broker(
        id=answer["id"],
        host=answer["host"],
        port=int(answer["port"]),
        state=answer["state"],
        live=bool(answer["live"]),
        queues=int(answer["queues"]),
        gone=bool(answer.get("gone", False)),
    )
