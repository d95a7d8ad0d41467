"""What the files in `dags/` load: the specs of this bundle, and the one error that lists the invalid ones."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

from include.offload.spec.load import LoadResult, load_specs
from include.offload.spec.model import TableSpec

NEIGHBOURS = 20
"""How many tables a run announces beside its own: all of a small bundle, and 1,000 runs an interval stay cheap."""

_parsed: tuple[TableSpec, ...] = ()


def bundle_specs(dags: Path) -> LoadResult:
    """The specs below `dags`/tables, or below `OFFLOAD_TABLES`, with the overlay `OFFLOAD_ENV`. Reads YAML only."""
    global _parsed  # noqa: PLW0603 - a task's process has just parsed them: it need not read them again
    found = load_specs(Path(os.environ.get("OFFLOAD_TABLES") or dags / "tables"), os.environ.get("OFFLOAD_ENV"))
    _parsed = found.specs
    return found


def to_announce(own: TableSpec) -> tuple[tuple[TableSpec, ...], int | None]:
    """The specs whose metrics a run of `own` declares, so that also a table that never runs is known to the alerts.

    `own` and those after it in the order of their names; and how many specs the bundle has, None when unknown.
    """
    ordered = sorted(_parsed, key=lambda s: s.identity)
    at = next((i for i, s in enumerate(ordered) if s.identity == own.identity), None)
    if at is None:
        return (own,), None
    turned = ordered[at:] + ordered[:at]
    return tuple(turned[: NEIGHBOURS + 1]), len(ordered)


class InvalidSpecsError(Exception):
    """All mistakes in all specs: file, line, field, what is wrong and what to write instead."""

    def __init__(self, found: LoadResult) -> None:
        by_file = [(path, list(errors)) for path, errors in groupby(found.errors, key=lambda e: e.path)]
        mistakes, files = _count(len(found.errors), "mistake"), _count(len(by_file), "table spec")
        lines = [f"OFL-101 {mistakes} in {files}; the {len(found.specs)} valid DAGs keep running.", ""]
        for path, errors in by_file:
            lines.append(str(path))
            for e in errors:
                lines.append(f"  line {e.line}: " + (f"{e.key}: " if e.key else "") + e.message)
                if e.instead:
                    lines.append(f"    write: {e.instead}")
            lines.append("")
        lines.append("Check without Airflow: bin/offload spec check")
        super().__init__("\n".join(lines))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
