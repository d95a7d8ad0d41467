"""How far apart the runs of a schedule are."""

from __future__ import annotations

from functools import lru_cache

DAY_S = 86_400


@lru_cache(maxsize=1024)
def interval_s(schedule: str) -> float:
    """The longest time between two runs of a cron expression, seconds; 0 when it names no day that exists.

    Looked at over a day, a week or a year and a month, whichever the expression repeats in: a schedule of working days
    has the weekend as its longest time.
    """
    # not at the top: Spark's environment, where nobody asks this, does not have it
    from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]

    *_, day, month, weekday = schedule.split()
    if (day, month, weekday) == ("*", "*", "*"):
        span = 2 * DAY_S
    elif (day, month) == ("*", "*"):
        span = 8 * DAY_S
    else:
        span = 400 * DAY_S
    times = croniter(schedule, 0.0)
    try:
        last, longest = times.get_next(float), 0.0
        end = last + span
        while last < end:
            next_one = times.get_next(float)
            longest, last = max(longest, next_one - last), next_one
    except CroniterBadDateError:
        return 0.0
    return longest
