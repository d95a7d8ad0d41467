"""Runs Sling, its connections in the environment, where no process list shows them. `sling_run.py SETTINGS.json`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    began = time.monotonic()
    subprocess.run(settings["argv"], env={**os.environ, **settings["env"]}, check=True)
    print("BENCH_RESULT " + json.dumps({"seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
