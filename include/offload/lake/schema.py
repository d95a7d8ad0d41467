"""Iceberg schema, partition spec and sort order of a new table, from a projection."""

from __future__ import annotations

from itertools import count

from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, parse_transform
from pyiceberg.types import NestedField

from include.offload.model import Projection
from include.offload.source.icetypes import to_iceberg
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
