"""What maintenance says to Spark: statements with nothing left open, and a catalog as Spark names it."""

from __future__ import annotations

import pytest

from include.offload.errors import CATALOG_NOT_FOR_SPARK, OffloadError
from include.offload.lake.spark_catalog import spark_settings
from include.offload.maintenance import procedures
from include.offload.maintenance.model import Bounds, Care, LakeState, MaintenancePlan, Step, plan_from_json
from include.offload.windows import Span

STATE = LakeState(0, 0, 0, 0, 0, 0, 0, 0)
DAY_US = 86_400_000_000


def plan(cursor: str = "ts", kind: str = "timestamptz", step: Step | None = None) -> MaintenancePlan:
    steps = () if step is None else (step,)
    return MaintenancePlan("a.b", ("a", "b"), cursor, kind, "binpack", Bounds(140, 100, 75, 180), STATE, steps, ())


@pytest.mark.parametrize(
    ("kind", "literal"),
    [
        ("timestamptz", "TIMESTAMP '1970-01-02 00:00:00.000000+00:00'"),
        ("timestamp", "TIMESTAMP_NTZ '1970-01-02 00:00:00.000000'"),
        ("date", "DATE '1970-01-02'"),
    ],
)
def test_a_span_in_the_literals_of_the_cursor(kind: str, literal: str) -> None:
    found = procedures.span_sql(plan(kind=kind), Span(DAY_US, 2 * DAY_US))
    assert found.startswith(f"`ts` >= {literal} AND `ts` < ")


def test_a_span_without_a_beginning_has_one_side() -> None:
    assert procedures.span_sql(plan(kind="date"), Span(-(2**62), DAY_US)) == "`ts` < DATE '1970-01-02'"


def test_a_compaction_names_every_bound_and_quotes_what_it_must() -> None:
    step = Step(Care.COMPACT, "", (Span(0, DAY_US),), max_files=7)
    sql = procedures.compact(plan("it's `odd`", "date"), step, step.spans[0])
    assert sql.startswith("CALL lake.system.rewrite_data_files(table => '`lake`.`a`.`b`', strategy => 'binpack'")
    for pair in ("'target-file-size-bytes', '100'", "'max-file-size-bytes', '180'", "'max-files-to-rewrite', '7'"):
        assert pair in sql
    assert r"where => '`it\'s ``odd``` >= DATE \'1970-01-01\'" in sql


def test_expiry_without_an_instant_is_never_said() -> None:
    with pytest.raises(ValueError, match="without an instant"):
        procedures.expire(plan(), Step(Care.EXPIRE, ""))


def test_a_plan_survives_its_way_to_the_job() -> None:
    one = plan(step=Step(Care.EXPIRE, "a 'quoted' why", older_than_us=5, keep=3))
    assert plan_from_json(one.to_json()) == one
    assert "\n" not in one.to_json()


# ---- the catalog -----------------------------------------------------------------------------------------------------


def lake(properties: dict[str, object]) -> dict[str, str]:
    found = spark_settings(properties, "a.b")
    prefix = "spark.sql.catalog.lake."
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def test_a_rest_catalog_keeps_its_login_and_finds_its_store() -> None:
    given = {"type": "rest", "uri": "http://c", "credential": "a:b", "s3.endpoint": "http://s", "s3.region": "eu"}
    found = lake({**given, "py-io-impl": "x", "ssl": {"cabundle": "y"}})
    assert found["type"] == "rest"
    assert found["credential"] == "a:b"
    assert found["client.region"] == "eu"
    assert found["s3.path-style-access"] == "true"
    assert found["io-impl"].endswith("S3FileIO")
    assert not {"py-io-impl", "ssl"} & set(found)


def test_the_store_of_the_address_says_how_it_is_addressed() -> None:
    given = {"uri": "https://c", "s3.endpoint": "http://s", "s3.force-virtual-addressing": "true"}
    assert lake(given)["s3.path-style-access"] == "false"


def test_an_sql_catalog_becomes_jdbc() -> None:
    found = lake({"type": "sql", "uri": "postgresql+psycopg://u:p%40@h:5432/d"})
    assert (found["type"], found["uri"]) == ("jdbc", "jdbc:postgresql://h:5432/d")
    assert (found["jdbc.user"], found["jdbc.password"]) == ("u", "p@")


def test_a_catalog_that_spark_does_not_know_is_refused() -> None:
    with pytest.raises(OffloadError) as refused:
        spark_settings({"type": "dynamodb"}, "a.b")
    assert refused.value.kind is CATALOG_NOT_FOR_SPARK
