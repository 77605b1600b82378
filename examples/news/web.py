"""The page of an application: what it received, live, and a form to send something."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Callable
from urllib.parse import parse_qs

from rmom import MoMError

from exchange import Board, Item

#: How long a browser that listens is left without a word, in seconds; then it is sent a comment, so that it, and whatever
#: lies between, knows that the connection lives.
HEARTBEAT_SECONDS = 10.0
#: Longest text that the form takes, in bytes.
MAX_FORM_BYTES = 4_096

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Page:
    """What there is to show."""

    path: str
    title: str
    explanation: str
    prompt: str
    board: Board
    send: Callable[[str], None]

    def html(self) -> bytes:
        """The page with all that was received so far: it needs no script to be read."""
        items = [{"number": item.number, "text": item.text} for item in self.board.after(0)]
        rows = "\n".join(f'<li value="{item["number"]}">{_escape(str(item["text"]))}</li>' for item in items)
        values = {"title": self.title, "explanation": self.explanation, "prompt": self.prompt, "path": self.path}
        return PAGE.substitute({key: _escape(value) for key, value in values.items()}, items=rows).encode()


def _escape(text: str) -> str:
    for char, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, name)
    return text


def serve(page: Page, host: str, port: int) -> ThreadingHTTPServer:
    """A server for one page; run it with `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/":
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", page.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == page.path:
                self._answer(HTTPStatus.OK, page.html(), "text/html; charset=utf-8")
            elif self.path.split("?")[0] == f"{page.path}/events":
                self._events()
            else:
                self._answer(HTTPStatus.NOT_FOUND, f"there is only {page.path}\n".encode())

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if self.path != page.path or not 0 < length <= MAX_FORM_BYTES:
                self.close_connection = True
                self._answer(HTTPStatus.BAD_REQUEST, f"a form of at most {MAX_FORM_BYTES} bytes\n".encode())
                return
            text = parse_qs(self.rfile.read(length).decode(errors="replace")).get("text", [""])[0].strip()
            try:
                if text:
                    page.send(text)
                self.send_response(HTTPStatus.SEE_OTHER)
                self.send_header("Location", page.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except MoMError as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n{error.hint}\n".encode())

        def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _events(self) -> None:
            """Server-sent events: a browser that comes back says how far it was."""
            query = parse_qs(self.path.partition("?")[2])
            last = self.headers.get("Last-Event-ID") or query.get("after", ["0"])[0]
            number = int(last) if last.isdigit() else 0
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while True:
                    items = page.board.after(number, wait=HEARTBEAT_SECONDS)
                    self.wfile.write("".join(map(_event, items)).encode() or b":\n\n")
                    self.wfile.flush()
                    number += len(items)
            except OSError:
                return  # The browser has gone.

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
            pass

    return ThreadingHTTPServer((host, port), Handler)


def _event(item: Item) -> str:
    # JSON has no line breaks, which would end the event.
    return f"id: {item.number}\ndata: {json.dumps({'number': item.number, 'text': item.text})}\n\n"
