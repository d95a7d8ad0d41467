"""The shipped SQL: valid for a real engine, complete for the shipped specs, and the same rights wherever it is turned
into XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from include.offload.settings import ROOT
from include.offload.spec.load import load_specs
from local.clickhouse_access import SQL, embedded_users, server_users, shipped, statements, widened
from local.clickhouse_sql import masked
from tests.support.chdb_engine import Engine


def test_every_statement_is_one_that_clickhouse_parses(engine: Engine) -> None:
    for statement in statements(SQL.read_text(encoding="utf-8")):
        assert engine.query("SELECT formatQuery({sql:String})", {"sql": statement}), statement


@pytest.mark.parametrize("name", ["clickhouse.sql", "postgres.sql"])
def test_the_page_shows_the_file_as_it_is(name: str) -> None:
    page = (ROOT / "docs" / "permissions.md").read_text(encoding="utf-8")
    assert (ROOT / "deploy" / "sql" / name).read_text(encoding="utf-8").rstrip() in page


def test_the_listed_tables_are_those_of_the_shipped_specs() -> None:
    specs = load_specs(ROOT / "dags" / "tables").specs
    granted = {
        g.split()[-1] for g in shipped()["offload"].grants if g.startswith("GRANT SELECT") and "system." not in g
    }
    assert granted == {f"{s.source.database}.{s.source.table}" for s in specs}


def test_nothing_is_granted_on_everything_but_what_has_no_table() -> None:
    wide = {g for a in shipped().values() for g in a.grants if g.endswith(" *.*")}
    assert wide == {"GRANT S3 ON *.*", "GRANT CREATE TEMPORARY TABLE ON *.*"}
    assert list(shipped()["offload_guard"].grants) == ["GRANT SYSTEM TTL MERGES ON k2.*"]


def test_the_specs_default_limits_are_within_the_profile() -> None:
    settings = shipped()["offload"].settings
    for spec in load_specs(ROOT / "dags" / "tables").specs:
        limits = spec.source.limits
        asked = {
            "max_threads": limits.threads,
            "max_memory_usage": limits.memory,
            "max_execution_time": limits.timeout_s,
        }
        for name, value in asked.items():
            assert int(settings[name].least or 0) <= value <= int(settings[name].most or 0), (spec.identity, name)


def test_a_server_and_the_embedded_engine_get_the_same_rights() -> None:
    passwords = {"offload": "one", "offload_guard": "two"}
    server = ElementTree.fromstring(server_users(shipped(), passwords, ("root", "three")))  # noqa: S314
    embedded = ElementTree.fromstring(embedded_users(shipped()))  # noqa: S314
    for name, access in shipped().items():
        for tree, kind in ((server, "users"), (embedded, "roles")):
            assert tuple(q.text for q in tree.findall(f"{kind}/{name}/grants/query")) == access.grants
            assert {e.tag: e.text for e in tree.findall(f"profiles/{name}/*") if e.tag != "constraints"} == {
                k: b.value for k, b in access.settings.items()
            }
    assert not re.search(r"\bone\b|\btwo\b|\bthree\b", ElementTree.tostring(server, "unicode"))
    assert widened(shipped())["offload"].grants[-1] == "GRANT SELECT ON *.*"


@pytest.mark.parametrize(
    ("statement", "logged"),
    [
        (
            "SELECT 1 FROM icebergS3('http://h/b/', 'key', 'se\\'cret')",
            "SELECT 1 FROM icebergS3('http://h/b/', '[HIDDEN]')",
        ),
        ("SELECT * FROM s3( 'u' ,'k','s' , 'CSV') x", "SELECT * FROM s3( 'u', '[HIDDEN]') x"),
        ("CREATE USER a IDENTIFIED WITH x BY 'p'", "CREATE USER a IDENTIFIED WITH x BY '[HIDDEN]'"),
        ("SELECT 'a', 'b' FROM t WHERE s3 = ('x', 'y')", "SELECT 'a', 'b' FROM t WHERE s3 = ('x', 'y')"),
    ],
)
def test_the_front_logs_no_key(statement: str, logged: str) -> None:
    assert masked(statement) == logged
