"""Names, messages, positions, settings and errors, without a network."""

from __future__ import annotations

import asyncio
import uuid
from array import array
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import grpc
import pytest

import rmom
import rmom.aio
from rmom import _effects as fx
from rmom._check import check_label, check_topic, new_message
from rmom._grpc import DETAILS_KEY, ERROR_INFO_URL, channel_options, error_of, error_of_subscription
from rmom._proto import status_pb2
from rmom._rest import Managers, refusal, segment
from rmom._settings import Settings, Tls, parse_managers


@pytest.mark.parametrize("label", ["News-Queue", "ÉTÉ a", "x" * 255, "İ" * 85])
def test_names_that_brokers_take(label: str) -> None:
    check_label(label)


@pytest.mark.parametrize(
    "label", ["", "__none__", "__NONE__", "a\nb", " a", "a ", "a\u2028b", "x" * 256, "İ" * 86, "\ud800"]
)
def test_names_that_brokers_do_not_take(label: str) -> None:
    with pytest.raises(rmom.InvalidName) as raised:
        check_label(label)
    assert raised.value.code == "INVALID_NAME"
    assert raised.value.field == "queue_label"


def test_no_topic_is_a_topic() -> None:
    check_topic("")
    check_topic("__none__")


def test_what_no_broker_takes_is_refused_with_the_field_and_the_limit() -> None:
    def refused(content: Any = "x", topic: Any = None, headers: Any = None, ttl: Any = None) -> str:
        with pytest.raises(rmom.MoMError) as raised:
            new_message(content, topic, headers, ttl, 1_000)
        return str(raised.value)

    message = new_message("x", "t", {"h": "v"}, 60, 1_000)
    assert (message.content, message.topic, message.ttl_millis) == (b"x", "t", 60_000)
    assert "takes at least 1048 bytes as it is delivered; the limit is 1000" in refused(b"\0" * 1_000)
    assert refused(topic="a\nb").startswith("topic has a character")
    assert refused(headers={"": "v"}) == "headers: a name has 0 bytes; it takes 1 to 255"
    assert refused(headers={f"h{n}": "" for n in range(65)}) == "headers: there are 65; the limit is 64"
    for ttl in (0, -1, 0.0009, 100 * 366 * 24 * 3600, float("inf"), float("nan"), 10**400):
        assert refused(ttl=ttl).startswith("ttl: it is")


@pytest.mark.parametrize(
    "value",
    [42, 10**12, True, False, None, 1.5, float("nan"), [72, 105], {65, 66}, {1: 2}, (1,), range(3), iter([1]),
     array("i", [1]), memoryview(array("i", [1])), Decimal(1), uuid.UUID(int=1), object()],
)  # fmt: skip
def test_contents_are_text_or_bytes_and_nothing_is_made_of_anything_else(value: Any) -> None:
    with pytest.raises(rmom.InvalidArgument, match=r"^content: it is .*pass "):
        new_message(value, None, None, None, 1_000)
    with pytest.raises(rmom.InvalidArgument, match=r"^header 'table': it is .*pass "):
        new_message("x", None, {"table": value}, None, 1_000)


def test_contents_of_each_type() -> None:
    values: list[Any] = ["ä", "ä".encode(), bytearray("ä".encode()), memoryview("ä".encode())]
    for value in values:
        assert new_message(value, None, {"h": value}, None, 1_000).content == "ä".encode()
    with pytest.raises(rmom.InvalidArgument, match="surrogate pair at character 1"):
        new_message("a\ud800", None, None, None, 1_000)


def test_what_else_a_message_has_is_not_converted() -> None:
    def refused(field: str, **arguments: Any) -> None:
        with pytest.raises(rmom.MoMError, match=field) as raised:
            new_message(
                **{"content": "x", "topic": None, "headers": None, "ttl": None, **arguments}, max_message_bytes=1_000
            )
        assert isinstance(raised.value, (rmom.InvalidArgument, rmom.InvalidName))

    for topic in (5, b"x", 0, False, ["a"]):
        refused("^topic is", topic=topic)
    for headers in ([("a", "b")], "ab", 5, {1: "x"}, {"a": None}, {"\ud800": "x"}, {b"a": "x"}):
        refused("^header", headers=headers)
    for ttl in ("5", True, timedelta(seconds=5), Decimal(5), [5]):
        refused("^ttl: it is", ttl=ttl)
    assert new_message("x", "", {}, 1.5, 1_000).ttl_millis == 1_500


