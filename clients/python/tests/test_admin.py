"""Lists that managers return page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rmom
from rmom import _effects as fx
from rmom._admin import queues
from rmom._effects import run

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
