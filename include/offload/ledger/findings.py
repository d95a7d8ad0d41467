"""What is wrong with a table until somebody sees that it is right, or accepts it: the ledger keeps it for all to say.

A gauge alone would forget it with the exporter. Windows that `verify` or `reconcile` found to differ stay until one of
them looks at the same windows and finds no difference; rows that expired before they were shipped stay until
`bin/offload accept-loss`, since nothing brings them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from include.offload.ledger.store import Ledger
from include.offload.windows import Grid, Span, merge, subtract

MOST = 200
"""Into how many spans the findings of one kind are cut at most; beyond that neighbours are kept as one."""


class Kind(StrEnum):
    """What is wrong."""

    VERIFY = "verify"
    """Windows that two readers found to differ."""
    RECONCILE = "reconcile"
    """Windows that differ from the ledger's, and were left as they are."""
    TOTAL = "total"
    """Rows that no window accounts for: counts or sums of the whole differ."""
    LOST = "lost"
    """Windows whose rows expired in ClickHouse before they were shipped."""


DIFFERS = (Kind.VERIFY, Kind.RECONCILE, Kind.TOTAL)


@dataclass(frozen=True, slots=True)
class Finding:
    """One stretch of windows. rows: at least so many are lost, 0: nobody counted them."""

    kind: Kind
    span: Span
    windows: int
    rows: int = 0
    found_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """What is not mended and not accepted of one table: windows that differ, windows lost, rows of those at least."""

    differing: int = 0
    lost: int = 0
    lost_rows: int = 0
    lost_from_us: int | None = None
    lost_to_us: int | None = None


SUMS = (
    "SELECT table_id,"
    " coalesce(sum(windows) FILTER (WHERE kind <> 'lost'), 0) AS found_differing,"
    " coalesce(sum(windows) FILTER (WHERE kind = 'lost'), 0) AS lost,"
    " coalesce(sum(rows) FILTER (WHERE kind = 'lost'), 0) AS lost_rows,"
    " min(lower(span)) FILTER (WHERE kind = 'lost') AS lost_from_us,"
    " max(upper(span)) FILTER (WHERE kind = 'lost') AS lost_to_us"
    " FROM offload.findings WHERE accepted_at IS NULL GROUP BY table_id"
)
"""For whoever asks about all tables at once: join it by `table_id`."""


def sum_of(row: Mapping[Any, Any]) -> Sum:
    """Of a row that was joined with `SUMS`; a table without findings has NULL everywhere."""

    return Sum(
        int(row["found_differing"] or 0),
        int(row["lost"] or 0),
        int(row["lost_rows"] or 0),
        row["lost_from_us"],
        row["lost_to_us"],
    )


def of(ledger: Ledger, table_id: int, kinds: Sequence[Kind] = tuple(Kind)) -> list[Finding]:
    """What is neither mended nor accepted of a table, in the order of time."""
    with ledger.begin() as c:
        return _rows(c, table_id, kinds, accepted=False)


def differing(ledger: Ledger, table_id: int) -> int:
    """How many windows verify and reconcile found to differ, and did not see mended."""
    return sum(f.windows for f in of(ledger, table_id, DIFFERS))


def compared(
    ledger: Ledger,
    table_id: int,
    grid: Grid,
    looked_at: Mapping[Kind, Iterable[Span]],
    found: Iterable[Finding],
) -> int:
    """Record a comparison; how many windows are known to differ after it.

    looked_at: for each kind the time that was compared; what was found there before is forgotten. found: what differs
    now.
    """
    new = list(found)
    with ledger.begin() as c:
        c.execute(text("SELECT FROM offload.tables WHERE table_id = :id FOR NO KEY UPDATE"), {"id": table_id})
        for kind in DIFFERS:
            seen = merge(looked_at.get(kind, ()))
            mine = [f for f in new if f.kind is kind]
            if not seen and not mine:
                continue
            before = _rows(c, table_id, (kind,), accepted=False)
            kept = [
                Finding(kind, part, min(f.windows, _windows(part, grid)), found_at=f.found_at)
                for f in before
                for part in subtract(f.span, [*seen, *(m.span for m in mine)])
            ]
            _replace(c, table_id, kind, [*kept, *mine])
        return sum(f.windows for f in _rows(c, table_id, DIFFERS, accepted=False))


def lose(ledger: Ledger, table_id: int, grid: Grid, rows: Mapping[int, int]) -> None:
    """Record windows whose rows expired unshipped. rows: by window number, at least so many; 0: nobody counted them.

    What was recorded before is not counted twice, and what was accepted does not come back.
    """
    with ledger.begin() as c:
        lose_in(c, table_id, grid, rows)


