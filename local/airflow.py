"""Airflow 3.3 on LocalExecutor with PostgreSQL: configuration, environment, health.

- Every option lies in one generated `airflow.cfg` of mode 0600: nothing secret in a command line or an environment.
- The log servers of scheduler and triggerer listen on every interface and take no option against it: they are skipped,
  and the API server reads the log files from disk.
- This repository is a local bundle, its root on `sys.path`; `.airflowignore` lets only `dags/*.py` be parsed.
- Connections and pool are made through the REST API, not with Airflow's own modules: a public interface, and no
  password on a command line. Stamps remember what was migrated and made, since both take seconds.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import urllib.request
from collections.abc import Mapping

from local import ports, secrets, spark
from local.paths import ROOT, Home, python, venv_bin

POOL_SLOTS = 2


def base_url() -> str:
    """Where people and the command line find Airflow."""
    return f"http://{ports.HOST}:{ports.port('AIRFLOW')}"


def options(home: Home) -> dict[str, dict[str, str]]:
    """Every option that differs from Airflow's default, by section."""
    bundle = {
        "name": "offload",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(ROOT), "refresh_interval": 10},
    }
    return {
        "core": {
            "dags_folder": str(ROOT / "dags"),
            "plugins_folder": str(ROOT / "plugins"),
            "executor": "LocalExecutor",
            "load_examples": "False",
            "fernet_key": secrets.read(home, "airflow_fernet_key"),
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": "admin:admin",
            "simple_auth_manager_passwords_file": str(home.secrets / "airflow_passwords.json"),
            "execution_api_server_url": f"{base_url()}/execution/",
            # a task that starts costs seconds of a core; more at once than this, and all of them wait for each other
            "parallelism": str(max(4, 2 * (os.cpu_count() or 1))),
            "min_serialized_dag_update_interval": "5",
            # the loopback name, so that no address of the machine is looked up
            "hostname_callable": "socket.gethostname",
            "default_timezone": "utc",
        },
        "database": {
            "sql_alchemy_conn": secrets.read(home, "airflow_db_uri").replace("postgresql://", "postgresql+psycopg2://"),
            "sql_alchemy_pool_size": "5",
        },
        "api": {
            "base_url": base_url(),
            "host": ports.HOST,
            "port": str(ports.port("AIRFLOW")),
            "workers": "1",
            "secret_key": secrets.read(home, "airflow_api_secret_key"),
            "expose_config": "False",
            "instance_name": "ClickHouse to Iceberg",
        },
        "api_auth": {"jwt_secret": secrets.read(home, "airflow_jwt_secret")},
        "logging": {"base_log_folder": str(home.logs / "airflow"), "colored_console_log": "False"},
        "metrics": {
            "statsd_on": "True",
            "statsd_host": ports.HOST,
            "statsd_port": str(ports.port("STATSD")),
            "statsd_prefix": "airflow",
            "statsd_influxdb_enabled": "True",
            "legacy_names_on": "False",
            # a run's id has colons, and a metric with a colon in a tag is dropped as a whole
            "statsd_disabled_tags": "job_id,run_id,dagrun_id",
        },
        "workers": {
            # on a busy machine the API server answers late; a task that gave up after five seconds used up its tries
            "execution_api_timeout": "60",
        },
        "scheduler": {
            "scheduler_heartbeat_sec": "2",
            "scheduler_idle_sleep_time": "1",
            # the tasks of a scheduler that died with its workers start again after half a minute, not after five
            "orphaned_tasks_check_interval": "30",
            # a task whose process was killed is found within a minute, not five
            "task_instance_heartbeat_timeout": "60",
        },
        "dag_processor": {
            "dag_bundle_config_list": json.dumps([bundle]),
            "dag_bundle_storage_path": str(home.airflow / "bundles"),
            "refresh_interval": "10",
            "parsing_processes": "1",
            "min_file_process_interval": "15",
            "print_stats_interval": "0",
        },
        "operators": {"default_owner": "offload"},
        **_lineage(home),
    }


def _lineage(home: Home) -> dict[str, dict[str, str]]:
    """OpenLineage is on when somebody says where events go, in OpenLineage's own file among the secrets."""
    file = home.secrets / "openlineage.yml"
    return {"openlineage": {"config_path": str(file), "namespace": "offload"}} if file.exists() else {}


