"""Lists that managers return page by page."""

from __future__ import annotations

import json
import uuid
from typing import Any, Callable

import pytest

import rmom
from rmom import _admin
from rmom import _effects as fx
from rmom._admin import queues
from rmom._effects import run
from rmom._rest import Managers

from .world import World

QUEUE = {"id": 7, "label": "q", "host": None, "port": None}


def pages(following: dict[str, str | None]) -> Any:
    """Managers whose page behind a key leads to its value."""

    def perform(effect: fx.Effect[Any]) -> fx.Answer:
        assert isinstance(effect, fx.Http)
        after = effect.path.partition("?after=")[2]
        return fx.Answer(200, json.dumps({"queues": [QUEUE], "next": following[after]}).encode())

    return perform


def test_a_list_is_put_together_from_its_pages() -> None:
    assert len(run(queues(World().managers, False), pages({"": "a", "a": "b", "b": None}))) == 3


@pytest.mark.parametrize(
    "following", [{"": "a", "a": "a"}, {"": "a", "a": "b", "b": "a"}, {"": "a", "a": "b", "b": "c", "c": "b"}]
)
def test_pages_that_lead_back_are_an_error(following: dict[str, str | None]) -> None:
    with pytest.raises(rmom.ProtocolViolation, match="does not go on"):
        run(queues(World().managers, False), pages(following))


def test_a_list_has_what_brokers_say_on_each_page() -> None:
    live = {
        "state": "halted", "reason": "why", "epoch": 2, "last_offset": 9, "depth_messages": 5, "depth_bytes": 50,
        "oldest_age_millis": 1500, "subscriber_count": 3, "largest_lag": 4,
    }  # fmt: skip
    asked = []

    def perform(effect: fx.Effect[Any]) -> fx.Answer:
        assert isinstance(effect, fx.Http)
        asked.append(effect.path)
        following = "a" if len(asked) == 1 else None
        body = {"queues": [{**QUEUE, "live": live, "live_error": None}], "next": following}
        return fx.Answer(200, json.dumps(body).encode())

    found = run(queues(World().managers, True), perform)
    assert asked == ["/v1/queues?live=true", "/v1/queues?live=true&after=a"]
    first = found[0].live
    assert first is not None
    assert (first.state, first.reason) == ("halted", "why")
    assert (first.subscriber_count, first.largest_lag, first.subscribers) == (3, 4, [])


BROKER = rmom.Broker(id=3, host="h", port=1, state="up", live=True, queues=0)
CHANNEL = rmom.Channel(uuid.UUID(int=9), 7, "q", None, 1, None, None)


def path_of(call: Callable[[Managers], Any]) -> str:
    """The path that a call would request; fails like the call."""
    effect = next(call(World().managers))
    assert isinstance(effect, fx.Http)
    return f"{effect.method} {effect.path}"


#: Arguments of which some, written into a path as they are, would name another object or another request.
STRANGE: list[Any] = [
    "../queues/q",
    "1/undrain?",
    "1",
    "",
    ".",
    "..",
    1.0,
    True,
    None,
    b"1",
    [1],
    {},
    -1,
    uuid.UUID(int=9),
]


@pytest.mark.parametrize("broker", STRANGE)
def test_a_broker_is_named_by_its_number_only(broker: Any) -> None:
    with pytest.raises(rmom.InvalidArgument, match=r"^broker: it is "):
        path_of(lambda managers: _admin.forget(managers, broker, False))
    with pytest.raises(rmom.InvalidArgument, match=r"^broker: it is "):
        path_of(lambda managers: _admin.set_draining(managers, broker, True))


