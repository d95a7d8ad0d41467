"""The dashboards' uids and the ids of their panels. Links point at them: an id is never given to another panel."""

from __future__ import annotations

from enum import IntEnum

OVERVIEW, TABLE, PIPELINE = "offload-overview", "offload-table", "offload-pipeline"


class Overview(IntEnum):
    """Panels of `offload-overview`: all tables."""

    SAFE = 1
    EXPIRES = 2
    AGREE = 3
    HEARD = 4
    BELIEVE = 5
    BEYOND = 6
    LATE = 10
    TROUGH = 11
    STANDS = 12
    FRESH = 13
    WORST = 14
    LAG = 15
    FIRING = 20
    FAILING = 21
    FAILED = 22
    SUCCESS = 23
    ERRORS = 24
    RUNS = 25
    JOB_TIME = 30
    PARQUET = 31
    ROWS = 32
    DEAREST = 33


class Table(IntEnum):
    """Panels of `offload-table`: one table."""

    SAFE = 1
    EXPIRES = 2
    AGREE = 3
    BACK = 4
    BEYOND = 5
    WATERMARK = 6
    GUARD = 7
    UNKNOWN = 8
    LAG = 10
    TROUGH = 11
    FRESH = 12
    PENDING = 13
    STANDS = 14
    SUCCESS_AGE = 15
    FIRING = 20
    SUCCESS = 21
    RUNS = 22
    ERRORS = 23
    HEALED = 24
    CYCLE = 30
    SPEED = 31
    JOB_TIME = 32
    PARQUET = 33
    FILES = 34
    CARE = 35
    LAKE = 36


class Pipeline(IntEnum):
    """Panels of `offload-pipeline`: Airflow and the way that the metrics take."""

    SCHEDULER = 1
    DAG_PROCESSOR = 2
    IMPORTS = 3
    REPORTING = 4
    BROKEN = 5
    WATCHDOG = 6
    DELAY = 10
    QUEUED = 11
    SLOTS = 12
    LOOP = 13
    PARSE = 14
    FIRING = 20
    TASKS = 21
    KILLED = 22
    STARVING = 23
    EVENTS = 30
    REFUSED = 31
    SERIES = 32
    RULES = 33
