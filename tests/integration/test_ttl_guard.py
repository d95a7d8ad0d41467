"""The TTL guard: ClickHouse keeps rows that are not in the lake yet, and deletes again once they are."""

from __future__ import annotations

import time

import pytest
from pydantic import SecretStr

from include.offload import overview as page
from include.offload.cli.overview import overview
from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.ledger import looks
from include.offload.overview import Danger, TableOverview
from include.offload.settings import Settings, load
from include.offload.steps import RunRequest, check_extent, open_context
from tests.support.domain import DDL, HOUR_US, WINDOW_US, Domain, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(120)
STOP = "ttl_guard: stop\nttl_guard_headroom: 6h\n"
SHORT = DDL + " TTL toDateTime(ts) + INTERVAL 8 HOUR"
"""Rows of window 0 are six to seven hours old: their headroom is below six hours."""


def guard(domain: Domain) -> Settings:
    """The guard as an administrator: whom the stack gives the right alone is its own test."""
    return load(clickhouse_guard_uri=SecretStr(domain.servers.secret("clickhouse_admin_uri")))


def late_for_its_life(t: DomainTable, domain: Domain) -> list[int]:
    """Rows that have expired already; without merges they are still there. Their ids."""
    t.sql("SYSTEM STOP MERGES {table}")
    nine_hours_ago = (domain.admin.now_us() - domain.zero_us - 9 * HOUR_US) // WINDOW_US
    t.insert(nine_hours_ago).insert(nine_hours_ago + 1)
    return t.source_ids()


def merge(t: DomainTable) -> None:
    """ClickHouse merges, and deletes what expired unless its TTL merges are stopped."""
    t.sql("SYSTEM START MERGES {table}")
    t.sql("OPTIMIZE TABLE {table} FINAL")


def stopped(t: DomainTable) -> bool:
    return t.identity in looks.guarded(t.ctx.ledger, t.identity)


def test_unshipped_rows_survive_their_expiry_while_the_guard_holds(table: MakeDomainTable, domain: Domain) -> None:
    t = table(STOP, ddl=SHORT, settings=guard(domain))
    ids = late_for_its_life(t, domain)
    check = t.check()
    assert stopped(t)
    assert any("TTL merges of the source are stopped" in n for n in check.notes)
    (line,) = overview(t.ctx, [t.spec]).tables
    assert any("TTL merges are stopped since" in n for n in line.notes)
    merge(t)
    assert t.source_ids() == ids
    assert t.run().rows == 20
    assert t.lake_ids() == ids
    assert not stopped(t), "everything is shipped"
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert t.source_ids() == [], "ClickHouse deletes again"
    t.unverifiable = "ClickHouse expired what the lake keeps"


def test_without_the_guard_the_same_rows_are_gone(table: MakeDomainTable, domain: Domain) -> None:
    """The test above can fail."""
    t = table(ddl=SHORT)
    late_for_its_life(t, domain)
    t.check()
    merge(t)
    assert t.source_ids() == []
    t.unverifiable = "nothing was shipped in time"


def test_a_restart_of_clickhouse_forgets_and_the_next_run_says_it_again(table: MakeDomainTable, domain: Domain) -> None:
    t = table(STOP, ddl=SHORT, settings=guard(domain))
    ids = late_for_its_life(t, domain)
    t.check()
    before = looks.guarded(t.ctx.ledger)[t.identity]
    t.sql("SYSTEM START TTL MERGES {table}")
    t.check()
    after = looks.guarded(t.ctx.ledger)[t.identity]
    assert after.since == before.since
    assert after.applied_at is not None
    assert before.applied_at is not None
    assert after.applied_at > before.applied_at
    merge(t)
    assert t.source_ids() == ids
    t.run()
    assert t.lake_ids() == ids
    t.unverifiable = "its rows have expired"


def test_the_guard_acts_while_there_is_no_catalog(table: MakeDomainTable, domain: Domain) -> None:
    """The rows are most at risk when nothing can be shipped."""
    t = table(STOP, ddl=SHORT, settings=guard(domain))
    now = (domain.admin.now_us() - domain.zero_us) / 300_000_000
    t.insert(now - 2, rows=1)
    t.run()
    assert not stopped(t), "the row has eight hours"
    t.sql("ALTER TABLE {table} MODIFY TTL toDateTime(ts) + INTERVAL 1 HOUR SETTINGS materialize_ttl_after_modify = 0")
    t.insert(now, rows=1)
    broken = open_context(guard(domain).model_copy(update={"catalog": "nowhere"}))
    with pytest.raises(OffloadError) as refused:
        check_extent(broken, t.spec, RunRequest("broken"))
    broken.close()
    assert refused.value.id in {"OFL-102", "OFL-301"}
    assert looks.guarded(t.ctx.ledger)[t.identity].applied_at is not None
    t.run()


