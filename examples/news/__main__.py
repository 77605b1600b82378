"""The whole example: `rmom dev`, the news pusher and the news consumer. Ctrl-C stops all three."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def find_rmom() -> str:
    """The program: of this repository, or wherever the system finds it."""
    for build in ("release", "debug"):
        path = HERE.parent.parent / "target" / build / "rmom"
        if path.exists():
            return str(path)
    found = shutil.which("rmom")
    if found is None:
        sys.exit("there is no rmom; build it with: cargo build -p rmom")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="examples/news/run", description=__doc__)
    parser.add_argument("--comments-port", type=int, default=8080, help="of the pusher's page; 0: any [%(default)s]")
    parser.add_argument("--news-port", type=int, default=8081, help="of the consumer's page; 0: any [%(default)s]")
    parser.add_argument("--manager-port", type=int, default=8082, help="of rmom's manager; 0: any [%(default)s]")
    parser.add_argument("--every", default="3", metavar="SECONDS", help="how often there is news [%(default)s]")
    options = parser.parse_args()
    # SIGTERM ends this as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: list[subprocess.Popen[str]] = []
    try:
        command = [find_rmom(), "dev", "--ephemeral", "--json", "--port", str(options.manager_port)]
        cluster = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        running.append(cluster)
        assert cluster.stdout is not None
        line = cluster.stdout.readline()
        if not line:
            sys.exit("rmom dev did not start")
        started = json.loads(line)
        manager = started["manager"]
        print(f"rmom: {manager}\nbrokers: {' '.join(started['brokers'])}", flush=True)
        for name, more in (
            ("news_pusher", ["--port", str(options.comments_port), "--every", options.every]),
            ("news_consumer", ["--port", str(options.news_port)]),
        ):
            script = [sys.executable, str(HERE / f"{name}.py"), "--manager", manager, *more]
            running.append(subprocess.Popen(script, text=True, start_new_session=True))
        while all(process.poll() is None for process in running):
            time.sleep(0.2)
        sys.exit("one of the three has ended")
    except KeyboardInterrupt:
        pass
    finally:
        # The cluster last: the applications say good-bye to it.
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main()