def connections(home: Home) -> list[dict[str, str | int | None]]:
    """The three connections that every DAG uses, as Airflow's own fields."""
    return [
        {
            "connection_id": "offload_clickhouse",
            "conn_type": "clickhouse",
            "host": ports.HOST,
            "port": ports.port("CLICKHOUSE"),
            "login": secrets.READER,
            "password": secrets.read(home, "clickhouse_password"),
            "schema": "k2",
        },
        {
            "connection_id": "offload_ledger",
            "conn_type": "postgres",
            "host": ports.HOST,
            "port": ports.port("POSTGRES"),
            "login": "offload_ledger",
            "password": secrets.read(home, "ledger_password"),
            "schema": "offload",
        },
        {
            "connection_id": "offload_spark",
            "conn_type": "spark",
            "host": "local[2]",
            "extra": json.dumps({"spark-binary": "spark-submit", "deploy-mode": "client"}),
        },
    ]


def environment(home: Home) -> Mapping[str, str]:
    """What Airflow's processes, and the Spark jobs that they start, find in their environment; nothing secret."""
    return {
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW_CONFIG": str(home.airflow / "airflow.cfg"),
        "OFFLOAD_HOME": str(home.root),
        "OFFLOAD_SPARK_EVENTS": str(home.root / "spark-events"),
        # a job looks here for an order to die; only `make demo-crash` and tests ever give one
        "OFFLOAD_CRASH_DIR": os.environ.get("OFFLOAD_CRASH_DIR") or str(home.root / "crash"),
        "PYTHONWARNINGS": "ignore",
        **spark.spark_env(home),
    }


def command(component: str) -> list[str]:
    """The command of one component: api-server, scheduler, dag-processor or triggerer."""
    quiet = ["--skip-serve-logs"] if component in {"scheduler", "triggerer"} else []
    # its workers must not outlive it
    keeper = [python(), "-m", "local.keeper"] if component == "scheduler" else []
    return [*keeper, str(venv_bin("airflow")), component, *quiet]


def prepare(home: Home) -> None:
    """Write the configuration; migrate the metadata when Airflow is new or another version.

    Raises CalledProcessError with Airflow's words.
    """
    home.airflow.mkdir(exist_ok=True, mode=0o700)
    spark.write_conf(home)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(options(home))
    text = io.StringIO()
    parser.write(text)
    secrets.write(home.airflow / "airflow.cfg", text.getvalue())
    version = importlib.metadata.version("apache-airflow")
    stamp = home.airflow / ".migrated"
    if stamp.exists() and stamp.read_text() == version:
        return
    subprocess.run(
        [str(venv_bin("airflow")), "db", "migrate"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment(home)},
    )
    stamp.write_text(version)


def bootstrap(home: Home) -> None:
    """Make the connections and the pools through the REST API, or make them again as they should be.

    Raises httpx.HTTPError when the API server refuses.
    """
    import httpx

    pools = [
        {"name": "offload_spark", "slots": POOL_SLOTS, "description": "Offload jobs at the same time"},
        {"name": "offload_maintenance", "slots": 1, "description": "Maintenance jobs at the same time"},
        {"name": "offload_verify", "slots": 1, "description": "Verifications at the same time"},
    ]
    wanted = {"connections": connections(home), "pools": [{**pool, "include_deferred": False} for pool in pools]}
    facts = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    stamp = home.airflow / ".connected"
    if stamp.exists() and stamp.read_text() == facts:
        return
    login = {"username": "admin", "password": secrets.read(home, "airflow_admin_password")}
    with httpx.Client(base_url=base_url(), timeout=60, trust_env=False) as api:
        token = api.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        for kind, entities in wanted.items():
            action = {"action": "create", "entities": entities, "action_on_existence": "overwrite"}
            answer = api.patch(
                f"/api/v2/{kind}", json={"actions": [action]}, headers={"Authorization": f"Bearer {token}"}
            )
            errors = answer.raise_for_status().json()["create"]["errors"]
            if errors:
                raise RuntimeError(f"Airflow did not take the {kind}: {errors}")
    stamp.write_text(facts)


def health() -> dict[str, dict[str, str | None]]:
    """What the API server says of each component; empty when it does not answer."""
    try:
        with urllib.request.urlopen(f"{base_url()}/api/v2/monitor/health", timeout=2) as answer:  # noqa: S310
            found: dict[str, dict[str, str | None]] = json.load(answer)
            return found
    except (OSError, ValueError):
        return {}


def is_healthy(component: str) -> bool:
    """Whether a component's heartbeat is young enough for the API server."""
    return (health().get(component) or {}).get("status") == "healthy"
