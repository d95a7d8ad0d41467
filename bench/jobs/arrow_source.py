"""What PyIceberg and dlt are given: ClickHouse's rows as Arrow batches, by clickhouse-connect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import clickhouse_connect
import pyarrow as pa

SETTINGS = {"output_format_arrow_low_cardinality_as_dictionary": 0}


def batches(settings: Mapping[str, Any], columns: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of `settings["select"]`, not compressed and not copied; NULL only where `columns` has it."""
    client = clickhouse_connect.get_client(**settings["clickhouse"], compress=False, autogenerate_session_id=False)
    with client.query_arrow_stream(settings["select"], use_strings=True, settings=SETTINGS) as stream:
        for batch in stream:
            fields = [f.with_nullable(columns.field(f.name).nullable) for f in batch.schema]
            yield pa.RecordBatch.from_arrays(batch.columns, schema=pa.schema(fields))
