"""Ledger rows as runs leave them, written by SQL: a week of windows in a second, states that take days to happen."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class Story:
    """What one table went through. Durations in µs; windows are named by how long ago they were."""

    table: str
    days: float = 3
    """Days of accounting."""
    width_us: int = 5 * MINUTE_US
    settle_us: int = 2 * MINUTE_US
    behind_us: int = 4 * MINUTE_US
    """How long ago the last run ended."""
    rows: int = 900
    """Rows of a window at noon."""
    ttl_us: int | None = 2 * DAY_US
    headroom_us: int | None = None
    error: str | None = None
    failures: int = 0
    healed: tuple[int, ...] = ()
    """Windows before the watermark, counted back, that were replaced."""
    quiet: tuple[int, ...] = ()
    """The same, seen empty."""
    differing: tuple[int, ...] = ()
    late_rows: int = 0
    guard: str | None = None
    name_of_run: str = "scheduled"
    plans: dict[uuid.UUID, int] = field(default_factory=dict)


def now_us() -> int:
    return time.time_ns() // 1000


def forget(uri: str, tables: Iterable[str]) -> None:
    """Remove what `tell` wrote."""
    with psycopg.connect(uri) as c:
        ids = [r[0] for r in c.execute("SELECT table_id FROM offload.tables WHERE identity = ANY(%s)", [list(tables)])]
        c.execute(
            "DELETE FROM offload.attempts WHERE plan_id IN"
            " (SELECT plan_id FROM offload.plans WHERE table_id = ANY(%s))",
            [ids],
        )
        for name in ("windows", "looks", "ttl_guard", "findings", "plans", "watermarks", "tables"):
            c.execute(f"DELETE FROM offload.{name} WHERE table_id = ANY(%s)", [ids])
        c.execute("DELETE FROM offload.unmet WHERE identity = ANY(%s)", [list(tables)])


def tell(uri: str, story: Story) -> list[uuid.UUID]:
    """Write one table's story; the ids of its plans, oldest first."""
    w = story.width_us
    now = now_us()
    run = max(15 * MINUTE_US, w)
    ended = now - story.behind_us
    watermark = (ended - story.settle_us) // w * w
    first = watermark - int(story.days * DAY_US) // w * w
    count = (watermark - first) // w
    per_plan = run // w
    back = {watermark // w - 1 - n for n in story.healed}
    quiet = {watermark // w - 1 - n for n in story.quiet}
    with psycopg.connect(uri) as c:
        (table_id,) = c.execute(
            "INSERT INTO offload.tables (identity, cursor_column, width_us, origin_us, source_identity, target)"
            " VALUES (%s, 'ts', %s, %s, %s, %s) RETURNING table_id",
            [story.table, w, first, str(uuid.uuid4()), story.table],
        ).fetchone()  # type: ignore[misc]
        plans, windows, attempts, total = [], [], [], 0
        before, previous = first, None
        numbers = list(range(first // w, first // w + count))
        groups = [numbers[i : i + per_plan] for i in range(0, len(numbers), per_plan)]
        for generation, group in enumerate(groups, start=1):
            plan, after = uuid.uuid4(), (group[-1] + 1) * w
            closed = min(ended, after + story.settle_us + 3 * MINUTE_US)
            snapshot = 4_200_000_000_000_000_000 + table_id * 1_000_000 + generation
            planned, sum_of = [], 0
            for number in group:
                rows = _rows(story, number * w)
                empty = number in quiet
                healed = number in back
                planned.append(
                    {"window": number, "action": "replace" if healed else "append", "rows": rows}
                    | ({"ledger_rows": rows - 37} if healed else {})
                )
                expiry = None if story.ttl_us is None or empty else (number * w) + story.ttl_us
                windows.append(
                    (
                        table_id,
                        number * w,
                        (number + 1) * w,
                        0 if empty else rows,
                        0,
                        None if empty else "f" * 16,
                        expiry,
                        plan,
                        closed,
                    )
                )
                sum_of += 0 if empty else rows
            total += sum_of
            document = {"watermark_before": before, "watermark_after": after, "windows": planned}
            plans.append(
                (plan, table_id, f"{story.name_of_run}__{generation:06d}", generation, previous, "committed", before)
                + (after, len(group), sum_of, json.dumps(document), snapshot, closed - 40_000_000, closed)
            )
            outcome = {"files": 4, "bytes": sum_of * 31, "seconds": 3.1 + sum_of / 40_000}
            attempts.append((uuid.uuid4(), plan, json.dumps(outcome), closed))
            before, previous = after, plan
        cursor = c.cursor()
        cursor.executemany(
            "INSERT INTO offload.plans (plan_id, table_id, run_id, generation, predecessor, status, scan, windows,"
            " rows, document, snapshot_id, created_at, closed_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, int8range(%s, %s), %s, %s, %s, %s,"
            " to_timestamp(%s / 1e6), to_timestamp(%s / 1e6))",
            plans,
        )
        cursor.executemany(
            "INSERT INTO offload.attempts (attempt_id, plan_id, outcome, recorded_at)"
            " VALUES (%s, %s, %s, to_timestamp(%s / 1e6))",
            attempts,
        )
        cursor.executemany(
            "INSERT INTO offload.windows (table_id, span, rows, hash, fingerprint, expiry_us, plan_id, recorded_at)"
            " VALUES (%s, int8range(%s, %s), %s, %s, %s, %s, %s, to_timestamp(%s / 1e6))",
            windows,
        )
        last = plans[-1]
        c.execute(
            "INSERT INTO offload.watermarks (table_id, table_name, watermark, generation, plan_id, snapshot_id,"
            " row_count, status, last_successful_run, duration_seconds, failure_count, last_error, updated_at)"
            " VALUES (%s, %s, to_timestamp(%s / 1e6), %s, %s, %s, %s, %s, to_timestamp(%s / 1e6), 6.2, %s, %s,"
            " to_timestamp(%s / 1e6))",
            [table_id, story.table, watermark, last[3], last[0], last[11], total]
            + ["failed" if story.error else "success", ended, story.failures, story.error]
            + [now - MINUTE_US if story.error else ended],
        )
        headroom = story.headroom_us if story.headroom_us is not None else story.ttl_us
        expiry = None if headroom is None else now + headroom
        look = {
            "seen_us": now,
            "blocks": [],
            "ttl": "",
            "late_rows": story.late_rows,
            "late_from_us": first - 6 * HOUR_US if story.late_rows else None,
            "late_to_us": first if story.late_rows else None,
            "first_expiry_us": expiry,
            "next_expiry_us": expiry,
            "expires": story.ttl_us is not None,
            "settle_us": story.settle_us,
            "left": [
                {"window": watermark // w - 1 - n, "reason": "shrunk", "rows": 12, "ledger_rows": 900, "differs": True}
                for n in story.differing
            ],
        }
        c.execute("INSERT INTO offload.looks (table_id, document) VALUES (%s, %s)", [table_id, json.dumps(look)])
        if story.guard:
            c.execute(
                "INSERT INTO offload.ttl_guard (table_id, reason, applied_at) VALUES (%s, %s, now())",
                [table_id, story.guard],
            )
    return [p[0] for p in plans]


def _rows(story: Story, us: int) -> int:
    """More by day than by night, never the same twice."""
    hour = us / HOUR_US % 24
    wave = 0.55 + 0.45 * math.sin((hour - 8) / 24 * 2 * math.pi)
    return max(1, int(story.rows * wave * (0.85 + (us // story.width_us * 2_654_435_761 % 1000) / 3_300)))


def ten_tables() -> list[Story]:
    """The ten tables of the demo: one that fails, one that is behind, windows that differ; one has not run yet."""
    unreachable = (
        "OFL-201 [k2.bronze_trades_binance] ClickHouse does not answer: connect to 127.0.0.1:8123: Connection refused."
        " Next: bin/offload stack start if this machine runs it; else start it where it runs"
    )
    return [
        Story("k2.silver_trades", days=7, rows=5200, ttl_us=5 * DAY_US, healed=(31, 32, 170, 171, 172, 700)),
        Story(
            "k2.bronze_trades_binance",
            behind_us=74 * MINUTE_US,
            rows=9100,
            ttl_us=DAY_US,
            headroom_us=4 * HOUR_US,
            error=unreachable,
            failures=5,
        ),
        Story("k2.bronze_trades_coinbase", rows=2300, ttl_us=7 * DAY_US, behind_us=31 * MINUTE_US),
        Story("k2.bronze_trades_kraken", rows=800, ttl_us=7 * DAY_US, quiet=tuple(range(140, 160))),
        Story("k2.ohlcv_1m", rows=180, ttl_us=90 * DAY_US, differing=(40, 41, 42)),
        Story("k2.ohlcv_5m", rows=36, ttl_us=180 * DAY_US),
        Story("k2.ohlcv_15m", width_us=15 * MINUTE_US, days=6, rows=36, ttl_us=365 * DAY_US),
        Story("k2.ohlcv_30m", width_us=30 * MINUTE_US, days=12, rows=36, ttl_us=365 * DAY_US),
        Story("k2.ohlcv_1h", width_us=HOUR_US, days=20, rows=36, ttl_us=365 * DAY_US),
    ]
