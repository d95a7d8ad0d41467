"""The words by which a job tells its caller how it goes: lines of standard output that begin with one of these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from include.offload.errors import JOB_FAILED, REGISTRY, OffloadError

PROGRESS = "OFFLOAD_PROGRESS "
RESULT = "OFFLOAD_RESULT "
ERROR = "OFFLOAD_ERROR "


class Place(StrEnum):
    """Who ships a plan's slices: the `--place` of the job."""

    DRIVER = "driver"
    EXECUTORS = "executors"


def error_document(error: OffloadError) -> dict[str, object]:
    """What follows `OFFLOAD_ERROR`."""
    return {
        "id": error.id,
        "cause": error.cause,
        "message": str(error),
        "table": error.table,
        "retry": error.kind.retry,
    }


def refusal(said: Mapping[str, object], table: str) -> OffloadError:
    """The job's error as our own; an id that this code does not know is kept inside OFL-504."""
    cause = str(said.get("cause") or said.get("message") or "no message")
    kind = REGISTRY.get(str(said.get("id")))
    if kind is None:
        return OffloadError(JOB_FAILED, f"{said.get('id')}: {cause}", table=table)
    return OffloadError(kind, cause, table=table)
