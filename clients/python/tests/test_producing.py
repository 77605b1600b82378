"""The requests and resends of a producer, with brokers that lose acknowledgements, end streams, move and refuse."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from typing import Any

import pytest

import rmom
import rmom.aio
from rmom import _effects as fx
from rmom._effects import run
from rmom._outbox import Outbox, Pending, message_id
from rmom._producing import Producing
from rmom._proto import messages_pb2 as wire

from .world import QUEUE_ID, Script, World, gone, receipt, refusal


class Application:
    """Pushes, and runs a producer's program to its end."""

    def __init__(self, world: World, *, name: str | None = None, delivery_timeout: float = 120) -> None:
        self.world = world
        self.outbox: Outbox = world.outbox()
        self.producing = Producing(world.managers, "orders", name, delivery_timeout, self.outbox)
        self.sent: list[Pending] = []

    def push(self, *contents: str) -> None:
        for content in contents:
            pending = Pending(wire.PushMessage(content=content.encode()))
            assert self.outbox.offer(pending)
            self.sent.append(pending)

    def run(self) -> None:
        """Runs until all pushes, including those that the world makes the application do, have an outcome."""
        self.world.idle.append(self.outbox.end)
        run(self.producing.run(), self.world.perform)
        assert self.outbox.accepted == self.outbox.resolved == len(self.sent)

    def receipts(self) -> list[rmom.Receipt]:
        return [receipt(pending) for pending in self.sent]

    def errors(self) -> list[rmom.NotDelivered]:
        found = []
        for pending in self.sent:
            with pytest.raises(rmom.NotDelivered) as raised:
                receipt(pending)
            found.append(raised.value)
        return found


def test_pushes_are_batched_and_receipts_are_exact() -> None:
    world = World()
    world.contents.append("foreign")
    app = Application(world)
    app.push("a")
    world.idle.append(lambda: app.push("b", "c", "d"))
    app.run()
    assert world.contents == ["foreign", "a", "b", "c", "d"]
    assert world.seen == ["b1:1 from 1 queue 0", "run 1..1 lowest 1", "run 2..4 lowest 2"]
    assert [(one.sequence, one.offset, one.duplicate) for one in app.receipts()] == [
        (1, 2, False),
        (2, 3, False),
        (3, 4, False),
        (4, 5, False),
    ]


def test_offsets_that_others_may_have_taken_are_not_guessed() -> None:
    world = World()
    app = Application(world)
    app.push("a")

    def push_after_another() -> None:
        world.contents.append("foreign")
        app.push("b", "c")

    world.idle.append(push_after_another)
    app.run()
    assert [one.offset for one in app.receipts()] == [1, None, 4]


def test_message_ids_are_the_brokers() -> None:
    # By the formula of docs/protocol.md, for producer 7, queue 1, sequence 1.
    assert str(message_id(uuid.UUID(int=7), 1, 1)) == "6b85be3e-5935-85c6-8000-000000000001"


def test_a_lost_acknowledgement_is_resent_with_the_same_sequences_and_stored_once() -> None:
    world = World()
    world.pushes.append(Script(runs=1, store=True, end=gone()))
    app = Application(world)
    app.push("a")
    world.idle.append(lambda: app.push("b", "c"))
    app.run()
    assert world.contents == ["a", "b", "c"]
    assert world.seen == [
        "b1:1 from 1 queue 0",
        "run 1..1 lowest 1",
        "run 2..3 lowest 2",
        f"b1:1 from 2 queue {QUEUE_ID}",
        "run 2..3 lowest 2",
    ]
    assert [one.duplicate for one in app.receipts()] == [False, True, True]


def test_what_the_broker_may_have_forgotten_is_not_sent_again_after_a_sleep() -> None:
    world = World()
    world.pushes.append(Script(runs=0, store=True, end=gone()))
    app = Application(world)
    perform, opened = world.perform, []

    def sleep_once(effect: fx.Effect[Any]) -> Any:
        result = perform(effect)
        if isinstance(effect, fx.OpenPush):
            opened.append(effect)
            if len(opened) == 2:
                # The lid is closed for longer than brokers remember producers.
                world.now += 70 * 60
                world._last.clear()
                world._last[effect.request.producer.id] = 0
        return result

    world.perform = sleep_once  # type: ignore[method-assign]
    app.push("stored", "behind it")
    app.run()
    assert [error.outcome_unknown for error in app.errors()] == [True, True]
    assert world.contents == ["stored", "behind it"]


