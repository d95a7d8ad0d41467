"""Airflow connections become the domain's settings, and log lines learn table, plan and run.

Everything here runs inside a task: nothing at parse time asks Airflow for a connection.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import quote, urlencode

import structlog
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.settings import TLS_FILES, Settings, load
from include.offload.spec.model import TableSpec

HTTP_PORT = 8123
HTTPS_PORT = 8443
POSTGRES_PORT = 5432
LEDGER_DATABASE = "offload"


def connection(conn_id: str, *, table: str | None = None) -> Connection:
    """The Airflow connection `conn_id`. Raises OFL-102 when Airflow does not know it."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise OffloadError(
            SETTING_MISSING,
            f"Airflow has no connection {conn_id!r}: add it under Admin > Connections or as "
            f"AIRFLOW_CONN_{conn_id.upper()}",
            table=table,
        ) from error


def _flag(value: object) -> bool:
    return str(value).strip().lower() in {"1", "true", "yes", "on"}


def _hosts(conn: Connection) -> Iterable[str]:
    """`host:port` of each replica: extra `replicas` (a list, or comma-separated), else the host field."""
    extra = conn.extra_dejson
    port = conn.port or (HTTPS_PORT if _flag(extra.get("secure", False)) else HTTP_PORT)
    named = extra.get("replicas") or conn.host or ""
    names = named.split(",") if isinstance(named, str) else [str(n) for n in named]
    for name in (n.strip() for n in names):
        if name:
            yield name if ":" in name else f"{name}:{port}"


def clickhouse_uri(conn: Connection) -> str:
    """`http[s]://user:password@host:port/`, comma-separated when the connection names replicas.

    Follows the official provider's connection type `clickhouse`: host, port, login, password, and
    `secure`, `verify` in the extra; beside them `ca_cert`, `client_cert`, `client_cert_key`, paths of PEM files.
    Raises OFL-102 for a connection without host.
    """
    extra = conn.extra_dejson
    scheme = "https" if _flag(extra.get("secure", conn.conn_type == "https")) else "http"
    login = quote(conn.login or "default", safe="")
    secret = f":{quote(conn.password, safe='')}" if conn.password else ""
    tls = {"verify": "false"} if "verify" in extra and not _flag(extra["verify"]) else {}
    tls |= {name: str(extra[name]) for name in TLS_FILES if extra.get(name)}
    query = f"?{urlencode(tls)}" if tls and scheme == "https" else ""
    uris = [f"{scheme}://{login}{secret}@{host}/{query}" for host in _hosts(conn)]
    if not uris:
        raise OffloadError(SETTING_MISSING, f"the connection {conn.conn_id!r} names no host")
    return ",".join(uris)


def ledger_uri(conn: Connection) -> str:
    """`postgresql://user:password@host:port/database?extra`. Raises OFL-102 without host."""
    if not conn.host:
        raise OffloadError(SETTING_MISSING, f"the connection {conn.conn_id!r} names no host")
    login = quote(conn.login or "offload", safe="")
    secret = f":{quote(conn.password, safe='')}" if conn.password else ""
    options = {k: v for k, v in conn.extra_dejson.items() if isinstance(v, str | int) and not isinstance(v, bool)}
    query = f"?{urlencode(options)}" if options else ""
    database = quote(conn.schema or LEDGER_DATABASE, safe="")
    return f"postgresql://{login}{secret}@{conn.host}:{conn.port or POSTGRES_PORT}/{database}{query}"


def resolve(spec: TableSpec) -> dict[str, str]:
    """The connections of a spec as the two URIs that the domain wants, masked in every log from now on."""
    uris = {
        "clickhouse_uri": clickhouse_uri(connection(spec.connections.clickhouse, table=spec.identity)),
        "ledger_uri": ledger_uri(connection(spec.connections.ledger, table=spec.identity)),
    }
    for uri in uris.values():
        mask_secret(uri)
    return uris


def settings_for(spec: TableSpec) -> Settings:
    """The settings of this task: connections from Airflow, the rest from the environment and `secrets/`."""
    return load(**resolve(spec))


def job_timeout() -> timedelta:
    """How long the offload job may run: `OFFLOAD_JOB_TIMEOUT_S`, read at parse time without any file."""
    default = Settings.model_fields["job_timeout_s"].default
    return timedelta(seconds=int(os.environ.get("OFFLOAD_JOB_TIMEOUT_S") or default))


def bind_log(*, table: str, run: str, plan: str | None = None) -> None:
    """Every log line of this task from here on carries table, run and (once known) plan."""
    structlog.contextvars.bind_contextvars(table=table, run=run, **({"plan": plan} if plan else {}))


def quiet_libraries() -> None:
    """Keep connection chatter of HTTP and catalog clients out of the task log."""
    for name in ("urllib3", "botocore", "aiobotocore", "s3fs", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
