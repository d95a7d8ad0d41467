"""`schema diff` and `schema accept`: what differs between Iceberg and the source, and a person's yes to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertLastAssignedFieldId,
    AssertTableUUID,
    TableRequirement,
)

from include.offload.context import Context
from include.offload.errors import (
    COMMIT_UNKNOWN,
    TARGET_MISSING,
    TARGET_SCHEMA_DISAGREES,
    OffloadError,
)
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.evolution import ACCEPTED, accept_changes, compare, project_onto
from include.offload.lake.reach import reaching
from include.offload.model import SchemaChange, Verdict
from include.offload.source.describe import describe
from include.offload.source.projection import partition_columns
from include.offload.spec.model import TableSpec

Renames = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SchemaAccepted:
    """What was accepted, and the ids of schema and partition spec from now on."""

    table: str
    changes: tuple[SchemaChange, ...]
    schema_id: int
    partition_spec_id: int

    def __str__(self) -> str:
        if not self.changes:
            return f"{self.table}: Iceberg agrees with the source, there is nothing to accept"
        done = "\n".join(f"  {c}" for c in self.changes)
        return f"{self.table}: Iceberg has schema {self.schema_id}, partition spec {self.partition_spec_id}\n{done}"


def schema_diff(ctx: Context, spec: TableSpec, renames: Renames = ()) -> tuple[SchemaChange, ...]:
    """All differences between the Iceberg table and what spec and source want.

    Raises OFL-309 when there is no table yet, OFL-2xx when the spec does not fit the source, OFL-302 for a rename that
    is none.
    """
    return _differences(ctx, spec, _table(ctx, spec), renames)


def schema_accept(ctx: Context, spec: TableSpec, renames: Renames = ()) -> SchemaAccepted:
    """Bring the Iceberg table to what spec and source want, in one commit without data; safe to repeat.

    Plans that were frozen before stop at the table's new schema or partition spec and are planned again (rule 1).
    Raises OFL-302 when a change can't be made, OFL-303 when another pipeline owns the table, OFL-404 when the fate of
    the request can't be told.
    """
    table = _table(ctx, spec)
    markers.read(table, spec.identity, ctx.pipeline)
    changes = _differences(ctx, spec, table, renames)
    refused = [c for c in changes if c.verdict is Verdict.CANNOT]
    if refused:
        raise OffloadError(TARGET_SCHEMA_DISAGREES, "; ".join(map(str, refused)), table=spec.identity)
    if changes:
        table = _commit(ctx, spec, table, changes)
    return SchemaAccepted(spec.identity, changes, table.metadata.current_schema_id, table.metadata.default_spec_id)


def _table(ctx: Context, spec: TableSpec) -> Table:
    identifier = (spec.target.namespace, spec.target.table)
    table = find_table(ctx.catalog, identifier, spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, ".".join(identifier), table=spec.identity)
    return table


def _differences(ctx: Context, spec: TableSpec, table: Table, renames: Renames) -> tuple[SchemaChange, ...]:
    with ctx.connect(spec, f"offload schema {spec.identity}") as client:
        source = describe(client, spec.source.database, spec.source.table, spec.identity)
    projection = project_onto(spec, source, table)
    partition_columns(spec, projection)  # a transform that does not fit its column is refused here
    return compare(table, projection, spec, renames)


def _commit(ctx: Context, spec: TableSpec, table: Table, changes: tuple[SchemaChange, ...]) -> Table:
    """One request, sent once; whatever the answer, reloading the table decides (rule 16)."""
    transaction = table.transaction()
    accept_changes(transaction, table, changes, spec)
    requirements: tuple[TableRequirement, ...] = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
        AssertLastAssignedFieldId(last_assigned_field_id=table.metadata.last_column_id),
        AssertDefaultSpecId(default_spec_id=table.metadata.default_spec_id),
    )
    failure: Exception | None = None
    try:
        with reaching(spec.identity):
            ctx.catalog.commit_table(table, requirements, transaction._updates)
    except Exception as error:
        failure = error
    now = _table(ctx, spec)
    if failure is not None and _state(now.metadata) != _state(transaction.table_metadata):
        raise OffloadError(COMMIT_UNKNOWN, f"{failure}"[:500], table=spec.identity) from failure
    return now


def _state(metadata: TableMetadata) -> tuple[object, ...]:
    """What accepting changes, without the ids that a catalog may give otherwise."""
    order = metadata.sort_order_by_id(metadata.default_sort_order_id)
    return metadata.schema(), metadata.spec().fields, order and order.fields, metadata.properties.get(ACCEPTED)
