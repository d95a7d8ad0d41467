"""A TCP gateway on this machine through which every answer comes late."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from local.ports import HOST

CHUNK = 1 << 16
POLL_S = 0.5


class SlowRoad:
    """Leads to `to` on this machine; each answer begins `delay_s` seconds late, however long it is.

    `port`: where it listens. What is sent goes through at once: a request is small, and one delay a turn is enough.
    """

    def __init__(self, to: int, delay_s: float) -> None:
        self._to, self._delay_s = to, delay_s
        self._end = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(POLL_S)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="slow-road", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; connections that are open end with their clients."""
        self._end.set()
        self._thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._end.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                try:
                    server = socket.create_connection((HOST, self._to), 5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                asked = threading.Event()
                for work in ((_ask, client, server, asked), (_answer, server, client, asked, self._delay_s)):
                    threading.Thread(target=work[0], args=work[1:], daemon=True).start()


def _ask(source: socket.socket, sink: socket.socket, asked: threading.Event) -> None:
    _pass_on(source, sink, asked.set)


def _answer(source: socket.socket, sink: socket.socket, asked: threading.Event, delay_s: float) -> None:
    def late() -> None:
        if asked.is_set():
            asked.clear()
            time.sleep(delay_s)

    _pass_on(source, sink, late)


def _pass_on(source: socket.socket, sink: socket.socket, first: Callable[[], None]) -> None:
    """Bytes from one to the other, after a call of `first` for each piece."""
    # a side that hangs up ends both: that is what a gateway does
    with suppress(OSError):
        while piece := source.recv(CHUNK):
            first()
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
