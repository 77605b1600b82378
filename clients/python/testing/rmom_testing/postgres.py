"""A PostgreSQL server for tests, private to the test process, and never run as root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from .process import eventually

#: Creates the database, runs the server, and stops it when this process ends. The tests of Rust use it, too.
WATCHER = (Path(__file__).parents[4] / "net" / "src" / "testing" / "postgres.sh").read_text()


class Postgres:
    """A server with default settings, fsync included."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="rmom-postgres-"))
        self._password = secrets.token_hex(16)
        self._port = _free_port()
        self._databases = 0
        (self._folder / "password").write_text(self._password)
        account = _account()
        if account is not None:
            for path in (self._folder, self._folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        command = ["/bin/sh", "-c", WATCHER, "watcher", str(self._folder), str(self._bin)]
        command += ["-p", str(self._port), "-h", "127.0.0.1", "-k", str(self._folder), "-c", "max_connections=200"]
        with (self._folder / "server.log").open("wb") as log:
            self._watcher = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # ^C at the terminal must not reach the watcher before this process is gone.
                start_new_session=True,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        eventually("PostgreSQL takes connections", self._is_ready)

    def _is_ready(self) -> bool:
        log = (self._folder / "server.log").read_text(errors="replace")
        assert self._watcher.poll() is None, f"PostgreSQL does not start: {log}"
        try:
            # The eighth line holds the state, as pg_ctl reads it.
            return (self._folder / "data" / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    def create_database(self) -> str:
        """The URL of a fresh database."""
        self._databases += 1
        name = f"rmom_{self._databases}"
        command = [str(self._bin / "createdb"), "-h", "127.0.0.1", "-p", str(self._port), "-U", "rmom"]
        environment = {**os.environ, "PGPASSWORD": self._password}
        subprocess.run([*command, "-T", "template0", name], env=environment, check=True)
        return f"postgres://rmom:{self._password}@127.0.0.1:{self._port}/{name}"

    def close(self) -> None:
        """Stops it and removes what it stored."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    in_path = shutil.which("postgres")
    assert in_path, "PostgreSQL is not installed, and these tests need it: apt-get install postgresql"
    return Path(in_path).resolve().parent


def _account() -> pwd.struct_passwd | None:
    """PostgreSQL does not run as root. The account to run it as instead; ``None`` means this process' own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
