"""TLS to managers and brokers, with certificates on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from rmom_testing.clusters import start_server
from rmom_testing.postgres import Postgres
from rmom_testing.process import eventually

import rmom
from rmom import aio


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> rmom.Tls:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, subject in (("server", "127.0.0.1"), ("client", "client.example")):
        certificate = authority.issue_cert(subject)
        certificate.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return rmom.Tls(str(folder / "ca.pem"), str(folder / "client.pem"), str(folder / "client.key"))


@pytest.fixture(scope="module")
def manager(tls: rmom.Tls, postgres: Postgres) -> Iterator[str]:
    """The URL of a manager with one broker; both use only TLS, and require clients' certificates."""
    folder, url = Path(tls.ca).parent, postgres.create_database()
    broker = (
        f'host: 127.0.0.1\nport: PORT\nexternal_port: PORT\ndatabase:\n  url: "{url}"\n'
        "tls: {cert: server.pem, key: server.key, client_ca: ca.pem}\n"
    )
    managing = (
        f'[default]\nport = PORT\nmanager_cycle_millis = 200\n[default.databases.rmom_manager]\nurl = "{url}"\n'
        '[default.tls]\ncert = "server.pem"\nkey = "server.key"\nca = "ca.pem"\nclient_ca = "ca.pem"\n'
    )
    processes = [start_server(folder, "rmom-broker", "broker", broker)[0]]
    process, where = start_server(folder, "rmom-manager", "manager", managing)
    yield f"https://{where}"
    for one in [*processes, process]:
        one.close()


def test_push_and_receive_over_tls(manager: str, tls: rmom.Tls) -> None:
    with rmom.Client(manager, tls=tls) as client:

        def one_is_live() -> bool:
            try:
                return any(broker.live for broker in client.admin.brokers())
            except rmom.MoMError:
                return False

        eventually("the broker is alive", one_is_live)
        client.admin.create_queue("tls")
        channel = client.admin.create_channel("tls")
        with client.producer("tls") as producer, client.subscribe(channel) as consumer:
            producer.push("x")
            assert consumer.next(30).text == "x"

    async def main() -> None:
        async with aio.Client(manager, tls=tls) as client:
            async with client.producer("tls", name="named") as producer:
                await producer.push("y")
            async with client.subscribe(channel) as consumer:
                assert [(await consumer.next()).text for _ in range(2)] == ["x", "y"]

    asyncio.run(main())


def test_strangers_are_refused(manager: str, tls: rmom.Tls) -> None:
    with rmom.Client(manager, tls=rmom.Tls(tls.ca)) as client, pytest.raises(rmom.Unreachable):
        client.admin.queues()


def test_the_key_can_be_in_the_file_of_the_certificate(manager: str, tls: rmom.Tls) -> None:
    folder = Path(tls.ca).parent
    assert tls.cert is not None
    assert tls.key is not None
    both = folder / "both.pem"
    both.write_bytes(Path(tls.cert).read_bytes() + Path(tls.key).read_bytes())
    combined = rmom.Tls(tls.ca, both)
    with rmom.Client(manager, tls=combined) as client:
        client.admin.create_queue("both")
        client.producer("both").push("x")

    async def main() -> None:
        async with aio.Client(manager, tls=combined) as client, client.producer("both") as producer:
            await producer.push("x")

    asyncio.run(main())


def test_tls_that_cannot_work_is_refused_and_the_setting_named(tls: rmom.Tls, tmp_path: Path) -> None:
    """gRPC would abort the process at the first push for some of these."""
    ca, cert, key = tls.ca, tls.cert, tls.key
    other = trustme.CA().issue_cert("other.example")
    other.private_key_pem.write_to_path(str(tmp_path / "other.key"))
    (tmp_path / "empty.pem").write_bytes(b"")
    (tmp_path / "damaged.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    cases: list[tuple[rmom.Tls, str]] = [
        (rmom.Tls(ca, cert), r"tls\.cert: .* has no private key, and tls.key is not given; the two go together"),
        (rmom.Tls(ca, key=key), r"tls\.key: it is given without tls.cert; the two go together"),
        (rmom.Tls(ca, cert, tmp_path / "other.key"), r"tls\.cert: .* they are not a pair"),
        (rmom.Tls(ca, cert, cert), r"tls\.key: .* has no private key in PEM form"),
        (rmom.Tls(ca, key, key), r"tls\.cert: .* has no certificate in PEM form"),
        (rmom.Tls(tmp_path / "empty.pem"), r"tls\.ca: .* has no certificate"),
        (rmom.Tls(tmp_path / "damaged.pem"), r"tls\.ca: .* cannot be used"),
        (rmom.Tls(ca, tmp_path / "damaged.pem"), r"tls\.cert: .* cannot be used"),
        (rmom.Tls(tmp_path / "missing.pem"), r"tls\.ca: .* cannot be read: No such file"),
        (rmom.Tls(tmp_path), r"tls\.ca: .* cannot be read: Is a directory"),
        (rmom.Tls(ca, cert, tmp_path / "missing.key"), r"tls\.key: .* cannot be read"),
        (rmom.Tls("\0"), r"tls\.ca: '\\x00' cannot be the name of a file"),
        (rmom.Tls(None), r"tls\.ca: it is None"),  # type: ignore[arg-type]
        (rmom.Tls(ca, 5, key), r"tls\.cert: it is 5"),  # type: ignore[arg-type]
    ]
    for client in (rmom.Client, aio.Client):
        for wrong, reason in cases:
            with pytest.raises(rmom.ConfigError, match=reason):
                client("https://127.0.0.1:1", tls=wrong)
        with pytest.raises(rmom.ConfigError, match="without TLS"):
            client("http://127.0.0.1:1", tls=tls)
