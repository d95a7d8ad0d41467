"""How an Iceberg table differs from what spec and source want, and how it is brought there.

A column that appears is added and a type that grows is widened by the plan that needs it, in the commit of its rows.
Everything else waits until a person accepts it. What was accepted stands in the table's own properties, by field id, so
that it survives a rename and the loss of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.transforms import IdentityTransform, parse_transform
from pyiceberg.types import NestedField, PrimitiveType

from include.offload.errors import SCHEMA_NEEDS_ACCEPT, TARGET_CHANGED, TARGET_SCHEMA_DISAGREES, OffloadError
from include.offload.model import (
    ChangeKind,
    Evolution,
    PartitionColumn,
    Plan,
    ProjectedColumn,
    Projection,
    SchemaChange,
    SourceTable,
    Verdict,
)
from include.offload.source.icetypes import parse, text_of, to_iceberg
from include.offload.source.projection import fingerprint, project, reader_properties
from include.offload.source.typemap import NoMappingError, map_override
from include.offload.spec.model import ColumnOverride, TableSpec

ACCEPTED = "offload.accepted"
"""The table property that holds what a person accepted."""
PARTITION_NAME, SORT_NAME = "target.partition", "target.sort"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was accepted, by field id.

    retired: columns that get NULL from now on. kept: columns whose source yields a narrower type, which one, and which
    the projection casts to the lake's. returned: once retired, written again, and how often that happened.
    """

    retired: frozenset[int] = frozenset()
    kept: dict[int, str] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)

    def property(self) -> dict[str, str]:
        """The table property."""
        document = {"retired": sorted(self.retired), "kept": self.kept, "returned": self.returned}
        return {ACCEPTED: json.dumps(document, sort_keys=True)}

    def back(self, schema: Schema, names: Collection[str]) -> Accepted:
        """The same once the columns of these names are written again."""
        back = {f.field_id for f in schema.fields if f.name in names} & self.retired
        again = {i: self.returned.get(i, 0) + 1 for i in back}
        return Accepted(self.retired - back, self.kept, self.returned | again)


def accepted(table: Table) -> Accepted:
    """What the table says was accepted."""
    text = table.properties.get(ACCEPTED)
    if text is None:
        return Accepted()
    found = json.loads(text)
    kept, returned = ({int(i): v for i, v in found[k].items()} for k in ("kept", "returned"))
    return Accepted(frozenset(found["retired"]), kept, returned)


# ---- the projection of a table that exists ---------------------------------------------------------------------------


def project_onto(spec: TableSpec, source: SourceTable, table: Table | None) -> Projection:
    """The projection for this very table: its columns in the lake's order, new ones last; narrowed ones cast.

    Raises what `project` raises.
    """
    plain = project(spec, source)
    if table is None:
        return plain
    schema, kept = table.schema(), accepted(table).kept
    wider: dict[str, ColumnOverride] = {}
    for column in plain.columns:
        there = _find(schema, column.name)
        if there is not None and kept.get(there.field_id) == column.iceberg_type != text_of(there.field_type):
            override = spec.columns.overrides.get(column.name)
            wider[column.name] = ColumnOverride(
                expr=override.expr if override else None, type=text_of(there.field_type)
            )
    if wider:
        columns = spec.columns.model_copy(update={"overrides": {**spec.columns.overrides, **wider}})
        plain = project(spec.model_copy(update={"columns": columns}), source)
    place = {f.name: i for i, f in enumerate(schema.fields)}
    ordered = sorted(plain.columns, key=lambda c: place.get(c.name, len(place)))
    returned = accepted(table).back(schema, {c.name for c in ordered}).returned
    return Projection(tuple(ordered), fingerprint(ordered, sorted(returned.items())))


def in_lake_order(columns: Sequence[PartitionColumn], table: Table | None) -> tuple[PartitionColumn, ...]:
    """The partition fields in the order of the table, which evolution may have made another than the spec's."""
    if table is None:
        return tuple(columns)
    place = {key: i for i, key in enumerate(_partition_of(table, _names(table)))}
    return tuple(sorted(columns, key=lambda c: place.get((c.source, str(parse_transform(c.transform))), len(place))))


def file_schema(table: Table, plan: Plan) -> Schema:
    """The schema of a plan's files: the lake's fields that the projection fills; the others read as NULL."""
    planned = plan.evolution
    whole = Schema.model_validate_json(planned.schema_json) if planned else table.schema()
    names = {c.name for c in plan.projection.columns}
    return Schema(*(f for f in whole.fields if f.name in names), schema_id=whole.schema_id)


