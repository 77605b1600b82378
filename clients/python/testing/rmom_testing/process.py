"""One process, its log, and waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, TypeVar

T = TypeVar("T")

#: Limit on the time of anything that has to happen, in seconds.
PATIENCE = 60.0
POLL = 0.02

#: The repository.
ROOT = Path(__file__).resolve().parents[4]


def program(name: str) -> str:
    """A program of the repository, built by `cargo build -p rmom`."""
    path = Path(os.environ.get("RMOM_PROGRAMS", ROOT / "target" / "debug")) / name
    assert path.exists(), f"{path} is not there; build it: cargo build -p rmom"
    return str(path)


def eventually(what: str, find: Callable[[], T | None]) -> T:
    """Waits until ``find`` returns something."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = find()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(POLL)


def http(
    method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Makes a request; status 0 means that there was no answer."""
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Process:
    """A program that runs until it is stopped; its output goes to files in ``folder``."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = list(command)
        self._folder = folder
        self._out, self._log = folder / f"{name}.out", folder / f"{name}.log"
        # Leaves out settings from the environment.
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("RMOM_", "ROCKET_", "RUST_LOG"))}
        self._environment = {**keep, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, or starts it again."""
        assert self._process is None, f"{self.name} runs"
        with self._out.open("ab") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )

    @property
    def output(self) -> str:
        """Everything that it has printed."""
        return self._out.read_text(errors="replace")

    @property
    def log(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text(errors="replace")

    def wait_for_line(self, text: str, *, log: bool = True) -> str:
        """Waits until it has logged (or printed) a line with this text."""

        def find() -> str | None:
            lines = (self.log if log else self.output).splitlines()
            found = next((line for line in lines if text in line), None)
            assert found or self.is_running(), f"{self.name} ended: {self.log[-2000:]}"
            return found

        return eventually(f"{self.name} says {text!r}", find)

    def is_running(self) -> bool:
        """True until it has ended or was ended."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Waits for its end."""
        assert self._process is not None, f"{self.name} does not run"
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    def close(self) -> None:
        """Ends it, whatever its state."""
        if self._process is not None:
            self.kill()
