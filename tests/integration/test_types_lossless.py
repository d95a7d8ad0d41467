"""Every ClickHouse type, value by value, through three readers that share no code; or its refusal, and the way out.

The cases and what each value must be stand in docs/type_cases.py, from which docs/types.md is made.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from bench.jars import jars
from docs.type_cases import LOSSLESS, REFUSED, STOPPED, WITHOUT_COLUMNS, Case, Refused
from include.offload.context import open_context
from include.offload.errors import OffloadError
from include.offload.settings import load
from include.offload.source import icetypes
from include.offload.source.client import Client, parse_uri
from include.offload.source.icetypes import IceType
from include.offload.source.sql import quote
from include.offload.steps import RunRequest, check_extent
from include.offload.verify import lake_source
from local.spark import spark_env, spark_home
from tests.support.domain import DATABASE, Domain, DomainTable
from tests.support.plain import plain

AnyCase = Case | Refused
TYPES = {"allow_suspicious_low_cardinality_types": 1, "flatten_nested": 0, "allow_suspicious_variant_types": 1}
"""ClickHouse settings under which a table may have every type."""
SPEC = 'cursor: ts\nsettle: 1s\nhorizon: 3d\ntarget:\n  partition: ["day(ts)"]\n'
NO_CAST = ("Interval", "AggregateFunction", "Geometry")
READER = Path(__file__).resolve().parents[1] / "support" / "spark_reader.py"


def values_sql(case: AnyCase, row: int) -> str:
    sql = case.values[min(row, len(case.values) - 1)][0]
    return sql if case.type.startswith(NO_CAST) else f"CAST({sql} AS {case.type})"


def make(domain: Domain, cases: Sequence[AnyCase]) -> DomainTable:
    """A table with a column for each case and a row for each value; a case with fewer values repeats its last."""
    table = DomainTable(domain, f"types_{uuid.uuid4().hex[:8]}", open_context(load()))
    endpoint = parse_uri(domain.servers.secret("clickhouse_admin_uri"))
    with Client(endpoint, settings=TYPES, comment="types", table=None) as client:
        columns = ", ".join(f"{quote(c.name)} {c.type}" for c in cases)
        client.command(
            f"CREATE TABLE {table.source} (ts DateTime64(6, 'UTC'), {columns}) ENGINE = MergeTree ORDER BY ts"
        )
        for row in range(rows_of(cases)):
            at = f"fromUnixTimestamp64Micro(toInt64({table.at(0) + row * 1_000_000}), 'UTC')"
            client.command(f"INSERT INTO {table.source} SELECT {at}, {', '.join(values_sql(c, row) for c in cases)}")
    return table


def rows_of(cases: Sequence[AnyCase]) -> int:
    return max(len(c.values) for c in cases)


def overrides(cases: Sequence[Refused]) -> str:
    lines = [f"    {c.name}: {c.override.replace('{q}', quote(c.name))}" for c in cases]
    return "\n".join(["columns:", "  overrides:", *lines, ""])


def expected(cases: Sequence[AnyCase], *, bytes_are_text: bool = False) -> dict[str, list[Any]]:
    rows = range(rows_of(cases))
    return {
        c.name: [plain(c.values[min(r, len(c.values) - 1)][1], bytes_are_text) for r in rows] for c in cases
    }  # fmt: skip


def columns_of(rows: list[dict[str, Any]], cases: Sequence[AnyCase]) -> dict[str, list[Any]]:
    return {c.name: [row[c.name] for row in rows] for c in cases}


def by_pyiceberg(table: DomainTable) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.lake().scan().to_arrow().sort_by("ts").to_pylist()
    return [{k: plain(v) for k, v in row.items()} for row in rows]


def by_clickhouse(table: DomainTable) -> list[dict[str, Any]]:
    """ClickHouse's own Iceberg reader, over its native format: texts as bytes, so that nothing is decoded away."""
    lake = table.lake()
    client = clickhouse_connect.get_client(dsn=table.domain.servers.secret("clickhouse_admin_uri"))
    try:
        result = client.query(
            f"SELECT * FROM {lake_source(lake)} ORDER BY ts",
            query_formats={"String": "bytes", "FixedString": "bytes"},
        )
    finally:
        client.close()
    kinds = {f.name: icetypes.parse(icetypes.text_of(f.field_type)) for f in lake.schema().fields}
    return [
        {n: plain(shaped(v, kinds[n]), bytes_are_text=True) for n, v in zip(result.column_names, row, strict=True)}
        for row in result.result_rows
    ]