def test_what_comes_after_a_failure_keeps_its_place_behind_what_failed() -> None:
    world = World()
    world.pushes.extend(
        [
            Script(runs=0, end=refusal("FENCED")),
            Script(runs=1, store=True, end=refusal("OUTCOME_UNKNOWN")),
            Script(runs=2, store=True, end=refusal("SEQUENCE_GAP", expected="9")),
        ]
    )
    app = Application(world)
    expected = [str(number) for number in range(9_000)]
    app.push(*expected[:4_000])
    world.idle.append(lambda: app.push(*expected[4_000:]))
    app.run()
    assert world.contents == expected
    assert [one.sequence for one in app.receipts()] == list(range(1, 9_001))


def test_a_queue_hosted_elsewhere_is_found_by_the_brokers_word() -> None:
    world = World()
    world.pushes.append(Script(refuse=refusal("NOT_HOSTED", host="b2", port="1")))
    app = Application(world)
    app.push("a")
    before = world.now
    app.run()
    assert world.now == before, "a word of where to go needs no wait"
    assert world.seen == ["b1:1 from 1 queue 0", "b2:1 from 1 queue 0", "run 1..1 lowest 1"]


def test_brokers_that_point_at_each_other_do_not_make_the_client_spin() -> None:
    world = World()
    for number in range(20):
        other = "b1" if number % 2 else "b2"
        world.pushes.append(Script(refuse=refusal("NOT_HOSTED", host=other, port="1")))
    app = Application(world)
    app.push("a")
    before = world.now
    app.run()
    assert world.now - before > 1
    assert world.contents == ["a"]


def test_a_dead_broker_is_left_for_the_one_that_the_manager_names() -> None:
    world = World()
    world.pushes.append(Script(runs=1, end=gone()))
    app = Application(world)
    app.push("a")

    def move() -> None:
        world.up.discard("b1:1")
        world.host = "b2:1"
        app.push("b")

    world.idle.append(move)
    app.run()
    assert world.seen[-2:] == [f"b2:1 from 2 queue {QUEUE_ID}", "run 2..2 lowest 2"]
    assert world.contents == ["a", "b"]


def test_without_managers_the_last_host_is_tried_again() -> None:
    world = World()
    world.pushes.append(Script(runs=1, end=gone()))
    app = Application(world)
    app.push("a")

    def cut() -> None:
        world.up.discard("m1")
        app.push("b")

    world.idle.append(cut)
    app.run()
    assert world.contents == ["a", "b"]


def test_a_silent_broker_is_left() -> None:
    world = World(ack_timeout=5)
    world.pushes.append(Script(runs=0, store=True))
    app = Application(world)
    app.push("a")
    before = world.now
    app.run()
    assert 5 <= world.now - before < 6
    assert app.receipts()[0].duplicate
    assert world.contents == ["a"]


def test_a_broker_that_acknowledges_what_it_was_not_sent_is_left() -> None:
    world = World()
    world.pushes.append(Script(lies=True))
    app = Application(world)
    app.push("a")
    app.run()
    assert app.receipts()[0].duplicate
    assert world.contents == ["a"]


def test_a_refused_message_fails_alone_and_takes_no_sequence() -> None:
    world = World()
    app = Application(world)
    app.push("a", "poison", "b")
    app.run()
    assert world.contents == ["a", "b"]
    with pytest.raises(rmom.NotDelivered, match="MESSAGE_TOO_LARGE") as raised:
        receipt(app.sent[1])
    assert not raised.value.outcome_unknown
    # The others are stored; the second of them under a new identity, whose sequences start again.
    assert [receipt(app.sent[at]).sequence for at in (0, 2)] == [1, 1]


