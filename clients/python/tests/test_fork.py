"""A forked child has none of its parent's threads: what was made before the fork says so, and new objects work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from rmom_testing.clusters import DevCluster

import rmom

#: Nothing listens at the manager's address, so gRPC does nothing: it aborts in some children of processes that use it at
#: the moment of the fork, whatever the child does. Another thread sends meanwhile, and may hold locks. The child ends by
#: an alarm if it waits.
PARENT = """
import asyncio, os, signal, sys, threading
import rmom
from rmom import aio

url, act = sys.argv[1:]
nobody = "http://127.0.0.1:1"
channel = "00000000-0000-0000-0000-000000000000"
client, there = rmom.Client(nobody), rmom.Client(url)
producer = client.producer("q", max_in_flight=1 << 30)
consumer, unread = client.subscribe(channel), client.subscribe(channel)
delivery = producer.send("by the parent")
try:
    consumer.next(0.1)
except TimeoutError:
    pass
stop = threading.Event()
def push():
    while not stop.is_set():
        producer.send("x")
        stop.wait(0.00001)
thread = threading.Thread(target=push)
thread.start()

def closing():
    with producer, consumer, client:
        pass
    return "closed"

def new():
    label = f"forked-{os.getpid()}"
    there.admin.create_queue(label)
    return there.producer(label).push("new").offset

acts = {
    "push": lambda: producer.push("lost"),
    "send": lambda: producer.send("lost"),
    "flush": producer.flush,
    "result": delivery.result,
    "next": consumer.next,
    "first": unread.next,
    "close": closing,
    "new": new,
}

async def with_asyncio():
    client = aio.Client(nobody)
    producer = await client.producer("q").open()
    consumer = client.subscribe(channel)
    await producer.send("x")
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        said = []
        for attempt in (lambda: producer.push("x"), lambda: producer.send("x"), producer.flush, consumer.next):
            try:
                attempt().send(None)
            except rmom.Closed as error:
                said.append("before fork()" in str(error))
        print(said, flush=True)
        os._exit(0)
    try:
        await client.close(timeout=0)
    except rmom.NotDelivered:
        pass
    return os.waitpid(pid, 0)[1]

if act == "asyncio":
    status = asyncio.run(with_asyncio())
else:
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            print(acts[act]())
        except rmom.MoMError as error:
            print(type(error).__name__, error.code, error.outcome_unknown, error)
        # As a program ends: functions of atexit are called.
        sys.exit(0)
    status = os.waitpid(pid, 0)[1]
stop.set()
thread.join()
try:
    client.close(timeout=0)
except rmom.NotDelivered:
    pass
print("status", status)
"""


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("push", "Closed CLOSED False the producer is closed: it was made before fork()"),
        ("send", "Closed CLOSED False the producer is closed: it was made before fork()"),
        ("flush", "Closed CLOSED False the producer is closed: it was made before fork()"),
        (
            "result",
            "NotDelivered CLOSED True the message was not delivered, as far as is known: the producer is closed",
        ),
        ("next", "Closed CLOSED False the consumer is closed: it was made before fork()"),
        ("first", "Closed CLOSED False the consumer is closed: it was made before fork()"),
        ("close", "closed"),
        ("new", "1"),
        ("asyncio", "[True, True, True, True]"),
    ],
)
def test_what_was_made_before_the_fork_says_so_in_the_child(act: str, says: str, dev: DevCluster) -> None:
    command = [sys.executable, "-c", PARENT, dev.managers[0], act]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    child, _, parent = done.stdout.strip().rpartition("\n")
    assert child.startswith(says), done.stdout + done.stderr
    assert parent == "status 0", "the child is ended by its alarm if it waits"


CHILD = """
import logging, multiprocessing, sys

def send(url, label):
    import rmom
    logging.basicConfig()
    if url == "asyncio":
        import asyncio
        from rmom import aio
        loop = asyncio.new_event_loop()
        async def main():
            producer = await aio.Client("http://127.0.0.1:1").producer(label).open()
            await producer.send("x")
        loop.run_until_complete(main())
        return
    producer = rmom.Client(url).producer(label)
    for number in range(100):
        producer.send(str(number))

if __name__ == "__main__":
    url, label, method, first = sys.argv[1:]
    if first == "imported":
        import rmom
    child = multiprocessing.get_context(method).Process(target=send, args=(url, label))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("first", ["imported", "not imported"])
def test_a_child_of_multiprocessing_delivers_before_it_ends(
    method: str, first: str, dev: DevCluster, fresh: Callable[[str], str], tmp_path: Path
) -> None:
    label = fresh("Multiprocessing")
    program = tmp_path / "program.py"
    program.write_text(CHILD)

    def run(url: str) -> str:
        command = [sys.executable, str(program), url, label, method, first]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    with rmom.Client(dev.managers) as client:
        client.admin.create_queue(label)
        assert run(dev.managers[0]) == ""
        live = client.admin.queue(label).live
    assert live is not None
    assert live.last_offset == 100
    assert "the program ends with 1 undelivered messages" in run("asyncio")
