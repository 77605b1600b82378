"""The client's errors, and their remedies.

Every exception of this package is a :class:`MoMError`. ``code`` is for programs: the server's own code if a broker or
manager gave one. ``hint`` is the remedy, in a sentence for the user.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import grpc

# The sets of codes are those of proto/src/contract/code.rs; a test there compares them.

#: Codes after which the same request may succeed with nothing changed. A code that is not listed is final.
RETRYABLE_CODES = frozenset(
    {
        "NOT_HOSTED",
        "FENCED",
        "LEASE_EXPIRED",
        "SEQUENCE_GAP",
        "STORE_UNAVAILABLE",
        "STORE_REFUSED",
        "OUTCOME_UNKNOWN",
        "NO_BROKER",
        "UNSETTLED",
        "SHUTTING_DOWN",
        "OVERLOADED",
        "TOO_MANY_CONNECTIONS",
        "DEADLINE_EXCEEDED",
    }
)

# A deadline that passed at the server: work begun there may go on.
_OUTCOME_UNKNOWN = frozenset({"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED"})

_BLAMES_A_MESSAGE = frozenset({"MESSAGE_TOO_LARGE", "INVALID_NAME", "INVALID_ARGUMENT"})

_ENDS_A_SUBSCRIPTION = frozenset(
    {
        "CHANNEL_NOT_FOUND",
        "QUEUE_NOT_FOUND",
        "QUEUE_REPLACED",
        "OFFSET_OUT_OF_RANGE",
        "STORE_ROLLED_BACK",
        "MESSAGE_TOO_LARGE",
        "INVALID_NAME",
        "INVALID_ARGUMENT",
    }
)

# No producer can go on after these, so no consumer does: missing credentials, and managers that are none of ours or older.
_ENDS_EVERYTHING = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "NO_SUCH_ROUTE"})

# The statuses that broken connections are reported as.
_RETRYABLE_STATUSES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)

_HINTS = {
    "INVALID_CONFIG": "correct the named setting",
    "INVALID_NAME": "correct the named field",
    "INVALID_ARGUMENT": "correct the named field",
    "MESSAGE_TOO_LARGE": "send less, or raise max_message_bytes of brokers and clients",
    "QUEUE_NOT_FOUND": "create the queue, or look for a typing error in its label",
    "QUEUE_EXISTS": "use the queue that exists, or choose another label",
    "QUEUE_REPLACED": "the queue was deleted; start anew with the one that has its label now",
    "CHANNEL_NOT_FOUND": "create a new channel: this one was deleted, or its queue was",
    "LIMIT_REACHED": "delete what is not used any more",
    "TOO_MANY_PRODUCERS": "use one producer for many pushes, instead of a new one for each",
    "PRODUCER_FENCED": "another producer of the same name took over; run one at a time",
    "PRODUCER_POISONED": "open the named producer again; it learns what was stored, so go on from there",
    "OFFSET_OUT_OF_RANGE": "an older copy of the store was restored, or the position is from elsewhere",
    "STORE_ROLLED_BACK": "an older copy of the store was restored, or the position is from elsewhere",
    "STORE_CORRUPT": "look at the broker's log and the operators' page",
    "NO_BROKER": "start a broker, or look why none is live (rmom broker list)",
    "UNREACHABLE": "check the address, and that something listens there",
    "DELIVERY_TIMEOUT": "the message may be stored; pushing it again may store it twice",
    "OUTCOME_UNKNOWN": "the message may be stored; pushing it again may store it twice",
    "PROTOCOL_VIOLATION": "check that the address is rmom's, and the versions match",
    "NO_SUCH_ROUTE": "check that the address is rmom's, and the versions match",
    "UNIMPLEMENTED": "check that the address is rmom's, and the versions match",
    "UNAUTHENTICATED": "check the credentials",
    "PERMISSION_DENIED": "check the credentials",
    "CLOSED": "open a new one",
    "INTERNAL": "this is a defect of rmom; please report it with the broker's log",
}


class MoMError(Exception):
    """The base of all exceptions that this package defines."""

    #: A stable code, such as ``QUEUE_NOT_FOUND``.
    code = "INTERNAL"
    #: True if the same request may succeed later. Producers and consumers have already retried when they raise an
    #: error.
    retryable = False
    #: True if the request may have been carried out nevertheless, or may still be.
    outcome_unknown = False

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``copy`` and ``pickle``: the exceptions' own arguments are not those of the base class."""
        return _rebuilt, (type(self), self.args, self.__dict__)

    @property
    def hint(self) -> str:
        """The remedy."""
        retry = "try again later; the broker's log says what is down" if self.retryable else "see the message"
        return _HINTS.get(self.code, retry)


def _rebuilt(kind: type[MoMError], args: tuple[object, ...], state: Mapping[str, object]) -> MoMError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def anew(error: MoMError) -> MoMError:
    """A copy for raising, of an error that is kept. The traceback of a raised exception holds the caller's variables."""
    fresh: MoMError = copy.copy(error)
    return fresh


class ConfigError(MoMError, ValueError):
    """A setting of a client, producer or consumer is invalid."""

    code = "INVALID_CONFIG"

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting


class InvalidName(MoMError, ValueError):
    """A label, topic or producer name that every broker would refuse. Nothing was sent."""

    code = "INVALID_NAME"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field


