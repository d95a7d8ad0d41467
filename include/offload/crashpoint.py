"""Named points at which a test can stop a process dead, as a power cut would.

A point fires only when `OFFLOAD_CRASH_DIR` names a directory that holds a file of the point's name: the file is taken
away (so that it fires once) and the process sends itself SIGKILL. Without the variable the call costs one look-up.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

POINTS = (
    "plan-frozen",
    "spark-started",
    "mid-stream",
    "file-uploaded",
    "audited",
    "before-commit",
    "after-commit",
    "windows-written",
    "ledger-written",
)
"""In the order in which a run comes by. The two that lie between a request and its effect (the commit was sent; it
landed and its answer was lost) are outside of this process: tests hold the commit in a proxy and kill from there."""
BESIDE = ("look-saved", "rebuild-planted", "adopt-planted", "retire-planted")
"""What not every run does: it saw rows go and has no plan yet; `rebuild`, `adopt` or `retire` wrote its marker only."""


def reached(point: str) -> None:
    """Die here if a test asked for it."""
    directory = os.environ.get("OFFLOAD_CRASH_DIR")
    if not directory:
        return
    if point not in (*POINTS, *BESIDE):
        raise ValueError(f"unknown crash point {point!r}")
    try:
        (Path(directory) / point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