def test_positions_survive_being_written_down() -> None:
    position = rmom.Position(7, 3, (1 << 64) - 1)
    assert rmom.Position.parse(str(position)) == position
    for bad in ("", "1:2", "1:2:3:4", "1:2:-3", "1:2:x", "1:2: 3", f"1:2:{1 << 64}", "1:2:٣"):
        with pytest.raises(rmom.InvalidArgument, match="three numbers"):
            rmom.Position.parse(bad)
    for odd in (None, 5, position):
        with pytest.raises(rmom.InvalidArgument, match="three numbers"):
            rmom.Position.parse(odd)  # type: ignore[arg-type]
    for part in ("1", 1.0, True, None, -1, 1 << 64):
        with pytest.raises(rmom.InvalidArgument, match=r"^position.epoch: it is"):
            rmom.Position(1, part, 1)  # type: ignore[arg-type]


def test_manager_urls_are_hosts_and_ports() -> None:
    def authority(url: str) -> str:
        return parse_managers(url, None)[0].authority

    assert authority("http://127.0.0.1:8082") == "127.0.0.1:8082"
    assert authority("http://manager/") == "manager:80"
    assert authority("http://[::1]:5") == "[::1]:5"
    assert [one.authority for one in parse_managers("http://a:1, http://b:2", None)] == ["a:1", "b:2"]
    assert parse_managers(["https://manager"], Tls("ca.pem"))[0].authority == "manager:443"
    for url, reason in [
        ("manager:8082", "neither"),
        ("https://manager", "TLS"),
        ("http://manager/v1", "path"),
        ("http://user@manager", "host"),
        ("http://manager:port", "URL"),
        ("", "neither"),
        ("http://", "host"),
        ("http://manager:0", "1 to 65535"),
        ("http://manager:", "1 to 65535"),
        ("http://manager:99999", "Port out of range"),
        ("http://manager:-1", "URL"),
        ("http://a b:1", "host"),
        ("http://a..b:80", "no possible host"),
        (f"http://{'a' * 64}:80", "no possible host"),
    ]:
        with pytest.raises(rmom.ConfigError, match=reason):
            parse_managers(url, None)
    with pytest.raises(rmom.ConfigError, match="without TLS"):
        parse_managers("http://manager", Tls("ca.pem"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("delivery_timeout", 601),
        ("delivery_timeout", 0),
        ("ack_timeout", 0),
        ("keepalive_interval", 0),
        ("keepalive_timeout", 0.0001),
        ("retry_backoff", (1, 0.5)),
        ("retry_backoff", (0, 1)),
        ("max_message_bytes", 0),
        ("max_message_bytes", 1.5),
        ("max_message_bytes", True),
        ("delivery_timeout", float("nan")),
        ("delivery_timeout", True),
        ("ack_timeout", float("inf")),
        ("open_timeout", "5"),
        ("connect_timeout", None),
        ("request_timeout", float("nan")),
        ("keepalive_interval", "2"),
        ("retry_backoff", 5),
        ("retry_backoff", (1,)),
        ("retry_backoff", ("1", "2")),
        ("retry_backoff", (0.1, float("inf"))),
        ("retry_backoff", (0.1, 1e300)),
        ("clock", 3),
        ("random", 3),
        pytest.param("request_timeout", 10**400, id="request_timeout-huge"),
        pytest.param("delivery_timeout", 10**400, id="delivery_timeout-huge"),
        ("max_message_bytes", 1 << 31),
        *((f"{name}_timeout", 1e7) for name in ("connect", "request", "lookup", "open", "ack", "keepalive")),
        ("keepalive_interval", 1e7),
    ],
)
def test_settings_that_make_no_sense_are_named(setting: str, value: Any) -> None:
    with pytest.raises(rmom.ConfigError, match=setting):
        Settings(parse_managers("http://m", None), **{setting: value})


@dataclass
class Whole:
    """A whole number of another type, such as NumPy's."""

    value: int

    def __index__(self) -> int:
        return self.value


def test_numbers_of_other_types_become_pythons() -> None:
    settings = Settings(
        parse_managers("http://m", None),
        max_message_bytes=Whole(1 << 14),  # type: ignore[arg-type]
        open_timeout=Fraction(5, 2),  # type: ignore[arg-type]
        retry_backoff=[1, 2],  # type: ignore[arg-type]
    )
    assert (
        repr((settings.max_message_bytes, settings.open_timeout, settings.retry_backoff)) == "(16384, 2.5, (1.0, 2.0))"
    )
    assert repr(rmom.Position(1, Whole(2), 3)) == "Position(queue_id=1, epoch=2, offset=3)"  # type: ignore[arg-type]
    with pytest.raises(rmom.ConfigError, match="delivery_timeout: it is 601 s"):
        rmom.Client("http://m", delivery_timeout=Fraction(601))
    rmom.Client("http://m").producer("q", max_in_flight=Whole(1)).close()  # type: ignore[arg-type]


