"""Rule 20: a replace holds one data file in memory, however many it rewrites."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.support.domain import SPEC, DomainTable, MakeDomainTable
from tests.support.one_step import one_step

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

ROWS = 60_000
"""In every file. With notes of 1,000 characters a file is about 60 MB of Arrow memory, several times what the rest of a
job needs, and yet few bytes in the store: the notes repeat."""
FILES = 4
RATIO = 1.6
"""Four files at once would take four times the memory of one, less the job's own share: 3 at least. One at a time takes
as much as one file, and what the allocator has not given back of the one before."""
DDL_BY_SYMBOL = (
    "CREATE TABLE {table} (ts DateTime64(6, 'UTC'), id Int64, sym LowCardinality(String), note String)"
    " ENGINE = MergeTree ORDER BY (sym, ts)"
)
BY_SYMBOL = SPEC.replace('["day(ts)"]', "[sym]") + "slice:\n  concurrency: 1\n"


def large(table: MakeDomainTable, files: int) -> DomainTable:
    """A table with one large file a symbol, each of which holds two windows, as compaction leaves them."""
    t = table(spec=BY_SYMBOL, ddl=DDL_BY_SYMBOL)
    for window, rows in ((0, ROWS), (1, 10)):
        t.sql(
            "INSERT INTO {table} (ts, id, sym, note) SELECT"
            f" fromUnixTimestamp64Micro(toInt64({t.at(window)} + number), 'UTC'), {window} * 1000000 + number,"
            f" concat('s', toString(number % {files})), repeat(toString(number % 10), 1000)"
            f" FROM numbers({rows * files})"
        )
    t.run()
    assert len(t.files()) == files
    return t


def growth(t: DomainTable, files: int, folder: Path) -> int:
    """By how many bytes a job grows that replaces the small window."""
    t.sql(
        "INSERT INTO {table} (ts, id, sym, note) SELECT"
        f" fromUnixTimestamp64Micro(toInt64({t.at(1)} + number), 'UTC'), 5000000 + number,"
        f" concat('s', toString(number % {files})), 'late' FROM numbers({files})"
    )
    plan = t.check().plan
    assert [w.window for w in plan.windows] == [t.number(1)]
    report = folder / str(uuid.uuid4())
    assert one_step(folder, "measure", str(plan.plan_id), str(report)) == 0
    t.watermark(plan.plan_id)
    grown = json.loads(report.read_text())
    assert isinstance(grown, int)
    return grown


def test_rule_20_a_replace_over_many_files_takes_no_more_memory_than_over_one(
    table: MakeDomainTable, tmp_path: Path
) -> None:
    """The late rows are few: nearly all that grows is what stays of the files, which is read and written again."""
    one, many = (growth(large(table, files), files, tmp_path) for files in (1, FILES))
    assert one > 40 * 2**20, "the files are too small to tell"
    assert many < RATIO * one, f"one file: {one / 2**20:.0f} MiB, {FILES} files: {many / 2**20:.0f} MiB"
