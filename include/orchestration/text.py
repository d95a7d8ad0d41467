"""What a person reads in Airflow: the DAG's documentation, written from the spec and nothing else."""

from __future__ import annotations

from include.offload.spec.human import format_duration as duration
from include.offload.spec.human import format_instant, format_size
from include.offload.spec.model import TableSpec


def _columns(spec: TableSpec) -> str:
    columns = spec.columns
    parts = ["all columns" if columns.include is None else f"only {', '.join(f'`{c}`' for c in columns.include)}"]
    if columns.exclude:
        parts.append(f"without {', '.join(f'`{c}`' for c in columns.exclude)}")
    if columns.overrides:
        parts.append(f"own expression or type for {', '.join(f'`{c}`' for c in columns.overrides)}")
    return "; ".join(parts)


def _partition(spec: TableSpec) -> str:
    shown = [f.column if f.transform == "identity" else f"{f.transform} of {f.column}" for f in spec.target.partition]
    return ", ".join(shown) or "none"


def summary(spec: TableSpec) -> str:
    """One line for the DAG list."""
    return (
        f"ClickHouse {spec.source.database}.{spec.source.table} to Iceberg "
        f"{spec.target.namespace}.{spec.target.table}, exactly once"
    )


def dag_doc(spec: TableSpec) -> str:
    """The DAG's `doc_md`."""
    start = format_instant(spec.start_us) if spec.start_us is not None else "the first row"
    deletes = {
        "keep": "kept in the lake, and reported",
        "follow": "followed: the window is replaced by what is left",
    }[spec.deletes]
    final = " with `FINAL`" if spec.source.final else ""
    origin = f"{spec.source.database}.{spec.source.table}"
    head = f"{spec.doc.strip()}\n\n" if spec.doc else ""
    return f"""{head}Moves every settled row of `{origin}` into Apache Iceberg, exactly once.

| | |
| --- | --- |
| **source** | ClickHouse `{origin}`{final}, connection `{spec.connections.clickhouse}` |
| **target** | Iceberg `{spec.target.namespace}.{spec.target.table}`, partitioned by {_partition(spec)} |
| **cursor** | `{spec.cursor}`{f", then `{spec.sequence}`" if spec.sequence else ""}; rows from {start} on |
| **window** | {duration(spec.window_us)}: the unit that is counted, hashed, appended or replaced |
| **settle** | {duration(spec.settle_us)} after its end a window may be offloaded |
| **horizon** | {duration(spec.horizon_us)} back, windows are compared again and replaced when ClickHouse changed |
| **deleted rows** | {deletes} |
| **columns** | {_columns(spec)} |
| **source load** | {spec.source.limits.threads} threads and {format_size(spec.source.limits.memory)} a query, \
{spec.slice.concurrency} queries at once |

### The three tasks
1. `check_extent` counts and hashes the settled windows in ClickHouse and freezes a plan in the ledger.
2. `offload` runs the Spark job for that plan: one atomic Iceberg commit. Skipped when there is nothing to move.
3. `update_watermark` reads the commit marker back from Iceberg, moves the watermark and announces the asset. While more
   is settled than one run may ship, it begins the next run at once: `catchup__2__…`. Pausing the DAG stops that.

### When it is red
Open the failed task's log: its last lines carry an id `OFL-…`, the cause and the next command.
Clearing any task, or the whole run, is always safe: a plan that has landed is never written twice.

| you see | do |
| --- | --- |
| a task failed | follow the `next:` line, then clear the task |
| the run is red and the next one green | nothing: the next run took over what was left |
| rows differ | `bin/offload verify {spec.identity}` names the windows |
| a range must go again | trigger with `from` and `to`; unchanged windows are left alone |
"""
