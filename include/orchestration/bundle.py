"""What the files in `dags/` load: the specs of this bundle, and the one error that lists the invalid ones."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

from include.offload.spec.load import LoadResult, load_specs


def bundle_specs(dags: Path) -> LoadResult:
    """The specs below `dags`/tables, or below `OFFLOAD_TABLES`, with the overlay `OFFLOAD_ENV`. Reads YAML only."""
    return load_specs(Path(os.environ.get("OFFLOAD_TABLES") or dags / "tables"), os.environ.get("OFFLOAD_ENV"))


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
