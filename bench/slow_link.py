"""A server at a distance: a TCP relay that delays each byte and carries only so many a second on each connection.

`python -m bench.slow_link HOST:PORT --latency-ms 20 --mb-per-s 5` prints the port that it listens at, and runs until it
is stopped. A process of its own: it would share the interpreter's lock with whoever measures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from local.paths import ROOT

BLOCK = 16_384
"""Bytes that move at a time: at a megabyte a second one takes 16 ms."""
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Link:
    """latency_ms: how late each byte comes, in each direction; mb_per_s: of one connection, in each direction."""

    latency_ms: float
    mb_per_s: float


@contextlib.contextmanager
def slow_link(server: str, link: Link) -> Iterator[int]:
    """A running relay to `server` (`host:port`): the port of 127.0.0.1 that leads there."""
    options = ["--latency-ms", str(link.latency_ms), "--mb-per-s", str(link.mb_per_s)]
    argv = [sys.executable, "-m", "bench.slow_link", server, *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(STOP_S)


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """Carry one direction of a connection until it ends, then say so to the other side."""
    clock = asyncio.get_running_loop().time
    # as much as is under way at once on a line of this length, and a little more
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(
        2 + int(link.latency_ms * link.mb_per_s * 1_000 / BLOCK)
    )

    async def send() -> None:
        free_at = clock()
        while data := await reader.read(BLOCK):
            free_at = max(free_at, clock()) + len(data) / (link.mb_per_s * 1e6)
            await under_way.put((free_at + link.latency_ms / 1e3, data))
        await under_way.put((clock(), b""))

    async def arrive() -> None:
        while True:
            due, data = await under_way.get()
            if not data:
                break
            await asyncio.sleep(due - clock())
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async with asyncio.TaskGroup() as both:
        both.create_task(send())
        both.create_task(arrive())


async def _serve(host: str, port: int, link: Link) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        come, there = await asyncio.open_connection(host, port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(relay(reader, there, link))
                both.create_task(relay(come, writer, link))
        except* ConnectionError:
            pass  # either side may hang up at any time; the other is told so below
        finally:
            there.close()
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="host:port")
    parser.add_argument("--latency-ms", type=float, required=True)
    parser.add_argument("--mb-per-s", type=float, required=True)
    options = parser.parse_args()
    host, _, port = options.server.rpartition(":")
    asyncio.run(_serve(host, int(port), Link(options.latency_ms, options.mb_per_s)))


if __name__ == "__main__":
    main()
