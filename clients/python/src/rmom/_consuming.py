"""The consumer's program: each message of a channel once, in order, despite any failure. docs/protocol.md has the rules
for subscriptions and positions."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping

from ._effects import Deliver, NextMessage, Program, SleepUntil, Subscribe, Subscription, Unsubscribe, do
from ._proto import messages_pb2 as wire
from ._rest import Managers
from ._route import Route
from ._settings import Backoff
from ._telling import Telling
from .errors import GaveUp, MoMError, ProtocolViolation, Refused, ends_a_subscription
from .model import Position, message_from_wire

log = logging.getLogger("rmom")

QUEUE_ID_HEADER = "rmom-queue-id"
EPOCH_HEADER = "rmom-epoch"


class Consuming:
    """The state of a consumer, and :meth:`run`, the program that keeps it supplied."""

    def __init__(
        self,
        managers: Managers,
        channel: uuid.UUID,
        position: Position | None,
        give_up_after: float | None,
    ) -> None:
        self._settings = managers.settings
        self._channel = channel
        self._give_up_after = give_up_after
        self._route = Route(managers, f"/channels/{channel}")
        self._backoff = Backoff(self._settings)
        self._telling = Telling(self._settings.clock)
        # The last message received, which the application may not have taken yet.
        self._received = position
        #: How often the consumer has connected.
        self.connections = 0
        #: Number of messages that arrived a second time and were dropped.
        self.duplicates = 0

    def run(self) -> Program[None]:
        """Delivers until it cannot go on; fails with the reason."""
        failure: MoMError | None = None
        while True:
            subscription = yield from self._seek(failure)
            self.connections += 1
            since, before = self._settings.clock(), self._received
            try:
                yield from self._receive(subscription)
            except MoMError as error:
                failure = error
            yield from do(Unsubscribe(subscription))
            progress = self._received != before
            if progress or self._settings.clock() - since >= self._settings.retry_backoff[1]:
                self._backoff.reset()

    def _receive(self, subscription: Subscription) -> Program[None]:
        queue_id, epoch = placed(subscription.headers)
        while True:
            arrived = yield from do(NextMessage(subscription))
            try:
                message = message_from_wire(arrived)
            except ValueError as error:
                raise ProtocolViolation(subscription.authority, str(error)) from None
            if self._received is not None and message.offset <= self._received.offset:
                self.duplicates += 1
                continue
            self._received = Position(queue_id, epoch, message.offset)
            yield from do(Deliver(message, self._received))

    def _seek(self, failure: MoMError | None) -> Program[Subscription]:
        """Subscribes, repeatedly, until it succeeds or cannot ever succeed. ``failure`` is the error that ended the
        last subscription."""
        clock = self._settings.clock
        started = clock()
        while True:
            if failure is not None:
                if ends_a_subscription(failure):
                    log.warning("a consumer of channel %s ends: %s (%s)", self._channel, failure, failure.hint)
                    raise failure
                wait = 0.0 if self._route.failed(failure) else self._backoff.next()
                if self._give_up_after is not None:
                    left = self._give_up_after - (clock() - started)
                    if left <= 0:
                        raise GaveUp(self._give_up_after, failure)
                    wait = min(wait, left)
                if self._telling.is_due(started, 0.0):
                    what = "a consumer of channel %s has had no connection for %.1f s, and tries again: %s"
                    log.warning(what, self._channel, clock() - started, failure)
                yield from do(SleepUntil(clock() + wait))
            try:
                subscription = yield from self._subscribe()
            except MoMError as error:
                failure = error
                continue
            self._route.arrived()
            where = f"{subscription.authority}, epoch {placed(subscription.headers)[1]}"
            failed_for = self._telling.over()
            if failed_for is None:
                log.info("a consumer of channel %s is connected to %s", self._channel, where)
            else:
                what = "a consumer of channel %s is connected again after %.1f s, to %s"
                log.warning(what, self._channel, failed_for, where)
            return subscription

    def _subscribe(self) -> Program[Subscription]:
        authority = yield from self._route.find()
        position = self._received
        request = wire.SubscriptionRequest(channel_id=str(self._channel))
        if position is not None:
            at = request.position
            at.queue_id, at.epoch, at.offset = position.queue_id, position.epoch, position.offset
        subscription = yield from do(Subscribe(authority, request, self._settings.open_timeout))
        try:
            queue_id, _ = placed(subscription.headers)
        except ValueError:
            yield from do(Unsubscribe(subscription))
            reason = f"a subscription without the headers {QUEUE_ID_HEADER} and {EPOCH_HEADER}"
            raise ProtocolViolation(authority, reason) from None
        if position is not None and position.queue_id != queue_id:
            yield from do(Unsubscribe(subscription))
            reason = f"the position {position} is of another queue than {queue_id}"
            raise Refused(authority, "QUEUE_REPLACED", reason, {"queue_id": str(queue_id)})
        return subscription


def placed(headers: Mapping[str, str]) -> tuple[int, int]:
    """Queue id and epoch of a subscription; a ``ValueError`` if they are missing."""
    try:
        return int(headers[QUEUE_ID_HEADER]), int(headers[EPOCH_HEADER])
    except KeyError:
        raise ValueError("missing") from None
