"""Servers that are not managers, at a manager's address: proxies, portals, other programs. None of them ends a producer
or a consumer, or keeps it from the next manager; both clients do the same about each answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import rmom
from rmom import _admin, aio
from rmom import _effects as fx
from rmom._consuming import Consuming
from rmom._effects import run
from rmom._outbox import Pending
from rmom._producing import Producing
from rmom._proto import messages_pb2 as wire
from rmom._rest import Managers
from rmom._settings import Settings, parse_managers
from rmom.errors import ends_a_subscription

from .test_consuming import CHANNEL, END
from .world import World, receipt

PLACE = {"label": "q", "host": "b1", "port": 1}


def managers_of(world: World, *answers: fx.Answer) -> tuple[Managers, Any, list[str]]:
    """Managers that give these answers, the way to ask them, and which were asked."""
    asked: list[str] = []
    by_authority = {f"m{number}:80": answer for number, answer in enumerate(answers)}

    def perform(effect: fx.Effect[Any]) -> fx.Answer:
        assert isinstance(effect, fx.Http)
        asked.append(effect.manager.authority)
        return by_authority[effect.manager.authority]

    urls = [f"http://m{number}" for number in range(len(answers))]
    settings = Settings(parse_managers(urls, None), clock=lambda: world.now)
    return Managers(settings), perform, asked


#: Answers to a look-up that no manager gives.
FOREIGN = [
    fx.Answer(200, b"<html>log in here</html>"),
    fx.Answer(200, b""),
    fx.Answer(200, b"[]"),
    fx.Answer(200, b'["b1", 1]'),
    fx.Answer(200, b"null"),
    fx.Answer(200, b'{"host": "b1"}'),
    fx.Answer(200, b'{"host": "b1", "port": "1"}'),
    fx.Answer(200, b'{"host": "b1", "port": 0}'),
    fx.Answer(200, b'{"host": "b1", "port": 99999}'),
    fx.Answer(200, b'{"host": "", "port": 1}'),
    fx.Answer(200, b'{"host": null, "port": null}'),
    fx.Answer(301, b""),
    fx.Answer(304, b""),
    fx.Answer(400, b"<html>"),
    fx.Answer(404, b"404 page not found"),
    fx.Answer(404, b'{"error": "no such page"}'),
    fx.Answer(405, b""),
    fx.Answer(404, b'{"code": "NO_SUCH_ROUTE", "detail": "no such route"}'),
    fx.Answer(502, b"<html>"),
    fx.Answer(503, b""),
]


@pytest.mark.parametrize("answer", FOREIGN)
def test_the_next_manager_is_asked(answer: fx.Answer) -> None:
    world = World()
    managers, perform, asked = managers_of(world, answer, fx.Answer(200, json.dumps(PLACE).encode()))

    def act(effect: fx.Effect[Any]) -> Any:
        return perform(effect) if isinstance(effect, fx.Http) else world.perform(effect)

    outbox = world.outbox()
    pending = Pending(wire.PushMessage(content=b"x"))
    outbox.offer(pending)
    world.idle.append(outbox.end)
    run(Producing(managers, "orders", None, 10, outbox).run(), act)
    assert receipt(pending).sequence == 1
    # The one that answered is asked first from now on.
    assert asked == ["m0:80", "m1:80"]
    world.subscriptions.append(([1], END[1]))
    with pytest.raises(rmom.Refused, match="CHANNEL_NOT_FOUND"):
        run(Consuming(managers, CHANNEL, None, None).run(), act)
    assert world.delivered == [1]
    assert asked[2:] == ["m1:80"]


@pytest.mark.parametrize("answer", [one for one in FOREIGN if b"NO_SUCH_ROUTE" not in one.body])
def test_a_stranger_alone_is_tried_again_and_named(answer: fx.Answer) -> None:
    world = World()

    def act(effect: fx.Effect[Any]) -> Any:
        return answer if isinstance(effect, fx.Http) else world.perform(effect)

    outbox = world.outbox()
    pending = Pending(wire.PushMessage(content=b"x"))
    outbox.offer(pending)
    world.idle.append(outbox.end)
    run(Producing(world.managers, "orders", None, 10, outbox).run(), act)
    with pytest.raises(rmom.NotDelivered, match="m1:80") as raised:
        receipt(pending)
    assert (raised.value.code, raised.value.outcome_unknown) == ("DELIVERY_TIMEOUT", False)
    with pytest.raises(rmom.GaveUp, match="m1:80"):
        run(Consuming(world.managers, CHANNEL, None, 5).run(), act)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (fx.Answer(401, b"<html>"), "UNAUTHENTICATED"),
        (fx.Answer(403, b""), "PERMISSION_DENIED"),
        (fx.Answer(404, b'{"code": "NO_SUCH_ROUTE"}'), "NO_SUCH_ROUTE"),
        (fx.Answer(404, b'{"code": "QUEUE_NOT_FOUND"}'), "QUEUE_NOT_FOUND"),
        (fx.Answer(400, b'{"code": "INVALID_NAME"}'), "INVALID_NAME"),
    ],
)
def test_final_answers_end_producers_and_consumers_alike(answer: fx.Answer, code: str) -> None:
    world = World()

    def act(effect: fx.Effect[Any]) -> Any:
        return answer if isinstance(effect, fx.Http) else world.perform(effect)

    outbox = world.outbox()
    pending = Pending(wire.PushMessage(content=b"x"))
    outbox.offer(pending)
    before = world.now
    run(Producing(world.managers, "orders", None, 10, outbox).run(), act)
    with pytest.raises(rmom.NotDelivered) as raised:
        receipt(pending)
    assert raised.value.code == code
    with pytest.raises(rmom.Refused) as refused:
        run(Consuming(world.managers, CHANNEL, None, None).run(), act)
    assert refused.value.code == code
    assert ends_a_subscription(refused.value)
    assert world.now == before, "at once"


def test_changes_go_to_a_manager_and_only_once() -> None:
    queue = json.dumps({"id": 7, "label": "q", "host": None, "port": None}).encode()
    # A server that refuses as no manager does has not done it; one that agrees may have.
    managers, perform, asked = managers_of(World(), fx.Answer(405, b"<html>"), fx.Answer(201, queue))
    assert run(_admin.create_queue(managers, "q", False), perform).id == 7
    assert asked == ["m0:80", "m1:80"]
    managers, perform, asked = managers_of(World(), fx.Answer(200, b"<html>"), fx.Answer(204, b""))
    for call in (lambda: _admin.delete_queue(managers, "q"), lambda: _admin.create_queue(managers, "q", False)):
        managers._preferred = 0
        asked.clear()
        with pytest.raises(rmom.ProtocolViolation, match=r"m0:80 .* is not a manager's") as raised:
            run(call(), perform)
        assert raised.value.outcome_unknown
        assert asked == ["m0:80"]
    asked.clear()
    run(_admin.delete_queue(managers, "q"), perform)
    assert asked == ["m1:80"], "whoever asks again is not stuck with it"


def test_a_brokers_address_is_told_from_a_managers(dev: Any) -> None:
    url = f"http://{dev.brokers[0]}"
    with rmom.Client(url, delivery_timeout=1) as client:
        with pytest.raises(rmom.ProtocolViolation, match="is this a manager's address"):
            client.admin.queues()
        with pytest.raises(rmom.NotDelivered, match="is this a manager's address"):
            client.producer("q").push("x")

    async def main() -> None:
        async with aio.Client(url) as client:
            with pytest.raises(rmom.ProtocolViolation, match="is this a manager's address"):
                await client.admin.queues()

    asyncio.run(main())


@pytest.fixture(params=["headers", "body", "nothing"])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that sends a byte now and then, without an end."""
    start = {"headers": b"HTTP/1.1 200 OK\r\n", "body": b"HTTP/1.1 200 OK\r\n\r\n", "nothing": b""}[request.param]
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.sendall(start)
                while not ended.wait(0.1):
                    connection.sendall(b"x" if start else b"")

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_drips_is_left_in_time(dripping: str) -> None:
    with rmom.Client(dripping, request_timeout=0.5, delivery_timeout=1) as client:
        began = time.monotonic()
        with pytest.raises(rmom.DeadlineExceeded, match=r"took longer than 0.5 s"):
            client.admin.queues()
        with pytest.raises(rmom.NotDelivered, match="no acknowledgement within 1 s"):
            client.producer("q").push("x")
        assert 1.5 <= time.monotonic() - began < 5

    async def main() -> None:
        async with aio.Client(dripping, request_timeout=0.5) as client:
            with pytest.raises(rmom.DeadlineExceeded, match=r"took longer than 0.5 s"):
                await client.admin.queues()

    asyncio.run(main())
