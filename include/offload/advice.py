"""What to type next about a table, the most urgent first: commands that fit what the page says of it."""

from __future__ import annotations

from dataclasses import dataclass

from include.offload.errors import REGISTRY
from include.offload.overview import TableOverview
from include.offload.windows import from_us


@dataclass(frozen=True, slots=True)
class Command:
    """What to do next. line: what to type, None: no command does it; why: what it is for; hint: words about it."""

    line: str | None
    why: str
    hint: str = ""


def next_commands(table: TableOverview) -> tuple[Command, ...]:
    """What to type next, the most urgent first; the last two always help."""
    name, out = table.table, list[Command]()
    if table.stopped is not None:
        retired = "retired on purpose? Delete its DAG in Airflow, and it leaves this page"
        out.append(Command("bin/offload spec check", "names what is wrong in each spec", retired))
    kind = REGISTRY.get(table.error_id or "")
    if kind is not None:
        out.append(Command(kind.command_for(name), f"{kind.id}: {kind.title}", kind.hint_for(name)))
    if table.state == "behind":
        out.append(Command(f"bin/offload run {name}", "ships now what is settled, without waiting for the schedule"))
    if table.guard_refused is not None:
        out.append(Command(f"bin/offload status {name}", "what ClickHouse said when it was to stop TTL merges"))
    if table.found.differing:
        out.append(Command(f"bin/offload verify {name}", "names the windows that differ; none does: the mark goes"))
    if table.differing or table.found.differing:
        out.append(
            Command(f"bin/offload reconcile {name} --dry-run", "shows the windows that differ, and why they stay")
        )
    if table.late_rows and table.late_from_us is not None and table.late_to_us is not None:
        lo, hi = _iso(table.late_from_us), _iso(table.late_to_us)
        out.append(Command(f"bin/offload reconcile {name} --from {lo} --to {hi}", "ships rows that came late"))
    if table.found.lost and table.found.lost_from_us is not None and table.found.lost_to_us is not None:
        lo, hi = _iso(table.found.lost_from_us), _iso(table.found.lost_to_us)
        why = f"takes the mark away, once whoever reads the table knows that rows from {lo} to {hi} are missing"
        out.append(Command(f"bin/offload accept-loss {name}", why))
    out.append(Command(f"bin/offload plan {name}", "what the next run would ship, with its SQL"))
    out.append(Command(f"bin/offload verify {name}", "two readers compare ClickHouse and Iceberg, window by window"))
    return tuple(dict.fromkeys(out))


def _iso(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}"
