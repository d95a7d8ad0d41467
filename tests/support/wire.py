"""A proxy in front of an HTTP server that can hold, drop, replay or answer requests: faults between a request and its
effect.

One `proxy` serves for the REST catalog, for S3 and for ClickHouse: it says which requests meet the fault, all others
pass through. A process is led to it by its environment alone.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import urlsplit

LIMIT_S = 60
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
"""Not passed on. `Host` is: S3's signature covers it."""


@dataclass(frozen=True)
class Answer:
    """What a server said, or is made to say. `length`: of the body that a HEAD stands for."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None


@dataclass(frozen=True)
class Request:
    """A request as it came, that can be sent on as often as one likes. `server`: the real one's URI."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def commits(self) -> bool:
        """Whether it asks an Iceberg catalog for a commit."""
        return self.method == "POST" and b'"updates"' in self.body and "/tables/" in self.path

    def send(self) -> Answer:
        connection = http.client.HTTPConnection(*_place(self.server), timeout=LIMIT_S)
        try:
            connection.request(self.method, self.path, self.body or None, self.headers)
            got = connection.getresponse()
            body = got.read()
            headers = tuple((k, v) for k, v in got.getheaders() if k.lower() not in HOP_BY_HOP)
            length = got.getheader("Content-Length") if self.method == "HEAD" else None
            return Answer(got.status, headers, body, int(length) if length else None)
        finally:
            connection.close()

    def send_half(self) -> None:
        """Send it whole but for the second half of its body, and hang up."""
        head = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in self.headers.items())]
        head.append(f"Content-Length: {len(self.body)}")
        with socket.create_connection(_place(self.server), timeout=LIMIT_S) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + self.body[: len(self.body) // 2])


def _place(uri: str) -> tuple[str, int]:
    where = urlsplit(uri)
    assert where.hostname is not None and where.port is not None
    return where.hostname, where.port


Fault = Callable[[Request], Answer | None]


@dataclass
class Proxy:
    """`uri`: where it listens; `meets`: which requests meet the fault; `fault`: what then happens to them (None for an
    answer: the connection is cut)."""

    uri: str
    meets: Callable[[Request], bool]
    fault: Fault = Request.send
    met: list[Request] = field(default_factory=list)
    """Every request that met the fault, in order."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the proxy ends."""


@dataclass
class CatalogProxy(Proxy):
    """In front of the REST catalog."""

    def catalog_environment(self) -> dict[str, str]:
        """Environment that leads PyIceberg's catalog `lake` through this proxy."""
        return {"PYICEBERG_CATALOG__LAKE__URI": self.uri}

    @property
    def commits(self) -> list[Request]:
        """Every commit request that came, in order."""
        return [r for r in self.met if r.commits]


@dataclass
class StoreProxy(Proxy):
    """In front of S3."""

    def store_environment(self) -> dict[str, str]:
        """Environment that leads PyIceberg's catalog `lake` to its files through this proxy."""
        return {"PYICEBERG_CATALOG__LAKE__S3__ENDPOINT": self.uri}


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


AnyProxy = TypeVar("AnyProxy", bound=Proxy)


def catalog_proxy(catalog: str) -> AbstractContextManager[CatalogProxy]:
    """A running proxy in front of the catalog at this URI; commits meet the fault."""
    return running(catalog, lambda uri: CatalogProxy(uri, lambda r: r.commits))


@contextmanager
def running(server: str, make: Callable[[str], AnyProxy]) -> Iterator[AnyProxy]:
    """A proxy in front of the server at this URI. make: from the URI that it listens at."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # one packet an answer: else every small one waits for an acknowledgement
        wbufsize = -1

        def handle_any(self) -> None:
            body = self._body()
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            request = Request(server, self.command, self.path, headers, body)
            fault = Request.send
            if proxy.meets(request):
                proxy.met.append(request)
                fault = proxy.fault
            answer = fault(request)
            self.close_connection = answer is None
            if answer is not None:
                self._reply(answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _reply(self, answer: Answer) -> None:
            try:
                self.send_response_only(answer.status)
                for key, value in answer.headers:
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
                self.wfile.flush()
            except ConnectionError:
                self.close_connection = True  # whoever asked was killed meanwhile: that is what this is for

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest's output is for results."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    proxy = make(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        listener.shutdown()
        listener.server_close()
        thread.join(LIMIT_S)
