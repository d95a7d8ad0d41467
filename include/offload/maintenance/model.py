"""What one maintenance run is to do, as a value: made from metadata, printed, handed to the Spark job as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import TypeAdapter

from include.offload.windows import Span


class Care(StrEnum):
    """The steps, in the order in which they run."""

    COMPACT = "compact"
    MANIFESTS = "rewrite_manifests"
    EXPIRE = "expire_snapshots"
    ORPHANS = "remove_orphans"
    STATISTICS = "statistics"


@dataclass(frozen=True, slots=True)
class LakeState:
    """An Iceberg table as its metadata describes it. small_files: below the size that compaction aims at.

    metadata_bytes: the metadata file, the manifest list and the manifests of the current snapshot.
    """

    rows: int
    files: int
    small_files: int
    bytes: int
    delete_files: int
    snapshots: int
    manifests: int
    metadata_bytes: int

    @property
    def average_bytes(self) -> int:
        """Mean size of a data file, bytes; 0 without one."""
        return self.bytes // self.files if self.files else 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes of compacted files, bytes. most: what no file exceeds; target, small, large: Iceberg's options.

    Iceberg closes a file half-way between `target` and `large`, which is `most`; files below `small` are joined.
    """

    most: int
    target: int
    small: int
    large: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `why`: for people. `spans`: cursor time of the files to compact, one commit each.

    max_files: at most so many are rewritten, the bound in bytes for a span that is larger than a run may be; None: all.
    older_than_us: µs UTC, of the steps that remove; keep: the least number of snapshots that stay.
    """

    care: Care
    why: str
    spans: tuple[Span, ...] = ()
    max_files: int | None = None
    older_than_us: int | None = None
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step for which there is nothing to do."""

    care: Care
    why: str


@dataclass(frozen=True, slots=True)
class MaintenancePlan:
    """What to do with a table. cursor_type: the Iceberg type of the cursor, as text."""

    table: str
    target: tuple[str, str]
    cursor: str
    cursor_type: str
    strategy: str
    bounds: Bounds
    before: LakeState
    steps: tuple[Step, ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> str:
        """The plan as one line, the argument of the Spark job."""
        return _PLAN.dump_json(self).decode()


def plan_from_json(text: str) -> MaintenancePlan:
    """Raises pydantic.ValidationError when it is no plan."""
    return _PLAN.validate_json(text)


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended. status: `done`, `overtaken` (an offload changed the same files first), `put off`.

    figures: what Iceberg's procedure says of its work, by its own names.
    """

    care: Care
    status: str
    seconds: float
    figures: dict[str, int] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """What a run did, and the table after it."""

    table: str
    steps: tuple[StepResult, ...]
    before: LakeState
    after: LakeState


_PLAN = TypeAdapter(MaintenancePlan)
RESULT = TypeAdapter(MaintenanceResult)