def check_fits(table: Table, plan: Plan) -> None:
    """Raises OFL-306 unless the plan's files, column by column, are files of this table.

    A plan for a table that existed is held by schema and spec id; one that made the table may find somebody else's.
    """
    columns = [(f.name, text_of(f.field_type)) for f in file_schema(table, plan).fields]
    planned = [(c.name, c.iceberg_type) for c in plan.projection.columns]
    names = {c.name for c in plan.projection.columns}
    columns += [(f.name, "required") for f in table.schema().fields if f.required and f.name not in names]
    if columns != planned:
        raise OffloadError(TARGET_CHANGED, f"its columns are {columns}, planned were {planned}", table=plan.table)
    fields = [(c.source, str(parse_transform(c.transform))) for c in plan.partition]
    theirs = _partition_of(table, _names(table))
    if fields != theirs:
        raise OffloadError(
            TARGET_CHANGED, f"its partition fields are {theirs}, planned were {fields}", table=plan.table
        )


def table_properties(table: Table, projection: Projection) -> dict[str, str]:
    """What the table lacks in properties: those of a column that is being added, and no more retirement of one that is
    written again."""
    missing = {k: v for k, v in reader_properties(projection).items() if k not in table.properties}
    before = accepted(table)
    after = before.back(table.schema(), {c.name for c in projection.columns})
    return missing | (after.property() if after != before else {})


def file_properties(table: Table, projection: Projection) -> dict[str, str]:
    """The table's properties, and those that a column which is being added needs."""
    return reader_properties(projection) | dict(table.properties)


# ---- differences -----------------------------------------------------------------------------------------------------


def compare(
    table: Table, projection: Projection, spec: TableSpec, renames: Sequence[tuple[str, str]] = ()
) -> tuple[SchemaChange, ...]:
    """All differences between the table and what spec and source want. projection: of `project_onto`.

    renames: old and new names of columns that a person says are one. Raises OFL-302 for a pair that is none.
    """
    schema = table.schema()
    names = {c.name for c in projection.columns}
    retired = accepted(table).retired
    gone = [f for f in schema.fields if f.name not in names and f.field_id not in retired]
    changes = [change for c in projection.columns for change in _column(schema, c, spec)]
    changes += [_dropped(f, changes) for f in gone]
    changes = _renamed(changes, renames, spec.identity)
    after = {f.field_id: dict(renames).get(f.name, f.name) for f in schema.fields}
    mine, theirs = _partition_wanted(spec), _partition_of(table, after)
    if set(mine) != set(theirs):
        what = "new files follow the spec, old ones stay as they are"
        was, now = (_list(_transform(c, t) for c, t in fields) for fields in (theirs, mine))
        changes.append(SchemaChange(ChangeKind.PARTITION, Verdict.ACCEPT, PARTITION_NAME, None, was, now, what))
    wanted, have = _sort_wanted(spec), _sort_of(table, after)
    if wanted != have:
        what = "files are written in the spec's order already; accepting tells readers so"
        changes.append(SchemaChange(ChangeKind.SORT, Verdict.ACCEPT, SORT_NAME, None, _list(have), _list(wanted), what))
    return tuple(changes)


def refuse(changes: Iterable[SchemaChange], identity: str) -> None:
    """Raises OFL-302 when a change can't be made, OFL-310 when one needs accepting. A sort order stops nothing."""
    for verdict, kind in ((Verdict.CANNOT, TARGET_SCHEMA_DISAGREES), (Verdict.ACCEPT, SCHEMA_NEEDS_ACCEPT)):
        found = [c for c in changes if c.verdict is verdict and c.kind is not ChangeKind.SORT]
        if found:
            raise OffloadError(kind, "; ".join(map(str, found)), table=identity)


def _column(schema: Schema, column: ProjectedColumn, spec: TableSpec) -> list[SchemaChange]:
    there = _find(schema, column.name)

    def change(kind: ChangeKind, verdict: Verdict, what: str) -> SchemaChange:
        have = None if there is None else text_of(there.field_type)
        return SchemaChange(kind, verdict, column.name, column.source_type, have, column.iceberg_type, what)

    if there is None:
        twin = next((f.name for f in schema.fields if f.name.lower() == column.name.lower()), None)
        if twin is not None:
            return [change(ChangeKind.ADDED, Verdict.CANNOT, f"Iceberg has {twin}, and readers ignore case")]
        what = f"it is added as {column.iceberg_type}; rows from before read NULL"
        return [change(ChangeKind.ADDED, Verdict.ITSELF, what)]
    out: list[SchemaChange] = []
    if text_of(there.field_type) != column.iceberg_type:
        out.append(change(*_type_change(there, column, spec)))
    if there.required and not column.required:
        out.append(change(ChangeKind.OPTIONAL, Verdict.ITSELF, "it becomes optional"))
    return out


