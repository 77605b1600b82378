"""A client of rmom, message-oriented middleware.

:class:`Client` is for applications with threads, :class:`rmom.aio.Client` for asyncio. :class:`MoMClient`,
:class:`Pusher` and :class:`Subscriber` are a simpler layer above, under the names of rusty-mom's ``momlib``. The
package logs under the name ``rmom``.
"""

from ._settings import MAX_DELIVERY_TIMEOUT, Settings, Tls
from .client import Admin, Client
from .consumer import Consumer
from .errors import (
    CallFailed,
    Closed,
    ConfigError,
    DeadlineExceeded,
    DeliveryTimeout,
    GaveUp,
    InvalidArgument,
    InvalidName,
    MessageTooLarge,
    MoMError,
    NotDelivered,
    Poisoned,
    ProtocolViolation,
    Refused,
    Unreachable,
)
from .model import NO_TOPIC, Broker, Channel, LiveQueue, Message, Position, Queue, Receipt, Start
from .momlib import MoMClient, MoMInfo, Pusher, Subscriber
from .producer import Delivery, Producer

__version__ = "0.1.0"

__all__ = [
    "MAX_DELIVERY_TIMEOUT",
    "NO_TOPIC",
    "Admin",
    "Broker",
    "CallFailed",
    "Channel",
    "Client",
    "Closed",
    "ConfigError",
    "Consumer",
    "DeadlineExceeded",
    "Delivery",
    "DeliveryTimeout",
    "GaveUp",
    "InvalidArgument",
    "InvalidName",
    "LiveQueue",
    "Message",
    "MessageTooLarge",
    "MoMClient",
    "MoMError",
    "MoMInfo",
    "NotDelivered",
    "Poisoned",
    "Position",
    "Producer",
    "ProtocolViolation",
    "Pusher",
    "Queue",
    "Receipt",
    "Refused",
    "Settings",
    "Start",
    "Subscriber",
    "Tls",
    "Unreachable",
]
