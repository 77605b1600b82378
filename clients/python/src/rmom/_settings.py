"""Settings of a client, and waits between attempts."""

from __future__ import annotations

import difflib
import math
import operator
import os
import random
import re
import reprlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, Callable, NamedTuple
from urllib.parse import urlsplit

from . import _clock
from .errors import ConfigError, authority

#: Default for the size of the largest message as delivered. Brokers accept 4 KiB less by default, for what they may add.
DEFAULT_MAX_MESSAGE_BYTES = 4_194_304
#: The longest time in seconds for which a producer may go on retrying: brokers remember producers for longer than that.
MAX_DELIVERY_TIMEOUT = 600.0
#: The longest of all other times in seconds, eleven days: gRPC counts milliseconds with 32 bits.
MAX_SECONDS = 1_000_000.0
#: Added to the limit on messages when decoding, so that messages from a broker that counts sizes differently still
#: arrive.
DECODING_SLACK_BYTES = 64 << 10
#: The largest ``max_message_bytes``: gRPC counts bytes with 32 bits.
LARGEST_MAX_MESSAGE_BYTES = (1 << 31) - 1 - DECODING_SLACK_BYTES


class Identity(NamedTuple):
    """The contents of the files of :class:`Tls`."""

    ca: bytes
    cert: bytes | None
    key: bytes | None


@dataclass(frozen=True)
class Tls:
    """TLS with managers and brokers. All fields are paths of PEM files."""

    #: The authority that signed the certificates of managers and brokers.
    ca: str | os.PathLike[str]
    #: This client's certificate and its private key, for clusters that require one. The key can be in the file of the
    #: certificate.
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def load(self) -> Identity:
        """Reads the files. What gRPC would abort the process for, it refuses."""
        ca = _read_pem("tls.ca", self.ca)
        if _CERTIFICATE not in ca:
            raise ConfigError("tls.ca", f"{self.ca} has no certificate in PEM form; name the authority's certificate")
        if self.cert is None:
            if self.key is not None:
                raise ConfigError("tls.key", "it is given without tls.cert; the two go together")
            return Identity(ca, None, None)
        cert = _read_pem("tls.cert", self.cert)
        if _CERTIFICATE not in cert:
            raise ConfigError("tls.cert", f"{self.cert} has no certificate in PEM form")
        if self.key is None and _KEY not in cert:
            reason = f"{self.cert} has no private key, and tls.key is not given; the two go together"
            raise ConfigError("tls.cert", reason)
        key = cert if self.key is None else _read_pem("tls.key", self.key)
        if _KEY not in key:
            raise ConfigError("tls.key", f"{self.key} has no private key in PEM form")
        return Identity(ca, _blocks(cert, b"CERTIFICATE"), _blocks(key, b"PRIVATE KEY"))

    def context(self) -> ssl.SSLContext:
        """For HTTPS. Refuses what :meth:`load` does, and files that OpenSSL cannot use."""
        self.load()
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise ConfigError("tls.ca", f"{self.ca} cannot be used: {error}") from None
        if self.cert is not None:
            try:
                # Without a password function OpenSSL would ask the terminal.
                context.load_cert_chain(self.cert, self.key, password=lambda: "")
            except ssl.SSLError as error:
                mismatch = "KEY_VALUES_MISMATCH" in str(error)
                reason = (
                    "they are not a pair" if mismatch else f"they cannot be used (a key must not be encrypted): {error}"
                )
                raise ConfigError("tls.cert", f"{self.cert} and {self.key or 'the key in it'}: {reason}") from None
        return context


_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"