def test_rule_6_clickhouse_s_clock_says_whether_the_guard_may_go(
    table: MakeDomainTable, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not this machine's, which may be a day ahead."""
    t = table(STOP, ddl=SHORT, settings=guard(domain)).fill(0)
    now = (domain.admin.now_us() - domain.zero_us) / WINDOW_US
    t.check()
    assert stopped(t)
    t.insert(now + 1, rows=1)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: (domain.admin.now_us() + 24 * HOUR_US) * 1_000)
        t.run()
    assert not stopped(t), "the row that is left has eight hours and more"
    t.unverifiable = "its rows are expiring"


def test_enough_headroom_stops_nothing(table: MakeDomainTable, domain: Domain) -> None:
    t = table(STOP, ddl=DDL + " TTL toDateTime(ts) + INTERVAL 30 DAY", settings=guard(domain)).fill(0)
    t.run()
    assert not stopped(t)


def test_warn_stops_nothing_and_frees_what_stop_had_stopped(table: MakeDomainTable, domain: Domain) -> None:
    t = table(STOP, ddl=SHORT, settings=guard(domain)).fill(0)
    t.check()
    assert stopped(t)
    t.write_spec()
    check = t.check()
    assert not stopped(t)
    assert any("run again" in n for n in check.notes)
    t.run()


def test_a_guard_without_a_login_is_refused_at_once(table: MakeDomainTable) -> None:
    t = table(STOP, settings=load(clickhouse_guard_uri=None)).fill(0)
    with pytest.raises(OffloadError, match="OFFLOAD_CLICKHOUSE_GUARD_URI") as refused:
        t.check()
    assert refused.value.kind is SETTING_MISSING
    t.unverifiable = "nothing was shipped"


def test_a_guard_that_clickhouse_does_not_obey_is_said_and_shipping_goes_on(
    table: MakeDomainTable, domain: Domain
) -> None:
    """Shipping is what saves the rows; a reader may not stop TTL merges."""
    reader = SecretStr(domain.servers.secret("offload_clickhouse_uri"))
    t = table(STOP, ddl=SHORT, settings=load(clickhouse_guard_uri=reader)).fill(0)
    check = t.check()
    assert any("could not be stopped" in n for n in check.notes)
    held = looks.guarded(t.ctx.ledger)[t.identity]
    assert held.applied_at is None
    assert held.last_error is not None and "OFL-2" in held.last_error
    (line,) = overview(t.ctx, [t.spec]).tables
    assert any("TTL merges should be stopped" in n for n in line.notes)
    assert t.run().rows == 10


def test_a_guard_that_clickhouse_does_not_obey_is_said_as_what_it_is(table: MakeDomainTable, domain: Domain) -> None:
    """Rows are being deleted: worse than a guard that holds."""
    away = load(clickhouse_guard_uri=SecretStr("http://offload_guard:hunter2@127.0.0.1:1/"))
    t = table(STOP, ddl=SHORT, settings=away).fill(0)
    assert any("could not be stopped" in n for n in t.check().notes)

    def seen() -> TableOverview:
        _, found = page.one(t.ctx.ledger, t.spec.dag_id)
        assert found is not None
        return found

    assert seen().danger is Danger.CRITICAL
    (reason,) = [r for r in seen().reasons if "TTL merges" in r]
    assert reason.startswith("TTL merges could not be stopped: ")
    assert "hunter2" not in reason
    known = looks.remembered(t.ctx.ledger, t.identity)
    assert known is not None
    assert known.guard is not None
    assert known.guard.refused
    # obeyed once, and refused since it was restarted
    obeyed = open_context(guard(domain))
    check_extent(obeyed, t.spec, RunRequest("obeyed"))
    obeyed.close()
    assert [r for r in seen().reasons if "TTL merges" in r] == ["TTL merges of the source are stopped"]
    t.check()
    assert [r for r in seen().reasons if "could not be stopped" in r]
    t.unverifiable = "nothing was shipped"
