"""The ten shipped specs, the generated files, and a spec held against its table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from include.offload.spec import schema
from include.offload.spec.check import check_files, check_source, environments
from include.offload.spec.load import load_specs
from include.offload.spec.model import TableSpec
from include.offload.spec.yamlnodes import parse
from local import k2
from tests.support.chdb_engine import Engine

TABLES = Path(__file__).resolve().parents[2] / "dags" / "tables"
SPECS = load_specs(TABLES).specs


@pytest.fixture(scope="module")
def db(engine: Engine) -> Iterator[Engine]:
    for statement in k2.ddl():
        engine.raw(statement)
    engine.raw("CREATE DATABASE checks")
    yield engine
    engine.raw("DROP DATABASE k2")
    engine.raw("DROP DATABASE checks")


def test_all_shipped_specs_are_valid_in_every_environment() -> None:
    results = check_files(TABLES)
    assert {env: r.errors for env, r in results.items()} == dict.fromkeys(results, ())
    assert {s.identity for s in SPECS} == {f"k2.{t}" for t in k2.TABLES}


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.identity)
def test_a_shipped_spec_fits_its_table(db: Engine, spec: TableSpec) -> None:
    found = check_source(db, spec)
    assert [str(e) for e in found.errors] == []
    assert found.warnings == ()
    assert found.expiry is not None
    assert found.expiry.readable
    assert found.expiry.sql is not None
    assert found.projection is not None
    lossy = [c for c in found.projection.columns if c.iceberg_type in ("double", "float")]
    assert lossy == [], "prices are decimals, to the last digit"


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.identity)
def test_a_shipped_spec_says_what_it_is_for(spec: TableSpec) -> None:
    assert spec.doc.strip()
    assert "k2" in spec.tags
    assert spec.target.properties["write.parquet.compression-codec"] == "zstd"
    if "ohlcv" in spec.identity:
        assert spec.source.final
        assert spec.period_us is not None
        assert spec.window_us >= spec.period_us
        assert spec.horizon_us >= spec.window_us


def test_the_origin_s_partitions_are_kept() -> None:
    by_name = {s.identity: [str(f) for f in s.target.partition] for s in SPECS}
    assert by_name["k2.bronze_trades_kraken"] == ["day(exchange_timestamp)"]
    assert by_name["k2.silver_trades"] == ["day(timestamp)", "exchange", "asset_class"]


def test_generated_files_are_up_to_date() -> None:
    hint = "run: python -m include.offload.spec.schema"
    assert schema.SCHEMA_FILE.read_text(encoding="utf-8") == schema.schema_text(), hint
    assert schema.DOC_FILE.read_text(encoding="utf-8") == schema.reference(), hint


@pytest.mark.parametrize("path", sorted(TABLES.rglob("*.yaml")), ids=lambda p: str(p.relative_to(TABLES)))
def test_every_yaml_names_the_schema_and_matches_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == schema.SCHEMA_FILE
    jsonschema.validate(parse(text).data, json.loads(schema.schema_text()))


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        ({"window": "5m"}, True),
        ({"window": "1h30m", "settle": 0}, True),
        ({"window": 5}, False),
        ({"slice": {"rows": "2M", "bytes": "1GiB"}}, True),
        ({"slice": {"rows": 5000}}, True),
        ({"slice": {"rows": "many"}}, False),
        ({"start": "2026-01-01T00:00:00Z"}, True),
        ({"start": "2026-01-01T00:00:00"}, False),
        ({"windo": "5m"}, False),
        ({"identity": "a.b"}, False),
        ({"target": {"partition": ["day(ts)"], "properties": {"a": 1, "b": True}}}, True),
        ({"target": {"table": "Upper"}}, False),
        ({"columns": {"overrides": {"a": {"type": "string"}}}}, True),
        ({"deletes": "drop"}, False),
        ({"sequence": None}, True),
    ],
)
def test_an_editor_accepts_the_human_forms(data: dict[str, Any], valid: bool) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.schema())
    assert jsonschema.Draft202012Validator(schema.schema()).is_valid(data) is valid


def spec(**keys: Any) -> TableSpec:
    return TableSpec.model_validate({"identity": "checks.t", "cursor": "ts"} | keys)


def make(db: Engine, columns: str, rest: str = "MergeTree ORDER BY ts") -> None:
    db.raw("DROP TABLE IF EXISTS checks.t SYNC")
    db.raw(f"CREATE TABLE checks.t ({columns}) ENGINE = {rest}")


def test_sql_that_clickhouse_refuses_is_found_before_any_run(db: Engine) -> None:
    from include.offload.errors import SOURCE_QUERY_FAILED, OffloadError
    from tests.support.chdb_engine import EngineError

    class Client:
        """Raises what the client of the offload raises."""

        def query(self, sql: str, params: dict[str, object] | None = None) -> list[tuple[object, ...]]:
            try:
                return db.query(sql, params)
            except EngineError as error:
                raise OffloadError(SOURCE_QUERY_FAILED, str(error)) from error

    make(db, "ts DateTime, a String")
    wrong = spec(columns={"overrides": {"a": {"expr": "noSuchFunction(a)", "type": "string"}}})
    (error,) = check_source(Client(), wrong).errors
    assert (error.id, error.table) == ("OFL-207", "checks.t")
    assert "noSuchFunction" in error.cause


def test_every_refusal_of_a_spec_is_collected(db: Engine) -> None:
    make(db, "ts DateTime, a String, f Float64")
    bad = spec(target={"partition": ["day(a)"], "sort": ["f"]}, columns={"overrides": {"a": {"type": "long"}}})
    assert [e.id for e in check_source(db, bad).errors] == ["OFL-205"]
    twice = spec(target={"partition": ["f"]})
    assert [e.id for e in check_source(db, twice).errors] == ["OFL-101"]


def test_what_is_allowed_but_worth_a_look(db: Engine) -> None:
    make(db, "ts DateTime, id UInt64, s String", "ReplacingMergeTree ORDER BY id")
    db.raw("INSERT INTO checks.t VALUES (now(), 1, unhex('ff'))")
    warnings = "\n".join(check_source(db, spec()).warnings)
    for part in (
        "without source.final the rows are offloaded as they are stored",
        "cursor ts is in neither sorting nor partition key",
        "has no TTL",
        "column s holds text that is no UTF-8 (1 of",
    ):
        assert part in warnings
    make(db, "ts DateTime, k UInt8", "MergeTree ORDER BY k TTL ts + INTERVAL 1 DAY GROUP BY k SET ts = max(ts)")
    assert "no window is ever replaced" in "\n".join(check_source(db, spec()).warnings)
    make(db, "ts DateTime, v UInt8", "SummingMergeTree ORDER BY ts")
    assert "without period" in "\n".join(check_source(db, spec(source={"final": True})).warnings)
    make(db, "ts DateTime", "MergeTree ORDER BY ts TTL ts + INTERVAL 30 DAY")
    assert check_source(db, spec()).warnings == ()


def test_a_missing_table(db: Engine) -> None:
    found = check_source(db, spec(source={"table": "gone"}))
    assert [e.id for e in found.errors] == ["OFL-203"]
    assert found.projection is None


def test_environments_are_those_that_an_overlay_names(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for name in ("_defaults.yaml", "_defaults.prod.yaml", "db/t.yaml", "db/t.dev.yaml"):
        (tmp_path / name).write_text("cursor: ts\n")
    assert environments(tmp_path) == ("dev", "prod")
    (tmp_path / "db" / "t.dev.yaml").write_text("window: 7m\n")
    results = check_files(tmp_path)
    assert [env for env, r in results.items() if r.errors] == ["dev"]
