"""The audit of what was read (rule 12): which windows are whole as they were read, and which stay pending.

One query reads the same moment of the table throughout. So a window that came in one file is a true picture, whatever
happens beside it. One that came in several files, because it lies in several Iceberg partitions, is a picture only if
nothing moved between their queries: a row that changes its partition meanwhile would be in two files, or in none.
So such a one passes as it was planned, or as ClickHouse holds it when asked again: either is one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from include.offload.context import Context
from include.offload.errors import AUDIT_FAILED, OffloadError
from include.offload.model import (
    EXPIRED_LONG_AGO,
    Action,
    Outcome,
    PartitionValue,
    Plan,
    PlannedWindow,
    ShippedFile,
    SourceTable,
    WindowState,
    earliest,
)
from include.offload.source.client import Client
from include.offload.source.extent import ExtentQuery, read_survey
from include.offload.source.ttl import expiry_sql
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
    keeps = spec.deletes == "keep"
    return {n for n in doubtful if not _whole(n, planned.get(n), cells, now, _read(plan, grid.span(n)), keeps=keeps)}


def unlike_planned(plan: Plan, files: Sequence[ShippedFile], pending: set[int]) -> set[int]:
    """The windows that did not come exactly as planned, none of `pending`.

    From another replica than the planned one all of them must wait: whether it lacks rows, or has not deleted or
    changed them yet, nothing on it tells.
    """
    return set(_doubtful(plan, shipped_cells(files), pending))


def _doubtful(plan: Plan, cells: Cells, pending: set[int]) -> list[int]:
    """The windows to ask about again: those that did not come as planned, in rows and content."""
    planned = {w.window: (w.rows, w.hash) for w in plan.windows}
    came: dict[int, WindowState] = {number: WindowState(number, 0, 0) for number in planned}
    for (number, _), state in cells.items():
        came[number] = came.get(number, WindowState(number, 0, 0)) + state
    return [
        number
        for number, whole in sorted(came.items())
        if number not in pending and (whole.rows, whole.hash) != planned.get(number, (0, 0))
    ]


def _read(plan: Plan, window: Span) -> set[tuple[PartitionValue, ...]]:
    """The Iceberg partitions in which this window was read, each by a query of its own."""
    return {piece.partition for piece in plan.slices if any(s.lo <= window.lo < s.hi for s in piece.spans)}


def _whole(
    number: int,
    planned: PlannedWindow | None,
    shipped: Cells,
    now: Cells,
    read: set[tuple[PartitionValue, ...]],
    *,
    keeps: bool,
) -> bool:
    """Whether a window that differs from its plan may be shipped as it came.

    By several queries: only if what they read is still the same; a piece that is another since, if only by a late
    row, may have given a row to the next one or taken one. Fewer rows than planned: only if ClickHouse has no more
    either, and the lake, which keeps deleted rows, no more than came (rule 19). More rows are late ones.
    """
    ours = {key: state for key, state in shipped.items() if key[0] == number}
    theirs = {key: state for key, state in now.items() if key[0] == number}
    if len(read) > 1 and ours != {key: state for key, state in theirs.items() if key[1] in read}:
        return False
    if planned is None:
        return True
    rows = sum(s.rows for s in ours.values())
    if rows < planned.rows and rows < sum(s.rows for s in theirs.values()):
        return False
    return not (keeps and planned.action is Action.REPLACE and rows < (planned.ledger_rows or 0))


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
    """The same by Iceberg partition. A slice reads whole windows of one partition, so each cell is in one file.

    Raises OFL-403 when one is in two: a file that is reported twice would be committed twice.
    """
    cells: dict[tuple[int, tuple[PartitionValue, ...]], WindowState] = {}
    for file in files:
        for state in (w for w in file.windows if w.rows):
            if (state.window, file.partition) in cells:
                raise OffloadError(AUDIT_FAILED, f"{file.path} holds rows of window {state.window} that came before")
            cells[state.window, file.partition] = state
    return cells


def with_expiries(client: Client, spec: TableSpec, source: SourceTable, plan: Plan, outcome: Outcome) -> Outcome:
    """The same, with the first expiry of the windows that came otherwise than planned (rule 18). Raises OFL-2xx.

    Of rows that came since, the plan could not ask when they expire. Where ClickHouse holds fewer rows by now than
    came, some may have expired already: such a window is never replaced.
    """
    expiry = expiry_sql(source, spec).strict
    planned = {w.window: (w.rows, w.hash) for w in plan.windows}
    others = [w for w in outcome.windows if w.rows and (w.rows, w.hash) != planned.get(w.window)]
    if expiry is None or not others:
        return outcome
    query = ExtentQuery(
        spec.source.database, spec.source.table, plan.cursor, None, spec.source.final, Grid(plan.width_us),
        plan.projection, plan.partition, expiry,
    )  # fmt: skip
    now = read_survey(client, query, merge(query.grid.span(w.window) for w in others))

    def first(window: WindowState) -> int | None:
        held = now.get(window.window)
        if held is None or held.rows < window.rows:
            return EXPIRED_LONG_AGO
        return earliest(window.expiry_us, held.expiry_us)

    known = {w.window: first(w) for w in others}
    windows = tuple(replace(w, expiry_us=known.get(w.window, w.expiry_us)) for w in outcome.windows)
    return replace(outcome, windows=windows)


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
