"""The three steps of a run, by the names that Airflow, the command line and the Spark job call them."""

from include.offload.check import CheckResult, RunRequest, check_extent, preview
from include.offload.context import Context, open_context
from include.offload.job import ship
from include.offload.lake.shipping import slice_sql as _slice_sql
from include.offload.lake.shipping import source_name
from include.offload.model import Plan, Slice
from include.offload.spec.model import TableSpec
from include.offload.watermark import WatermarkResult, update_watermark

__all__ = [
    "CheckResult",
    "Context",
    "RunRequest",
    "WatermarkResult",
    "check_extent",
    "open_context",
    "preview",
    "ship",
    "slice_sql",
    "update_watermark",
]


def slice_sql(plan: Plan, slice_: Slice) -> str:
    """The ClickHouse query of one slice of a plan."""
    spec = TableSpec.model_validate_json(plan.spec_json)
    return _slice_sql(plan, slice_, source_name(spec.source.database, spec.source.table), spec.source.final)
