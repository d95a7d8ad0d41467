"""The relay of the bench: what comes is whole, late, and no faster than it may."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from bench.slow_link import Link, slow_link

LINK = Link(latency_ms=100, mb_per_s=1)


class Echo(socketserver.StreamRequestHandler):
    """Sends back what came, once it is all there."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


@pytest.fixture
def far() -> Iterator[int]:
    """The port of an echo server at a distance."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with slow_link(f"127.0.0.1:{server.server_address[1]}", LINK) as port:
                yield port
        finally:
            server.shutdown()
            thread.join(10)


def there_and_back(port: int, data: bytes) -> tuple[bytes, float]:
    """What came back, and after how many seconds."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        back = b"".join(iter(lambda: connection.recv(65_536), b""))
    return back, time.monotonic() - began


@pytest.mark.parametrize(("size", "least_s"), [(1, 0.2), (300_000, 0.8)], ids=["a byte", "300 kB"])
def test_what_comes_is_whole_and_late(far: int, size: int, least_s: float) -> None:
    """Twice the latency, and twice the bytes at the pace: there, then back."""
    data = bytes(i % 251 for i in range(size))
    back, seconds = there_and_back(far, data)
    assert back == data
    assert seconds >= least_s


def test_each_connection_has_a_pace_of_its_own(far: int) -> None:
    """Two at a time take as long as one: that is what two workers win."""
    data = bytes(300_000)
    _, alone_s = there_and_back(far, data)
    began = time.monotonic()
    both = [threading.Thread(target=there_and_back, args=(far, data)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert time.monotonic() - began < 1.7 * alone_s
