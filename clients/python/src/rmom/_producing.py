"""The producer's program: owns the messages without acknowledgement, keeps a stream to the hosting broker, and resends.
docs/protocol.md has the rules that it follows.

Sequences are positions: the message at the front of the window has ``front``, the next one ``front + 1``, and so on.
They stay the same over every reconnection, so that a broker recognizes messages that it has stored already. Sequences
are reassigned only together with a new identity (see :meth:`Producing._renew_identity`), and only while it is certain
that the broker will never store the messages of the window under the old one.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from dataclasses import dataclass
from itertools import islice

from ._effects import ClosePush, NextAck, OpenProducer, OpenPush, Program, PushLine, SleepUntil, WaitForWork, do
from ._outbox import Acknowledged, Outbox, Run
from ._proto import messages_pb2 as wire
from ._rest import Managers, segment
from ._route import Route
from ._settings import Backoff
from ._telling import Telling
from .errors import (
    DeadlineExceeded,
    DeliveryTimeout,
    MoMError,
    NotDelivered,
    Poisoned,
    ProtocolViolation,
    Refused,
    blames_a_message,
)

log = logging.getLogger("rmom")

#: Limit on the requests without acknowledgement. While that many are out, pushed messages wait, and the next request
#: takes them all: batches grow with the load.
MAX_RUNS_IN_FLIGHT = 8
#: How long messages wait for a connection, or on a connection, before the log says so, in seconds.
TOLD_AFTER = 1.0
SILENCE_TOLD_AFTER = 5.0


def named_id(name: str) -> uuid.UUID:
    """The id of a named producer, which is the same for every client (docs/protocol.md)."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"rmom:producer:{name}")


@dataclass
class Identity:
    """The producer's identity, as brokers see it."""

    id: uuid.UUID
    #: True if the id is derived from a name. Otherwise it is random, and replaced by another one when sequences cannot
    #: continue.
    named: bool
    #: 0 for a random id. ``None`` means that a new one has to be taken before the next push.
    epoch: int | None


@dataclass
class _Progress:
    """The progress of a stream so far."""

    #: Sequence of the first message put on it.
    first: int
    #: The start of the current wait for an acknowledgement: when the last one came, or a run was sent while none was
    #: out.
    since: float
    #: Number of runs on the stream, from the front of the window.
    runs_out: int = 0
    #: There was an acknowledgement.
    any: bool = False
    #: Up to this sequence, messages were sent on earlier streams.
    sent_before: int = 0


class _TimeIsUp(Exception):
    """The delivery timeout of the oldest message has passed."""


