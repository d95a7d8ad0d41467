"""The release check: tables and a ledger of the previous release go on with this code, no row lost and none twice."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest

from include.offload.context import open_context
from include.offload.errors import LEDGER_OUTDATED, OffloadError
from include.offload.ledger.migrate import upgrade
from include.offload.settings import load
from tests.support.domain import MakeDomainTable
from tests.support.ledgers import check_end, own_ledger, with_ledger
from tests.support.previous import Previous, check_out

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]


def plan_of(done: subprocess.CompletedProcess[str]) -> uuid.UUID:
    assert done.returncode == 0, done.stdout + done.stderr
    return uuid.UUID(done.stdout.split()[-1])


@pytest.mark.parametrize("left", ["nothing", "a plan", "a commit that the ledger does not know"])
def test_this_code_goes_on_where_the_previous_release_stopped(
    table: MakeDomainTable, tmp_path: Path, left: str
) -> None:
    t = table().fill(0, 1)
    with own_ledger(t.domain.servers) as uri:
        with psycopg.connect(uri) as c:
            c.execute("DROP SCHEMA offload CASCADE")
        previous = Previous(check_out(tmp_path), uri)
        made = previous("upgrade")
        assert made.returncode == 0, made.stderr
        plan_of(previous("run", t.identity, "first"))
        t.insert(1, rows=2)
        plan_of(previous("run", t.identity, "late rows"))
        t.fill(2)
        open_ = None
        if left != "nothing":
            open_ = plan_of(previous("check" if left == "a plan" else "ship", t.identity, "unfinished"))

        ctx = open_context(load(ledger_uri=uri))
        now = with_ledger(t, ctx)
        upgrade(uri)
        if open_ is not None:
            # the same task, cleared after the upgrade
            status = now.ship(open_).status
            assert status == ("committed" if left == "a plan" else "already-committed")
            now.watermark(open_)
        now.fill(3).insert(0, rows=1)
        now.run()
        assert now.lake_ids() == now.source_ids()
        assert not now.run().check.plan.touches_lake
        check_end(now)
        refused = previous("run", t.identity, "too old")
        assert refused.returncode != 0
        assert "OFL-502" in refused.stderr, "the older code does not write into the newer ledger"
        ctx.close()


def test_a_ledger_of_the_previous_release_is_refused_until_it_is_upgraded(
    table: MakeDomainTable, tmp_path: Path
) -> None:
    """Holds while a release brings a migration; without one both are at the same revision."""
    t = table().fill(0)
    with own_ledger(t.domain.servers) as uri:
        with psycopg.connect(uri) as c:
            c.execute("DROP SCHEMA offload CASCADE")
        assert Previous(check_out(tmp_path), uri)("upgrade").returncode == 0
        ctx = open_context(load(ledger_uri=uri))
        now = with_ledger(t, ctx)
        with pytest.raises(OffloadError) as refused:
            now.check()
        assert refused.value.kind is LEDGER_OUTDATED
        upgrade(uri)
        assert now.run().rows == 10
        check_end(now)
        ctx.close()
