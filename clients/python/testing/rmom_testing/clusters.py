"""Clusters: `rmom dev` on SQLite, and managers and brokers as separate processes on PostgreSQL."""

from __future__ import annotations

import json
import signal
from abc import ABC, abstractmethod
from pathlib import Path

from .process import Process, eventually, http, program


class Cluster(ABC):
    """Managers and brokers. Brokers are numbered from 0."""

    #: URLs.
    managers: list[str]
    #: ``host:port``.
    brokers: list[str]

    def host_of(self, queue: str) -> int:
        """The broker that hosts a queue, according to the first manager that answers."""

        def find() -> str | None:
            for manager in self.managers:
                status, body = http("GET", f"{manager}/queues/{queue}")
                if status == 200:
                    place = json.loads(body)
                    return f"{place['host']}:{place['port']}"
            return None

        return self.brokers.index(eventually(f"a manager knows who hosts {queue}", find))

    @abstractmethod
    def kill_broker(self, number: int) -> None:
        """Kills a broker like `kill -9`."""

    @abstractmethod
    def start_broker(self, number: int) -> None:
        """Starts it again, on the same port."""

    @abstractmethod
    def close(self) -> None:
        """Ends everything."""

    def restart_all(self) -> None:
        """Starts killed brokers again, and waits until the managers count every broker as alive."""
        for number in range(len(self.brokers)):
            if not self.is_running(number):
                self.start_broker(number)
        eventually("all brokers are alive", self._all_live)

    @abstractmethod
    def is_running(self, number: int) -> bool:
        """True unless the broker was killed."""

    def _all_live(self) -> bool:
        for manager in self.managers:
            status, body = http("GET", f"{manager}/v1/brokers")
            if status != 200 or sum(broker["live"] for broker in json.loads(body)["brokers"]) != len(self.brokers):
                return False
        return True


class DevCluster(Cluster):
    """`rmom dev`: everything in one process. Its brokers crash within it."""

    def __init__(self, folder: Path) -> None:
        command = [program("rmom"), "dev", "--json", "--port", "0", "--data", str(folder / "data")]
        self._process = Process("rmom-dev", command, folder)
        started = json.loads(self._process.wait_for_line('"manager"', log=False))
        self.managers = [started["manager"]]
        self.brokers = started["brokers"]
        self._killed: set[int] = set()

    def kill_broker(self, number: int) -> None:
        self._command(number, "crash")
        self._killed.add(number)

    def start_broker(self, number: int) -> None:
        self._command(number, "restart")
        self._killed.discard(number)

    def is_running(self, number: int) -> bool:
        return number not in self._killed

    def _command(self, number: int, what: str) -> None:
        status, body = http("POST", f"{self.managers[0]}/v1/dev/brokers/{number + 1}/{what}")
        assert status == 204, body

    def close(self) -> None:
        self._process.close()


def start_server(folder: Path, binary: str, name: str, config: str) -> tuple[Process, str]:
    """Starts a manager or broker whose configuration has PORT in place of its port; returns the address on which it
    listens."""
    path = folder / f"{name}.conf"
    path.write_text(config.replace("PORT", "0"))
    process = Process(name, [program(binary), str(path), "--log-format", "json"], folder, {"RUST_LOG": "info"})
    where: str = json.loads(process.wait_for_line(f"{binary} starts"))["listening"]
    # A restarted server has to keep its port, in order to be the same server.
    path.write_text(config.replace("PORT", where.rsplit(":", 1)[1]))
    return process, where


class ProcessCluster(Cluster):
    """Three brokers and two managers, which check the brokers twice a second."""

    def __init__(self, folder: Path, database_url: str, *, brokers: int = 3, managers: int = 2) -> None:
        broker = f'host: 127.0.0.1\nport: PORT\nexternal_port: PORT\ndatabase:\n  url: "{database_url}"\n'
        manager = (
            "[default]\nport = PORT\nmanager_cycle_millis = 500\n"
            f'[default.databases.rmom_manager]\nurl = "{database_url}"\n'
        )
        self.manager_processes, self.broker_processes = [], []
        self.managers, self.brokers = [], []
        for number in range(managers):
            process, where = start_server(folder, "rmom-manager", f"manager-{number}", manager)
            self.manager_processes.append(process)
            self.managers.append(f"http://{where}")
        for number in range(brokers):
            process, where = start_server(folder, "rmom-broker", f"broker-{number}", broker)
            self.broker_processes.append(process)
            self.brokers.append(where)
        eventually("all brokers are alive", self._all_live)

    def kill_broker(self, number: int) -> None:
        self.broker_processes[number].kill()

    def start_broker(self, number: int) -> None:
        self.broker_processes[number].start()

    def is_running(self, number: int) -> bool:
        return self.broker_processes[number].is_running()

    def pause_broker(self, number: int) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.broker_processes[number].signal(signal.SIGSTOP)

    def resume_broker(self, number: int) -> None:
        """SIGCONT."""
        self.broker_processes[number].signal(signal.SIGCONT)

    def close(self) -> None:
        for process in self.broker_processes + self.manager_processes:
            process.close()
