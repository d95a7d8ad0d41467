"""Drafts: every one is a valid spec whose projection ClickHouse accepts, and each guess is the expected one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.offload.errors import OffloadError
from include.offload.model import SourceTable
from include.offload.source.describe import describe
from include.offload.spec import human
from include.offload.spec.check import check_source
from include.offload.spec.draft import draft, gather, identity_of
from include.offload.spec.load import validate
from include.offload.spec.model import Alerts, TableSpec
from include.offload.spec.yamlnodes import parse
from tests.support.chdb_engine import Engine


@pytest.fixture(scope="module")
def db(engine: Engine) -> Iterator[Engine]:
    engine.raw("CREATE DATABASE drafts")
    yield engine
    engine.raw("DROP DATABASE drafts")


def make(db: Engine, name: str, columns: str, rest: str, rows: str = "") -> SourceTable:
    db.raw(f"CREATE TABLE drafts.`{name}` ({columns}) ENGINE = {rest}")
    if rows:
        db.raw(f"INSERT INTO drafts.`{name}` {rows}")
    return describe(db, "drafts", name)


def drafted(db: Engine, source: SourceTable) -> tuple[TableSpec, str]:
    text = draft(source, gather(db, source))
    data: dict[str, Any] = parse(text).data | {"identity": identity_of(source)}
    spec, problems = validate(data)
    assert spec is not None, problems
    return spec, text


def good(db: Engine, spec: TableSpec) -> None:
    """ClickHouse confirms every expression."""
    assert check_source(db, spec).errors == ()


def test_a_table_of_trades(db: Engine) -> None:
    source = make(
        db,
        "trades",
        "received_at DateTime, exchange LowCardinality(String), id UUID, seq UInt64, at DateTime64(6, 'UTC')",
        "MergeTree ORDER BY (exchange, at) PARTITION BY (exchange, toYYYYMMDD(at)) TTL toDateTime(at) + INTERVAL 1 DAY",
        "SELECT now(), 'e' || toString(number % 3), generateUUIDv4(), number, now64(6) - number FROM numbers(100)",
    )
    spec, text = drafted(db, source)
    assert (spec.cursor, spec.sequence, spec.source.final) == ("at", "seq", False)
    assert [str(f) for f in spec.target.partition] == ["exchange", "day(at)"]
    assert [str(f) for f in spec.target.sort] == ["at"]
    assert spec.horizon_us == 12 * 3600 * 1_000_000, "half of the TTL: later windows can't be replaced any more"
    assert "Also possible: received_at." in text
    assert "ClickHouse deletes by TTL toDateTime(at) + toIntervalDay(1)" in text
    good(db, spec)


def test_hourly_candles(db: Engine) -> None:
    source = make(
        db,
        "candles",
        "symbol String, window_start DateTime, volume Decimal(38, 8)",
        "SummingMergeTree ORDER BY (symbol, window_start) PARTITION BY toYYYYMM(window_start)",
        "SELECT 's', toStartOfHour(now()) - 3600 * number, 1 FROM numbers(50)",
    )
    spec, _ = drafted(db, source)
    assert spec.source.final
    assert (spec.period_us, spec.window_us) == (3_600_000_000, 3_600_000_000)
    assert [str(f) for f in spec.target.partition] == ["month(window_start)"]
    good(db, spec)


def test_minute_candles_keep_the_usual_window(db: Engine) -> None:
    source = make(
        db,
        "minutes",
        "m DateTime, v UInt64",
        "SummingMergeTree ORDER BY m",
        "SELECT toStartOfMinute(now()) - 60 * number, 1 FROM numbers(50)",
    )
    spec, _ = drafted(db, source)
    assert (spec.period_us, spec.window_us) == (60_000_000, 300_000_000)
    good(db, spec)


def test_rows_that_merge_are_not_filed_by_what_their_versions_may_differ_in(db: Engine) -> None:
    source = make(
        db,
        "states",
        "at DateTime, k String, state String, v UInt64",
        "ReplacingMergeTree(v) ORDER BY (k, at) PARTITION BY (state, k)",
    )
    spec, text = drafted(db, source)
    assert spec.source.final
    assert [str(f) for f in spec.target.partition] == ["day(at)", "k"]
    assert "state is not in the sorting key: FINAL could merge rows of two partitions" in text
    good(db, spec)


def test_final_is_not_proposed_where_it_is_unsafe(db: Engine) -> None:
    source = make(db, "versions", "id UInt64, updated DateTime", "ReplacingMergeTree(updated) ORDER BY id")
    spec, text = drafted(db, source)
    assert not spec.source.final
    assert "a merge could move a row into another window" in text
    good(db, spec)


def test_many_values_in_the_partition_key_become_buckets(db: Engine) -> None:
    source = make(
        db,
        "users",
        "user UInt32, ts DateTime",
        "MergeTree ORDER BY ts PARTITION BY user % 2",
    )
    spec, text = drafted(db, source)
    assert "no transform for user % 2" in text
    wide = make(
        db,
        "wide",
        "user UInt32, ts DateTime",
        "MergeTree ORDER BY ts PARTITION BY user",
        "SELECT number, now() FROM numbers(200) SETTINGS max_partitions_per_insert_block = 0",
    )
    spec, text = drafted(db, wide)
    assert [str(f) for f in spec.target.partition] == ["month(ts)", "bucket(16, user)"]
    good(db, spec)


def test_odd_names_and_types_without_a_mapping(db: Engine) -> None:
    source = make(
        db, "Odd-Näme", "`when ever` DateTime64(9), `b``c` JSON, n Nullable(UInt8)", "MergeTree ORDER BY `when ever`"
    )
    spec, text = drafted(db, source)
    assert (spec.source.database, spec.source.table, spec.target.table) == ("drafts", "Odd-Näme", "odd_n_me")
    assert spec.cursor == "when ever"
    (error,) = check_source(db, spec).errors
    assert error.id == "OFL-205"
    assert "b`c of type JSON" in error.cause
    # The commented lines work when they are taken at their word.
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("# ") and "type: string" in line)
    lines[at] = lines[at].removeprefix("# ")
    mended, problems = validate(parse("\n".join(lines)).data | {"identity": identity_of(source)})
    assert mended is not None, problems
    good(db, mended)


def test_a_date_is_a_cursor_of_whole_days(db: Engine) -> None:
    spec, _ = drafted(db, make(db, "days", "d Date, v UInt8", "MergeTree ORDER BY d"))
    assert (spec.window_us, spec.period_us) == (86_400_000_000, 86_400_000_000)
    good(db, spec)


def test_a_roll_up_and_column_ttls_are_explained(db: Engine) -> None:
    rolled = make(
        db,
        "rolled",
        "k UInt8, ts DateTime, v UInt8",
        "MergeTree ORDER BY k TTL ts + INTERVAL 1 DAY GROUP BY k SET v = max(v)",
    )
    assert "never replaced" in drafted(db, rolled)[1]
    zeroed = make(db, "zeroed", "ts DateTime, v UInt8 TTL ts + INTERVAL 1 DAY", "MergeTree ORDER BY ts")
    assert "Column TTLs zero v" in drafted(db, zeroed)[1]


@pytest.mark.parametrize(
    ("ttl", "limit_s"),
    [("2 DAY", None), ("1462 MINUTE", None), ("1461 MINUTE", 239 * 60), ("1 DAY", 236 * 60), ("6 HOUR", 56 * 60)],
)
def test_a_short_ttl_gets_alerts_that_are_silent_while_all_is_well(db: Engine, ttl: str, limit_s: int | None) -> None:
    """Four times the limit is less than what is left right before a run that ends well."""
    name = f"short_{ttl}".replace(" ", "_")
    source = make(db, name, "ts DateTime, v UInt8", f"MergeTree ORDER BY ts TTL ts + INTERVAL {ttl}")
    spec, _ = drafted(db, source)
    assert spec.alerts.ttl_headroom_s == limit_s
    good(db, spec)
    without = spec.model_copy(update={"alerts": Alerts()})
    warned = [w for w in check_source(db, without).warnings if "ttl_headroom" in w]
    assert bool(warned) == (limit_s is not None)
    if limit_s is not None:
        assert f"alerts: {{ttl_headroom: {human.format_duration(limit_s * 1_000_000)}}}" in warned[0]
        raised = spec.model_copy(update={"alerts": Alerts.model_validate({"ttl_headroom": f"{limit_s * 2}s"})})
        assert any("ttl_headroom" in w for w in check_source(db, raised).warnings)


@pytest.mark.parametrize(
    ("columns", "cause"),
    [("id UInt64, a String", "no column of type Date"), ("id UInt64, ts Nullable(DateTime)", "may be NULL")],
)
def test_no_cursor_no_draft(db: Engine, columns: str, cause: str) -> None:
    source = make(db, f"none{len(columns)}", columns, "MergeTree ORDER BY id")
    with pytest.raises(OffloadError, match=cause) as caught:
        draft(source, gather(db, source))
    assert caught.value.id == "OFL-206"
