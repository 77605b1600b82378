"""One HTTP request with threads, within its time whatever the server does: a library's timeouts are for each read, so that
a server that sends a byte now and then would hold a caller for as long as it likes."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import queue
import socket
import ssl
import threading
from typing import Any, cast
from urllib.parse import urlsplit

from . import _clock
from . import _effects as fx
from .errors import DeadlineExceeded, ProtocolViolation, Unreachable

#: The largest part of an answer that is read at once.
_PART_BYTES = 64 << 10


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._at = _clock.now() + seconds

    def left(self) -> float:
        """The seconds that are left; ``TimeoutError`` if there are none."""
        left = self._at - _clock.now()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _Reading(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)


class _Timed:
    """What :mod:`http.client` needs of a socket, each call within what is left of the time."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._connection, self._deadline))

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._deadline.left())
        self._connection.sendall(data)

    def close(self) -> None:
        """The caller closes the connection, when the answer is read."""


def exchange(effect: fx.Http, tls: ssl.SSLContext | None, connect_timeout: float, most: int) -> fx.Answer:
    """Makes one request on a connection of its own: whether it was sent is then known for sure."""
    where = effect.manager.authority
    parts = urlsplit(effect.manager.url)
    host, port = str(parts.hostname), cast(int, parts.port)
    deadline = _Deadline(effect.timeout)
    sent = False
    try:
        with contextlib.closing(
            _connect(host, port, tls if parts.scheme == "https" else None, deadline, connect_timeout)
        ) as connection:
            request = http.client.HTTPConnection(host, port)
            request.sock = _Timed(connection, deadline)
            headers = {"accept": "application/json", "connection": "close"}
            body = None
            if effect.body is not None:
                headers["content-type"] = "application/json"
                body = json.dumps(effect.body).encode()
            sent = True
            request.request(effect.method, effect.path, body, headers)
            response = request.getresponse()
            answer = bytearray()
            while part := response.read(_PART_BYTES):
                answer += part
                if len(answer) > most:
                    raise ProtocolViolation(where, f"an answer beyond {most} bytes")
            return fx.Answer(response.status, bytes(answer))
    except (TimeoutError, socket.timeout) as error:
        if not sent:
            raise Unreachable(where, "no connection in time", sent=False) from error
        raise DeadlineExceeded(f"{effect.method} {effect.path} at {where}", effect.timeout, sent=True) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(where, str(error) or type(error).__name__, sent=sent) from None


def _connect(
    host: str, port: int, tls: ssl.SSLContext | None, deadline: _Deadline, connect_timeout: float
) -> socket.socket:
    """A connection to the first address of the host that answers."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _addresses(host, port, deadline):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(connect_timeout, deadline.left()))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection if tls is None else tls.wrap_socket(connection, server_hostname=host)
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _addresses(host: str, port: int, deadline: _Deadline) -> list[Any]:
    def find() -> list[Any]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return find()
    # The system's resolver takes no timeout.
    found: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(find())
        except OSError as error:
            found.put(error)

    try:
        threading.Thread(target=resolve, name="rmom-resolver", daemon=True).start()
    except RuntimeError:
        # Some versions of Python start no threads at the end of the program.
        return find()
    try:
        result = found.get(timeout=deadline.left())
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(result, OSError):
        raise result
    return result