def _type_change(there: NestedField, column: ProjectedColumn, spec: TableSpec) -> tuple[ChangeKind, Verdict, str]:
    have, wanted = text_of(there.field_type), column.iceberg_type
    if _promotes(have, wanted):
        return ChangeKind.WIDENED, Verdict.ITSELF, f"{have} becomes {wanted}"
    if _fits(column, have, spec):
        return ChangeKind.NARROWED, Verdict.ACCEPT, f"Iceberg keeps {have}, and the values are cast to it"
    override = f'columns: {{overrides: {{{column.name}: {{type: "{have}"}}}}}}'
    return (
        ChangeKind.INCOMPATIBLE,
        Verdict.CANNOT,
        f"Iceberg never turns {have} into {wanted}: exclude the column, or write {override} where it fits",
    )


def _promotes(have: str, wanted: str) -> bool:
    """Whether Iceberg lets a column of one type become the other (the specification's "schema evolution", format 2)."""
    old, new = parse(have), parse(wanted)
    if (old.kind, new.kind) == ("decimal", "decimal"):
        return old.numbers[1] == new.numbers[1] and old.numbers[0] < new.numbers[0]
    return (old.kind, new.kind) in {("int", "long"), ("float", "double")}


def _fits(column: ProjectedColumn, have: str, spec: TableSpec) -> bool:
    """Whether every value of the source's column is kept by the type that Iceberg has."""
    override = spec.columns.overrides.get(column.name)
    # a cast to an integer may also be one that fails on a large value: only a person may ask for that, in the spec
    if have in {"int", "long"} or (override is not None and override.type is not None):
        return _promotes(column.iceberg_type, have)
    try:
        return map_override(column.source_type, have).iceberg_type == have
    except NoMappingError:
        return False


def _dropped(gone: NestedField, changes: Sequence[SchemaChange]) -> SchemaChange:
    have = text_of(gone.field_type)
    twins = [
        c.column
        for c in changes
        if c.kind is ChangeKind.ADDED and c.wanted is not None and (c.wanted == have or _promotes(have, c.wanted))
    ]
    hint = f"; was it renamed? --rename {gone.name}={twins[0]}" if twins else ""
    what = f"it stays in Iceberg and reads NULL in new rows{hint}"
    return SchemaChange(ChangeKind.DROPPED, Verdict.ACCEPT, gone.name, None, have, None, what)


def _renamed(changes: Sequence[SchemaChange], pairs: Sequence[tuple[str, str]], identity: str) -> list[SchemaChange]:
    """The changes with a drop and an addition made one renaming each."""
    out = list(changes)
    for old, new in pairs:
        drop = next((c for c in out if c.kind is ChangeKind.DROPPED and c.column == old), None)
        add = next((c for c in out if c.kind is ChangeKind.ADDED and c.column == new), None)
        if drop is None or add is None or drop.iceberg is None or add.wanted is None:
            raise OffloadError(
                TARGET_SCHEMA_DISAGREES,
                f"--rename {old}={new}: {old} must have left the source, and {new} be new in it",
                table=identity,
            )
        if drop.iceberg != add.wanted and not _promotes(drop.iceberg, add.wanted):
            raise OffloadError(
                TARGET_SCHEMA_DISAGREES,
                f"--rename {old}={new}: {drop.iceberg} can not become {add.wanted}",
                table=identity,
            )
        what = f"it becomes {new}, with its history"
        one = SchemaChange(
            ChangeKind.RENAMED, Verdict.ACCEPT, old, add.source, drop.iceberg, add.wanted, what, new_name=new
        )
        out = [one if c is drop else c for c in out if c is not add]
    return out


# ---- changes ---------------------------------------------------------------------------------------------------------


def evolution(table: Table, changes: Sequence[SchemaChange]) -> Evolution | None:
    """What a plan's commit has to change in the schema by itself; None: nothing."""
    mine = tuple(c for c in changes if c.verdict is Verdict.ITSELF)
    if not mine:
        return None
    transaction = table.transaction()  # never committed: it only tells the ids
    change_columns(transaction, mine)
    return Evolution(mine, transaction.table_metadata.schema().model_dump_json())


def evolve(transaction: Transaction, planned: Evolution, identity: str) -> None:
    """Stage a plan's changes of the schema. Raises OFL-306 when they do not lead to the schema that its files have."""
    change_columns(transaction, planned.changes)
    if transaction.table_metadata.schema() != Schema.model_validate_json(planned.schema_json):
        raise OffloadError(TARGET_CHANGED, "somebody else used up the field ids that were planned", table=identity)


