"""Iceberg schema, partition spec and sort order from a projection; and whether a table still agrees with them."""

from __future__ import annotations

from itertools import count

from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, parse_transform
from pyiceberg.types import NestedField

from include.offload.errors import TARGET_SCHEMA_DISAGREES, OffloadError
from include.offload.model import Projection
from include.offload.source.icetypes import text_of, to_iceberg
from include.offload.spec.model import TableSpec


def schema_of(projection: Projection) -> Schema:
    """The Iceberg schema of a projection, field ids counted from 1."""
    ids = count(len(projection.columns) + 1)
    return Schema(
        *(
            NestedField(i, c.name, to_iceberg(c.iceberg_type, ids), required=c.required)
            for i, c in enumerate(projection.columns, start=1)
        )
    )


def partition_spec_of(spec: TableSpec, schema: Schema) -> PartitionSpec:
    """The partition spec of a table spec."""
    fields = []
    for i, field in enumerate(spec.target.partition):
        transform = parse_transform(field.transform)
        source = schema.find_field(field.column)
        fields.append(PartitionField(source.field_id, 1000 + i, transform, field.name))
    return PartitionSpec(*fields)


def sort_order_of(spec: TableSpec, schema: Schema) -> SortOrder:
    """The sort order of a table spec; every file is written in it."""
    return SortOrder(
        *(
            SortField(
                source_id=schema.find_field(f.column).field_id,
                transform=IdentityTransform(),
                direction=SortDirection.DESC if f.descending else SortDirection.ASC,
                null_order=NullOrder.NULLS_LAST if f.nulls_last else NullOrder.NULLS_FIRST,
            )
            for f in spec.target.sort
        )
    )


def check_agrees(table: Table, projection: Projection, spec: TableSpec) -> None:
    """Raises OFL-302 unless the Iceberg table has exactly the columns and partition fields of the spec."""
    wanted = schema_of(projection)
    have = table.schema()
    differences = []
    for field in wanted.fields:
        found = next((f for f in have.fields if f.name == field.name), None)
        if found is None:
            differences.append(f"column {field.name} is missing in Iceberg")
        elif text_of(found.field_type) != text_of(field.field_type):
            differences.append(f"column {field.name} is {found.field_type} in Iceberg, {field.field_type} by the spec")
        elif found.required and not field.required:
            differences.append(f"column {field.name} is required in Iceberg, but may be NULL in ClickHouse")
    names = {f.name for f in wanted.fields}
    differences += [f"Iceberg has a column {f.name} that the spec lacks" for f in have.fields if f.name not in names]
    mine = [(f.column, str(parse_transform(f.transform))) for f in spec.target.partition]
    theirs = [(have.find_column_name(f.source_id), str(f.transform)) for f in table.spec().fields]
    if mine != theirs:
        differences.append(f"partition fields are {theirs} in Iceberg, {mine} by the spec")
    if differences:
        raise OffloadError(TARGET_SCHEMA_DISAGREES, "; ".join(differences), table=spec.identity)
