"""Airflow connections as the URIs of the domain, and how secrets reach the job."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from include.offload.errors import OffloadError
from include.offload.settings import load
from include.offload.source.client import parse_uri


def connection(**fields: Any) -> Any:
    from airflow.sdk import Connection

    extra = fields.pop("extra", None)
    return Connection(conn_id="c", extra=json.dumps(extra) if extra else None, **fields)


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "ch", "login": "u", "password": "p", "port": 8124}, "http://u:p@ch:8124/"),
        ({"host": "ch"}, "http://default@ch:8123/"),
        (
            {"host": "ch", "login": "u", "password": "p@/:#?$ {x}'\""},
            "http://u:p%40%2F%3A%23%3F%24%20%7Bx%7D%27%22@ch:8123/",
        ),
        ({"host": "ch", "extra": {"secure": True}}, "https://default@ch:8443/"),
        ({"host": "ch", "extra": {"secure": "false"}}, "http://default@ch:8123/"),
        ({"host": "a,b:9", "port": 1}, "http://default@a:1/,http://default@b:9/"),
        ({"host": "x", "extra": {"replicas": ["a", "b"]}}, "http://default@a:8123/,http://default@b:8123/"),
    ],
)
def test_clickhouse(fields: dict[str, Any], uri: str) -> None:
    from include.orchestration.context import clickhouse_uri

    assert clickhouse_uri(connection(conn_type="clickhouse", **fields)) == uri


def test_the_domain_reads_what_is_written() -> None:
    from include.orchestration.context import clickhouse_uri

    made = clickhouse_uri(connection(conn_type="clickhouse", host="ch", login="ü", password="a/b:c@d", port=8124))
    endpoint = parse_uri(made)
    assert (endpoint.host, endpoint.port) == ("ch", 8124)
    assert (endpoint.user, endpoint.password) == ("ü", "a/b:c@d")


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "pg", "login": "u", "password": "p", "port": 6432, "schema": "l"}, "postgresql://u:p@pg:6432/l"),
        ({"host": "pg"}, "postgresql://offload@pg:5432/offload"),
        ({"host": "pg", "extra": {"sslmode": "require"}}, "postgresql://offload@pg:5432/offload?sslmode=require"),
    ],
)
def test_ledger(fields: dict[str, Any], uri: str) -> None:
    from include.orchestration.context import ledger_uri

    assert ledger_uri(connection(conn_type="postgres", **fields)) == uri


def test_a_connection_without_host_is_refused() -> None:
    from include.orchestration.context import clickhouse_uri, ledger_uri

    for make in (clickhouse_uri, ledger_uri):
        with pytest.raises(OffloadError, match="OFL-102"):
            make(connection(conn_type="http"))


def test_the_secrets_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode 0600, read back by the job's own settings, gone afterwards, also after an error."""
    from include.orchestration.spark import secrets_file

    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    for name in ("OFFLOAD_CLICKHOUSE_URI", "OFFLOAD_LEDGER_URI"):
        monkeypatch.delenv(name, raising=False)
    values = {
        "clickhouse_uri": "http://u:p%24%7Bx%7D@ch:1/",
        "ledger_uri": "postgresql://u:p@pg/offload?sslmode=require",
    }
    with pytest.raises(ZeroDivisionError), secrets_file(values) as path:
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        monkeypatch.setenv("OFFLOAD_SECRETS_FILE", path)
        settings = load()
        assert settings.clickhouse_uris() == (values["clickhouse_uri"],)
        assert settings.ledger() == values["ledger_uri"]
        raise ZeroDivisionError
    assert list((tmp_path / "jobs").iterdir()) == []