class InvalidArgument(MoMError, ValueError):
    """A field of a message that every broker would refuse. Nothing was sent."""

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class MessageTooLarge(MoMError, ValueError):
    """The message is larger than ``max_message_bytes``. Nothing was sent."""

    code = "MESSAGE_TOO_LARGE"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the message takes at least {size} bytes as it is delivered; the limit is {limit}")


class Refused(MoMError):
    """A broker or a manager refused, with one of rmom's codes; ``details`` are facts for programs, such as ``host``."""

    def __init__(self, by: str, code: str, message: str, details: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{by} refused: {message} ({code})")
        self.by = by
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.retryable = code in RETRYABLE_CODES
        self.outcome_unknown = code in _OUTCOME_UNKNOWN


class CallFailed(MoMError):
    """A gRPC call failed without one of rmom's codes; usually because a connection broke."""

    def __init__(self, authority: str, status: grpc.StatusCode, message: str) -> None:
        super().__init__(f"the call to {authority} failed: {message} ({status.name})")
        self.authority = authority
        self.status = status
        # "INTERNAL" is rmom's own code for its defects, and a broken connection must not look like one.
        self.code = "TRANSPORT" if status is grpc.StatusCode.INTERNAL else status.name
        self.retryable = self.outcome_unknown = status in _RETRYABLE_STATUSES


class Unreachable(MoMError):
    """There was no connection, or it broke before the answer."""

    code = "UNREACHABLE"
    retryable = True

    def __init__(self, authority: str, reason: str, *, sent: bool) -> None:
        super().__init__(f"cannot reach {authority}: {reason}")
        self.outcome_unknown = sent


class DeadlineExceeded(MoMError):
    """There was no answer in time."""

    code = "DEADLINE_EXCEEDED"
    retryable = True

    def __init__(self, what: str, after: float, *, sent: bool) -> None:
        super().__init__(f"{what} took longer than {after:g} s")
        self.outcome_unknown = sent


class ProtocolViolation(MoMError):
    """The other end is not rmom, is an incompatible version, or has a defect."""

    code = "PROTOCOL_VIOLATION"
    # A failing server can send anything; the next one may be sound.
    retryable = True
    outcome_unknown = True

    def __init__(self, authority: str, reason: str) -> None:
        super().__init__(f"{authority} broke the protocol: {reason}")


class NotDelivered(MoMError):
    """A message was given up, for ``reason``. If ``outcome_unknown`` is true, it may be stored nevertheless."""

    def __init__(self, reason: MoMError, *, outcome_unknown: bool) -> None:
        known = ", as far as is known" if outcome_unknown else ""
        super().__init__(f"the message was not delivered{known}: {reason}")
        self.reason = reason
        self.code = reason.code
        self.retryable = reason.retryable
        self.outcome_unknown = outcome_unknown

    @property
    def hint(self) -> str:
        """The remedy."""
        if self.outcome_unknown:
            return _HINTS["OUTCOME_UNKNOWN"]
        if isinstance(self.reason, DeliveryTimeout):
            again = "the message is not stored, so it can be pushed again"
            return f"{again}; before that: {self.reason.last.hint}" if self.reason.last else again
        return self.reason.hint


class DeliveryTimeout(MoMError):
    """The delivery timeout passed; ``last`` is the failure that was being retried, if any."""

    code = "DELIVERY_TIMEOUT"
    retryable = True

    def __init__(self, after: float, last: MoMError | None) -> None:
        super().__init__(f"no acknowledgement within {after:g} s" + (f"; the last failure: {last}" if last else ""))
        self.last = last


class GaveUp(MoMError):
    """A consumer could not reconnect in the time allowed."""

    code = "GAVE_UP"
    retryable = True

    def __init__(self, after: float, last: MoMError) -> None:
        super().__init__(f"gave up after {after:g} s; the last failure: {last}")
        self.last = last


class Poisoned(MoMError):
    """A named producer gave up a message without knowing its outcome, and stopped, so that the sequence is not used for
    another message."""

    code = "PRODUCER_POISONED"
    outcome_unknown = True

    def __init__(self, sequence: int) -> None:
        super().__init__(f"the named producer stopped: the outcome of sequence {sequence} is unknown")
        self.sequence = sequence


class Closed(MoMError):
    """The client, producer or consumer is closed; ``why`` says the reason if the application did not close it itself."""

    code = "CLOSED"

    def __init__(self, what: str = "the producer", why: str | None = None) -> None:
        super().__init__(f"{what} is closed" + (f": {why}" if why else ""))


def blames_a_message(error: MoMError) -> bool:
    """True if a broker refused because of a message's own properties, before it stored any part of it."""
    if isinstance(error, Refused):
        return error.code in _BLAMES_A_MESSAGE
    # The server library's own limit on decoding, which has none of rmom's codes.
    statuses = (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT)
    return isinstance(error, CallFailed) and error.status in statuses


def ends_a_subscription(error: MoMError) -> bool:
    """True if retrying cannot help a consumer."""
    if isinstance(error, Refused):
        return error.code in _ENDS_A_SUBSCRIPTION or error.code in _ENDS_EVERYTHING
    if isinstance(error, CallFailed):
        return error.code in ("UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT")
    return isinstance(error, (ConfigError, GaveUp, Closed))


def hosted_at(error: MoMError) -> str | None:
    """The address at which the queue is, according to the broker that refused."""
    if not isinstance(error, Refused) or error.code != "NOT_HOSTED":
        return None
    host, port = error.details.get("host", ""), error.details.get("port", "")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        return None
    return authority(host, int(port))


def authority(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
