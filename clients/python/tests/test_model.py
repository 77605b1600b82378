"""Names, messages, positions, settings and errors, without a network."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import rmom
from rmom import _effects as fx
from rmom._check import check_label, check_topic, new_message
from rmom._grpc import DETAILS_KEY, ERROR_INFO_URL, channel_options, error_of
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
    for ttl in (0, -1, 0.0009, 100 * 366 * 24 * 3600, float("inf"), float("nan")):
        assert refused(ttl=ttl).startswith("ttl: it is")


def test_positions_survive_being_written_down() -> None:
    position = rmom.Position(7, 3, (1 << 64) - 1)
    assert rmom.Position.parse(str(position)) == position
    for bad in ("", "1:2", "1:2:3:4", "1:2:-3", "1:2:x", "1:2: 3", f"1:2:{1 << 64}", "1:2:٣"):
        with pytest.raises(ValueError, match="three numbers"):
            rmom.Position.parse(bad)


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
    ]:
        with pytest.raises(rmom.ConfigError, match=reason):
            parse_managers(url, None)


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
    ],
)
def test_settings_that_make_no_sense_are_named(setting: str, value: Any) -> None:
    with pytest.raises(rmom.ConfigError, match=setting):
        Settings(parse_managers("http://m", None), **{setting: value})


def test_keepalive_is_the_settings() -> None:
    managers = parse_managers("http://m", None)
    options = dict(channel_options(Settings(managers)))
    assert (options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]) == (2_000, 1_000)
    options = dict(channel_options(Settings(managers, keepalive_interval=60, keepalive_timeout=7.5)))
    assert options["grpc.keepalive_time_ms"] == 60_000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 7_500


def test_labels_become_one_segment() -> None:
    assert segment("a/b ä?") == "a%2Fb%20%C3%A4%3F"


def test_refusals_keep_the_managers_code_or_get_one_from_the_status() -> None:
    error = refusal("m:1", "/v1/queues", 409, b'{"code": "QUEUE_EXISTS", "detail": "it exists", "queue_id": 7}')
    assert (error.code, str(error)) == ("QUEUE_EXISTS", "m:1 refused: it exists (QUEUE_EXISTS)")
    assert error.details == {"queue_id": "7"}
    assert error.hint.startswith("use the queue that exists")
    for path, status, code in [
        ("/queues/x", 404, "QUEUE_NOT_FOUND"),
        ("/v1/queues/x/channels", 404, "QUEUE_NOT_FOUND"),
        ("/channels/x", 404, "CHANNEL_NOT_FOUND"),
        ("/queues/x", 503, "NO_BROKER"),
        ("/queues/x", 502, "STORE_UNAVAILABLE"),
    ]:
        assert refusal("m:1", path, status, b"<html>").code == code


class _Failed:
    """A failed call, in grpcio's form."""

    def __init__(self, status: grpc.StatusCode, metadata: Any) -> None:
        self._status, self._metadata = status, metadata

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return "because"

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


def test_a_manager_that_does_not_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    managers = Managers(Settings(parse_managers(["http://m1", "http://m2"], None)))
    program = managers.call("GET", "/v1/queues", None, 1.0)
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
        program = managers.call("DELETE", "/v1/queues/q", None, 1.0)
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

    assert delete() == ["m1:80", "NO_BROKER"]
    assert delete() == ["m2:80", "done"]
