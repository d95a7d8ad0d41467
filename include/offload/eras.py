"""Which columns can be compared in which windows: a window was shipped with the columns of its own time.

A column that was added later reads NULL in old windows of the lake, and its default in ClickHouse. That is no
difference; a column that was shipped and differs is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyiceberg.schema import Schema
from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.lake.evolution import accepted
from include.offload.ledger.history import PastProjection, past_projection
from include.offload.ledger.store import Head
from include.offload.model import ProjectedColumn, Projection
from include.offload.planning import LedgerWindow
from include.offload.windows import Grid, Span, subtract


@dataclass(frozen=True, slots=True)
class Era:
    """Cursor time whose windows hold the same ones of today's columns. `windows`: shipped ones in it."""

    spans: tuple[Span, ...]
    columns: tuple[ProjectedColumn, ...]
    windows: int


def eras(ctx: Context, head: Head, table: Table, projection: Projection, grid: Grid, span: Span) -> tuple[Era, ...]:
    """The eras of `span`, together all of it. The columns of a window that no plan of the ledger explains are none:
    of it only rows can be counted."""
    shipped, _ = ctx.ledger.windows(head, grid, [span])
    held: dict[str, tuple[ProjectedColumn, ...]] = {projection.fingerprint: projection.columns}
    for print_ in {w.fingerprint for w in shipped.values()} - held.keys():
        past = past_projection(ctx.ledger, head, print_)
        names = set() if past is None else _names_now(table, past)
        held[print_] = tuple(c for c in projection.columns if c.name in names)
    return _cut(shipped, held, projection.columns, grid, span)


def without(known: Sequence[Era], left_out: Sequence[Span]) -> tuple[Era, ...]:
    """The eras without the spans that are not compared; one of which nothing is left is gone."""
    cut = [replace(e, spans=tuple(part for s in e.spans for part in subtract(s, left_out))) for e in known]
    return tuple(e for e in cut if e.spans)


def _names_now(table: Table, past: PastProjection) -> set[str]:
    """Today's names of the columns of a past projection: a field keeps its id when it is renamed."""
    schemas: Mapping[int, Schema] = {s.schema_id: s for s in table.metadata.schemas}
    first = min(schemas)
    then = (
        Schema.model_validate_json(past.schema_json)
        if past.schema_json
        else schemas.get(first if past.schema_id is None else past.schema_id)
    )
    if then is None:
        return set()
    # of a column that was dropped and came back, the source has lost the values of then
    ids = {f.field_id for f in then.fields if f.name in past.columns} - accepted(table).returned.keys()
    return {f.name for f in table.schema().fields if f.field_id in ids}


def _cut(
    shipped: Mapping[int, LedgerWindow],
    held: Mapping[str, tuple[ProjectedColumn, ...]],
    today: tuple[ProjectedColumn, ...],
    grid: Grid,
    span: Span,
) -> tuple[Era, ...]:
    """Runs of windows with the same columns; time without a window goes with the run before it."""
    runs: list[tuple[int, tuple[ProjectedColumn, ...], int]] = []
    for number in sorted(shipped):
        columns = held[shipped[number].fingerprint]
        if runs and runs[-1][1] == columns:
            runs[-1] = (runs[-1][0], columns, runs[-1][2] + 1)
        else:
            runs.append((max(span.lo, grid.span(number).lo) if runs else span.lo, columns, 1))
    runs = runs or [(span.lo, today, 0)]
    found: dict[tuple[ProjectedColumn, ...], tuple[list[Span], int]] = {}
    for i, (lo, columns, windows) in enumerate(runs):
        spans, count = found.get(columns, ([], 0))
        hi = runs[i + 1][0] if i + 1 < len(runs) else span.hi
        found[columns] = ([*spans, Span(lo, hi)], count + windows)
    return tuple(Era(tuple(spans), columns, count) for columns, (spans, count) in found.items())
