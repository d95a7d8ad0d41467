"""What maintenance is for, measured: a day of 96 small runs, read whole before and after."""

from __future__ import annotations

import time
from statistics import median

import pytest

from include.offload.maintenance.model import Care
from tests.support.care import maintained, planned
from tests.support.domain import SPEC, WINDOW_US, Domain, DomainTable, MakeDomainTable

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

RUNS = 96
FASTER = 3
METADATA_BYTES = 128 * 1024
"""Metadata file, manifest list and manifests of a table of one such day, 20 snapshots kept."""
DAY_US = 86_400_000_000


def scan_s(t: DomainTable) -> float:
    """Seconds of a full scan by PyIceberg, the middle one of five."""
    taken = []
    for _ in range(5):
        table = t.lake()
        started = time.monotonic()
        assert table.scan().to_arrow().num_rows == RUNS * 500
        taken.append(time.monotonic() - started)
    return median(taken)


def test_a_day_of_96_small_runs_reads_three_times_as_fast_and_its_metadata_is_small(
    table: MakeDomainTable, domain: Domain
) -> None:
    t = table(spec=SPEC.replace("horizon: 2d", "horizon: 3d") + "maintenance: {snapshots: 20}\n")
    yesterday = (domain.zero_us // DAY_US - 1) * DAY_US
    first = (yesterday - domain.zero_us) // WINDOW_US
    for quarter in range(RUNS):
        t.insert(first + 3 * quarter, rows=500)
        t.run()
    slow_s = scan_s(t)
    plan = planned(t, Care.COMPACT, Care.MANIFESTS, Care.EXPIRE, later_s=6 * 86_400)
    assert (plan.before.files, plan.before.small_files) == (RUNS, RUNS)
    result = maintained(domain, plan)
    quick_s = scan_s(t)
    assert result.after.files == 1
    assert result.after.snapshots <= 21
    assert result.after.metadata_bytes < METADATA_BYTES < result.before.metadata_bytes, result
    assert slow_s >= FASTER * quick_s, f"{slow_s:.3f} s before, {quick_s:.3f} s after"
    assert t.lake_ids() == t.source_ids()