class Producing:
    """The state of a producer, and :meth:`run`, the program that delivers."""

    def __init__(
        self, managers: Managers, label: str, name: str | None, delivery_timeout: float, outbox: Outbox
    ) -> None:
        self._settings = managers.settings
        self._outbox = outbox
        self._telling = Telling(managers.settings.clock)
        self._label = label
        self._name = name
        self._delivery_timeout = delivery_timeout
        self._route = Route(managers, f"/queues/{segment(label)}")
        self._identity = self._random_identity() if name is None else Identity(named_id(name), True, None)
        # Set by the first broker that opened a stream; a later queue with the same label has another id. 0 means not
        # yet.
        self._queue_id = 0
        # Messages without an outcome yet, oldest first.
        self._window: deque[Run] = deque()
        self._front = 1
        # The highest sequence ever put on a stream under this identity: it may be stored.
        self._sent_through = 0
        # Up to this sequence every message is sent alone, to find the one that is refused.
        self._alone_through = 0
        # The last acknowledged sequence and its offset, if that is known.
        self._last_offset: tuple[int, int] | None = None
        # The last failure, while nothing has succeeded since.
        self._failure: MoMError | None = None

    def _random_identity(self) -> Identity:
        return Identity(uuid.UUID(int=self._settings.random.getrandbits(128), version=4), False, 0)

    def open_named(self) -> Program[int]:
        """Asks the hosting broker what the named producer has stored, and retries for as long as the delivery timeout.
        Returns the last sequence."""
        clock = self._settings.clock
        started = clock()
        give_up_at = started + self._delivery_timeout
        backoff = Backoff(self._settings)
        last: MoMError | None = None
        while True:
            try:
                authority = yield from self._route.find(give_up_at)
                opened = yield from self._take_epoch(authority, give_up_at)
            except MoMError as error:
                if not error.retryable:
                    raise
                wait = 0.0 if self._route.failed(error) else backoff.next()
                if self._telling.is_due(started, TOLD_AFTER):
                    what = "opening producer %r of %s goes on for %.1f s and is given up in %.1f s: %s"
                    left = give_up_at - clock()
                    log.warning(what, self._name, self._label, clock() - started, left, error)
                last = error
                yield from do(SleepUntil(min(give_up_at, clock() + wait)))
                if clock() >= give_up_at:
                    raise DeliveryTimeout(self._delivery_timeout, last) from None
                continue
            self._telling.over()
            self._front = opened.last_sequence + 1
            return opened.last_sequence

    def _take_epoch(self, authority: str, until: float | None) -> Program[wire.OpenProducerResponse]:
        request = wire.OpenProducerRequest(queue_label=self._label, producer_id=self._identity.id.bytes)
        opened = yield from do(OpenProducer(authority, request, self._open_timeout(until)))
        self._check_queue(opened.queue_id, authority)
        self._identity.epoch = opened.producer_epoch
        return opened

    def _open_timeout(self, until: float | None) -> float:
        timeout = self._settings.open_timeout
        return timeout if until is None else max(0.001, min(timeout, until - self._settings.clock()))

    def run(self) -> Program[None]:
        """Runs until the application has finished and all messages have an outcome, or until the producer cannot go
        on."""
        clock = self._settings.clock
        backoff = Backoff(self._settings)
        while (yield from self._wait_for_work()):
            connected = clock()
            progress = _Progress(self._front, connected, sent_before=self._sent_through)
            failure: MoMError | None = None
            line: PushLine | None = None
            try:
                line = yield from self._open()
                yield from self._pump(line, progress)
                yield from do(ClosePush(line, finish=True))
                return
            except _TimeIsUp:
                pass
            except MoMError as error:
                failure = error
            if line is not None:
                yield from do(ClosePush(line, finish=False))
            if progress.any:
                self._failure = None
            if progress.any or clock() - connected >= self._settings.retry_backoff[1]:
                backoff.reset()
            if failure is not None and blames_a_message(failure) and progress.runs_out > 0:
                self._find_the_culprit(failure, progress)
                continue
            if failure is not None and not failure.retryable:
                self._stop(failure, progress)
                return
            deadline = self._deadline()
            if failure is None or (deadline is not None and deadline <= clock()):
                if not self._give_up(self._failure or failure):
                    return
                continue
            wait = 0.0 if self._route.failed(failure) else backoff.next()
            self._failure = failure
            if deadline is None:
                log.debug("an idle producer of %s lost its broker: %s", self._label, failure)
            else:
                # A connection that breaks is told at once if messages were out.
                self._tell(deadline, 0.0 if progress.runs_out else TOLD_AFTER, failure)
            until = clock() + wait
            yield from do(SleepUntil(until if deadline is None else min(until, deadline)))

    def _tell(self, deadline: float, after: float, reason: object) -> None:
        """Says that messages wait, and why, unless it was said a short time ago."""
        since = deadline - self._delivery_timeout
        if self._telling.is_due(since, after):
            now = self._settings.clock()
            what = "a producer of %s has %d messages without acknowledgement, the oldest for %.1f s; gives up in %.1f s: %s"
            log.warning(what, self._label, self._outbox.in_flight(), now - since, max(0.0, deadline - now), reason)

    def _wait_for_work(self) -> Program[bool]:
        """Waits until there is something to push. False means that there never will be."""
        while True:
            if self._window or self._outbox.waiting_since() is not None:
                return True
            if self._outbox.is_ended():
                return False
            yield from do(WaitForWork())

    def _deadline(self) -> float | None:
        """The time at which the oldest message is given up."""
        since = self._window[0].since if self._window else self._outbox.waiting_since()
        return None if since is None else since + self._delivery_timeout

    def _open(self) -> Program[PushLine]:
        """Finds the hosting broker and opens a stream there."""
        until = self._deadline()
        authority = yield from self._route.find(until)
        if self._identity.epoch is None:
            opened = yield from self._take_epoch(authority, until)
            if opened.last_sequence + 1 != self._front:
                # Another producer has pushed under this name in the meantime.
                raise Poisoned(self._front)
        stamp = wire.ProducerStamp(
            id=self._identity.id.bytes,
            epoch=self._identity.epoch or 0,
            lowest_unacknowledged=self._front,
        )
        request = wire.PushStreamOpen(queue_label=self._label, producer=stamp, queue_id=self._queue_id)
        line = yield from do(OpenPush(authority, request, self._open_timeout(until)))
        try:
            self._check_queue(line.queue_id, authority)
        except MoMError:
            yield from do(ClosePush(line, finish=False))
            raise
        self._route.arrived()
        log.info("a producer of %s is connected to %s at sequence %d", self._label, authority, self._front)
        return line

    def _check_queue(self, queue_id: int, authority: str) -> None:
        if self._queue_id not in (0, queue_id):
            reason = f"the queue with id {self._queue_id} was deleted; its label names {queue_id} now"
            raise Refused(authority, "QUEUE_REPLACED", reason, {"queue_id": str(queue_id)})
        self._queue_id = queue_id

    def _pump(self, line: PushLine, progress: _Progress) -> Program[None]:
        """Pushes over a stream until the application has finished."""
        clock, ack_timeout = self._settings.clock, self._settings.ack_timeout
        while True:
            self._fill(line, progress)
            if not self._window and self._outbox.is_ended() and self._outbox.waiting_since() is None:
                return
            time_is_up = self._deadline()
            silence = aloud = None
            if progress.runs_out:
                silence = progress.since + ack_timeout
                aloud = self._telling.due_at(progress.since, SILENCE_TOLD_AFTER)
            times = [time for time in (time_is_up, silence, aloud) if time is not None]
            ack = yield from do(NextAck(line, min(times) if times else None))
            if ack is not None:
                self._acknowledge(ack, line.authority, progress)
                continue
            now = clock()
            if time_is_up is not None and time_is_up <= now:
                raise _TimeIsUp
            if silence is not None and silence <= now:
                raise DeadlineExceeded(f"an acknowledgement from {line.authority}", ack_timeout, sent=True)
            if time_is_up is not None and aloud is not None and aloud <= now:
                after = now - (time_is_up - self._delivery_timeout)
                self._tell(time_is_up, min(after, SILENCE_TOLD_AFTER), f"{line.authority} does not acknowledge")

    def _fill(self, line: PushLine, progress: _Progress) -> None:
        """Puts as many runs on the stream as allowed."""
        following = self._front + sum(len(run.messages) for run in islice(self._window, progress.runs_out))
        while progress.runs_out < (1 if self._front <= self._alone_through else MAX_RUNS_IN_FLIGHT):
            if progress.runs_out == len(self._window):
                fresh = self._outbox.take()
                if fresh is None:
                    return
                self._window.append(fresh)
            deadline = self._deadline()
            if deadline is not None and deadline <= self._settings.clock():
                # This can be after the machine's sleep: a broker may have forgotten the message, and would store it a
                # second time.
                return
            run = self._window[progress.runs_out]
            messages = wire.PushStreamMessages(
                first_sequence=following, messages=run.wire_messages(), lowest_unacknowledged=self._front
            )
            if progress.runs_out == 0:
                progress.since = self._settings.clock()
            progress.runs_out += 1
            following += len(run.messages)
            self._sent_through = max(self._sent_through, following - 1)
            line.send(wire.PushStreamRequest(messages=messages))

    def _acknowledge(self, ack: wire.PushAck, authority: str, progress: _Progress) -> None:
        self._check_queue(ack.queue_id, authority)
        through = ack.through_sequence
        out = sum(len(run.messages) for run in islice(self._window, progress.runs_out))
        if through >= self._front + out:
            raise ProtocolViolation(authority, f"it acknowledged sequence {through}, which it was not sent")
        if through < self._front:
            return
        progress.since = self._settings.clock()
        progress.any = True
        failed_for = self._telling.over()
        if failed_for is not None:
            log.warning("a producer of %s stores messages again, after %.1f s", self._label, failed_for)
        acknowledged = Acknowledged(
            producer=self._identity.id,
            queue_id=self._queue_id,
            # Messages that had been stored before came first on this stream.
            duplicates_through=progress.first + ack.duplicates - 1,
            offset=ack.offset,
            known_sequence=through,
            gapless=self._is_gapless(ack),
        )
        self._last_offset = (through, ack.offset) if ack.offset else None
        while self._front <= through:
            run = self._window[0]
            done = run.messages[: through + 1 - self._front]
            if len(done) == len(run.messages):
                self._window.popleft()
                progress.runs_out -= 1
            else:
                run.messages = run.messages[len(done) :]
            self._outbox.resolve(done, self._front, acknowledged)
            self._front += len(done)

    def _is_gapless(self, ack: wire.PushAck) -> bool:
        """True if no other producer's message lies between. Offsets grow with the sequences, so this is so if they grew
        by as much as the sequences since the last known one."""
        if self._last_offset is None:
            return False
        sequence, offset = self._last_offset
        return sequence + 1 == self._front and ack.offset - offset == ack.through_sequence - sequence

    def _find_the_culprit(self, error: MoMError, progress: _Progress) -> None:
        """A broker refused a message on the stream because of its contents. It acknowledges in order and stops at the
        first error, so the message is in the first run that is out. If that run was out alone and has one message, only
        that message fails; otherwise the run is sent again message by message."""
        run = self._window.popleft()
        if len(run.messages) == 1 and progress.runs_out == 1:
            log.warning("a broker refused message %d of a producer of %s: %s", self._front, self._label, error)
            # Deduplication comes before validation, so the refused message had not been stored by an earlier attempt.
            self._outbox.resolve(run.messages, self._front, NotDelivered(error, outcome_unknown=False))
            self._renew_identity()
            return
        log.debug("a broker refused one of many messages; sending them one by one: %s", error)
        self._alone_through = self._front + len(run.messages) - 1
        self._window.extendleft(Run([message]) for message in reversed(run.messages))

    def _give_up(self, last: MoMError | None) -> bool:
        """Gives up all messages, since the oldest one's time is up and the others must not overtake it. False if this
        ends the producer."""
        reason = DeliveryTimeout(self._delivery_timeout, last)
        unknown = self._sent_through >= self._front
        log.warning("a producer of %s gives up what it has not delivered: %s", self._label, reason)
        if self._identity.named and unknown:
            # Set before the messages fail, so that a caller that sees them fail sees this as well.
            self._outbox.end(Poisoned(self._front))
            self._fail_all(reason)
            return False
        self._fail_all(reason)
        if unknown:
            self._renew_identity()
        return True

    def _stop(self, error: MoMError, progress: _Progress) -> None:
        """The producer cannot go on."""
        if error.code == "TOO_MANY_PRODUCERS":
            # The broker stores nothing from this stream, so messages that only this stream carried are not stored.
            self._sent_through = min(self._sent_through, progress.sent_before)
        log.warning("a producer of %s stops: %s (%s)", self._label, error, error.hint)
        self._outbox.end(error)
        self._fail_all(error)

    def abandon(self, reason: MoMError) -> None:
        """Ends the program from outside: all messages have an outcome, and the log says how many were not delivered."""
        self._outbox.end(reason)
        unknown, known = self._fail_all(reason)
        if unknown or known:
            last = f"; the last failure: {self._failure}" if self._failure else ""
            what = "a producer of %s leaves %d messages undelivered: %d may be stored, %d are not stored: %s%s"
            log.error(what, self._label, unknown + known, unknown, known, reason, last)

    def _fail_all(self, reason: MoMError) -> tuple[int, int]:
        """Fails all accepted messages; those that may be stored fail with an unknown outcome. Does not use up
        sequences. Returns the numbers of messages that may be stored, and that are not."""
        # All messages are taken before places become free: messages pushed from then on are not meant.
        while True:
            run = self._outbox.take()
            if run is None:
                break
            self._window.append(run)
        sequence = self._front
        counts = {True: 0, False: 0}
        for run in self._window:
            unknown = max(0, min(self._sent_through + 1 - sequence, len(run.messages)))
            for part, outcome_unknown in ((run.messages[:unknown], True), (run.messages[unknown:], False)):
                if part:
                    self._outbox.resolve(part, sequence, NotDelivered(reason, outcome_unknown=outcome_unknown))
                sequence += len(part)
                counts[outcome_unknown] += len(part)
        self._window.clear()
        return counts[True], counts[False]

    def _renew_identity(self) -> None:
        """Sequences cannot continue from where they stopped: the message at the front was given up or refused, and its
        number must never stand for another message. A random id is replaced by a fresh one, under which nothing was
        ever sent. A named producer keeps its id and takes its next epoch, which shuts out messages of the old one
        that are still on their way; the next broker confirms that the sequence at the front is free."""
        if self._identity.named:
            self._identity.epoch = None
        else:
            self._identity = self._random_identity()
            self._front = 1
        self._sent_through = 0
        self._alone_through = 0
        self._last_offset = None
