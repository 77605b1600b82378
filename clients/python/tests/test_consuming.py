"""The application's messages when brokers end streams, repeat themselves, move and refuse."""

from __future__ import annotations

import logging
import uuid

import pytest

import rmom
from rmom._consuming import Consuming
from rmom._effects import run
from rmom.errors import MoMError

from .world import EPOCH, QUEUE_ID, World, gone, refusal

CHANNEL = uuid.UUID(int=9)
END: tuple[list[int], MoMError] = ([], refusal("CHANNEL_NOT_FOUND"))


def consume(world: World, position: rmom.Position | None = None, give_up_after: float | None = None) -> Consuming:
    """Consumes until the world has no more messages."""
    consuming = Consuming(world.managers, CHANNEL, position, give_up_after)
    with pytest.raises(rmom.Refused, match="CHANNEL_NOT_FOUND"):
        run(consuming.run(), world.perform)
    return consuming


def test_a_break_is_mended_at_the_position_and_repeated_messages_are_dropped() -> None:
    world = World()
    world.subscriptions.extend(
        [([1, 2, 3], gone()), ([2, 3, 3, 4], refusal("LEASE_EXPIRED")), ([], gone()), ([5, 6], gone()), END]
    )
    consuming = consume(world)
    assert world.delivered == [1, 2, 3, 4, 5, 6]
    assert (consuming.connections, consuming.duplicates) == (4, 3)
    place = f"{QUEUE_ID}:{EPOCH}"
    assert world.seen == [
        "b1:1 after start",
        f"b1:1 after {place}:3",
        f"b1:1 after {place}:4",
        f"b1:1 after {place}:4",
        f"b1:1 after {place}:6",
    ]


def test_a_consumer_resumes_where_it_was_told() -> None:
    world = World()
    world.subscriptions.extend([([5, 6], gone()), END])
    consume(world, rmom.Position(QUEUE_ID, EPOCH, 5))
    assert world.delivered == [6]


def test_a_queue_that_moved_is_found_by_the_brokers_word_at_once() -> None:
    world = World()
    world.subscriptions.extend([([], refusal("NOT_HOSTED", host="b2", port="1")), END])
    before = world.now
    consume(world)
    assert world.seen == ["b1:1 after start", "b2:1 after start"]
    assert world.now == before


def test_waits_grow_while_nothing_works_and_start_afresh_after_a_message() -> None:
    world = World(retry_backoff=(1.0, 8.0))
    world.subscriptions.extend([([], gone())] * 6)
    before = world.now
    world.subscriptions.append(END)
    consume(world)
    slow = world.now - before
    world = World(retry_backoff=(1.0, 8.0))
    world.subscriptions.extend([([at], gone()) for at in range(1, 7)])
    world.subscriptions.append(END)
    before = world.now
    consume(world)
    assert slow > 2 * (world.now - before)


def test_a_position_of_another_queue_is_told() -> None:
    world = World()
    world.subscriptions.append(([1], gone()))
    consuming = Consuming(world.managers, CHANNEL, rmom.Position(QUEUE_ID + 1, 1, 1), None)
    with pytest.raises(rmom.Refused, match="QUEUE_REPLACED"):
        run(consuming.run(), world.perform)


def test_a_connection_that_never_comes_about_is_given_up_in_time() -> None:
    world = World()
    world.host = None
    consuming = Consuming(world.managers, CHANNEL, None, 5)
    before = world.now
    with pytest.raises(rmom.GaveUp, match="NO_BROKER"):
        run(consuming.run(), world.perform)
    assert 5 <= world.now - before < 6


def test_a_subscription_without_the_headers_is_no_rmom() -> None:
    world = World()
    world.subscriptions.extend([([1], gone()), END])
    subscribe = world._subscribe

    def without_headers(effect: object) -> object:
        subscription = subscribe(effect)  # type: ignore[arg-type]
        subscription.headers = {}
        world._subscribe = subscribe  # type: ignore[method-assign]
        return subscription

    world._subscribe = without_headers  # type: ignore[method-assign,assignment]
    consume(world)
    assert world.delivered == []


def test_a_failure_is_told_at_once_then_at_growing_intervals_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.subscriptions.append(([1], gone()))
    world.subscriptions.extend([([], refusal("LEASE_EXPIRED"))] * 20)
    world.subscriptions.extend([([2], gone()), END])
    consume(world)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    first = [line for line in told if line.endswith("(LEASE_EXPIRED)")]
    assert len(first) <= 5, "one line for each attempt would be twenty"
    assert "has had no connection for 0.0 s, and tries again" in told[0]
    assert sum("is connected again after" in line for line in told) == 1
