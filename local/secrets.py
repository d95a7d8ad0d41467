"""Passwords of the stack: made once, one file each, mode 0600, in `$OFFLOAD_HOME/secrets` (mode 0700).

Generated values never change; what is derived from them and from the ports (URIs, PyIceberg's configuration) is
written again at every start, so that a moved port is enough of a change.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from urllib.parse import quote

from local import iceberg, ports
from local.paths import Home

BUCKET = "lake"
"""The S3 Tables bucket that the REST catalog serves."""
SQL_BUCKET = "sqllake"
"""A plain bucket, the warehouse of the SQL catalog `lake_sql`."""
READER = "offload"
GUARD = "offload_guard"
ADMIN = "k2_admin"
S3_REGION = "us-east-1"


def _token() -> str:
    return secrets.token_urlsafe(24)


def _fernet() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


GENERATED = {
    "postgres_password": _token,
    "airflow_db_password": _token,
    "ledger_password": _token,
    "iceberg_db_password": _token,
    "clickhouse_password": _token,
    "clickhouse_guard_password": _token,
    "clickhouse_admin_password": _token,
    "s3_access_key": lambda: "offload" + secrets.token_hex(8),
    "s3_secret_key": _token,
    "s3_sql_access_key": lambda: "sqllake" + secrets.token_hex(8),
    "s3_sql_secret_key": _token,
    "airflow_admin_password": _token,
    "airflow_fernet_key": _fernet,
    "airflow_jwt_secret": lambda: secrets.token_urlsafe(64),
    "airflow_api_secret_key": _token,
}


def write(path: Path, text: str) -> None:
    """Write `text` for the owner's eyes only; the file is never readable by others, not even for a moment."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def read(home: Home, name: str) -> str:
    """One secret. Raises FileNotFoundError when the stack was never set up."""
    return (home.secrets / name).read_text().strip()


def ensure(home: Home) -> dict[str, str]:
    """Make what is missing, then write what is derived. All generated values by name."""
    home.make()
    home.secrets.chmod(0o700)
    values: dict[str, str] = {}
    for name, make in GENERATED.items():
        path = home.secrets / name
        if not path.exists():
            write(path, make())
        path.chmod(0o600)
        values[name] = path.read_text().strip()
    for name, text in derived(home, values).items():
        path = home.secrets / name
        if not path.exists() or path.read_text() != text:
            write(path, text)
        path.chmod(0o600)
    return values


def derived(home: Home, values: dict[str, str]) -> dict[str, str]:
    """Every file that follows from the generated values and the ports."""
    return {
        "offload_clickhouse_uri": clickhouse_uri(READER, values["clickhouse_password"]),
        "offload_clickhouse_guard_uri": clickhouse_uri(GUARD, values["clickhouse_guard_password"]),
        "clickhouse_admin_uri": clickhouse_uri(ADMIN, values["clickhouse_admin_password"]),
        "clickhouse_passwords.json": json.dumps(
            {
                READER: values["clickhouse_password"],
                GUARD: values["clickhouse_guard_password"],
                ADMIN: values["clickhouse_admin_password"],
            }
        ),
        "postgres_uri": postgres_uri("postgres", values["postgres_password"], "postgres"),
        "offload_ledger_uri": postgres_uri("offload_ledger", values["ledger_password"], "offload"),
        "airflow_db_uri": postgres_uri("airflow", values["airflow_db_password"], "airflow"),
        "iceberg_db_uri": postgres_uri("iceberg", values["iceberg_db_password"], "iceberg"),
        "offload_iceberg_jars": ",".join(str(path) for path in iceberg.present()),
        "offload_statsd_port": str(ports.port("STATSD")),
        "offload_airflow_url": f"http://admin:{values['airflow_admin_password']}@{ports.HOST}:{ports.port('AIRFLOW')}",
        "offload_metrics_url": f"http://{ports.HOST}:{ports.port('STATSD_METRICS')}",
        "offload_prometheus_url": f"http://{ports.HOST}:{ports.port('PROMETHEUS')}",
        "offload_alertmanager_url": f"http://{ports.HOST}:{ports.port('ALERTMANAGER')}",
        "airflow_passwords.json": json.dumps({"admin": values["airflow_admin_password"]}),
        ".pyiceberg.yaml": pyiceberg(values),
        "s3.json": s3_identities(values),
    }


def clickhouse_uri(user: str, password: str) -> str:
    return f"http://{user}:{quote(password)}@{ports.HOST}:{ports.port('CLICKHOUSE')}/"


def postgres_uri(user: str, password: str, database: str, driver: str = "postgresql") -> str:
    return f"{driver}://{user}:{quote(password)}@{ports.HOST}:{ports.port('POSTGRES')}/{database}"


def pyiceberg(values: dict[str, str]) -> str:
    """PyIceberg's configuration: the REST catalog `lake` and `lake_sql` in PostgreSQL; strictyaml reads no JSON."""
    rest = {
        "type": "rest",
        "uri": f"http://{ports.HOST}:{ports.port('ICEBERG')}",
        "warehouse": f"s3://{BUCKET}/",
        "credential": f"{values['s3_access_key']}:{values['s3_secret_key']}",
        # named, because PyIceberg's guess is deprecated
        "oauth2-server-uri": f"http://{ports.HOST}:{ports.port('ICEBERG')}/v1/oauth/tokens",
    }
    sql = {
        "type": "sql",
        "uri": postgres_uri("iceberg", values["iceberg_db_password"], "iceberg", "postgresql+psycopg"),
        "warehouse": f"s3://{SQL_BUCKET}/",
    }
    catalogs = {
        "lake": rest | _store(values["s3_access_key"], values["s3_secret_key"]),
        "lake_sql": sql | _store(values["s3_sql_access_key"], values["s3_sql_secret_key"]),
    }
    lines = ["catalog:"]
    for name, properties in catalogs.items():
        lines += [f"  {name}:", *(f"    {key}: {value}" for key, value in properties.items())]
    return "\n".join(lines) + "\n"


def _store(key: str, secret: str) -> dict[str, str]:
    return {
        "s3.endpoint": f"http://{ports.HOST}:{ports.port('S3')}",
        "s3.access-key-id": key,
        "s3.secret-access-key": secret,
        "s3.region": S3_REGION,
        "s3.force-virtual-addressing": "false",
    }


def s3_identities(values: dict[str, str]) -> str:
    """SeaweedFS's S3 users: a key for each bucket, and none for all. The REST catalog's OAuth2 client is the first."""
    offload = s3_identity(BUCKET, values["s3_access_key"], values["s3_secret_key"])
    sql = s3_identity(SQL_BUCKET, values["s3_sql_access_key"], values["s3_sql_secret_key"])
    return json.dumps({"identities": [offload, sql]})


def s3_identity(bucket: str, key: str, secret: str) -> dict[str, object]:
    """One S3 user that reaches one bucket; `s3tables:*` are the calls of the REST catalog on a table bucket."""
    return {
        "name": f"offload-{bucket}",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": [f"{action}:{bucket}" for action in ("Read", "Write", "List", "Tagging", "s3tables:*")],
    }
