"""Real servers that hear what is sent to them, or hang: a webhook, an SMTP server, a port that never answers."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Heard:
    """What a receiver got. `answer`: the status that a webhook gives."""

    port: int = 0
    answer: int = 200
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)


@contextmanager
def webhook(port: int = 0) -> Iterator[Heard]:
    """An HTTP server on loopback that keeps every JSON document that is posted to it; on any free port for 0."""
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.paths.append(self.path)
            heard.headers.append({k.lower(): v for k, v in self.headers.items()})
            heard.documents.append(json.loads(body))
            self.send_response(heard.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    with _served(ThreadingHTTPServer(("127.0.0.1", port), Handler), heard):
        yield heard


class _Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as one message needs."""

    def handle(self) -> None:
        heard: Heard = self.server.heard  # type: ignore[attr-defined]
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "DATA":
                self._say("354 go on")
                text = []
                while (part := self.rfile.readline().decode()).rstrip("\r\n") != ".":
                    text.append(part)
                heard.mails.append("".join(text))
            elif word == "RCPT":
                heard.recipients.append(line)
            self._say("221 bye" if word == "QUIT" else "250 ok")
            if word == "QUIT":
                return

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def smtp() -> Iterator[Heard]:
    """An SMTP server on loopback that keeps every message."""
    heard = Heard()
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
    server.daemon_threads = True
    server.heard = heard  # type: ignore[attr-defined]
    with _served(server, heard):
        yield heard


@contextmanager
def _served(server: socketserver.TCPServer, heard: Heard) -> Iterator[None]:
    heard.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield server.getsockname()[1]