def lose_in(c: Connection, table_id: int, grid: Grid, rows: Mapping[int, int]) -> None:
    """The same within a transaction."""
    if not rows:
        return
    c.execute(text("SELECT FROM offload.tables WHERE table_id = :id FOR NO KEY UPDATE"), {"id": table_id})
    accepted = _rows(c, table_id, (Kind.LOST,), accepted=True)
    known = _rows(c, table_id, (Kind.LOST,), accepted=False)
    spans = merge(grid.span(n) for n in rows)
    spans = tuple(part for s in spans for part in subtract(s, [f.span for f in accepted]))
    if not spans:
        return
    together = merge([*spans, *(f.span for f in known)])
    counts = sorted(rows.items())
    found = []
    for span in together:
        before = [f for f in known if f.span.overlaps(span)]
        now = sum(r for n, r in counts if span.contains(grid.span(n).lo))
        first = min((f.found_at for f in before if f.found_at is not None), default=None)
        most = max(now, sum(f.rows for f in before))
        found.append(Finding(Kind.LOST, span, _windows(span, grid), most, first))
    _replace(c, table_id, Kind.LOST, found)


def accept(ledger: Ledger, table_id: int) -> list[Finding]:
    """Somebody knows of all of it: it is said no longer. Lost windows stay known, so that no run says them again."""
    with ledger.begin() as c:
        found = _rows(c, table_id, tuple(Kind), accepted=False)
        c.execute(
            text(
                "UPDATE offload.findings SET accepted_at = now()"
                " WHERE table_id = :id AND kind = 'lost' AND accepted_at IS NULL"
            ),
            {"id": table_id},
        )
        c.execute(text("DELETE FROM offload.findings WHERE table_id = :id AND kind <> 'lost'"), {"id": table_id})
    return found


def _windows(span: Span, grid: Grid) -> int:
    return max(1, -(-(span.hi - span.lo) // grid.width_us))


def _rows(c: Connection, table_id: int, kinds: Sequence[Kind], *, accepted: bool) -> list[Finding]:
    rows = c.execute(
        text(
            "SELECT kind, lower(span) AS lo, upper(span) AS hi, windows, rows, found_at FROM offload.findings"
            " WHERE table_id = :id AND kind = ANY(:kinds) AND (accepted_at IS NOT NULL) = :accepted"
            " ORDER BY lower(span), kind"
        ),
        {"id": table_id, "kinds": [k.value for k in kinds], "accepted": accepted},
    )
    return [Finding(Kind(r.kind), Span(r.lo, r.hi), r.windows, r.rows, r.found_at) for r in rows]


def _replace(c: Connection, table_id: int, kind: Kind, found: Sequence[Finding]) -> None:
    """These are the open findings of that kind from now on."""
    c.execute(
        text("DELETE FROM offload.findings WHERE table_id = :id AND kind = :kind AND accepted_at IS NULL"),
        {"id": table_id, "kind": kind.value},
    )
    values: list[dict[str, Any]] = [
        {"id": table_id, "kind": kind.value, "lo": f.span.lo, "hi": f.span.hi}
        | {"windows": f.windows, "rows": f.rows, "found_at": f.found_at}
        for f in few(found)
    ]
    if values:
        c.execute(
            text(
                "INSERT INTO offload.findings (table_id, kind, span, windows, rows, found_at)"
                " VALUES (:id, :kind, int8range(:lo, :hi), :windows, :rows, coalesce(:found_at, now()))"
            ),
            values,
        )


def few(found: Sequence[Finding], most: int = MOST) -> list[Finding]:
    """Disjoint findings of one kind: those that touch as one, and no more than `most`, by joining the closest."""
    out: list[Finding] = []
    for one in sorted(found, key=lambda f: (f.span.lo, f.span.hi)):
        if out and one.span.lo <= out[-1].span.hi:
            out[-1] = _joined(out[-1], one)
        else:
            out.append(one)
    if len(out) <= most:
        return out
    # where it is cut: at the widest gaps
    gaps = sorted(range(1, len(out)), key=lambda i: out[i - 1].span.hi - out[i].span.lo)[: most - 1]
    ends = [0, *sorted(gaps), len(out)]
    return [reduce(_joined, out[lo:hi]) for lo, hi in pairwise(ends)]


def _joined(one: Finding, other: Finding) -> Finding:
    span = Span(min(one.span.lo, other.span.lo), max(one.span.hi, other.span.hi))
    first = min((f.found_at for f in (one, other) if f.found_at is not None), default=None)
    return Finding(one.kind, span, one.windows + other.windows, one.rows + other.rows, first)
