"""Whether the usual limits of TTL headroom suit a table: one whose rows live for a day is never a day from its TTL."""

from __future__ import annotations

from include.offload.limits import HEADROOM_S, HEADROOM_WARN_TIMES, SCHEDULE
from include.offload.spec import human
from include.offload.spec.interval import interval_s

SHARE = 6
"""A limit of at most a sixth of what is left leaves the warning, at four times it, below the healthy headroom."""


def short_headroom_us(
    keeps_us: int | None, window_us: int, settle_us: int, schedule: str = SCHEDULE, own_s: int | None = None
) -> int | None:
    """An `alerts.ttl_headroom` that a table needs, µs in whole minutes; None when the one it has suits.

    keeps_us: how long rows live, None: for ever or not known. What is left of it is the headroom right before a run
    that ends well.
    """
    if keeps_us is None:
        return None
    left = keeps_us - window_us - settle_us - int(interval_s(schedule) * human.SECOND_US)
    if (own_s or HEADROOM_S) * HEADROOM_WARN_TIMES * human.SECOND_US <= left:
        return None
    return max(human.MINUTE_US, left // SHARE // human.MINUTE_US * human.MINUTE_US)
