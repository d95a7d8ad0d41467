"""A reader of an Iceberg table in a process of its own: reads over and over, and says what it should never have seen.

`python -m tests.support.reader TABLE LAST STOP`: ids 1 to LAST are there from the start; it reads until the file STOP
exists. Prints one JSON document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.catalog import load_catalog

from include.offload.settings import ROOT, load

LIMIT_S = 90
"""A reader that nobody stops ends by itself."""


@dataclass(frozen=True)
class Seen:
    """What a reader saw: reads of the current snapshot, of older ones, snapshots, and every gap or double."""

    reads: int
    travels: int
    snapshots: int
    faults: list[str]


def read(name: str, last: int, stop: Path) -> Seen:
    """Read the current snapshot and each one in history until `stop` exists, and once more after that."""
    catalog = load_catalog(load().catalog)
    wanted = set(range(1, last + 1))
    faults: list[str] = []
    known: dict[int, list[int]] = {}
    reads = travels = 0
    until = time.monotonic() + LIMIT_S
    ended = False
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not ended and time.monotonic() < until:
        ended = stop.exists()
        table = catalog.load_table(name)
        for snapshot in [None, *(s.snapshot_id for s in table.snapshots())]:
            if snapshot in known and not ended:
                continue
            ids = table.scan(selected_fields=("id",), snapshot_id=snapshot).to_arrow().column("id").to_pylist()
            if snapshot is None:
                reads += 1
            else:
                travels += 1
                known[snapshot] = ids
            missing = wanted - set(ids)
            doubles = [i for i, n in Counter(ids).items() if n > 1]
            if missing or doubles:
                faults.append(f"snapshot {snapshot}: {len(missing)} rows missing, {len(doubles)} twice")
    return Seen(reads, travels, len(known), faults)


def while_reading(name: str, last: int, stop: Path, happens: Callable[[], object]) -> Seen:
    """What a reader in another process sees while something happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.reader", name, str(last), str(stop)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        happens()
    finally:
        stop.touch()
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err[-2000:]
    return Seen(**json.loads(out.splitlines()[-1]))


if __name__ == "__main__":
    seen = read(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.write(json.dumps(seen.__dict__) + "\n")