def change_columns(transaction: Transaction, changes: Iterable[SchemaChange]) -> None:
    """Stage the changes of columns."""
    with transaction.update_schema() as update:
        for c in changes:
            if c.kind is ChangeKind.ADDED and c.wanted is not None:
                update.add_column((c.column,), to_iceberg(c.wanted, count(1)), required=False)
            elif c.kind in {ChangeKind.OPTIONAL, ChangeKind.DROPPED}:
                update.make_column_optional((c.column,))
            elif c.kind is ChangeKind.WIDENED or (c.kind is ChangeKind.RENAMED and c.wanted != c.iceberg):
                wanted = to_iceberg(str(c.wanted), count(1))
                assert isinstance(wanted, PrimitiveType)  # noqa: S101 - only those are promoted
                update.update_column((c.column,), field_type=wanted)
            if c.kind is ChangeKind.RENAMED and c.new_name is not None:
                update.rename_column((c.column,), c.new_name)


def accept_changes(transaction: Transaction, table: Table, changes: Sequence[SchemaChange], spec: TableSpec) -> None:
    """Stage all changes: columns, partition fields, sort order, and the property that remembers what was accepted."""
    schema, before = table.schema(), accepted(table)
    change_columns(transaction, changes)
    retired = {schema.find_field(c.column).field_id for c in changes if c.kind is ChangeKind.DROPPED}
    kept = {
        schema.find_field(c.column).field_id: str(narrow)
        for c in changes
        if c.kind is ChangeKind.NARROWED and (narrow := c.wanted) is not None
    }
    if retired or kept:
        after = Accepted(before.retired | retired, before.kept | kept, before.returned)
        transaction.set_properties(after.property())
    kinds = {c.kind for c in changes}
    if ChangeKind.PARTITION in kinds:
        _change_partition(transaction, table, spec)
    if ChangeKind.SORT in kinds:
        _change_sort(transaction, spec)


def _change_partition(transaction: Transaction, table: Table, spec: TableSpec) -> None:
    after = {f.field_id: f.name for f in transaction.table_metadata.schema().fields}
    have = {key: f.name for key, f in zip(_partition_of(table, after), table.spec().fields, strict=True)}
    mine = dict(zip(_partition_wanted(spec), spec.target.partition, strict=True))
    try:
        with transaction.update_spec() as update:
            for key, name in have.items():
                if key not in mine:
                    update.remove_field(name)
            for key, wanted in mine.items():
                if key not in have:
                    update.add_field(wanted.column, parse_transform(wanted.transform), wanted.name)
    except ValueError as error:
        raise OffloadError(
            TARGET_SCHEMA_DISAGREES,
            f"target.partition: {error}; give the field another name with `as`",
            table=spec.identity,
        ) from error


def _change_sort(transaction: Transaction, spec: TableSpec) -> None:
    with transaction.update_sort_order() as update:
        for f in spec.target.sort:
            add: Callable[..., object] = update.desc if f.descending else update.asc
            nulls = NullOrder.NULLS_LAST if f.nulls_last else NullOrder.NULLS_FIRST
            add(f.column, IdentityTransform(), nulls)


def _find(schema: Schema, name: str) -> NestedField | None:
    return next((f for f in schema.fields if f.name == name), None)


def _names(table: Table) -> dict[int, str]:
    return {f.field_id: f.name for f in table.schema().fields}


def _partition_wanted(spec: TableSpec) -> list[tuple[str, str]]:
    return [(f.column, str(parse_transform(f.transform))) for f in spec.target.partition]


def _partition_of(table: Table, names: Mapping[int, str]) -> list[tuple[str, str]]:
    return [(names[f.source_id], str(f.transform)) for f in table.spec().fields]


def _transform(column: str, transform: str) -> str:
    return column if transform == "identity" else f"{transform} of {column}"


def _sort_wanted(spec: TableSpec) -> list[str]:
    return [_sort(f.column, f.descending, f.nulls_last) for f in spec.target.sort]


def _sort_of(table: Table, names: Mapping[int, str]) -> list[str]:
    return [
        _sort(names[f.source_id], f.direction is SortDirection.DESC, f.null_order is NullOrder.NULLS_LAST)
        for f in table.sort_order().fields
    ]


def _sort(column: str, descending: bool, nulls_last: bool) -> str:
    return f"{column} {'desc' if descending else 'asc'} nulls {'last' if nulls_last else 'first'}"


def _list(items: Iterable[str]) -> str:
    return ", ".join(items) or "none"
