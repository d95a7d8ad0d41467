"""No room left for what the job writes. Nothing is committed; the next attempt, with room, lands once.

No file system is filled here, as not every machine lets a test mount one. A data file goes to the kernel's own full
device; the files of Spark's driver meet the largest size that a process may write, which fails in the same calls with
another number (EFBIG, not ENOSPC).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.offload.errors import DISK_FULL, OffloadError
from tests.support.domain import SPEC, WINDOW_US, DomainTable, MakeDomainTable, said, spark_submit
from tests.support.full_disk import NAME

pytestmark = pytest.mark.timeout(180)
LARGEST_FILE = 160 * 2**10
"""Bytes; more than the native libraries that Spark's JVM unpacks, less than the list of the slices below."""
PARTITIONS = 150


def test_a_data_file_meets_a_full_disk(table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a warehouse on a mounted disk."""
    t = table().fill(0, 1)
    t.run()
    t.insert(1, rows=1).insert(3, rows=10)
    plan = t.check().plan.plan_id
    with monkeypatch.context() as env:
        env.setenv("PYICEBERG_CATALOG__LAKE__PY_IO_IMPL", NAME)
        full = replace(t, ctx=t.domain.context())
        with pytest.raises(OffloadError) as refused:
            full.ship(plan)
        full.ctx.close()
    assert refused.value.kind is DISK_FULL, str(refused.value)
    assert "No space left on device" in refused.value.cause
    assert len(t.snapshots()) == 1
    assert t.ship(plan).status == "committed"
    assert t.watermark(plan).emitted
    assert t.lake_ids() == t.source_ids()


def many_slices(table: MakeDomainTable) -> DomainTable:
    """So many that their list takes more than the file size below."""
    t = table(spec=SPEC.replace("day(ts)", "sym"))
    step = WINDOW_US // (PARTITIONS + 1)
    t.sql(
        f"INSERT INTO {{table}} (ts, id, sym) SELECT fromUnixTimestamp64Micro(toInt64({t.at(0)} + number * {step}),"
        f" 'UTC'), number, toString(number) FROM numbers({PARTITIONS})"
    )
    return t


def test_spark_meets_a_full_disk(table: MakeDomainTable) -> None:
    """The driver can't write the list of the slices for the JVM to its temporary directory."""
    t = many_slices(table)
    check = t.check()
    assert len(check.plan.slices) == PARTITIONS
    done = spark_submit(t.domain, check.plan.plan_id, largest_file=LARGEST_FILE)
    assert done.returncode == 1
    (error,) = said(done, "ERROR")
    assert error["id"] == DISK_FULL.id, f"{error}\n{done.stderr[-3000:]}"
    assert t.snapshots() == []
    done = spark_submit(t.domain, check.plan.plan_id)
    assert said(done, "RESULT")[0]["status"] == "committed"
    assert t.watermark(check.plan.plan_id).emitted
    assert t.lake_ids() == t.source_ids()
