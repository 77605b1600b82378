"""gRPC for both clients: options of connections, and errors from statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ._proto import status_pb2
from ._proto.messages_pb2_grpc import MessageStreamStub
from ._settings import DECODING_SLACK_BYTES, Settings
from .errors import CallFailed, MoMError, ProtocolViolation, Refused

#: The domain of rmom's codes in the details of a status.
DOMAIN = "rmom"
ERROR_INFO_URL = "type.googleapis.com/google.rpc.ErrorInfo"
DETAILS_KEY = "grpc-status-details-bin"

#: How long a broker may take to end a stream of pushes that the producer ended, in seconds.
FINISH_TIMEOUT = 1.0


def channel_options(settings: Settings) -> list[tuple[str, int | str]]:
    """Each producer and each consumer has a connection of its own, so that a slow one does not hold up the others."""
    # A connection that does not answer a ping in time is dead: a peer that vanished says nothing.
    interval, timeout = (int(seconds * 1000) for seconds in (settings.keepalive_interval, settings.keepalive_timeout))
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", interval),
        ("grpc.keepalive_timeout_ms", timeout),
        # Without this option a connection lives on for a minute after an unanswered ping, despite the option above.
        ("grpc.http2.ping_timeout_ms", timeout),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A new attempt uses a new connection, and the client itself waits between attempts.
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout * 1000)),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", settings.max_message_bytes + DECODING_SLACK_BYTES),
    ]


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """``None`` means no TLS."""
    if settings.tls is None:
        return None
    identity = settings.tls.load()
    return grpc.ssl_channel_credentials(identity.ca, identity.key, identity.cert)


def stub_of(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """The methods of a broker. (The generated code has no types.)"""
    return MessageStreamStub(channel)  # type: ignore[no-untyped-call]


def error_of(authority: str, error: Any) -> MoMError:
    """Reads the error of a failed call: a ``grpc.RpcError`` of either library."""
    status, message = error.code(), error.details() or ""
    info = _error_info(error.trailing_metadata() or ())
    if info is not None:
        return Refused(authority, info.reason, message, dict(info.metadata))
    return CallFailed(authority, status, message)


def error_of_subscription(authority: str, error: Any) -> MoMError:
    """Like :func:`error_of`, for calls that receive messages: one may be above this client's own limit."""
    found = error_of(authority, error)
    # The library has no other sign of its own limit than this text. The same message would come again.
    if (
        isinstance(found, CallFailed)
        and found.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        and "Received message larger than max" in str(found)
    ):
        return Refused("this client", "MESSAGE_TOO_LARGE", error.details())
    return found


def _error_info(metadata: Any) -> status_pb2.ErrorInfo | None:
    for key, value in metadata:
        if key != DETAILS_KEY:
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info = status_pb2.ErrorInfo()
                if detail.type_url == ERROR_INFO_URL:
                    info.ParseFromString(detail.value)
                    if info.domain == DOMAIN:
                        return info
        except DecodeError:
            return None
    return None


def headers_of(metadata: Any) -> Mapping[str, str]:
    """A response's headers, without binary ones."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def stream_ended(authority: str) -> MoMError:
    """The error when a server ends a stream without one: the server is shutting down."""
    return CallFailed(authority, grpc.StatusCode.UNAVAILABLE, "the broker ended the stream")


def bad_opening(authority: str, ack: Any) -> MoMError | None:
    """The fault of the first acknowledgement of a stream, if it has one."""
    if ack.through_sequence == 0 and ack.queue_id > 0:
        return None
    return ProtocolViolation(authority, f"it opened a stream of pushes with sequence {ack.through_sequence}")