def test_queues_channels_and_brokers_name_themselves() -> None:
    queue = rmom.Queue(7, "a/b", None, None)
    assert path_of(lambda m: _admin.forget(m, BROKER, True)) == "DELETE /v1/brokers/3?force=true"
    assert path_of(lambda m: _admin.set_draining(m, BROKER, False)) == "POST /v1/brokers/3/undrain"
    assert path_of(lambda m: _admin.channel(m, CHANNEL)) == f"GET /v1/channels/{CHANNEL.id}"
    assert path_of(lambda m: _admin.delete_channel(m, CHANNEL)) == f"DELETE /v1/channels/{CHANNEL.id}"
    assert path_of(lambda m: _admin.delete_queue(m, queue)) == "DELETE /v1/queues/a%2Fb"
    assert path_of(lambda m: _admin.queue(m, queue)) == "GET /v1/queues/a%2Fb"
    assert path_of(lambda m: _admin.topics(m, queue)) == "GET /queues/a%2Fb/topics"
    assert path_of(lambda m: _admin.channels(m, queue)) == "GET /v1/queues/a%2Fb/channels"
    assert path_of(lambda m: _admin.create_channel(m, queue, None, 1)) == "POST /v1/queues/a%2Fb/channels"
    with pytest.raises(rmom.InvalidArgument, match="never seen"):
        path_of(lambda m: _admin.forget(m, rmom.Broker(None, "h", 1, "unregistered", False, 0), False))


@pytest.mark.parametrize("label", [".", "..", "", 5, b"q", None, True, ["q"], CHANNEL])
def test_a_label_that_would_leave_its_place_in_the_path_is_refused(label: Any) -> None:
    calls: list[Callable[[Managers], Any]] = [
        lambda m: _admin.create_queue(m, label, False),
        lambda m: _admin.delete_queue(m, label),
        lambda m: _admin.queue(m, label),
        lambda m: _admin.topics(m, label),
        lambda m: _admin.create_channel(m, label, None, rmom.Start.LATEST),
    ]
    for call in calls if label is None else [*calls, lambda m: _admin.channels(m, label)]:
        with pytest.raises(rmom.InvalidName, match=r"^queue_label is"):
            path_of(call)


@pytest.mark.parametrize("channel", [5, None, b"x", "../queues/q", "..", "", ("id", "topic"), {}])
def test_a_channel_is_named_by_its_id_only(channel: Any) -> None:
    calls: list[Callable[[Managers], Any]] = [
        lambda m: _admin.channel(m, channel),
        lambda m: _admin.delete_channel(m, channel),
    ]
    for call in calls:
        with pytest.raises(rmom.InvalidArgument, match=r"^channel: "):
            path_of(call)
    with rmom.Client("http://m") as client, pytest.raises(rmom.InvalidArgument, match=r"^channel: "):
        client.subscribe(channel)


@pytest.mark.parametrize("start", ["latest", "1", True, None, 1.0, -1, 1 << 64])
def test_a_channel_starts_where_it_was_told(start: Any) -> None:
    with pytest.raises(rmom.InvalidArgument, match=r"^start: it is"):
        path_of(lambda managers: _admin.create_channel(managers, "q", None, start))


def test_what_is_true_for_python_is_not_taken_for_true() -> None:
    for value in ("false", 1, None):
        with pytest.raises(rmom.InvalidArgument, match="pass True or False"):
            path_of(lambda m, value=value: _admin.forget(m, BROKER, value))  # type: ignore[misc]
        with pytest.raises(rmom.InvalidArgument, match="pass True or False"):
            path_of(lambda m, value=value: queues(m, value))  # type: ignore[misc]


def test_a_queue_that_exists_is_taken_if_it_may_exist() -> None:
    asked: list[str] = []

    def perform(effect: fx.Effect[Any]) -> fx.Answer:
        assert isinstance(effect, fx.Http)
        asked.append(f"{effect.method} {effect.path}")
        if effect.method == "POST":
            return fx.Answer(409, b'{"code": "QUEUE_EXISTS", "detail": "it exists"}')
        return fx.Answer(200, json.dumps(QUEUE).encode())

    assert run(_admin.create_queue(World().managers, "q", True), perform).id == 7
    assert asked == ["POST /v1/queues", "GET /v1/queues/q"]
    with pytest.raises(rmom.Refused, match="QUEUE_EXISTS"):
        run(_admin.create_queue(World().managers, "q", False), perform)
