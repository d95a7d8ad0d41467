"""When a table is late: one limit for `status`, `health` and the page in Airflow, as the alerts' rules have it."""

from __future__ import annotations

LAG_S = 30 * 60.0
"""Lag of a table with narrow windows that is no longer healthy: a sawtooth of up to 20 minutes is. Seconds."""
LAG_FAILED_S = 45 * 60.0
"""Two runs or more did not land: one lifts the peak to 35 minutes. Seconds."""
LAG_WINDOW_S = 5 * 60
"""Windows wider than this are allowed the difference on top: their rows settle that much later. Seconds."""
WARN_SHARE = 2 / 3
"""Of a table's own limit (`alerts.lag`) the lag warns from here on."""


def lag_limit_s(window_us: int, base_s: float = LAG_S, own_s: float | None = None) -> float:
    """The lag in seconds above which a table with windows of this width (µs) is late; its own limit wins."""
    return own_s if own_s else base_s + max(0.0, window_us / 1e6 - LAG_WINDOW_S)
