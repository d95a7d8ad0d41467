"""A proxy in front of the REST catalog that can hold, drop or replay a commit: faults between a request and its effect.

All other requests pass through. A process is led to it by its environment alone (`catalog_environment`).
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LIMIT_S = 60
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@dataclass(frozen=True)
class Answer:
    """What the catalog said."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Request:
    """A request as it came, that can be sent on as often as one likes."""

    catalog: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def commits(self) -> bool:
        return self.method == "POST" and b'"updates"' in self.body and "/tables/" in self.path

    def send(self) -> Answer:
        where = urlsplit(self.catalog)
        assert where.hostname is not None
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=LIMIT_S)
        try:
            connection.request(self.method, self.path, self.body or None, self.headers)
            got = connection.getresponse()
            body = got.read()
            return Answer(got.status, tuple((k, v) for k, v in got.getheaders() if k.lower() not in HOP_BY_HOP), body)
        finally:
            connection.close()


Fault = Callable[[Request], Answer | None]


@dataclass
class CatalogProxy:
    """`uri`: where it listens; `fault`: what happens to a commit (None for an answer: the connection is cut)."""

    uri: str
    fault: Fault = Request.send
    commits: list[Request] = field(default_factory=list)
    """Every commit request that came, in order."""

    def catalog_environment(self) -> dict[str, str]:
        """Environment that leads PyIceberg's catalog `lake` through this proxy."""
        return {"PYICEBERG_CATALOG__LAKE__URI": self.uri}


class Held:
    """A commit that waits at a gate: before it is sent on (`sent_first` False), or with its answer in hand."""

    def __init__(self, *, sent_first: bool) -> None:
        self.sent_first = sent_first
        self.arrived = threading.Semaphore(0)
        self.answers: list[Answer] = []
        self._gate = threading.Event()
        self._done = threading.Semaphore(0)

    def __call__(self, request: Request) -> Answer | None:
        first = request.send() if self.sent_first else None
        self.arrived.release()
        if not self._gate.wait(LIMIT_S):
            raise TimeoutError("nobody opened the gate")
        answer = first or request.send()
        self.answers.append(answer)
        self._done.release()
        return answer

    def wait(self, commits: int = 1) -> None:
        """Until so many commits are at the gate. Raises TimeoutError."""
        for _ in range(commits):
            if not self.arrived.acquire(timeout=LIMIT_S):
                raise TimeoutError("no commit came")

    def release(self, commits: int = 1) -> list[Answer]:
        """Open the gate; what the catalog said to every commit that had waited, once it did."""
        self._gate.set()
        for _ in range(commits):
            if not self._done.acquire(timeout=LIMIT_S):
                raise TimeoutError("the catalog did not answer")
        return self.answers


def replayed(request: Request) -> Answer:
    """A proxy that got no answer in time and sent the same bytes again; the first answer is lost."""
    request.send()
    return request.send()


def answer_lost(request: Request) -> None:
    """The commit lands, its answer does not come back."""
    request.send()


@contextmanager
def catalog_proxy(catalog: str) -> Iterator[CatalogProxy]:
    """A running proxy in front of the catalog at this URI."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            request = Request(catalog, self.command, self.path, headers, self.rfile.read(size))
            if request.commits:
                proxy.commits.append(request)
            answer = proxy.fault(request) if request.commits else request.send()
            self.close_connection = answer is None
            if answer is not None:
                self._reply(answer)

        def _reply(self, answer: Answer) -> None:
            try:
                self.send_response_only(answer.status)
                for key, value in answer.headers:
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
            except ConnectionError:
                self.close_connection = True  # whoever asked was killed meanwhile: that is what this is for

        do_GET = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest's output is for results."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = CatalogProxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(LIMIT_S)