def test_what_is_given_up_never_shares_a_sequence_with_another_message() -> None:
    world = World()
    world.pushes.append(Script(runs=1, store=True))
    app = Application(world, delivery_timeout=10)
    app.push("a")
    world.idle.append(lambda: app.push("given up, but stored"))
    world.idle.append(lambda: app.push("b"))
    before = world.now
    app.run()
    assert 10 <= world.now - before < 11
    with pytest.raises(rmom.NotDelivered) as raised:
        receipt(app.sent[1])
    assert (raised.value.code, raised.value.outcome_unknown) == ("DELIVERY_TIMEOUT", True)
    # Under the old identity this one would be taken for a duplicate of sequence 2, and lost.
    assert (receipt(app.sent[2]).sequence, receipt(app.sent[2]).duplicate) == (1, False)
    assert world.contents == ["a", "given up, but stored", "b"]


def test_what_was_never_sent_is_known_not_to_be_stored() -> None:
    world = World()
    world.host = None
    app = Application(world, delivery_timeout=10)
    app.push("a", "b")
    before = world.now
    app.run()
    assert 10 <= world.now - before < 11
    for error in app.errors():
        assert (error.code, error.outcome_unknown) == ("DELIVERY_TIMEOUT", False)
        assert "NO_BROKER" in str(error)


def test_a_producer_that_is_refused_at_once_gives_up_in_time() -> None:
    world = World()
    world.up.discard("b1:1")
    app = Application(world, delivery_timeout=10)
    app.push("a")
    before, attempts = world.now, world.attempts
    app.run()
    assert 10 <= world.now - before < 11
    assert world.attempts - attempts < 50, "it pauses between attempts"
    assert [(error.code, error.outcome_unknown) for error in app.errors()] == [("DELIVERY_TIMEOUT", False)]


def test_a_named_producer_that_is_refused_at_once_gives_up_in_time() -> None:
    world = World()
    world.up.discard("b1:1")
    app = Application(world, name="import", delivery_timeout=10)
    before = world.now
    with pytest.raises(rmom.MoMError) as raised:
        run(app.producing.open_named(), world.perform)
    assert raised.value.code == "DELIVERY_TIMEOUT"
    assert 10 <= world.now - before < 11
    assert world.attempts < 50, "it pauses between attempts"


def test_a_named_producer_that_gives_up_what_may_be_stored_stops() -> None:
    world = World()
    world.pushes.append(Script(runs=0, store=True))
    app = Application(world, name="import", delivery_timeout=10)
    assert run(app.producing.open_named(), world.perform) == 0
    app.push("a")
    run(app.producing.run(), world.perform)
    assert app.errors()[0].outcome_unknown
    with pytest.raises(rmom.Poisoned):
        app.push("b")
    assert world.seen[:2] == ["b1:1 open producer", f"b1:1 from 1 queue {QUEUE_ID} epoch 1"]


def test_a_named_producer_takes_its_next_epoch_after_a_refused_message() -> None:
    world = World()
    app = Application(world, name="import")
    world.opened_last = 5
    assert run(app.producing.open_named(), world.perform) == 5
    app.push("poison")
    world.idle.append(lambda: app.push("a"))
    app.run()
    assert receipt(app.sent[1]).sequence == 6
    assert world.seen.count("b1:1 open producer") == 2
    assert world.contents == ["a"]


@pytest.mark.parametrize("code", ["QUEUE_NOT_FOUND", "PRODUCER_FENCED", "A_CODE_OF_THE_FUTURE"])
def test_a_final_refusal_ends_the_producer(code: str) -> None:
    world = World()
    world.pushes.append(Script(refuse=refusal(code)))
    app = Application(world)
    app.push("a")
    app.run()
    assert [error.code for error in app.errors()] == [code]
    with pytest.raises(rmom.Refused, match=code):
        app.push("b")


def test_one_producer_too_many_is_known_to_have_stored_nothing() -> None:
    world = World()
    world.pushes.append(Script(runs=0, end=refusal("TOO_MANY_PRODUCERS")))
    app = Application(world)
    app.push("a")
    app.run()
    assert [(error.code, error.outcome_unknown) for error in app.errors()] == [("TOO_MANY_PRODUCERS", False)]
    # Messages of an earlier stream may still arrive.
    world = World()
    world.pushes += [Script(runs=0, end=gone()), Script(runs=0, end=refusal("TOO_MANY_PRODUCERS"))]
    app = Application(world)
    app.push("a")
    app.run()
    assert [(error.code, error.outcome_unknown) for error in app.errors()] == [("TOO_MANY_PRODUCERS", True)]


