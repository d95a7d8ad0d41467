"""The catalog: whatever PyIceberg's own configuration names. Finding, creating and reloading the table."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.utils.config import Config

from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.lake.reach import reaching
from include.offload.lake.schema import partition_spec_of, schema_of, sort_order_of
from include.offload.model import Projection, Target
from include.offload.source.projection import reader_properties
from include.offload.spec.model import TableSpec

TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}


def open_catalog(name: str) -> Catalog:
    """The catalog `name` of PyIceberg's configuration. Raises OFL-102 when it is not configured, OFL-301 when away."""
    # PyIceberg reads its configuration once, at import; this process may learn its place later
    configured = (Config().get_catalog_config(name) or {}).items()
    # `ssl` is a mapping of its own
    properties: dict[str, Any] = {k: v if isinstance(v, dict) else str(v) for k, v in configured}
    try:
        with reaching():
            return load_catalog(name, **properties)
    except ValueError as error:
        raise OffloadError(SETTING_MISSING, f"Iceberg catalog `{name}`: {error}") from error


def find_table(catalog: Catalog, identifier: tuple[str, str], table: str) -> Table | None:
    """The Iceberg table, freshly loaded; None when it does not exist. Raises OFL-301."""
    with reaching(table):
        try:
            return catalog.load_table(identifier)
        except NoSuchTableError:
            return None


def target_of(table: Table) -> Target:
    """What a plan freezes of a table: its UUID, schema id and partition spec id (rule 1)."""
    namespace, name = table.name()
    meta = table.metadata
    return Target(namespace, name, str(meta.table_uuid), meta.current_schema_id, meta.default_spec_id)


def create_table(catalog: Catalog, spec: TableSpec, projection: Projection) -> Table:
    """Create the Iceberg table of a spec; when someone was faster, load theirs.

    What the catalog shows afterwards decides: some let two creations of one name at the same time both succeed.
    """
    schema = schema_of(projection)
    identifier = (spec.target.namespace, spec.target.table)
    with reaching(spec.identity):
        with suppress(NamespaceAlreadyExistsError):
            catalog.create_namespace(spec.target.namespace)
        with suppress(TableAlreadyExistsError):
            catalog.create_table(
                identifier,
                schema=schema,
                partition_spec=partition_spec_of(spec, schema),
                sort_order=sort_order_of(spec, schema),
                properties=TABLE_PROPERTIES | reader_properties(projection) | dict(spec.target.properties),
            )
        return catalog.load_table(identifier)