def shaped(value: Any, kind: IceType) -> Any:
    """A struct as dict, a map as pairs, whatever the driver makes of them."""
    if value is None or not kind.nested:
        return value
    if kind.kind == "list":
        return [shaped(v, kind.parts[0]) for v in value]
    if kind.kind == "map":
        return [(shaped(k, kind.parts[0]), shaped(v, kind.parts[1])) for k, v in value.items()]
    parts = list(value.values()) if isinstance(value, dict) else list(value)
    return {n: shaped(v, p) for n, v, p in zip(kind.names, parts, kind.parts, strict=True)}


def by_spark(tables: Sequence[DomainTable], scratch: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables in plain form, by one JVM with Iceberg's own reader."""
    lake = tables[0].ctx.catalog.properties
    conf = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.jars": ",".join(str(j) for j in jars()),
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    } | {
        f"spark.sql.catalog.lake.{k}": str(v)
        for k, v in {
            "type": "rest",
            "uri": lake["uri"],
            "warehouse": lake["warehouse"],
            "credential": lake["credential"],
            "oauth2-server-uri": lake["oauth2-server-uri"],
            "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            "s3.endpoint": lake["s3.endpoint"],
            "s3.path-style-access": "true",
            "s3.access-key-id": lake["s3.access-key-id"],
            "s3.secret-access-key": lake["s3.secret-access-key"],
            "client.region": lake.get("s3.region", "us-east-1"),
        }.items()
    }
    settings = scratch / "spark.conf"
    settings.touch(0o600)
    settings.write_text("".join(f"{k} {v}\n" for k, v in conf.items()))
    done = subprocess.run(
        [
            str(spark_home() / "bin" / "spark-submit"), "--master", "local[1]", "--properties-file", str(settings),
            str(READER), *(f"lake.`{t.spec.target.namespace}`.`{t.spec.target.table}`" for t in tables),
        ],
        env={**os.environ, **spark_env(), "TZ": "UTC"}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    said = [json.loads(x.removeprefix("SPARK_ROWS ")) for x in done.stdout.splitlines() if x.startswith("SPARK_ROWS ")]
    assert len(said) == len(tables), done.stderr[-3000:]
    return {t.name: found["rows"] for t, found in zip(tables, said, strict=True)}


@dataclass
class Offloaded:
    """The table of all types that arrive, and the one with an override for each refusal."""

    lossless: DomainTable
    overridden: DomainTable

    def both(self) -> list[tuple[DomainTable, Sequence[AnyCase]]]:
        return [(self.lossless, LOSSLESS), (self.overridden, (*REFUSED, *STOPPED))]


@pytest.fixture(scope="module")
def offloaded(domain: Domain) -> Iterator[Offloaded]:
    tables = [make(domain, LOSSLESS), make(domain, (*REFUSED, *STOPPED))]
    try:
        tables[0].write_spec(SPEC)
        tables[1].write_spec(SPEC, overrides((*REFUSED, *STOPPED)))
        for table in tables:
            table.run()
        yield Offloaded(tables[0], tables[1])
    finally:
        for table in tables:
            table.spec_file.unlink(missing_ok=True)
            table.ctx.close()
            table.sql(f"DROP TABLE IF EXISTS {table.source} SYNC")


def test_every_type_of_the_engine_is_in_a_case(domain: Domain) -> None:
    """A new ClickHouse version with a new type fails here."""
    families = {str(n) for (n,) in domain.admin.query("SELECT name FROM system.data_type_families WHERE alias_to = ''")}
    text = " ".join(c.type for c in (*LOSSLESS, *REFUSED, *STOPPED))
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    # the parametrised names of one type; the engine shows Decimal for all of them
    missing = families - words - set(WITHOUT_COLUMNS)
    assert not missing, f"types in no case of docs/type_cases.py: {sorted(missing)}"


def test_the_types_in_the_lake_are_those_of_the_cases(offloaded: Offloaded) -> None:
    for table, cases in offloaded.both():
        have = {f.name: icetypes.text_of(f.field_type) for f in table.lake().schema().fields}
        assert {c.name: have[c.name] for c in cases} == {c.name: c.iceberg for c in cases}


def test_pyiceberg_reads_every_value(offloaded: Offloaded) -> None:
    for table, cases in offloaded.both():
        assert columns_of(by_pyiceberg(table), cases) == expected(cases)


def test_spark_reads_every_value(offloaded: Offloaded, tmp_path: Path) -> None:
    rows = by_spark([table for table, _ in offloaded.both()], tmp_path)
    for table, cases in offloaded.both():
        assert columns_of(rows[table.name], cases) == expected(cases)


def test_clickhouse_reads_every_value(offloaded: Offloaded) -> None:
    for table, cases in offloaded.both():
        assert columns_of(by_clickhouse(table), cases) == expected(cases, bytes_are_text=True)


def test_both_verifiers_agree(offloaded: Offloaded) -> None:
    for table, _ in offloaded.both():
        table.verified()
        table.consistent()


def test_every_refused_type_is_named_with_an_override_that_works(offloaded: Offloaded) -> None:
    """The same table without its overrides: one refusal that names all columns, and for each the line to write."""
    table = offloaded.overridden
    table.write_spec(SPEC)
    try:
        with pytest.raises(OffloadError) as caught:
            check_extent(table.ctx, table.spec, RunRequest("refused"))
    finally:
        table.write_spec(SPEC, overrides((*REFUSED, *STOPPED)))
    assert caught.value.id == "OFL-205"
    for case in REFUSED:
        line = f"{case.name}: {case.override.replace('{q}', quote(case.name))}"
        assert f"column {case.name} of type " in caught.value.cause
        assert line in caught.value.cause, case.name
    named = [c.name for c in STOPPED if f"column {c.name} of" in caught.value.cause]
    assert not named, "their types are offloaded, only a value of them is stopped"


@pytest.mark.parametrize("case", STOPPED, ids=lambda c: c.name)
def test_a_value_that_iceberg_can_not_hold_is_stopped(domain: Domain, case: Refused) -> None:
    """Nothing is committed, and the message names column, type and the line under which the table above arrived."""
    table = make(domain, [Refused(case.name, case.type, "", "", "", ((str(case.stops), None),))])
    table.write_spec(SPEC)
    try:
        with pytest.raises(OffloadError) as caught:
            table.run()
        assert caught.value.id == "OFL-205"
        assert f"column {case.name} of type {case.type.split('(')[0]}" in caught.value.cause
        assert f"holds {case.why}" in caught.value.cause
        assert f"{case.name}: {case.override.replace('{q}', quote(case.name))}" in caught.value.cause
        assert not table.exists() or table.lake().current_snapshot() is None
    finally:
        table.spec_file.unlink(missing_ok=True)
        table.ctx.close()
        table.sql(f"DROP TABLE IF EXISTS {table.source} SYNC")


def test_a_partition_of_text_that_is_no_utf8_is_stopped_and_bytes_are_not(domain: Domain) -> None:
    """Its value came back as other text, no row was found under it, and the window stayed pending without a reason."""
    table = make(domain, [Refused("k", "String", "", "", "", (("unhex('61ff')", None),))])
    try:
        table.write_spec(SPEC.replace('"day(ts)"', "k"))
        with pytest.raises(OffloadError, match=r"column k holds text that is no UTF-8 .*k: \{type: binary\}") as caught:
            table.check()
        assert caught.value.id == "OFL-205"
        table.write_spec(SPEC.replace('"day(ts)"', "k"), "columns:\n  overrides:\n    k: {type: binary}\n")
        assert table.run().rows == 1
        assert table.lake().scan().to_arrow()["k"].to_pylist() == [b"a\xff"]
    finally:
        table.spec_file.unlink(missing_ok=True)
        table.ctx.close()
        table.sql(f"DROP TABLE IF EXISTS {table.source} SYNC")


def test_nothing_is_the_type_of_no_column(domain: Domain) -> None:
    with pytest.raises(OffloadError, match="cannot be used in tables"):
        domain.admin.command(f"CREATE TABLE {DATABASE}.nothing (x Nothing) ENGINE = MergeTree ORDER BY tuple()")
