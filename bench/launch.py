"""Runs one program and says what it and everything it started used: `python bench/launch.py REPORT PROGRAM ARG…`.

Linux adds a process's CPU time to its parent's account only when the parent waits for it. Spark's workers and their
daemon often outlive whoever started them, so this process makes itself the one that orphans fall to (child subreaper)
and waits for all of them. What a parent that ignores its children's end loses, `bench/meter.py` adds.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""


def main() -> int:
    """Exit code of the program; the report holds it too, with seconds and the largest process in KiB."""
    report, *argv = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this kernel has no child subreaper")
    began = time.monotonic()
    program = subprocess.Popen(argv)
    code = program.wait()
    wall = time.monotonic() - began
    awaited = [program.pid]
    try:
        while True:
            awaited.append(os.wait()[0])
    except ChildProcessError:
        pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "code": code,
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "awaited": awaited,
        "largest_process_kib": used.ru_maxrss,
    }
    Path(report).write_text(json.dumps(figures))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
