"""Windows laid out as blocks of rows, and plans as the shapes of two charts: plain values for the templates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.offload.timeline import MAX_CELLS, Cell, Fate, PlanLine
from include.offload.windows import Span
from include.orchestration.ui import words

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
_SHAPES = (
    (5 * SECOND_US, MINUTE_US, 30 * MINUTE_US),
    (10 * SECOND_US, 5 * MINUTE_US, 2 * HOUR_US),
    (MINUTE_US, 15 * MINUTE_US, 6 * HOUR_US),
    (5 * MINUTE_US, HOUR_US, DAY_US),
    (15 * MINUTE_US, 4 * HOUR_US, DAY_US),
    (2 * HOUR_US, DAY_US, 14 * DAY_US),
    (DAY_US, 7 * DAY_US, 84 * DAY_US),
)
"""Up to which width of a window a row and a block of the heat map are how long."""
MOST_BLOCKS = 7
MOST_IN_A_ROW = 60
SHADES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a block. `first`: the index of its first cell among all."""

    label: str
    first: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A day, or whatever fits the windows' width."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the windows of one width are laid out. µs."""

    width_us: int
    row_us: int
    block_us: int

    @property
    def alike(self) -> bool:
        """Whether all blocks have the same row labels."""
        return self.block_us == DAY_US

    def span(self, now_us: int) -> Span:
        """The blocks to show, the one of now being the last."""
        blocks = max(1, min(MOST_BLOCKS, MAX_CELLS * self.width_us // self.block_us))
        end = now_us // self.block_us * self.block_us + self.block_us
        return Span(end - blocks * self.block_us, end)


def shape(width_us: int) -> Shape:
    """The layout for windows of this width."""
    for widest, row_us, block_us in _SHAPES:
        if width_us <= widest and row_us % width_us == 0 and row_us // width_us <= MOST_IN_A_ROW:
            return Shape(width_us, row_us, block_us)
    return Shape(width_us, width_us * 12, width_us * 12 * 12)


def blocks(cells: Sequence[Cell], form: Shape) -> tuple[Block, ...]:
    """The cells as blocks, the newest first."""
    a_row, a_block = form.row_us // form.width_us, form.block_us // form.width_us
    out = []
    for number, part in enumerate(_parts(cells, a_block)):
        rows = [
            Row(_row_label(row[0], form), number * a_block + index * a_row, row)
            for index, row in enumerate(_parts(part, a_row))
        ]
        out.append(Block(_block_label(part, form), _columns(part[:a_row], form), tuple(rows)))
    return tuple(reversed(out))


def _parts(cells: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    return [tuple(cells[at : at + size]) for at in range(0, len(cells), size)]


def _row_label(cell: Cell, form: Shape) -> str:
    return words.clock(cell.span.lo) if form.row_us < DAY_US else words.day(cell.span.lo)


def _block_label(part: Sequence[Cell], form: Shape) -> str:
    first, last = part[0].span.lo, part[-1].span.lo
    if form.block_us < DAY_US:
        return f"{words.day(first)}, {words.clock(first)}"
    return words.day(first) if form.block_us == DAY_US else f"{words.day(first)} – {words.day(last)}"


def _columns(row: Sequence[Cell], form: Shape) -> tuple[str, ...]:
    if form.row_us <= HOUR_US:
        return tuple(f":{words.clock(c.span.lo)[3:]}" for c in row)
    if form.row_us < 7 * DAY_US:
        return tuple(f"+{words.duration(c.span.lo - row[0].span.lo)}" for c in row)
    return tuple(words.day(c.span.lo)[:3] for c in row)


def shades(cells: Iterable[Cell]) -> tuple[int, ...]:
    """The rows from which a shipped window gets the next darker shade: the quartiles."""
    rows = sorted(c.rows for c in cells if c.rows)
    return tuple(rows[len(rows) * n // SHADES] for n in range(1, SHADES)) if rows else ()


def shade(cell: Cell, limits: Sequence[int]) -> int:
    """1 to 4 by how many rows a window has."""
    return 1 + sum(cell.rows >= limit for limit in limits)


def counts(cells: Iterable[Cell]) -> dict[str, int]:
    """How many windows met each fate."""
    out = dict.fromkeys((f.value for f in Fate), 0)
    for cell in cells:
        out[cell.fate.value] += 1
    return out


@dataclass(frozen=True, slots=True)
class Chart:
    """Shapes in a box of 1000 by 100, the axis in words, and what is read out at each place."""

    path: str
    top: str
    left: str
    middle: str
    right: str
    readings: tuple[tuple[float, str], ...]
    """Place (0 to 1000) and text, from left to right."""
    limit: float | None = None
    """Height of the line that should not be crossed, None when it lies outside."""


def lag_chart(
    plans: Sequence[PlanLine], settle_us: int, now_us: int, now_lag_us: int | None, limit_us: int
) -> Chart | None:
    """Lag over time, a saw: it grows with the clock and falls when a plan lands. None without two landings."""
    done = [p for p in reversed(plans) if p.status in {"committed", "empty"} and p.closed_us and p.watermark_after_us]
    points: list[tuple[int, int, str]] = []
    for p in done:
        assert p.closed_us is not None and p.watermark_after_us is not None  # noqa: S101 - filtered above
        after = max(0, p.closed_us - settle_us - p.watermark_after_us)
        peak = max(after, p.closed_us - settle_us - p.watermark_before_us) if p.watermark_before_us else after
        points.append((p.closed_us, peak, f"{words.duration(peak)} before the run"))
        points.append((p.closed_us, after, f"{words.duration(after)} after the run"))
    # how a first load caught up would flatten all that follows
    ordinary = sorted(lag for _, lag, _ in points)
    ceiling = 3 * ordinary[len(ordinary) * 9 // 10] if ordinary else 0
    if now_lag_us is not None:
        points.append((now_us, now_lag_us, f"{words.duration(now_lag_us)} now"))
        ceiling = max(ceiling, now_lag_us)
    if len(points) < 3:
        return None
    start, end = points[0][0], points[-1][0]
    highest = max(1, min(max(lag for _, lag, _ in points), ceiling))
    top = max(highest, limit_us * 11 // 10)
    line = " ".join(f"{_x(at, start, end):.1f},{100 - min(lag, top) / top * 100:.1f}" for at, lag, _ in points)
    readings = [(_x(at, start, end), f"{words.day(at)} {words.clock(at)}: {text}") for at, _, text in points]
    return Chart(
        f"M{line.replace(' ', ' L')}",
        words.duration(top),
        *_ends(start, end),
        tuple(readings),
        100 - limit_us / top * 100,
    )


def rows_chart(plans: Sequence[PlanLine], now_us: int) -> Chart | None:
    """Rows of each plan as a bar at the time it landed. None when nothing was shipped."""
    done = [p for p in reversed(plans) if p.status == "committed" and p.closed_us]
    if len(done) < 2:
        return None
    start, end = done[0].closed_us or 0, now_us
    top = max(1, *(p.rows for p in done))
    wide = max(1.2, min(12.0, 700 / len(done)))
    bars, readings = [], []
    for p in done:
        at = _x(p.closed_us or 0, start, end)
        height = p.rows / top * 100
        bars.append(f"M{max(0.0, at - wide / 2):.1f},100 v{-height:.1f} h{wide:.1f} v{height:.1f} z")
        when = f"{words.day(p.closed_us or 0)} {words.clock(p.closed_us or 0)}"
        readings.append((at, f"{when}: {words.number(p.rows)} rows in {p.windows} windows"))
    return Chart(" ".join(bars), words.short(top), *_ends(start, end), tuple(readings))


def _x(at: int, start: int, end: int) -> float:
    return (at - start) / max(1, end - start) * 1000


def _ends(start: int, end: int) -> tuple[str, str, str]:
    middle = (start + end) // 2
    show = (lambda us: f"{words.day(us)} {words.clock(us)}") if end - start < 20 * DAY_US else words.day
    return show(start), show(middle), show(end)
