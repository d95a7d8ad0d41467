"""What a maintenance run tells the metrics."""

from __future__ import annotations

import time

from include.offload.context import Context
from include.offload.maintenance.model import MaintenanceResult


def now_us() -> int:
    """This machine's clock, µs UTC: ages of snapshots and files are hours and days."""
    return time.time_ns() // 1000


def report(ctx: Context, result: MaintenanceResult) -> None:
    """Send what the run found and left."""
