"""local/keeper.py: what happens between the end of the server and the end of what it left."""

from __future__ import annotations

import subprocess
import sys

import psutil

from include.offload.settings import ROOT

SIGNALLED_AFTER_REAPING = """
import os, signal, sys
from local import keeper

reap = os.wait

def wait():
    found = reap()
    os.kill(os.getpid(), signal.SIGTERM)
    return found

os.wait = wait
sys.exit(keeper.main(["sh", "-c", "sleep 250 >/dev/null 2>&1 & echo $!; exit 3"]))
"""


def test_a_signal_that_comes_when_the_server_was_just_reaped_does_not_save_its_orphans() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED_AFTER_REAPING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not psutil.pid_exists(int(done.stdout))
    assert (done.returncode, done.stderr) == (3, "")
