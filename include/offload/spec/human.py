"""Values as people write them: `5m`, `4GiB`, `2026-01-01T00:00:00Z`; and back again.

Durations are integers in microseconds, sizes in bytes, counts plain integers, instants microseconds since
the epoch, UTC. Every parser raises ValueError with one sentence that says what to write.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from include.offload.windows import from_us, to_us

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

DURATION_UNITS = {
    "w": 7 * DAY_US,
    "d": DAY_US,
    "h": HOUR_US,
    "m": MINUTE_US,
    "s": SECOND_US,
    "ms": 1_000,
    "us": 1,
}
SIZE_UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_DECIMAL_SIZES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "KB": 10**3}
COUNT_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}

DURATION_PATTERN = r"^([0-9]+(w|d|h|m|s|ms|us))+$"
SIZE_PATTERN = r"^[0-9]+ ?([KMGT]iB|[kKMGT]B|B)$"
COUNT_PATTERN = r"^[0-9][0-9_]*[kMG]?$"
INSTANT_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2}))?$"

_PART = re.compile(r"([0-9]+)(ms|us|w|d|h|m|s)")


def parse_duration(value: object) -> int:
    """Microseconds of `5m`, `1h30m`, `500ms`; `0` alone is zero. A bare number has no unit and is refused."""
    if value == 0 and not isinstance(value, bool):
        return 0
    if not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit; write a duration such as 5m, 2h or 1d")
    text = value.strip().replace(" ", "")
    if text == "0":
        return 0
    if not re.fullmatch(DURATION_PATTERN[1:-1], text):
        raise ValueError(f"{value!r} is no duration; write a number with a unit (w, d, h, m, s, ms), such as 5m")
    return sum(int(n) * DURATION_UNITS[unit] for n, unit in _PART.findall(text))


def format_duration(us: int) -> str:
    """The shortest exact form with one unit: 300000000 → `5m`, 90 s → `90s`."""
    if us == 0:
        return "0s"
    for unit, size in DURATION_UNITS.items():
        if unit != "w" and us % size == 0:
            return f"{us // size}{unit}"
    raise AssertionError("1us divides every integer")


def parse_size(value: object) -> int:
    """Bytes of `4GiB`, `512MiB`, `1.5GB` is refused (no fractions), a bare integer is bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+) ?([A-Za-z]*)", value.strip())
        units = {**SIZE_UNITS, **_DECIMAL_SIZES, "": 1}
        if match and match[2] in units:
            return int(match[1]) * units[match[2]]
    raise ValueError(f"{value!r} is no size; write a whole number with a unit, such as 512MiB or 4GiB")


def format_size(size: int) -> str:
    """The shortest exact form in binary units: 4294967296 → `4GiB`."""
    for unit, factor in SIZE_UNITS.items():
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def parse_count(value: object) -> int:
    """An integer from `2000000`, `2_000_000` or `2M`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(COUNT_PATTERN[1:-1], value.strip()):
        text = value.strip()
        unit = text[-1] if text[-1] in COUNT_UNITS else ""
        return int(text.removesuffix(unit).replace("_", "")) * COUNT_UNITS[unit]
    raise ValueError(f"{value!r} is no count; write a whole number, such as 2000000 or 2M")


def parse_instant(value: object) -> int:
    """Microseconds since the epoch of an ISO instant with an offset; a date alone is its midnight, UTC."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no instant; write it in UTC, such as 2026-01-01T00:00:00Z")
    text = value.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{value!r} is no instant; write it in UTC, such as 2026-01-01T00:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) > len("2026-01-01"):
            raise ValueError(f"{value!r} has no time zone; write {text.replace(' ', 'T')}Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return to_us(moment)


def format_instant(us: int) -> str:
    """ISO in UTC with `Z`, without a fraction when it is zero."""
    return from_us(us).isoformat().replace("+00:00", "Z")
