"""The files of deploy/: linted, checked by the tools that read them, and run as far as that goes without containers."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from rmom_testing.postgres import Postgres
from rmom_testing.process import Process, eventually, http, program

DEPLOY = Path(__file__).parent.parent
COMPOSE = DEPLOY / "compose" / "compose.yaml"
YAML_RULES = (
    "{extends: default, rules: {line-length: {max: 130}, document-start: disable, braces: {max-spaces-inside: 1}}}"
)
UNITS = ["rmom-broker", "rmom-manager"]


def run(*command: str | Path) -> str:
    """A command that has to succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_linters_have_nothing_to_say() -> None:
    run("hadolint", DEPLOY / "Dockerfile")
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    run("yamllint", "--strict", "-d", YAML_RULES, DEPLOY)
    run("bash", "-n", DEPLOY / "compose" / "healthy")


def test_the_image_is_told_its_commit() -> None:
    build = yaml.safe_load(COMPOSE.read_text())["services"]["manager-1"]["build"]
    assert build["args"] == {"RMOM_COMMIT": "${RMOM_COMMIT:-}"}
    assert "ARG RMOM_COMMIT=" in (DEPLOY / "Dockerfile").read_text().splitlines()


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / f"{unit}.service").read_text()
    assert f"/usr/local/bin/{unit} " in text
    for line in (
        "User=rmom",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "Restart=on-failure",
        # It never gives up: what a start waits for may take an hour.
        "StartLimitIntervalSec=0",
        "KillSignal=SIGTERM",
    ):
        assert line in text.splitlines()
    copy = tmp_path / f"{unit}.service"
    # It looks whether the program is there.
    copy.write_text(text.replace(f"/usr/local/bin/{unit}", program(unit)))
    # What it does not know it only warns of.
    assert run("systemd-analyze", "verify", "--man=no", copy) == ""
    # In tenths: 100 is no protection at all.
    run("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15", copy)


@pytest.mark.parametrize(("unit", "config"), [("rmom-broker", "broker.yaml"), ("rmom-manager", "manager.toml")])
def test_the_machines_configurations_are_taken_without_a_warning(unit: str, config: str) -> None:
    url = "RMOM_DATABASE__URL=postgres://rmom:secret@db:5432/rmom"
    printed = run("env", url, program(unit), "--check-config", DEPLOY / "machines" / config)
    assert "warn" not in printed.lower()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Composed:
    """The services of the compose file, as processes of this machine: same files, environment and health checks."""

    def __init__(self, folder: Path, url: str) -> None:
        file: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
        self.services = file["services"]
        self.processes: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        for name, service in self.services.items():
            if name == "postgres":
                continue
            binary, config = service["command"]
            # One host instead of many, so every service has a port of its own, and the names are 127.0.0.1.
            self.ports[name] = free_port()
            environment = {key: str(value) for key, value in service["environment"].items()}
            assert re.fullmatch(r"postgres://rmom:\$\{\w+:\?.*\}@postgres:5432/rmom", environment["RMOM_DATABASE__URL"])
            environment |= {"RMOM_DATABASE__URL": url, "RMOM_PORT": str(self.ports[name])}
            if "RMOM_EXTERNAL_HOST" in environment:
                assert environment["RMOM_EXTERNAL_HOST"] == name
                environment |= {"RMOM_EXTERNAL_HOST": "127.0.0.1", "RMOM_EXTERNAL_PORT": str(self.ports[name])}
            (source,) = [volume.split(":")[0] for volume in service["volumes"] if f":{config}:" in volume]
            command = [program(binary), str(COMPOSE.parent / source)]
            self.processes[name] = Process(name, command, folder, environment)

    def is_healthy(self, name: str) -> bool:
        """What the container's health check would find."""
        how, check, port = self.services[name]["healthcheck"]["test"]
        assert (how, check) == ("CMD", "rmom-healthy")
        inside = {key: str(value) for key, value in self.services[name]["environment"].items()}.get("RMOM_PORT", "8082")
        assert port == inside, "the check asks where the service listens"
        command = [str(COMPOSE.parent / "healthy"), str(self.ports[name])]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0


@pytest.fixture
def composed(tmp_path: Path, postgres: Postgres) -> Iterator[Composed]:
    composed = Composed(tmp_path, postgres.create_database())
    yield composed
    for process in composed.processes.values():
        process.close()


def test_the_services_of_the_compose_file_make_a_cluster(composed: Composed) -> None:
    names = list(composed.processes)
    assert len([name for name in names if name.startswith("broker-")]) == 3
    assert len([name for name in names if name.startswith("manager-")]) == 2
    for name in names:
        eventually(f"{name} is healthy", partial(composed.is_healthy, name))
        assert "names no setting" not in composed.processes[name].log
    manager = f"http://127.0.0.1:{composed.ports['manager-2']}"
    eventually("a queue can be created", lambda: http("POST", f"{manager}/queues/composed")[0] in (200, 400))
    composed.processes["broker-1"].kill()
    assert not composed.is_healthy("broker-1")
