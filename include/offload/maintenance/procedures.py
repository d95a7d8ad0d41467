"""Iceberg's procedures as Spark SQL. Pure text: what a step of a plan says to Spark."""

from __future__ import annotations

from include.offload.lake.spark_catalog import NAME
from include.offload.maintenance.model import MaintenancePlan, Step
from include.offload.maintenance.planning import MIN_FILES
from include.offload.windows import Span, from_us

OPEN_END = 2**62
"""From here on a span has no end."""


def target(plan: MaintenancePlan) -> str:
    """The table, its catalog included."""
    return ".".join(_quoted(part) for part in (NAME, *plan.target))


def compact(plan: MaintenancePlan, step: Step, span: Span) -> str:
    """`rewrite_data_files` of the files of one span: sizes that a replace can rewrite, one commit."""
    sizes = plan.bounds
    options = {
        "target-file-size-bytes": sizes.target,
        "min-file-size-bytes": sizes.small,
        "max-file-size-bytes": sizes.large,
        "min-input-files": MIN_FILES,
        # one deleted row is a reason: the offload refuses to replace files that carry deletes
        "delete-file-threshold": 1,
        **({"max-files-to-rewrite": step.max_files} if step.max_files is not None else {}),
    }
    pairs = ", ".join(f"'{key}', '{value}'" for key, value in options.items())
    where = _text(span_sql(plan, span))
    return _call(
        plan, "rewrite_data_files", f"strategy => '{plan.strategy}', options => map({pairs}), where => {where}"
    )


def manifests(plan: MaintenancePlan) -> str:
    """`rewrite_manifests`, without Spark's cache: a table's metadata may be more than a driver's memory."""
    return _call(plan, "rewrite_manifests", "use_caching => false")


def expire(plan: MaintenancePlan, step: Step) -> str:
    """`expire_snapshots` strictly older than the step's instant; files only reachable from them go too."""
    older = f"older_than => {_instant(step)}, retain_last => {step.keep}"
    return _call(plan, "expire_snapshots", f"{older}, stream_results => true")


def statistics(plan: MaintenancePlan) -> str:
    """`compute_table_stats` of all columns."""
    return _call(plan, "compute_table_stats")


def span_sql(plan: MaintenancePlan, span: Span) -> str:
    """The condition that the cursor lies in a span, in the literals of its type."""
    column = _quoted(plan.cursor)
    sides = [(">=", span.lo)] if span.lo > -OPEN_END else []
    sides += [("<", span.hi)] if span.hi < OPEN_END else []
    return " AND ".join(f"{column} {sign} {_literal(plan.cursor_type, us)}" for sign, us in sides)


def _literal(kind: str, us: int) -> str:
    moment = from_us(us)
    if kind == "date":
        return f"DATE '{moment:%Y-%m-%d}'"
    if kind == "timestamptz":
        return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}+00:00'"
    return f"TIMESTAMP_NTZ '{moment:%Y-%m-%d %H:%M:%S.%f}'"


def _instant(step: Step) -> str:
    if step.older_than_us is None:
        raise ValueError(f"{step.care} without an instant")
    return _literal("timestamptz", step.older_than_us)


def _call(plan: MaintenancePlan, procedure: str, more: str = "") -> str:
    arguments = f"table => {_text(target(plan))}" + (f", {more}" if more else "")
    return f"CALL {NAME}.system.{procedure}({arguments})"


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
