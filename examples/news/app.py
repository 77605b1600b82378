"""What both applications do to run."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading

from exchange import Exchange
from web import Page, serve


def arguments(description: str, port: int) -> argparse.ArgumentParser:
    """The options of both."""
    parser = argparse.ArgumentParser(description=description)
    manager = os.environ.get("RMOM_MANAGER", "http://127.0.0.1:8082")
    parser.add_argument("--manager", default=manager, metavar="URL", help="a manager of rmom [%(default)s]")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=port, help="the port to listen on; 0: any [%(default)s]")
    return parser


def run(name: str, page: Page, exchange: Exchange, options: argparse.Namespace) -> None:
    """Serves the page until SIGINT or SIGTERM."""
    logging.basicConfig(format=f"{name}: %(levelname)s %(message)s", level=logging.WARNING)
    server = serve(page, options.host, options.port)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{name}: http://{options.host}:{server.server_port}{page.path}", flush=True)
    stop.wait()
    server.shutdown()
    exchange.close()
