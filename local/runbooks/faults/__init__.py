"""Every fault that a scenario can name, one module a runbook."""

from local.runbooks.faults import data, failure, lag, performance, scheduler, watermark
from local.runbooks.faults.common import FAULTS

__all__ = ["FAULTS", "data", "failure", "lag", "performance", "scheduler", "watermark"]
