#!/usr/bin/env python3
"""Measures rmom beside what people use instead, on this machine, in turn, and writes docs/benchmarks.md and its plot.

    bins/bench/side_by_side.py [--rounds 5] [--seconds 5] [--only push-100,latency] [--no-build] [--no-write]

Each figure is the median of all rounds. In each round every system has its turn, so that whatever else the machine does is
spread over all of them. Nothing but the Python standard library is needed; servers that are missing are installed from
Debian's packages.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

import report
import systems

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
# Seconds that a run may take beyond those that it measures.
SLACK = 120


class Bench:
    """What is started once, and how each figure of each system is taken."""

    def __init__(self, folder, seconds):
        self.seconds = seconds
        self.postgres = systems.Postgres(folder)
        self.redis = systems.Redis(folder)
        self.nats = systems.Nats(folder)
        self.rabbit = systems.Rabbit(folder)
        self.folder = folder
        self.servers = [self.postgres, self.redis, self.nats, self.rabbit]

    def rmom(self, store, what, *args):
        target = ["--embedded"] if store == "sqlite" else ["--postgres", self.postgres.url]
        time_args = ["--duration", f"{int(self.seconds * 1000)}ms", "--warm-up", "1s"]
        server = None if store == "sqlite" else self.postgres
        return [RELEASE / "rmom", "bench", "--json", what, *target, *time_args, *args], server

    def peer(self, system, at, *args, server=None):
        return [RELEASE / "rmom-side-by-side", system, at, "--seconds", str(self.seconds), *args], server

    def scenarios(self):
        """Of each scenario: its title, the figure, whether more is better, and the command of each system."""
        peers = [
            ("Redis streams", "redis", self.redis),
            ("NATS JetStream", "nats", self.nats),
            ("RabbitMQ quorum queues", "rabbit", self.rabbit),
        ]

        def others(*args):
            return {
                name: self.peer(system, f"127.0.0.1:{server.port}", *args, server=server)
                for name, system, server in peers
            }

        pushes = {}
        for name, size in [("push-100", "100"), ("push-1k", "1024")]:
            sizes = ["--size", size]
            pushes[name] = (
                f"Durable push, one producer, {size} bytes",
                "stored_per_second",
                {
                    "rmom on PostgreSQL": self.rmom("postgres", "push", *sizes),
                    "rmom on SQLite": self.rmom("sqlite", "push", *sizes),
                    **others(*sizes),
                    "PostgreSQL queue by hand": self.peer(
                        "postgres-queue", self.postgres.url, "--in-flight", "20", *sizes, server=self.postgres
                    ),
                    "limit: PostgreSQL batch rows": self.peer(
                        "postgres-batches", self.postgres.url, *sizes, server=self.postgres
                    ),
                },
            )
        return pushes | {
            "one": (
                "Durable push, one in flight, 100 bytes: median, ms",
                "acknowledged_after_ms.p50",
                {
                    "rmom on PostgreSQL": self.rmom("postgres", "push", "--in-flight", "1"),
                    "rmom on SQLite": self.rmom("sqlite", "push", "--in-flight", "1"),
                    **others("--in-flight", "1"),
                    "PostgreSQL queue by hand": self.peer(
                        "postgres-queue", self.postgres.url, "--in-flight", "1", server=self.postgres
                    ),
                    "limit: write and sync": self.peer("disk", self.folder, "--in-flight", "1"),
                },
            ),
            "deliver": (
                "Delivered to one subscriber while pushing, 100 bytes",
                "delivered_per_second",
                {
                    "rmom on PostgreSQL": self.rmom("postgres", "subscribe"),
                    "rmom on SQLite": self.rmom("sqlite", "subscribe"),
                    **others("--deliver"),
                    "PostgreSQL queue by hand": self.peer(
                        "postgres-queue", self.postgres.url, "--in-flight", "20", "--deliver", server=self.postgres
                    ),
                },
            ),
            "latency": (
                "End to end at 2,000 a second, 100 bytes: 99th percentile, ms",
                "received_after_due_ms.p99",
                {
                    "rmom on PostgreSQL": self.rmom("postgres", "latency"),
                    "rmom on SQLite": self.rmom("sqlite", "latency"),
                    **others("--rate", "2000", "--deliver"),
                },
            ),
        }

    def run(self, command, server):
        """What one run printed, and what it cost."""
        before = systems.cost(server.process.pid) if server else (0, 0)
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=self.seconds + SLACK, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        after = systems.cost(server.process.pid) if server else (0, 0)
        result = json.loads(done.stdout)
        processes = result.get("processes", [])
        return {
            "figures": result.get("figures", result),
            "cpu": after[0]
            - before[0]
            + sum(process["cpu_seconds"] for process in processes if process["name"] != "rmom bench"),
            "peak": after[1]
            + sum(process["peak_resident_bytes"] for process in processes if process["name"] != "rmom bench"),
        }


def install(packages):
    """Debian's packages, if a program is missing."""
    missing = [package for program, package in packages if not shutil.which(program)]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)


def figure(result, path):
    """The number at a path of what a run printed."""
    value = result["figures"]
    for part in path.split("."):
        value = value[part]
    return value


def main():
    """See the top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", help="scenarios, separated by commas")
    parser.add_argument("--no-build", action="store_true", help="use target/release as it is")
    parser.add_argument("--no-write", action="store_true", help="print, and leave docs/ alone")
    args = parser.parse_args()

    install([("initdb", "postgresql"), ("redis-server", "redis-server"), ("rabbitmq-server", "rabbitmq-server")])
    if not args.no_build:
        subprocess.run(["cargo", "build", "--release", "-p", "rmom", "-p", "rmom-side-by-side"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="rmom-side-by-side-") as place:
        folder = pathlib.Path(place)
        folder.chmod(0o755)
        bench = Bench(folder, args.seconds)
        try:
            for server in bench.servers:
                server.start()
            wanted = args.only.split(",") if args.only else None
            scenarios = {name: scenario for name, scenario in bench.scenarios().items() if not wanted or name in wanted}
            results = {name: {system: [] for system in commands} for name, (_, _, commands) in scenarios.items()}
            for number in range(args.rounds):
                for name, (_, path, commands) in scenarios.items():
                    for system, (command, server) in commands.items():
                        result = bench.run(command, server)
                        results[name][system].append((figure(result, path), result["cpu"], result["peak"]))
                        print(
                            f"round {number + 1}: {name}: {system}: {report.number(figure(result, path))}", flush=True
                        )
        finally:
            for server in bench.servers:
                server.stop()
        tables = [
            report.Table(
                title,
                path.endswith("per_second"),
                {
                    system: tuple(statistics.median(column) for column in zip(*runs))
                    for system, runs in results[name].items()
                },
            )
            for name, (title, path, _) in scenarios.items()
        ]
        where = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}"
        about = [f"{args.rounds} rounds of {args.seconds:g} s after 1 s of warm-up, on {where}."]
        about += [f"{server.name}: {server.settings}." for server in bench.servers]
        text = report.markdown(tables, about)
        print(text)
        if not args.no_write:
            report.write(ROOT / "docs", text, tables)


if __name__ == "__main__":
    main()
