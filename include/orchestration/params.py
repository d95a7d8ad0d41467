"""The trigger form of a DAG, and what a person may ask for with it.

`from` and `to` are instants of the cursor. They are rounded outwards to whole windows, because a window
is the unit of accounting; the note about it goes into the task log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

from include.offload.errors import RANGE_REFUSED, OffloadError
from include.offload.spec.human import format_duration
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, from_us, to_us

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol

BACKFILL = "backfill"
"""Airflow's type of the runs that `airflow backfill create` makes."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a run was asked to do. Microseconds since the epoch, UTC; None: from the watermark, to the settled time."""

    from_us: int | None
    to_us: int | None
    force: bool
    notes: tuple[str, ...] = ()


def trigger_form(spec: TableSpec) -> dict[str, Param]:
    """The params of a table's DAG. Left empty, a run goes from the watermark to the settled time."""
    width = format_duration(spec.window_us)
    return {
        "from": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="From (UTC)",
            description=(
                f"Offload again from this instant of {spec.cursor}, for example 2026-01-31T00:00:00Z. "
                f"Rounded down to a whole window of {width}. Empty: from the watermark."
            ),
        ),
        "to": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="To (UTC)",
            description=(
                f"Up to, not including, this instant. Rounded up to a whole window of {width}. "
                "Empty: up to the settled time. Needs From."
            ),
        ),
        "force": Param(
            False,
            type="boolean",
            title="Replace unchanged windows too",
            description=(
                "Normally a window whose count and hash are the same as committed is left alone. Needs From. "
                "Never overrides the TTL guard: a window that ClickHouse may already be expiring is not replaced."
            ),
        ),
    }


def of_run(run: DagRunProtocol, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The params of a run: one of `airflow backfill create` that names no range asks for its own data interval."""
    if run.run_type != BACKFILL or params.get("from") or params.get("to"):
        return params
    if run.data_interval_start is None or run.data_interval_end is None:
        return params
    return {**params, "from": run.data_interval_start.isoformat(), "to": run.data_interval_end.isoformat()}


def _instant(name: str, value: object, table: str) -> int | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise OffloadError(
            RANGE_REFUSED, f"{name}={value!r} is no ISO instant such as 2026-01-31T00:00:00Z", table=table
        ) from error
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _show(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%S.%f}".removesuffix(".000000") + "Z"


def requested(spec: TableSpec, params: Mapping[str, Any]) -> Range:
    """Check and round what the form holds. An instant without zone is UTC. Raises OFL-407."""
    table = spec.identity
    lo, hi = _instant("from", params.get("from"), table), _instant("to", params.get("to"), table)
    force = bool(params.get("force"))
    if lo is None and (hi is not None or force):
        asked = "`to`" if hi is not None else "`force`"
        raise OffloadError(RANGE_REFUSED, f"{asked} is set but `from` is empty: give the range's start", table=table)
    if lo is not None and hi is not None and lo >= hi:
        raise OffloadError(
            RANGE_REFUSED, f"`from` {_show(lo)} is not before `to` {_show(hi)}: swap or widen them", table=table
        )
    grid, notes = Grid(spec.window_us), []
    if lo is not None and (down := grid.floor(lo)) != lo:
        notes.append(f"`from` rounded down from {_show(lo)} to the window's start {_show(down)}")
        lo = down
    if hi is not None and (up := grid.ceil(hi)) != hi:
        notes.append(f"`to` rounded up from {_show(hi)} to the window's end {_show(up)}")
        hi = up
    return Range(lo, hi, force, tuple(notes))
