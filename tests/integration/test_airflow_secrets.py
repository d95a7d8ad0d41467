"""No secret in a process list, a log, a rendered template, an XCom, an asset event, a plan, the lake, or Spark's pages.

Every secret of the stack is random and long: each is its own canary. One green run, two failing ones and the command
line with `--debug` go by; then everything that they left is searched.
"""

from __future__ import annotations

import json
import os
import secrets as random
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import s3fs
import yaml

from include.offload.settings import ROOT
from local import ports, secrets
from tests.support.airflow_driver import TASKS, DagRun, Driver
from tests.support.canaries import Canaries, ProcessWatch
from tests.support.fixtures import SESSION
from tests.support.stack import Servers
from tests.support.tables import MakeTable, Table

pytestmark = pytest.mark.timeout(900)
PUBLIC = {"s3_access_key", "s3_sql_access_key"}
"""Ids, not secrets: they stand in every request to the store, and in its access log."""
CONTROL = "import sys; sys.stdin.read()"
MAY_HOLD = ("airflow/airflow.cfg",)
"""Files outside `secrets/` that must hold some: Airflow has no other place for its database's password."""


@pytest.fixture
def canaries(full_stack: Servers) -> Canaries:
    """All secrets of the stack, and those that only the failing runs use."""
    own = {name: full_stack.secret(name) for name in secrets.GENERATED if name not in PUBLIC}
    more = ("wrong_password", "away_password", "cli_password", "control")
    return Canaries(own | {name: f"canary-{random.token_urlsafe(18)}" for name in more})


@pytest.fixture
def broken(airflow: Driver, canaries: Canaries) -> Iterator[dict[str, str]]:
    """Connections whose errors could give a password away: one is refused, one leads nowhere."""
    made = {"wrong": f"canary_wrong_{SESSION}", "away": f"canary_away_{SESSION}"}
    airflow.connect(
        made["wrong"], conn_type="clickhouse", host="127.0.0.1", port=ports.port("CLICKHOUSE"), login="offload",
        password=canaries.values["wrong_password"],
    )  # fmt: skip
    airflow.connect(
        made["away"], conn_type="postgres", host="127.0.0.1", port=1, login="offload_ledger", schema="offload",
        password=canaries.values["away_password"],
    )  # fmt: skip
    yield made
    for conn_id in made.values():
        airflow.disconnect(conn_id)