def test_arguments_of_a_client_that_make_no_sense_are_named() -> None:
    both: list[Any] = [rmom.Client, rmom.aio.Client]
    for client in both:
        for managers in (None, b"http://m", 5, [], [b"http://m"], [None], {"http://m": 1}):
            with pytest.raises(rmom.ConfigError, match=r"^managers: "):
                client(managers)
        with pytest.raises(rmom.ConfigError, match=r"^delivery_timout: .* did you mean delivery_timeout\?"):
            client("http://m", delivery_timout=5)
        for tls in (True, "ca.pem", 5):
            with pytest.raises(rmom.ConfigError, match=r"^tls: "):
                client("http://m", tls=tls)
        with pytest.raises(rmom.ConfigError, match=r"^max_in_flight: "):
            client("http://m").producer("q", max_in_flight="5")
        for count in (0, -1, 1.5, True, None):
            with pytest.raises(rmom.ConfigError, match=r"^max_bytes_in_flight: "):
                client("http://m").producer("q", max_bytes_in_flight=count)
        with pytest.raises(rmom.ConfigError, match=r"^delivery_timeout: "):
            client("http://m").producer("q", delivery_timeout="5")
        for label in (5, None, b"q", "", ".."):
            with pytest.raises(rmom.InvalidName, match=r"^queue_label "):
                client("http://m").producer(label)
        for name in (5, b"n", "", "x" * 256, "\ud800"):
            with pytest.raises(rmom.InvalidName, match=r"^producer name "):
                client("http://m").producer("q", name=name)
        for position in ("1:1:3", 3, (1, 1, 3)):
            with pytest.raises(rmom.InvalidArgument, match=r"^resume_from: it is .*; pass a rmom.Position"):
                client("http://m").subscribe(str(uuid.UUID(int=9)), resume_from=position)
        for seconds in ("3", float("nan"), -1, True, 10**400):
            with pytest.raises(rmom.ConfigError, match=r"^give_up_after: "):
                client("http://m").subscribe(str(uuid.UUID(int=9)), give_up_after=seconds)


@pytest.mark.parametrize("timeout", ["5", float("nan"), float("inf"), True, [1], pytest.param(10**400, id="huge")])
def test_a_timeout_is_a_number(timeout: Any) -> None:
    with rmom.Client("http://127.0.0.1:1") as client:
        producer, consumer = client.producer("q"), client.subscribe(uuid.UUID(int=9))
        for call in (
            producer.flush,
            producer.close,
            consumer.next,
            client.close,
            lambda t: producer.push("x", timeout=t),
        ):
            with pytest.raises(rmom.InvalidArgument, match=r"^timeout: "):
                call(timeout)

    async def main() -> None:
        async with rmom.aio.Client("http://127.0.0.1:1") as client:
            producer, consumer = client.producer("q"), client.subscribe(uuid.UUID(int=9))
            for call in (producer.flush, producer.close, consumer.next, client.close):
                with pytest.raises(rmom.InvalidArgument, match=r"^timeout: "):
                    await call(timeout)
            with pytest.raises(rmom.InvalidArgument, match=r"^timeout: "):
                await producer.push("x", timeout=timeout)

    asyncio.run(main())


def test_keepalive_is_the_settings() -> None:
    managers = parse_managers("http://m", None)
    options = dict(channel_options(Settings(managers)))
    assert (options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]) == (2_000, 1_000)
    options = dict(channel_options(Settings(managers, keepalive_interval=60, keepalive_timeout=7.5)))
    assert options["grpc.keepalive_time_ms"] == 60_000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 7_500


def test_labels_become_one_segment() -> None:
    assert segment("a/b ä?") == "a%2Fb%20%C3%A4%3F"


