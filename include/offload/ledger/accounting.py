"""How the ledger's windows change when a plan lands. Pure, so that it can be tested without PostgreSQL.

Every instant of accounted time stands in exactly one entry: a shipped window, or a run of windows verified empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from include.offload.model import WindowState, earliest
from include.offload.windows import Grid, Span, merge, subtract


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of `offload.windows`; `shipped` None means verified empty."""

    span: Span
    shipped: WindowState | None


@dataclass(frozen=True, slots=True)
class Change:
    """What to delete (by exact span) and what to insert, in that order."""

    delete: tuple[Span, ...]
    insert: tuple[Entry, ...]


def apply(
    existing: Sequence[Entry],
    shipped: Sequence[WindowState],
    seen_empty: Iterable[Span],
    pending: Iterable[int],
    grid: Grid,
) -> Change:
    """The change that records `shipped` windows and time `seen_empty` over the `existing` entries.

    existing: every entry that overlaps or touches the given windows and spans. A shipped window replaces what stood
    there, but for its expiry when that is earlier: another run may have seen meanwhile that rows of it went (rule 18).
    Time seen empty never replaces a shipped window; pending windows are recorded as neither.
    """
    marked = {e.shipped.window: e.shipped.expiry_us for e in existing if e.shipped is not None}
    filled = [replace(s, expiry_us=earliest(s.expiry_us, marked.get(s.window))) for s in shipped if s.rows > 0]
    emptied = [grid.span(s.window) for s in shipped if s.rows == 0]
    taken = [grid.span(s.window) for s in filled]
    unknown = [grid.span(n) for n in pending]
    kept = [e for e in existing if e.shipped is not None and not any(e.span.overlaps(t) for t in [*taken, *emptied])]
    blocked = merge([*taken, *unknown, *(e.span for e in kept)])
    before = [e.span for e in existing if e.shipped is None]
    empty = merge(part for span in merge([*before, *seen_empty, *emptied]) for part in subtract(span, blocked))
    wanted = {Entry(s, None) for s in empty} | {Entry(grid.span(s.window), s) for s in filled}
    untouched = {e for e in existing if e in wanted or e in kept}
    return Change(
        delete=tuple(sorted(e.span for e in existing if e not in untouched)),
        insert=tuple(sorted(wanted - untouched, key=lambda e: e.span)),
    )
