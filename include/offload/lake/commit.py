"""The commit: one atomic change of the Iceberg table, or none (rules 14 to 17).

PyIceberg builds manifests and snapshot; the request is sent by us. Its own `commit_transaction` is not used: with its
retry off, an answer that is lost and replayed makes it delete the live manifest list; with it on, it rebases silently
over a newer marker.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertLastAssignedFieldId,
    AssertRefSnapshotId,
    AssertTableUUID,
    TableRequirement,
    TableUpdate,
)

from include.offload.crashpoint import reached
from include.offload.errors import (
    AUDIT_FAILED,
    COMMIT_UNKNOWN,
    PLAN_SUPERSEDED,
    TARGET_CHANGED,
    TARGET_MISSING,
    TARGET_ROLLED_BACK,
    OffloadError,
)
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.evolution import evolve, table_properties
from include.offload.lake.marker import Marker
from include.offload.lake.reach import reaching
from include.offload.lake.rewriting import Replacement
from include.offload.model import Plan

log = logging.getLogger(__name__)

MAX_REBASES = 10
"""How many foreign commits in a row may come between before we give up; each costs one reload and one request."""


@dataclass(frozen=True, slots=True)
class Landing:
    """A commit that is in the table. `ours`: this very call made it."""

    table: Table
    marker: Marker
    ours: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """A commit request, ready to be sent; nobody can see it yet."""

    marker: Marker
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


def guard(table: Table, plan: Plan) -> Marker | None:
    """The table's marker, when this plan may be committed on it (rules 1, 2, 4).

    Raises OFL-402 when another plan passed, OFL-305 when the table is another one, OFL-306 when schema or partition
    spec changed. A marker of this very plan is returned as it is: it already landed.
    """
    if plan.target.uuid is not None and str(table.metadata.table_uuid) != plan.target.uuid:
        raise OffloadError(
            TARGET_ROLLED_BACK,
            f"it is table {table.metadata.table_uuid}, planned was {plan.target.uuid}",
            table=plan.table,
        )
    marker = markers.read(table, plan.table, plan.pipeline)
    if marker is not None and marker.plan == plan.plan_id:
        return marker
    head = None if marker is None else marker.plan
    if head != plan.predecessor:
        raise OffloadError(PLAN_SUPERSEDED, f"it follows {plan.predecessor}, the table holds {head}", table=plan.table)
    if plan.target.uuid is not None:
        frozen = (plan.target.schema_id, plan.target.partition_spec_id)
        now = (table.metadata.current_schema_id, table.metadata.default_spec_id)
        if now != frozen:
            raise OffloadError(
                TARGET_CHANGED, f"schema and partition spec are {now}, planned were {frozen}", table=plan.table
            )
    return marker


def stage(
    table: Table,
    plan: Plan,
    attempt: uuid.UUID,
    watermark_us: int | None,
    added: Sequence[DataFile],
    replaced: Replacement,
    retired_us: int | None = None,
) -> Staged:
    """Write manifests and manifest list, and put the request together. retired_us: as `Marker` has it."""
    transaction = table.transaction()
    if plan.evolution is not None:
        # first, so that the snapshot carries the new schema's id
        evolve(transaction, plan.evolution, plan.table)
    update = transaction.update_snapshot(snapshot_properties={})
    producer = update.overwrite() if replaced.deleted else update.fast_append()
    marker = Marker(
        pipeline=plan.pipeline,
        source=plan.source_identity,
        plan=plan.plan_id,
        generation=plan.generation,
        attempt=attempt,
        watermark_us=watermark_us,
        snapshot_id=producer.snapshot_id,
        sequence_number=table.metadata.next_sequence_number(),
        retired_us=retired_us,
    )
    producer.snapshot_properties = marker.properties()
    for file in replaced.deleted:
        producer.delete_data_file(file)
    for file in (*replaced.remainders, *added):
        producer.append_data_file(file)
    producer.commit()  # stages on the transaction, which is never committed: the request below is ours
    # a property that a commit does not name stays
    cleared = {markers.RETIRED: ""} if retired_us is None and table.properties.get(markers.RETIRED) else {}
    transaction.set_properties(table_properties(table, plan.projection) | cleared | marker.properties())
    head = table.metadata.current_snapshot_id
    requirements: tuple[TableRequirement, ...] = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head),
        AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
        AssertDefaultSpecId(default_spec_id=table.metadata.default_spec_id),
    )
    if plan.evolution is not None:
        requirements += (AssertLastAssignedFieldId(last_assigned_field_id=table.metadata.last_column_id),)
    return Staged(marker, requirements, transaction._updates)


def land(
    catalog: Catalog,
    plan: Plan,
    attempt: uuid.UUID,
    watermark_us: int | None,
    added: Sequence[DataFile],
    replace: Callable[[Table], Replacement],
    never_sent: Callable[[], object] = lambda: None,
) -> Landing:
    """Commit `added` files and the replacement that `replace` finds, unless this plan already landed.

    Foreign snapshots that come between are rebased over; another plan of ours is not. never_sent: called when this
    fails before any request was sent, so that nothing can refer to the files (rule 13). Raises OFL-404 when the fate
    of the request can't be told, and what `guard` raises.
    """
    for turn in range(MAX_REBASES):
        try:
            table = load(catalog, plan)
            marker = guard(table, plan)
            if marker is not None and marker.plan == plan.plan_id:
                return Landing(table, marker, ours=False)
            with reaching(plan.table):
                replacement = replace(table)
                check_files(table, plan.table, [*added, *replacement.remainders])
                staged = stage(table, plan, attempt, watermark_us, added, replacement)
        except BaseException:
            if turn == 0:
                never_sent()
            raise
        reached("before-commit")
        try:
            catalog.commit_table(table, staged.requirements, staged.updates)
        except Exception as error:
            landed = _look(catalog, plan, error)
            if landed is not None:
                return landed
            if isinstance(error, CommitFailedException):
                log.warning("a foreign commit came first, rebasing: %s", error)
                continue
            raise OffloadError(COMMIT_UNKNOWN, f"{type(error).__name__}: {error}"[:500], table=plan.table) from error
        reached("after-commit")
        landed = _look(catalog, plan, None)
        if landed is None:
            raise OffloadError(
                COMMIT_UNKNOWN, "the catalog accepted the commit, but does not show it", table=plan.table
            )
        return landed
    raise OffloadError(TARGET_CHANGED, f"{MAX_REBASES} foreign commits in a row came first", table=plan.table)


def plant(
    catalog: Catalog,
    table: Table,
    plan: Plan,
    attempt: uuid.UUID,
    watermark_us: int | None,
    retired_us: int | None = None,
) -> Landing:
    """Commit a marker without data, whatever marker is there: it ends the chain of every plan made before (rule 22).

    retired_us: when the table was retired, µs UTC; None: it goes on. Raises OFL-404 when the request failed and the
    table does not show the marker; nothing changed then, or it is safe to repeat.
    """
    staged = stage(table, plan, attempt, watermark_us, (), Replacement(), retired_us)
    failure: Exception | None = None
    try:
        catalog.commit_table(table, staged.requirements, staged.updates)
    except Exception as error:
        failure = error
    landed = _look(catalog, plan, failure)
    if landed is None:
        raise OffloadError(COMMIT_UNKNOWN, f"{failure}"[:500], table=plan.table) from failure
    return landed


def load(catalog: Catalog, plan: Plan) -> Table:
    """The plan's table, freshly loaded. Raises OFL-309 when it is gone, OFL-301 when the catalog is away."""
    table = find_table(catalog, plan.target.identifier, plan.table)
    if table is None:
        raise OffloadError(TARGET_MISSING, ".".join(plan.target.identifier), table=plan.table)
    return table


def _look(catalog: Catalog, plan: Plan, error: Exception | None) -> Landing | None:
    """Whether this plan is in the table now: after a request was sent, only this decides (rule 16)."""
    try:
        table = load(catalog, plan)
        marker = markers.read(table, plan.table, plan.pipeline)
    except OffloadError as blind:
        if error is None or not blind.kind.retry:
            raise
        raise OffloadError(COMMIT_UNKNOWN, f"{error}; then: {blind.cause}"[:500], table=plan.table) from error
    if marker is not None and marker.plan == plan.plan_id:
        return Landing(table, marker, ours=True)
    return None


def check_files(table: Table, identity: str, files: Sequence[DataFile]) -> None:
    """Raises OFL-403 unless every file is in the store with its size (rule 13)."""
    for file in files:
        with reaching(identity):
            size = len(table.io.new_input(file.file_path))
        if size != file.file_size_in_bytes:
            raise OffloadError(
                AUDIT_FAILED,
                f"{file.file_path} has {size} bytes, written were {file.file_size_in_bytes}",
                table=identity,
            )