def test_refusals_have_the_managers_code_or_are_somebody_elses() -> None:
    problem = b'{"code": "QUEUE_EXISTS", "detail": "it exists", "queue_id": 7}'
    error = refusal("m:1", "POST", "/v1/queues", 409, problem)
    assert (error.code, str(error)) == ("QUEUE_EXISTS", "m:1 refused: it exists (QUEUE_EXISTS)")
    assert isinstance(error, rmom.Refused)
    assert error.details == {"queue_id": "7"}
    assert error.hint.startswith("use the queue that exists")
    for status, code in [
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (500, "STORE_UNAVAILABLE"),
        (502, "STORE_UNAVAILABLE"),
        (503, "STORE_UNAVAILABLE"),
    ]:
        for answer in (b"", b"<html>", b"[]", b'{"code": 5}'):
            assert refusal("m:1", "GET", "/queues/x", status, answer).code == code
    # These must not become QUEUE_NOT_FOUND, which would end producers.
    for status in (301, 304, 400, 404, 405, 409, 418):
        error = refusal("m:1", "GET", "/queues/x", status, b"<h1>no such\n page</h1>")
        assert (error.code, error.retryable) == ("PROTOCOL_VIOLATION", True)
        assert str(error) == (
            "m:1 broke the protocol: it answered GET /queues/x as no manager does, with "
            f"status {status}: <h1>no such page</h1>; is this a manager's address?"
        )


class _Failed:
    """A failed call, in grpcio's form."""

    def __init__(self, status: grpc.StatusCode, metadata: Any, details: str = "because") -> None:
        self._status, self._metadata, self._details = status, metadata, details

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


def test_a_brokers_code_is_read_from_the_details_of_a_status() -> None:
    info = status_pb2.ErrorInfo(reason="NOT_HOSTED", domain="rmom", metadata={"host": "h", "port": "7"})
    detail = status_pb2.Detail(type_url=ERROR_INFO_URL, value=info.SerializeToString())
    details = status_pb2.Status(code=14, details=[detail]).SerializeToString()
    error = error_of("b:1", _Failed(grpc.StatusCode.UNAVAILABLE, [(DETAILS_KEY, details)]))
    assert isinstance(error, rmom.Refused)
    assert (error.code, error.details, error.retryable) == ("NOT_HOSTED", {"host": "h", "port": "7"}, True)
    for metadata in (None, [], [(DETAILS_KEY, b"\xff")], [("other", "x")]):
        error = error_of("b:1", _Failed(grpc.StatusCode.INTERNAL, metadata))
        # "INTERNAL" is for defects of rmom, and a broken connection must not look like one.
        assert (error.code, error.retryable, error.outcome_unknown) == ("TRANSPORT", True, True)


def test_the_clients_own_limit_is_known_by_its_text_where_messages_are_received() -> None:
    text = "CLIENT: Received message larger than max (5 vs. 4)"
    failed = _Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, None, text)
    error = error_of_subscription("b:1", failed)
    assert (error.code, error.retryable, text in str(error)) == ("MESSAGE_TOO_LARGE", False, True)
    elsewhere = error_of("b:1", failed)
    assert (elsewhere.code, elsewhere.retryable) == ("RESOURCE_EXHAUSTED", True)
    busy = error_of_subscription("b:1", _Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, None))
    assert (busy.code, busy.retryable) == ("RESOURCE_EXHAUSTED", True)


def test_a_manager_that_does_not_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    managers = Managers(Settings(parse_managers(["http://m1", "http://m2"], None)))
    program = managers.json("GET", "/v1/queues", None, 1.0, str)
    next(program)
    asked = program.throw(rmom.DeadlineExceeded("GET /v1/queues at m1:80", 1.0, sent=True))
    assert isinstance(asked, fx.Http)
    assert [record.message for record in caplog.records] == [
        "manager m2:80 is asked now, because: GET /v1/queues at m1:80 took longer than 1 s"
    ]


def test_who_asks_again_is_not_stuck_with_a_manager_that_is_unwell() -> None:
    managers = Managers(Settings(parse_managers(["http://m1", "http://m2"], None)))

    def delete() -> list[str]:
        """The managers that are asked; the first does not reach the store."""
        program = managers.done("DELETE", "/v1/queues/q")
        asked: list[str] = []
        try:
            effect = next(program)
            while True:
                assert isinstance(effect, fx.Http)
                asked.append(effect.manager.authority)
                effect = program.send(fx.Answer(503 if effect.manager.authority == "m1:80" else 204, b""))
        except StopIteration:
            return [*asked, "done"]
        except rmom.Refused as error:
            return [*asked, error.code]

    assert delete() == ["m1:80", "STORE_UNAVAILABLE"]
    assert delete() == ["m2:80", "done"]
