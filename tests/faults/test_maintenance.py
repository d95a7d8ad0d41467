"""Maintenance by real Spark on real servers: it does its work, and no interleaving with an offload costs a row.

The job runs through `spark-submit`, as an operator does it by hand. A proxy holds its commit, or an offload's, where the
two have to meet. When a test ends, both verifiers read its table and the ledger is held against the lake.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyiceberg.table.snapshots import Operation

from include.offload.maintenance.model import Care
from tests.support.care import maintained, planned
from tests.support.domain import SPEC, Domain, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(300)

HOURLY = SPEC.replace("day(ts)", "hour(ts)")
"""Window 0 is six hours ago at a full hour: windows 0 to 11 are one settled partition, 12 to 23 the next."""
RUNS = 8


@pytest.fixture
def t(table: MakeDomainTable) -> DomainTable:
    """Two settled hours of eight small files each, and a third hour that goes on; sixteen runs and more."""
    made = table(spec=HOURLY)
    for window in range(RUNS):
        made.fill(window, 12 + window)
        made.run()
    made.fill(36)
    made.run()
    return made


def exact(t: DomainTable) -> None:
    assert t.lake_ids() == t.source_ids()
    t.verified()
    t.consistent()


def test_every_step_does_its_work_and_the_offload_goes_on(t: DomainTable, domain: Domain) -> None:
    before = [s.snapshot_id for s in t.snapshots()]
    plan = planned(t, Care.COMPACT, Care.MANIFESTS, Care.EXPIRE, later_s=6 * 86_400)
    # all but two snapshots are old now, the newest of which is the marker's
    steps = tuple(replace(s, keep=1) if s.care is Care.EXPIRE else s for s in plan.steps)
    assert [s.care for s in steps] == [Care.COMPACT]
    result = maintained(domain, replace(plan, steps=steps))
    assert [(s.care, s.status) for s in result.steps] == [(Care.COMPACT, "done")] * 2
    assert (result.before.files, result.after.files) == (2 * RUNS + 1, 3)
    assert t.operations()[-2:] == [Operation.REPLACE] * 2
    exact(t)
    # everything is compact: nothing is left to do but to look for orphans
    assert [s.care for s in planned(t).steps] == [Care.ORPHANS]
    t.fill(40).insert(3, rows=4)
    assert t.run().rows == 24
    exact(t)
    assert set(before) <= {s.snapshot_id for s in t.snapshots()}