def test_a_queue_of_the_same_label_is_another_queue() -> None:
    world = World()
    world.pushes.append(Script(runs=1, end=gone()))
    app = Application(world)
    app.push("a")

    def replace() -> None:
        world.queue_id = QUEUE_ID + 1
        app.push("b")

    world.idle.append(replace)
    app.run()
    with pytest.raises(rmom.NotDelivered, match="QUEUE_REPLACED"):
        receipt(app.sent[1])
    assert world.contents == ["a"]


def test_a_message_waits_since_it_was_accepted_whatever_shares_its_batch() -> None:
    world = World()
    outbox = world.outbox()
    began = world.now
    for _ in range(3):
        assert outbox.offer(Pending(wire.PushMessage(content=b"x")))
        world.now += 1
    assert outbox.waiting_since() == began
    run_ = outbox.take()
    assert run_ is not None
    assert run_.since == began
    run_.messages = run_.messages[1:]
    assert run_.since == began + 1


def test_no_more_is_accepted_than_may_be_in_flight() -> None:
    outbox = World().outbox(max_messages=2)
    assert [outbox.offer(Pending(wire.PushMessage(content=b"x"))) for _ in range(3)] == [True, True, False]
    run_ = outbox.take()
    assert run_ is not None
    outbox.resolve(run_.messages[:1], 1, rmom.Closed())
    assert outbox.offer(Pending(wire.PushMessage(content=b"x")))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_producer_says_soon_what_it_waits_for_and_why(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.host = None
    app = Application(world, delivery_timeout=100)
    app.push("a", "b")
    app.run()
    told = warnings(caplog)
    assert told[0].startswith("a producer of orders has 2 messages without acknowledgement, the oldest for 1.")
    assert "gives up in 98." in told[0]
    assert "NO_BROKER" in told[0]
    # At growing intervals: 1, 2, 4, … seconds apart; the last line is the end.
    assert len(told) == 8
    assert told[-1].startswith("a producer of orders gives up")


def test_a_producer_that_opens_under_its_name_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.host = None
    app = Application(world, name="import", delivery_timeout=10)
    with pytest.raises(rmom.DeliveryTimeout):
        run(app.producing.open_named(), world.perform)
    told = warnings(caplog)
    assert told[0].startswith("opening producer 'import' of orders goes on for 1.")
    assert "NO_BROKER" in told[0]


def test_a_broker_that_takes_messages_and_says_nothing_is_told_and_its_recovery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(ack_timeout=20)
    world.pushes.append(Script(runs=0, store=True))
    app = Application(world)
    app.push("a")
    app.run()
    told = warnings(caplog)
    assert told[0].endswith("gives up in 115.0 s: b1:1 does not acknowledge")
    assert told[-1].startswith("a producer of orders stores messages again, after 20.")


def test_an_idle_producer_and_a_short_failure_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.pushes.append(Script(refuse=refusal("NO_BROKER")))
    app = Application(world)
    app.push("a")
    app.run()
    assert warnings(caplog) == []


@pytest.mark.parametrize("name", [None, "till"])
def test_threads_and_asyncio_give_up_in_time_what_is_refused_at_once(name: str | None) -> None:
    """The same over real sockets, without a listener at the manager's port."""
    with socket.socket() as taken:
        # Bound but not listening: no other process takes the port, and connections are refused.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        def with_threads() -> None:
            with rmom.Client(url, delivery_timeout=1) as client, client.producer("orders", name=name) as producer:
                producer.push("lost")

        async def with_asyncio() -> None:
            async with (
                rmom.aio.Client(url, delivery_timeout=1) as client,
                client.producer("orders", name=name) as producer,
            ):
                await producer.push("lost")

        for attempt in (with_threads, lambda: asyncio.run(with_asyncio())):
            began = time.monotonic()
            with pytest.raises(rmom.MoMError) as raised:
                attempt()
            assert raised.value.code == "DELIVERY_TIMEOUT"
            assert 1 <= time.monotonic() - began < 20