@contextmanager
def shown(secret: str) -> Iterator[None]:
    """A process that has a secret on its command line: what the watch must find."""
    process = subprocess.Popen([sys.executable, "-c", CONTROL, secret], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.communicate(b"")


def command_line(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bin" / "offload"), *words],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip


def spark_with_pages(table: Table, folder: Path) -> str:
    """A job with Spark's event log on, which holds all that its pages show; what the job printed."""
    from include.offload.steps import RunRequest, check_extent, update_watermark
    from local.spark import spark_env, spark_submit_command

    plan = check_extent(table.ctx, table.spec, RunRequest("with pages")).plan
    folder.mkdir()
    log = [f"--conf=spark.eventLog.dir={folder.as_uri()}", "--conf=spark.eventLog.enabled=true"]
    done = subprocess.run(
        [*spark_submit_command(), *log, str(ROOT / "spark_jobs" / "offload.py"), "--plan", str(plan.plan_id)],
        env={**os.environ, **spark_env()}, capture_output=True, text=True, timeout=120, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    update_watermark(table.ctx, table.spec, plan.plan_id)
    return done.stdout + done.stderr


def database(uri: str) -> dict[str, str]:
    """Every row of every table that this role may read, as text."""
    out = {}
    with psycopg.connect(uri) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for (name,) in tables:
            rows = connection.execute(f"SELECT t::text FROM {name} t").fetchall()
            out[str(name)] = "\n".join(str(row[0]) for row in rows)
    return out


def pages(airflow: Driver, runs: list[DagRun]) -> dict[str, str]:
    """What Airflow's REST API shows of these runs, and of everything that is shown without one."""
    out = {}
    paths = ["/connections", "/variables", "/importErrors", "/eventLogs", "/assets/events", "/pools"]
    for run in runs:
        base = f"/dags/{run.dag_id}/dagRuns/{run.run_id}"
        paths += [f"/dags/{run.dag_id}/details", base]
        for task in TASKS:
            paths.append(f"{base}/taskInstances/{task}")
            entries = airflow._call("GET", f"{base}/taskInstances/{task}/xcomEntries")["xcom_entries"]
            paths += [f"{base}/taskInstances/{task}/xcomEntries/{entry['key']}" for entry in entries]
    for path in paths:
        out[path] = json.dumps(airflow._call("GET", path, params={"limit": 500} if "dagRuns" not in path else {}))
    return out


def lake(servers: Servers, table: Table) -> dict[str, bytes]:
    """Every file of metadata of the Iceberg table."""
    properties: dict[str, Any] = yaml.safe_load(servers.secret(".pyiceberg.yaml"))["catalog"]["lake"]
    store = s3fs.S3FileSystem(
        key=properties["s3.access-key-id"],
        secret=properties["s3.secret-access-key"],
        client_kwargs={"endpoint_url": properties["s3.endpoint"]},
        skip_instance_cache=True,
    )
    place = table.ctx.catalog.load_table((table.spec.target.namespace, table.spec.target.table)).location()
    return {name: store.cat(name) for name in store.find(f"{place.removeprefix('s3://')}/metadata")}


@pytest.mark.long
def test_no_secret_is_anywhere_but_in_its_file(
    full_stack: Servers, airflow: Driver, make_table: MakeTable, canaries: Canaries, broken: dict[str, str]
) -> None:
    home = full_stack.home
    good = make_table("canary_good").create().insert(200).write_spec()
    wrong = make_table("canary_wrong").create().insert(10)
    wrong.write_spec(more=f"connections: {{clickhouse: {broken['wrong']}}}")
    away = make_table("canary_away").create().insert(10)
    away.write_spec(more=f"connections: {{ledger: {broken['away']}}}")
    secret = canaries.values["cli_password"]
    words = ("--debug", "plan", good.identity)
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("--debug", "verify", good.identity), {}),
        (words, {"OFFLOAD_LEDGER_URI": f"postgresql://offload:{secret}@127.0.0.1:1/x"}),
        (words, {"OFFLOAD_CLICKHOUSE_URI": f"http://offload:{secret}@127.0.0.1:1/"}),
    ]
    printed: dict[str, str] = {}
    with ProcessWatch(canaries) as watch, shown(canaries.values["control"]):
        for table in (good, wrong, away):
            airflow.discover(table.dag_id, limit_s=180)
        runs = [airflow.ask(table.dag_id) for table in (good, wrong, away)]
        airflow.green(runs[0])
        for run, id in zip(runs[1:], ("OFL-202", "OFL-501"), strict=True):
            assert airflow.finished(run)["check_extent"] == "failed"
            assert id in airflow.log(run, "check_extent")
        good.insert(40, hours_ago=2)
        printed["spark"] = spark_with_pages(good, home / "logs" / f"pages-{time.time_ns():x}")
        for words, environment in calls:
            done = command_line(*words, **environment)
            assert (done.returncode == 0) == (not environment), done.stderr[-2000:]
            assert "DEBUG " in done.stderr
            printed[f"{words} {sorted(environment)}"] = done.stdout + done.stderr

    # the process list; its search finds what is there to be found
    assert any("offload.py --plan" in line for line in watch.seen)
    assert [names for line, names in watch.leaks.items() if CONTROL in line] == [{"control"}]
    leaks: dict[str, object] = {line: names for line, names in watch.leaks.items() if CONTROL not in line}

    # every secret is in its file, which is its owner's alone; in no other file but those that must hold it
    found = {path.relative_to(home): names for path, names in canaries.in_files(home).items()}
    held = {path: names for path, names in found.items() if path.parts[0] == "secrets" or str(path) in MAY_HOLD}
    leaks |= {str(path): names for path, names in found.items() if path not in held}
    for name in secrets.GENERATED.keys() - PUBLIC:
        assert name in held[Path("secrets") / name]
    assert {stat.S_IMODE((home / path).stat().st_mode) for path in held} == {0o600}
    assert {str(path) for path in held if path.parts[0] != "secrets"} == set(MAY_HOLD)

    texts: dict[str, str | bytes] = {**printed, **pages(airflow, runs), **lake(full_stack, good)}
    for uri in ("airflow_db_uri", "offload_ledger_uri", "iceberg_db_uri"):
        texts |= database(full_stack.secret(uri))
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.port('STATSD_METRICS')}/metrics", timeout=10) as answer:
        texts["metrics"] = answer.read()
    for wanted in ("public.rendered_task_instance_fields", "public.xcom", "offload.plans", "public.asset_event"):
        assert texts[wanted], f"{wanted} is empty: nothing was searched there"
    leaks |= {place: names for place, text in texts.items() if (names := canaries.find(text))}
    assert leaks == {}


def test_the_search_finds_every_form_of_a_secret(tmp_path: Path) -> None:
    canaries = Canaries({"one": "p@ss/wörd-%41+x", "two": "another-secret"})
    import base64
    from urllib.parse import quote, urlsplit

    value = canaries.values["one"]
    for text in (
        f"x{value}y",
        f"http://u:{quote(value, safe='')}@h/",
        *(base64.b64encode(f"{user}:{value}".encode()).decode() for user in ("a", "ab", "abc")),
    ):
        assert canaries.find(text) == {"one"}, text
    assert canaries.find(urlsplit("http://h/nothing").path) == set()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file.bin").write_bytes(b"\xff\x00another-secret\x00")
    assert canaries.in_files(tmp_path) == {tmp_path / "deep" / "file.bin": {"two"}}
