"""Make the secrets of docker-compose.yaml: `python3 deploy/compose/make_secrets.py`. Safe to repeat.

Writes one file a secret into `.run/compose-secrets` (or `$OFFLOAD_COMPOSE_SECRETS`, from the environment or `.env`):
what is missing is generated, what follows from it is written again. Each file is 0600, in a directory of 0700. Compose
mounts each file alone, as it is, into the containers that name it, and can not give it to another user: so these
containers run as the user who owns the files. `.env` tells Compose who that is (`OFFLOAD_UID`): whoever runs this
program, or user 50000 when root does.

Uses the standard library only (what it imports from local/ too): it runs before anything is installed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from local.clickhouse_access import server_users, shipped  # noqa: E402
from local.secrets import write as write_for_owner  # noqa: E402

DEFAULT = ROOT / ".run" / "compose-secrets"
NOT_ROOT = 50000
"""Owner of the secrets when root makes them: no container runs as root."""


def _token() -> str:
    return secrets.token_urlsafe(24)


GENERATED: dict[str, Callable[[], str]] = {
    "postgres_password": _token,
    "airflow_db_password": _token,
    "ledger_password": _token,
    "clickhouse_password": _token,
    "clickhouse_guard_password": _token,
    "clickhouse_admin_password": _token,
    "s3_access_key": lambda: "offload" + secrets.token_hex(8),
    "s3_secret_key": _token,
    "airflow_admin_password": _token,
    "airflow_fernet_key": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "airflow_jwt_secret": lambda: secrets.token_urlsafe(64),
    "airflow_api_secret_key": _token,
    "grafana_admin_password": _token,
}


def derived(made: dict[str, str]) -> dict[str, str]:
    """The files that follow from the generated values. Hosts are the service names of docker-compose.yaml."""
    guard = f"http://offload_guard:{quote(made['clickhouse_guard_password'])}@clickhouse:8123/"
    clickhouse = f"http://offload:{quote(made['clickhouse_password'])}@clickhouse:8123/"
    ledger = f"postgresql://offload_ledger:{quote(made['ledger_password'])}@postgres:5432/offload"
    connections = {
        "offload_clickhouse": {
            "conn_type": "clickhouse",
            "host": "clickhouse",
            "port": 8123,
            "login": "offload",
            "password": made["clickhouse_password"],
        },
        "offload_ledger": {
            "conn_type": "postgres",
            "host": "postgres",
            "port": 5432,
            "login": "offload_ledger",
            "password": made["ledger_password"],
            "schema": "offload",
        },
        "offload_spark": {
            "conn_type": "spark",
            "host": "spark://spark-master",
            "port": 7077,
            "extra": {"deploy-mode": "client", "offload-secrets-file": "/run/secrets/offload.env"},
        },
    }
    catalog = {
        "type": "rest",
        "uri": "http://seaweedfs:8181",
        "warehouse": "s3://lake/",
        "credential": f"{made['s3_access_key']}:{made['s3_secret_key']}",
        "s3.endpoint": "http://seaweedfs:8333",
        "s3.access-key-id": made["s3_access_key"],
        "s3.secret-access-key": made["s3_secret_key"],
        "s3.region": "us-east-1",
        "s3.force-virtual-addressing": "false",
    }
    identity = {
        "name": "offload-lake",
        "credentials": [{"accessKey": made["s3_access_key"], "secretKey": made["s3_secret_key"]}],
        # `s3tables:*` are the calls of the REST catalog on a table bucket
        "actions": [f"{action}:lake" for action in ("Read", "Write", "List", "Tagging", "s3tables:*")],
    }
    airflow = f"http://admin:{quote(made['airflow_admin_password'])}@airflow-api-server:8080"
    return {
        "airflow_db_uri": f"postgresql+psycopg2://airflow:{quote(made['airflow_db_password'])}@postgres:5432/airflow",
        "airflow_connections.json": json.dumps(connections, indent=2),
        "airflow_passwords.json": json.dumps({"admin": made["airflow_admin_password"]}),
        "offload.env": f"OFFLOAD_CLICKHOUSE_URI='{clickhouse}'\nOFFLOAD_LEDGER_URI='{ledger}'\n"
        f"OFFLOAD_CLICKHOUSE_GUARD_URI='{guard}'\nOFFLOAD_AIRFLOW_URL='{airflow}'\n",
        "pyiceberg.yaml": _pyiceberg(catalog),
        "s3.json": json.dumps({"identities": [identity]}),
        "clickhouse-users.xml": server_users(
            shipped(),
            {"offload": made["clickhouse_password"], "offload_guard": made["clickhouse_guard_password"]},
            ("offload_admin", made["clickhouse_admin_password"]),
        ),
    }


def _pyiceberg(catalog: dict[str, str]) -> str:
    """PyIceberg's configuration. Its parser takes block YAML only, no JSON; every value is text in quotes."""
    return "catalog:\n  lake:\n" + "".join(f"    {key}: '{value}'\n" for key, value in catalog.items())


def owner() -> int:
    """The id of the user who shall own the secrets, and as whom the containers run."""
    return os.geteuid() or NOT_ROOT


def write(folder: Path) -> list[str]:
    """Make what is missing and write what is derived; the names of all files.

    Raises PermissionError when the directory belongs to somebody else.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    made = {}
    for name, make in GENERATED.items():
        path = folder / name
        made[name] = path.read_text().strip() if path.exists() else make()
    files = made | derived(made)
    for name, text in files.items():
        write_for_owner(folder / name, text)
    if owner() != os.geteuid():
        for path in (folder, *(folder / name for name in files)):
            os.chown(path, owner(), -1)
    return sorted(files)


def tell_compose(env: Path, example: Path) -> None:
    """Make `.env` from its example if there is none, and let `OFFLOAD_UID` in it name the owner of the secrets."""
    text = (env if env.exists() else example).read_text(encoding="utf-8")
    line = f"OFFLOAD_UID={owner()}"
    text, found = re.subn(r"^OFFLOAD_UID=.*$", line, text, flags=re.MULTILINE)
    env.write_text(text if found else f"{text.rstrip()}\n{line}\n", encoding="utf-8")


def folder_of(env: Path) -> Path:
    """Where the secrets lie, as Compose finds it: the environment, `.env`, the default; relative to this repository."""
    named = os.environ.get("OFFLOAD_COMPOSE_SECRETS")
    if not named and env.exists():
        found = re.search(r"^OFFLOAD_COMPOSE_SECRETS=(.+)$", env.read_text(encoding="utf-8"), re.MULTILINE)
        named = found[1].strip() if found else None
    return ROOT / named if named else DEFAULT


if __name__ == "__main__":
    tell_compose(ROOT / ".env", ROOT / ".env.example")
    target = folder_of(ROOT / ".env")
    names = write(target)
    print(f"{len(names)} files in {target}; the password of Airflow's user admin is in airflow_admin_password")  # noqa: T201
