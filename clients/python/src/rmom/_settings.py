"""Settings of a client, and waits between attempts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable
from urllib.parse import urlsplit

from . import _clock
from .errors import ConfigError, authority

#: Default for the size of the largest message as delivered. Brokers accept 4 KiB less by default, for what they may add.
DEFAULT_MAX_MESSAGE_BYTES = 4_194_304
#: The longest time in seconds for which a producer may go on retrying: brokers remember producers for longer than that.
MAX_DELIVERY_TIMEOUT = 600.0


@dataclass(frozen=True)
class Tls:
    """TLS with managers and brokers. All fields are paths of PEM files."""

    #: The authority that signed the certificates of managers and brokers.
    ca: str
    #: This client's certificate and its private key, for clusters that require one.
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Manager:
    """A manager's address."""

    url: str
    authority: str


@dataclass(frozen=True)
class Settings:
    """All settings, checked. Times are in seconds."""

    managers: tuple[Manager, ...]
    tls: Tls | None = None
    #: Limit on the time of opening a connection, TLS included.
    connect_timeout: float = 1.0
    #: How often a broker is asked whether it is there, and how long it may take to answer before its connection counts
    #: as broken. Longer times tolerate a program that stands still, but a broker that vanished is noticed later.
    keepalive_interval: float = 2.0
    keepalive_timeout: float = 1.0
    #: Limit on the time of one administrative call. Creating a queue waits until it is served.
    request_timeout: float = 15.0
    #: Limit on the time of one manager's look-up of a queue or channel, before the next is asked.
    lookup_timeout: float = 2.0
    #: Limit on the time of opening a stream at a broker, which may have to activate the queue first.
    open_timeout: float = 10.0
    #: How long a broker that owes acknowledgements may stay silent.
    ack_timeout: float = 30.0
    #: How long a producer goes on retrying a message.
    delivery_timeout: float = 120.0
    #: The waits between attempts: jittered, doubling from the first to the second.
    retry_backoff: tuple[float, float] = (0.02, 1.0)
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    #: A clock in seconds that never goes back, and includes the machine's sleep.
    clock: Callable[[], float] = _clock.now
    #: The source of randomness for ids and jitter.
    random: random.Random = field(default_factory=random.SystemRandom)

    def __post_init__(self) -> None:
        if not self.managers:
            raise ConfigError("managers", 'there are none; name at least one, such as "http://127.0.0.1:8082"')
        for name in ("connect_timeout", "request_timeout", "lookup_timeout", "open_timeout", "ack_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, "it has to be more than zero")
        for name in ("keepalive_interval", "keepalive_timeout"):
            # gRPC counts in whole milliseconds.
            if getattr(self, name) < 0.001:
                raise ConfigError(name, "it has to be a millisecond at least")
        shortest, longest = self.retry_backoff
        if shortest <= 0 or longest < shortest:
            raise ConfigError("retry_backoff", "it takes two waits above zero, the second not below the first")
        if self.max_message_bytes <= 0:
            raise ConfigError("max_message_bytes", "it has to be more than zero")
        check_delivery_timeout(self.delivery_timeout)


def check_delivery_timeout(seconds: float) -> None:
    """Brokers forget producers some time after the limit."""
    if not 0 < seconds <= MAX_DELIVERY_TIMEOUT:
        limit = f"it takes more than zero and at most {MAX_DELIVERY_TIMEOUT:g} s"
        raise ConfigError("delivery_timeout", f"it is {seconds:g} s; {limit}")


def parse_managers(managers: str | Sequence[str], tls: Tls | None) -> tuple[Manager, ...]:
    """Reads one or several URLs; a single text may contain several, separated by commas."""
    urls = managers.split(",") if isinstance(managers, str) else managers
    return tuple(_parse_manager(url.strip(), tls) for url in urls)


def _parse_manager(url: str, tls: Tls | None) -> Manager:
    def refuse(reason: str) -> ConfigError:
        return ConfigError("managers", f'{url!r} {reason}; it has to look like "http://127.0.0.1:8082"')

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("is not a URL") from None
    if parts.scheme not in ("http", "https"):
        raise refuse("starts with neither http:// nor https://")
    if parts.scheme == "https" and tls is None:
        raise refuse("needs TLS, which is not configured")
    if not parts.hostname or "@" in parts.netloc:
        raise refuse("names no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise refuse("has a path")
    where = authority(parts.hostname, port or (443 if parts.scheme == "https" else 80))
    return Manager(url=f"{parts.scheme}://{where}", authority=where)


class Backoff:
    """The waits of one series of attempts: exponential with jitter, so that clients do not all come back at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._step = settings.retry_backoff[0]

    def next(self) -> float:
        """Between half of this step and the whole of it; the next step is twice as long."""
        step = self._step
        self._step = min(step * 2, self._settings.retry_backoff[1])
        return step / 2 + self._settings.random.random() * step / 2

    def reset(self) -> None:
        """An attempt succeeded; the next series starts afresh."""
        self._step = self._settings.retry_backoff[0]
