"""What an offload says to OpenLineage: from which ClickHouse table into which Iceberg table, rows, bytes, snapshot.

Airflow's OpenLineage provider asks for it, and only where a site configured a receiver (docs/howto-lineage.md). Names
follow OpenLineage's conventions, so that they meet those of other producers: ClickHouse as its dbt and JDBC
integrations write it, Iceberg as its Spark integration does, by location, with the catalog's name as a symlink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors.base import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    catalog_dataset,
    dataset_version_dataset,
    output_statistics_output_dataset,
    storage_dataset,
    symlinks_dataset,
)

from include.offload.settings import load
from include.offload.spec.model import TableSpec
from include.orchestration.context import clickhouse_uri, connection

COMMITTED = "committed"
"""The status of a job that made the commit itself: any other wrote nothing, and figures must not be told twice."""
SAME_STORE = {"s3a": "s3", "s3n": "s3"}
KEEPS_SLASH = {"file", "hdfs"}


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """A catalog of PyIceberg's configuration as others may see it: no login, no option. Missing parts are None."""

    name: str
    type: str
    uri: str | None
    warehouse: str | None


def lineage(spec: TableSpec, result: dict[str, Any] | None) -> OperatorLineage[Any, Any] | None:
    """The datasets of a job that committed; None for one that failed, was skipped, or found its plan committed before.

    result: what the job reported. Asks Airflow for the ClickHouse connection. Raises OFL-102 when there is none.
    """
    if not result or result["status"] != COMMITTED:
        return None
    uri = clickhouse_uri(connection(spec.connections.clickhouse, table=spec.identity))
    return OperatorLineage(
        inputs=[source_dataset(spec, uri)], outputs=[target_dataset(spec, result, catalog_facts(load().catalog))]
    )


def source_dataset(spec: TableSpec, uri: str) -> InputDataset:
    """The ClickHouse table. uri: one or several replicas; the first one names the service, whichever was read."""
    first = urlsplit(uri.split(",", maxsplit=1)[0])
    host = f"[{first.hostname}]" if ":" in (first.hostname or "") else first.hostname
    return InputDataset(
        namespace=f"clickhouse://{host}:{first.port}", name=f"{spec.source.database}.{spec.source.table}"
    )


def target_dataset(spec: TableSpec, result: dict[str, Any], catalog: CatalogFacts) -> OutputDataset:
    """The Iceberg table after the commit, with what the commit added."""
    namespace, name = location_name(str(result["location"]))
    facets: dict[str, Any] = {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(result["snapshot_id"])),
        "storage": storage_dataset.StorageDatasetFacet(storageLayer="iceberg", fileFormat="parquet"),
        "catalog": catalog_dataset.CatalogDatasetFacet(
            framework="iceberg",
            type=catalog.type,
            name=catalog.name,
            metadataUri=catalog.uri,
            warehouseUri=catalog.warehouse,
            source="pyiceberg",
        ),
    }
    if catalog.uri:
        known_as = symlinks_dataset.Identifier(
            namespace=catalog.uri, name=f"{spec.target.namespace}.{spec.target.table}", type="TABLE"
        )
        facets["symlinks"] = symlinks_dataset.SymlinksDatasetFacet(identifiers=[known_as])
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=int(result["rows"]), size=int(result["bytes"]), fileCount=int(result["files"])
    )
    return OutputDataset(namespace=namespace, name=name, facets=facets, outputFacets={"outputStatistics": statistics})


def location_name(location: str) -> tuple[str, str]:
    """Namespace and name of a table's location: `s3://bucket` and `warehouse/db/table`; `file` and `/a/path`."""
    parts = urlsplit(location)
    scheme = SAME_STORE.get(parts.scheme, parts.scheme) or "file"
    path = parts.path.rstrip("/") if scheme in KEEPS_SLASH else parts.path.strip("/")
    return (f"{scheme}://{parts.netloc}" if parts.netloc else scheme), path


def catalog_facts(name: str) -> CatalogFacts:
    """What PyIceberg's configuration says of a catalog, without opening it."""
    from pyiceberg.utils.config import Config

    configured = Config().get_catalog_config(name) or {}
    uri, warehouse = (_bare(configured.get(key)) for key in ("uri", "warehouse"))
    kind = configured.get("type") or ("rest" if (uri or "").startswith("http") else "sql" if uri else "custom")
    return CatalogFacts(name, str(kind).lower(), uri, warehouse)


def _bare(address: object) -> str | None:
    """An address without login and query; None when there is none. A warehouse may be a mere name."""
    if not address:
        return None
    parts = urlsplit(str(address))
    if not parts.scheme or not (parts.netloc or parts.path.startswith("/")):
        return str(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
