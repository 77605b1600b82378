"""Exceptions out of signal handlers, which can come between any two steps of a call in the main thread."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import sys
from types import FrameType
from typing import Callable

from rmom_testing.clusters import DevCluster

import rmom
from rmom import aio

Fresh = Callable[[str], str]

#: Limit in seconds on anything that must not wait for the delivery timeout, which is two minutes.
SOON = 10.0


class Interrupt(BaseException):
    """Stands for what a signal's handler raises."""


def interrupted(call: Callable[[], object], step: int) -> bool:
    """Makes a call, and raises an exception at its ``step``; false if it ends before. Python runs the handlers of signals
    when a function begins, and when one written in C has returned. Steps of asyncio's own functions do not count."""
    left = step
    elsewhere = (f"{os.sep}asyncio{os.sep}", __file__)

    def at(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if event not in ("call", "c_return") or any(name in frame.f_code.co_filename for name in elsewhere):
            return
        left -= 1
        if left == 0:
            raise Interrupt

    sys.setprofile(at)
    try:
        call()
    except StopIteration:
        # A coroutine has ended.
        pass
    except Interrupt:
        return True
    finally:
        # Unless the exception has done it.
        sys.setprofile(None)
    return False


def test_an_interrupt_of_send_leaves_the_producer_sound(dev: DevCluster, fresh: Fresh) -> None:
    label = fresh("Interrupt")
    with rmom.Client(dev.managers) as client:
        client.admin.create_queue(label)
        for step in itertools.count(1):
            producer = client.producer(label)
            goes_on = interrupted(functools.partial(producer.send, "x"), step)
            producer.flush(SOON)
            producer.send("y").result(SOON)
            assert producer._outbox.in_flight() == 0
            producer.close(SOON)
            if not goes_on:
                assert step > 10
                break


def test_an_interrupt_of_send_leaves_the_asyncio_producer_sound(dev: DevCluster, fresh: Fresh) -> None:
    async def main() -> None:
        label = fresh("Interrupt")
        async with aio.Client(dev.managers) as client:
            await client.admin.create_queue(label)
            for step in itertools.count(1):
                producer = await client.producer(label).open()
                goes_on = interrupted(functools.partial(producer.send("x").send, None), step)
                await producer.flush(SOON)
                assert (await asyncio.wait_for(producer.push("y"), SOON)).sequence
                assert producer._outbox.in_flight() == 0
                await producer.close(SOON)
                if not goes_on:
                    assert step > 10
                    break

    asyncio.run(main())
