"""Runs a server so that nothing of it outlives it: `python -m local.keeper COMMAND…`, as a container's init does.

For Airflow's scheduler: the workers of a LocalExecutor live on when it dies, and with them its database connection,
which may hold the lock that the next scheduler waits for. So they and their jobs die too, and their tasks start again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""prctl(2), from linux/prctl.h."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _dies_with_us() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_orphans() -> None:
    """SIGKILL whatever the server left; all of it is a child of ours by now, or a child of such a child."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ChildProcessError):
            os.wait()


def _pass_on(server: int, number: int) -> None:
    """The signal to the server; nothing when it has just ended and was reaped."""
    with suppress(ProcessLookupError):
        os.kill(server, number)


def main(command: Sequence[str]) -> int:
    """Run the command, pass signals on, wait for its end, end what it left; its exit code, 128 + n for signal n."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen(command, preexec_fn=_dies_with_us)  # noqa: PLW1509 - this process has one thread
    for number in PASSED_ON:
        signal.signal(number, lambda n, _: _pass_on(server.pid, n))
    while True:
        # also reaps what the server's dead children left behind
        pid, status = os.wait()
        if pid == server.pid:
            break
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_IGN)
    _end_orphans()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