def _read_pem(setting: str, path: Any) -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(setting, f"it is {path!r:.80}; name a PEM file")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(setting, f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        # A zero byte in the name.
        raise ConfigError(setting, f"{os.fspath(path)!r:.80} cannot be the name of a file: {error}") from None


def _blocks(pem: bytes, kind: bytes) -> bytes:
    """The blocks of a PEM file whose name ends in ``kind``: a file can hold a certificate and its key."""
    pattern = rb"-----BEGIN ([A-Z0-9 ]*" + kind + rb")-----.*?-----END \1-----"
    return b"\n".join(found.group() for found in re.finditer(pattern, pem, re.DOTALL)) + b"\n"


@dataclass(frozen=True)
class Manager:
    """A manager's address."""

    url: str
    authority: str


@dataclass(frozen=True)
class Settings:
    """All settings, checked. Times are in seconds, at most a million (``delivery_timeout``: 600)."""

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
            self._set(name, check_time(name, getattr(self, name)))
        for name in ("keepalive_interval", "keepalive_timeout"):
            seconds = check_time(name, getattr(self, name))
            # gRPC counts in whole milliseconds.
            if seconds < 0.001:
                raise ConfigError(name, "it has to be a millisecond at least")
            self._set(name, seconds)
        waits = self.retry_backoff
        rule = "it takes two waits above zero, the second not below the first, such as (0.02, 1)"
        if not isinstance(waits, (tuple, list)) or len(waits) != 2:
            raise ConfigError("retry_backoff", f"it is {waits!r:.80}; {rule}")
        shortest, longest = (check_time("retry_backoff", wait) for wait in waits)
        if longest < shortest:
            raise ConfigError("retry_backoff", rule)
        self._set("retry_backoff", (shortest, longest))
        most = check_count("max_message_bytes", self.max_message_bytes)
        if most > LARGEST_MAX_MESSAGE_BYTES:
            raise ConfigError(
                "max_message_bytes", f"it is {reprlib.repr(most)}; the limit is {LARGEST_MAX_MESSAGE_BYTES}"
            )
        self._set("max_message_bytes", most)
        self._set("delivery_timeout", check_delivery_timeout(self.delivery_timeout))
        if not callable(self.clock):
            raise ConfigError("clock", f"it is {self.clock!r:.80}; pass a function that returns seconds")
        if not isinstance(self.random, random.Random):
            raise ConfigError("random", f"it is {self.random!r:.80}; pass a random.Random")

    def _set(self, name: str, value: object) -> None:
        # Numbers can be of other types, such as NumPy's, which libraries do not take.
        object.__setattr__(self, name, value)


def finite(value: Any) -> float | None:
    """A finite number as a float; ``None`` for anything else. Truth values are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def check_number(setting: str, value: Any) -> float:
    """Refuses settings that are not finite numbers."""
    number = finite(value)
    if number is None:
        raise ConfigError(setting, f"it is {reprlib.repr(value)}; it takes a number of seconds, such as 5")
    return number


def check_time(setting: str, value: Any) -> float:
    """Refuses times that are not above zero, or too long."""
    seconds = check_number(setting, value)
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(setting, f"it is {seconds:g} s; it takes more than zero and at most {MAX_SECONDS:.0f} s")
    return seconds


def check_count(setting: str, value: Any) -> int:
    """Refuses settings that are not whole numbers above zero."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        raise ConfigError(setting, f"it is {reprlib.repr(value)}; it takes a whole number, such as 1000")
    if count <= 0:
        raise ConfigError(setting, f"it is {reprlib.repr(count)}; it has to be more than zero")
    return count


def check_delivery_timeout(value: Any) -> float:
    """Brokers forget producers some time after the limit."""
    seconds = check_number("delivery_timeout", value)
    if not 0 < seconds <= MAX_DELIVERY_TIMEOUT:
        limit = f"it takes more than zero and at most {MAX_DELIVERY_TIMEOUT:g} s"
        raise ConfigError("delivery_timeout", f"it is {seconds:g} s; {limit}")
    return seconds


def check_give_up_after(value: Any) -> float | None:
    """``None`` means never."""
    if value is None:
        return None
    seconds = check_number("give_up_after", value)
    if seconds < 0:
        raise ConfigError("give_up_after", f"it is {seconds:g} s; it takes 0 or more, or None for never")
    return seconds


def settings_of(managers: str | Sequence[str], tls: Tls | None, options: Mapping[str, Any]) -> Settings:
    """The settings of a client, from its arguments."""
    if tls is not None and not isinstance(tls, Tls):
        raise ConfigError("tls", f"it is {tls!r:.80}; pass rmom.Tls(ca=…)")
    known = [one.name for one in fields(Settings) if one.name not in ("managers", "tls")]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
            raise ConfigError(name, f"there is no such setting{meant}")
    return Settings(parse_managers(managers, tls), tls, **options)


def parse_managers(managers: str | Sequence[str], tls: Tls | None) -> tuple[Manager, ...]:
    """Reads one or several URLs; a single text may contain several, separated by commas."""
    urls: Any = managers.split(",") if isinstance(managers, str) else managers
    if not isinstance(urls, (list, tuple)) or not all(isinstance(url, str) for url in urls):
        reason = f'it is {reprlib.repr(urls)}; pass a URL such as "http://127.0.0.1:8082", or a list of them'
        raise ConfigError("managers", reason)
    return tuple(_parse_manager(url.strip(), tls) for url in urls)


def _parse_manager(url: str, tls: Tls | None) -> Manager:
    def refuse(reason: str) -> ConfigError:
        return ConfigError("managers", f'{url!r} {reason}; it has to look like "http://127.0.0.1:8082"')

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refuse(f"is not a URL ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise refuse("starts with neither http:// nor https://")
    if parts.scheme == "https" and tls is None:
        raise refuse("needs TLS, which is not configured (tls=rmom.Tls(ca=…))")
    if parts.scheme == "http" and tls is not None:
        raise refuse("would be used without TLS, which is configured; write https://, or leave out tls")
    if not parts.hostname or "@" in parts.netloc or any(char.isspace() for char in parts.netloc):
        raise refuse("names no host")
    try:
        parts.hostname.encode("idna")
    except UnicodeError as error:
        raise refuse(f"names no possible host ({error})") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise refuse("has a path")
    if port == 0 or parts.netloc.endswith(":"):
        raise refuse("has no usable port; ports are 1 to 65535")
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
