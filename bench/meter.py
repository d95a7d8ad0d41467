"""What a contender costs: wall and CPU seconds and memory of its process tree, and ClickHouse's CPU meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
SAMPLE_EVERY_S = 0.1
STOP_TIMEOUT_S = 20.0
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
TAIL_CHARS = 4000


class ContenderFailedError(RuntimeError):
    """A contender that ended with an error, ran out of time, or wrote a wrong result."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run used. `tree_bytes`: the largest sum of resident memory over the tree seen at one time, pages that
    processes share counted in each; `process_bytes`: the high-water mark of the largest process, by the kernel."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    tree_bytes: int
    process_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended well: what it printed and what it used."""

    stdout: str
    usage: Usage


def measure(argv: Sequence[str], env: Mapping[str, str], *, server_pid: int, timeout_s: float) -> Finished:
    """Run a program to its end. Raises ContenderFailedError with its last words.

    Whatever happens, nothing of its process tree is left when this returns.
    """
    with tempfile.TemporaryDirectory(prefix="offload-bench-") as folder:
        report, out, err = (Path(folder) / name for name in ("report.json", "stdout", "stderr"))
        before = cpu_seconds(server_pid)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(LAUNCHER), str(report), *argv],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            sampler = _Sampler(process.pid)
            try:
                sampler.start()
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise ContenderFailedError(f"no end after {timeout_s:.0f} s: {_tail(err)}") from None
            finally:
                sampler.stop()
                if process.poll() is None:
                    end_tree(process.pid)
                    process.wait()
        if code != 0:
            raise ContenderFailedError(f"it ended with code {code}:\n{_tail(out)}\n{_tail(err)}")
        said = json.loads(report.read_text())
        usage = Usage(
            wall_s=said["wall_s"],
            cpu_s=said["cpu_s"] + sampler.forgotten_s(said["awaited"]),
            server_cpu_s=cpu_seconds(server_pid) - before,
            tree_bytes=sampler.peak_bytes,
            process_bytes=said["largest_process_kib"] * 1024,
        )
        return Finished(out.read_text(), usage)


class _Sampler(threading.Thread):
    """Looks at a process's descendants ten times a second: at their resident memory, and at the CPU time of those
    whose parent ignores SIGCHLD. Linux drops the times of such a child when it ends, and PySpark's daemon is such
    a parent: they are as of the last look, up to a tenth of a second a process too little."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._end = threading.Event()
        self._ignored: dict[int, float] = {}
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._end.wait(SAMPLE_EVERY_S):
            living = descendants(self._root)
            self.peak_bytes = max(self.peak_bytes, sum(map(resident_bytes, living)))
            for pid in living:
                # it may end while we look
                with contextlib.suppress(OSError):
                    if ignores_children(parent(pid)):
                        self._ignored[pid] = cpu_seconds(pid)

    def forgotten_s(self, awaited: Collection[int]) -> float:
        """CPU seconds that are in nobody's account: of ignored children but those that somebody awaited after all."""
        return sum(seconds for pid, seconds in self._ignored.items() if pid not in awaited)

    def stop(self) -> None:
        self._end.set()
        if self.is_alive():
            self.join()


def descendants(pid: int) -> list[int]:
    """The process ids below `pid`, its own not among them."""
    found: list[int] = []
    todo = [pid]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    out: list[int] = []
    # every thread lists the children that it started; processes and threads may end while we look
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                out += map(int, (task / "children").read_text().split())
    return out


def resident_bytes(pid: int) -> int:
    """The resident memory of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process since its start, all threads. Raises FileNotFoundError when it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK


def parent(pid: int) -> int:
    """The process that would be told of its end. Raises FileNotFoundError when it is gone."""
    return int(_stat(pid)[1])


def ignores_children(pid: int) -> bool:
    """Whether it ignores SIGCHLD, so that no child of its is awaited. Raises FileNotFoundError when it is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1]
    return bool(int(mask, 16) >> (signal.SIGCHLD - 1) & 1)


def _stat(pid: int) -> list[str]:
    # after the name, which stands in parentheses and may hold blanks: proc(5) counts from 3 here, so that
    # ppid, the 4th, is at 1, utime, the 14th, at 11 and stime at 12
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def end_tree(pid: int) -> None:
    """Stop a process and all below it, politely first; returns when none is left or after the time limit."""
    for wave in (signal.SIGTERM, signal.SIGKILL):
        living = [*descendants(pid), pid]
        for one in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, wave)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline and any(_runs(one) for one in living):
            time.sleep(SAMPLE_EVERY_S)
        if not any(_runs(one) for one in living):
            return


def _runs(pid: int) -> bool:
    try:
        return _stat(pid)[0] not in {"Z", "X"}
    except OSError:
        return False


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-TAIL_CHARS:]
