"""The audit of what was read (rule 12): which windows are whole as they were read, and which stay pending.

One query reads the same moment of the table throughout. So a window that came in one file is a true picture, whatever
happens beside it. One that came in several files, because it lies in several Iceberg partitions, is a picture only if
nothing moved between their queries: a row that changes its partition meanwhile would be in two files, or in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from include.offload.context import Context
from include.offload.errors import AUDIT_FAILED, OffloadError
from include.offload.model import Action, PartitionValue, Plan, PlannedWindow, ShippedFile, WindowState
from include.offload.source.client import Client
from include.offload.source.extent import ExtentQuery
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span, merge

Cells = Mapping[tuple[int, tuple[PartitionValue, ...]], WindowState]
"""What a window holds in one Iceberg partition, by window number and partition."""


def changed_windows(
    ctx: Context, spec: TableSpec, plan: Plan, files: Sequence[ShippedFile], pending: set[int]
) -> set[int]:
    """The windows that changed under the read, none of `pending`; they must be left for the next run.

    A window as planned, in rows and content, is whole. Of the others ClickHouse is asked again. Raises OFL-403 when a
    file holds another number of rows than its windows add up to, or a window that the plan does not ship.
    """
    _check_counts(plan, files, pending)
    cells = shipped_cells(files)
    doubtful = _doubtful(plan, cells, pending)
    if not doubtful:
        return set()
    grid = Grid(plan.width_us)
    with ctx.connect(spec, f"offload audit {plan.table} plan {plan.plan_id}", plan.replica) as client:
        now = count_cells(client, spec, plan, [grid.span(n) for n in doubtful])
    planned = {w.window: w for w in plan.windows}
    return {n for n in doubtful if not _whole(n, planned.get(n), cells, now, keeps=spec.deletes == "keep")}


def _doubtful(plan: Plan, cells: Cells, pending: set[int]) -> list[int]:
    """The windows to ask about again: too few rows, or in several pieces and not as planned."""
    planned = {w.window: (w.rows, w.hash) for w in plan.windows}
    came: dict[int, list[WindowState]] = {number: [] for number in planned}
    for (number, _), state in cells.items():
        came.setdefault(number, []).append(state)
    out: list[int] = []
    for number in sorted(came.keys() - pending):
        rows, content = planned.get(number, (0, 0))
        whole = sum(came[number], WindowState(number, 0, 0))
        if whole.rows < rows or (len(came[number]) > 1 and (whole.rows, whole.hash) != (rows, content)):
            out.append(number)
    return out


def _whole(number: int, planned: PlannedWindow | None, shipped: Cells, now: Cells, *, keeps: bool) -> bool:
    """Whether a window that differs from its plan may be shipped as it came.

    Fewer rows than planned: only if ClickHouse has no more either, and the lake, which keeps deleted rows, no more
    than came (rule 19). More rows: late ones, which may come as they like. In several pieces: each must be as it is
    now, or have grown since by late rows; one that shrank or has another content was changed between the queries.
    """
    ours = {key: state for key, state in shipped.items() if key[0] == number}
    theirs = {key: state for key, state in now.items() if key[0] == number}
    rows = sum(s.rows for s in ours.values())
    if planned is not None:
        if rows < planned.rows and rows < sum(s.rows for s in theirs.values()):
            return False
        if keeps and planned.action is Action.REPLACE and rows < (planned.ledger_rows or 0):
            return False
    return len(ours) < 2 or not any(_torn(s, theirs.get(key)) for key, s in ours.items())


def _torn(came: WindowState, now: WindowState | None) -> bool:
    return now is None or came.rows > now.rows or (came.rows == now.rows and came.hash != now.hash)


def _check_counts(plan: Plan, files: Iterable[ShippedFile], pending: set[int]) -> None:
    grid = Grid(plan.width_us)
    planned = {w.window for w in plan.windows}
    for file in files:
        if file.rows != sum(w.rows for w in file.windows):
            raise OffloadError(
                AUDIT_FAILED,
                f"{file.path} holds {file.rows} rows, its windows add up to another number",
                table=plan.table,
            )
        for number in (w.window for w in file.windows):
            span = grid.span(number)
            if number in pending or (number not in planned and not any(a.lo <= span.lo < a.hi for a in plan.append)):
                raise OffloadError(
                    AUDIT_FAILED, f"rows of window {span} came, which the plan does not ship", table=plan.table
                )


def shipped_windows(files: Iterable[ShippedFile]) -> dict[int, WindowState]:
    """The windows of all files, summed."""
    out: dict[int, WindowState] = {}
    for state in (w for file in files for w in file.windows):
        out[state.window] = out[state.window] + state if state.window in out else state
    return out


def shipped_cells(files: Iterable[ShippedFile]) -> dict[tuple[int, tuple[PartitionValue, ...]], WindowState]:
    """The same by Iceberg partition. A slice reads whole windows of one partition, so each cell is in one file."""
    return {(state.window, file.partition): state for file in files for state in file.windows if state.rows}


def count_cells(
    client: Client, spec: TableSpec, plan: Plan, spans: Sequence[Span]
) -> dict[tuple[int, tuple[PartitionValue, ...]], WindowState]:
    """What ClickHouse holds in `spans` now, as the plan projects it. Raises OFL-2xx."""
    query = ExtentQuery(
        spec.source.database, spec.source.table, plan.cursor, None, spec.source.final, Grid(plan.width_us),
        plan.projection, plan.partition, None,
    )  # fmt: skip
    return {
        (int(window), tuple(partition)): WindowState(int(window), int(rows), int(content))
        for window, rows, content, _, _, _, *partition in client.query(query.cells_sql(merge(spans)))
    }
