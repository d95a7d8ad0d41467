"""When a table is late, silent or about to lose rows: one rule for `status`, `health`, metrics and the page in Airflow.

The numbers are those of the alerts (monitoring/values.yaml, a test compares). A table's own limits (`alerts` of its
spec) win; `check_extent` writes them into the ledger's look, for those who see the ledger alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from include.offload.spec.interval import interval_s

LAG_S = 30 * 60.0
"""Lag of a table with narrow windows that is no longer healthy: a sawtooth of up to 20 minutes is. Seconds."""
LAG_FAILED_S = 45 * 60.0
"""Two runs or more did not land: one lifts the peak to 35 minutes. Seconds."""
LAG_WINDOW_S = 5 * 60
"""Windows wider than this are allowed the difference on top: their rows settle that much later. Seconds."""
INTERVAL_S = 15 * 60
"""A schedule longer than this is allowed twice the difference on top: one failed run stays within it. Seconds."""
PEAK_S = LAG_FAILED_S - LAG_S
"""The alerts judge the trough of the saw; what sees a moment, and so its peak, fails that much later. Seconds."""
HEADROOM_S = 6 * 3600
"""Headroom that is critical, seconds. `alerts.ttl_headroom` of the spec wins."""
HEADROOM_WARN_TIMES = 4
"""That many times as much headroom warns."""
FAILURES = 3
"""Runs that failed in a row from which a table fails. Retries in a run do not count."""
SILENT_S = 45 * 60
"""A table of which no run was heard for so long, and for `SILENT_RUNS` of its schedule, is silent. Seconds."""
SILENT_RUNS = 3
SCHEDULE = "*/15 * * * *"
"""Of a table whose look, by older code, does not say: the default of the spec."""


def lag_limit_s(window_us: int, base_s: float = LAG_S, own_s: float | None = None, schedule: str = SCHEDULE) -> float:
    """The lag in seconds above which a table with windows of this width (µs) is late; its own limit wins."""
    if own_s:
        return own_s
    rarer = max(0.0, interval_s(schedule) - INTERVAL_S)
    return base_s + max(0.0, window_us / 1e6 - LAG_WINDOW_S) + 2 * rarer


def lag_limits_s(window_us: int, own_s: float | None = None, schedule: str = SCHEDULE) -> tuple[float, float]:
    """The lags that warn and that fail, in seconds."""
    if own_s:
        return float(own_s), own_s + PEAK_S
    return lag_limit_s(window_us, schedule=schedule), lag_limit_s(window_us, LAG_FAILED_S, schedule=schedule)


def headroom_limits_s(own_s: float | None = None) -> tuple[float, float]:
    """The headrooms that fail and that warn, in seconds; a table whose TTL is short by design has limits of its own."""
    fails = float(own_s or HEADROOM_S)
    return fails, fails * HEADROOM_WARN_TIMES


def expires_us(known_us: int | None, watermark_us: int | None, ttl_us: int | None) -> int | None:
    """When ClickHouse deletes the first row that may not be in the lake, µs UTC; None: never, as far as is known.

    known_us: the first expiry of the unshipped rows that somebody saw. Rows that came since expire no earlier than
    the watermark plus the time that a row lives (ttl_us): without that, a table whose runs stopped would seem safe.
    """
    unseen = None if watermark_us is None or ttl_us is None else watermark_us + ttl_us
    return min((us for us in (known_us, unseen) if us is not None), default=None)


def silent_before(schedule: str, now: datetime) -> datetime:
    """A table with this cron schedule is silent when no run of it was heard of since this instant."""
    return min(_runs_ago(schedule, int(now.timestamp()) // 60 + 1), now - timedelta(seconds=SILENT_S))


@lru_cache(maxsize=1024)
def _runs_ago(schedule: str, minute: int) -> datetime:
    """The last instant of which `SILENT_RUNS` whole intervals have passed at the beginning of that minute (UTC)."""
    # not at the top: Spark's environment, where nobody asks this, does not have it
    from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]

    runs = croniter(schedule, datetime.fromtimestamp(minute * 60, UTC))
    try:
        found: list[datetime] = [runs.get_prev(datetime) for _ in range(SILENT_RUNS + 1)]
    except CroniterBadDateError:
        # a day that never comes
        return datetime.min.replace(tzinfo=UTC)
    return found[-1]
