"""Messages that a consumer has received and the application has not taken yet."""

from __future__ import annotations

import uuid

import pytest

import rmom
from rmom._inbox import MAX_BYTES, MAX_MESSAGES, Inbox


def put(inbox: Inbox, offset: int, content: bytes = b"") -> None:
    inbox.put(rmom.Message(uuid.UUID(int=offset), offset, content), rmom.Position(1, 1, offset))


def test_the_position_moves_only_when_a_message_is_taken() -> None:
    start = rmom.Position(1, 1, 4)
    inbox = Inbox(start)
    for offset in (5, 6, 7):
        put(inbox, offset)
    assert inbox.position == start
    taken = inbox.take()
    assert taken is not None
    assert (taken.offset, inbox.position) == (5, rmom.Position(1, 1, 5))
    inbox.end(rmom.Closed("the consumer"))
    with pytest.raises(rmom.Closed):
        inbox.take()
    assert inbox.position == rmom.Position(1, 1, 5)


def test_an_error_comes_behind_the_messages_and_again_and_again() -> None:
    inbox = Inbox(None)
    assert inbox.take() is None
    put(inbox, 1)
    inbox.fail(rmom.GaveUp(1, rmom.Closed()))
    inbox.fail(rmom.Closed())
    assert inbox.take() is not None
    for _ in range(2):
        with pytest.raises(rmom.GaveUp):
            inbox.take()


def test_it_is_full_by_messages_or_by_bytes() -> None:
    inbox = Inbox(None)
    for offset in range(1, MAX_MESSAGES + 1):
        assert not inbox.is_full()
        put(inbox, offset)
    assert inbox.is_full()
    inbox.take()
    assert not inbox.is_full()
    inbox = Inbox(None)
    put(inbox, 1, bytes(MAX_BYTES))
    assert inbox.is_full()
    inbox.take()
    assert not inbox.is_full()
