"""The health check: every server and every table, side by side, in less than 30 seconds whatever happens."""

from include.offload.health.checks import CHECKS, DEEP
from include.offload.health.lines import Check, Line, Report, State
from include.offload.health.run import check_health

__all__ = ["CHECKS", "DEEP", "Check", "Line", "Report", "State", "check_health"]
