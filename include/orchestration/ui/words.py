"""Numbers, durations and instants as a person reads them on the page. Everything else is escaped by the templates."""

from __future__ import annotations

from include.offload.windows import from_us

SECOND_US = 1_000_000
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def number(value: int | None) -> str:
    """`1 234 567` with narrow no-break spaces; a dash for what is not known."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def short(value: float) -> str:
    """`12.3 k`, `4.5 M`: for the axis of a chart."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def duration(us: int | None) -> str:
    """`42 s`, `3 min 20 s`, `5 h 10 min`, `3 d 4 h`."""
    if us is None:
        return "–"
    seconds = abs(us) // SECOND_US
    sign = "−" if us < 0 else ""
    for big, big_name, small, small_name in _UNITS:
        if seconds >= big:
            rest = seconds % big // small
            return f"{sign}{seconds // big} {big_name}" + (
                f" {rest} {small_name}" if rest and seconds < 10 * big else ""
            )
    return f"{sign}{seconds} s"


def instant(us: int | None) -> str:
    """`2026-01-31 12:00:00`, UTC."""
    return "–" if us is None else f"{from_us(us):%Y-%m-%d %H:%M:%S}"


def iso(us: int) -> str:
    """For the `datetime` attribute of a `time` element."""
    return f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}"


def day(us: int) -> str:
    """`Sat 31 Jan`."""
    return f"{from_us(us):%a %d %b}"


def clock(us: int) -> str:
    """`12:05`, UTC."""
    return f"{from_us(us):%H:%M}"


def size(value: int | None) -> str:
    """Bytes."""
    if value is None:
        return "–"
    amount, unit = float(value), 0
    while amount >= 1024 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_SIZES[unit]}" if unit == 0 else f"{amount:.1f} {_SIZES[unit]}"
