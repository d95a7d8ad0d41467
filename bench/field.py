"""Who runs what: the entries of a bench, in the order in which each round takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.contenders import OURS, Contender
from bench.results import Missing
from bench.tables import BRONZE, SILVER, BenchTable

SMALL_SHARE = 8
"""Our job runs with an eighth of the rows too: its memory must not follow the rows."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender with so many rows of a table."""

    table: BenchTable
    contender: Contender
    rows: int

    @property
    def source(self) -> tuple[str, int]:
        """What ClickHouse must hold for it."""
        return self.table.name, self.rows

    def __str__(self) -> str:
        return f"{self.contender.title}, {self.rows:,} of {self.table.name}"

    def missing(self, why: str, *, failed: bool) -> Missing:
        """That this one has no figures."""
        who = self.contender
        return Missing(name=who.name, title=who.title, table=self.table.name, why=why, failed=failed)


def field(
    contenders: Sequence[Contender], rows: int, silver_rows: int, slow_rows: int, *, small: bool
) -> tuple[list[Entry], list[Missing]]:
    """The entries, and those that can't run on this machine. `slow_rows`: the most that a slow contender moves."""
    entries: list[Entry] = []
    for table, most in ((BRONZE, rows), (SILVER, silver_rows)):
        if most:
            entries += [Entry(table, c, min(most, slow_rows) if c.slow else most) for c in contenders]
    if small:
        entries.append(Entry(BRONZE, OURS, rows // SMALL_SHARE))
    away = {entry: why for entry in entries if (why := entry.contender.absent())}
    return [e for e in entries if e not in away], [e.missing(why, failed=False) for e, why in away.items()]
