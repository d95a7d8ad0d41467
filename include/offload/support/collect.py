"""What goes into a support bundle, each part bounded. Cleaning is not done here: everything passes the redactor."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.offload.redact import REMOVED, airflow_config, is_secret
from include.offload.settings import ROOT, Settings, home

PLANS = 200
"""The newest plans, over all tables."""
DOCUMENTS = 20
"""Of so many of them the whole document, each cut at `LARGEST_DOCUMENT` bytes."""
LARGEST_DOCUMENT = 200_000
ATTEMPTS = 100
SNAPSHOTS = 20
"""The newest Iceberg snapshots of each of `SNAPSHOT_TABLES` tables."""
SNAPSHOT_TABLES = 20
LOG_BYTES = 1 << 20
"""The end of each server's log."""
TASK_LOGS = 60
"""The newest logs of Airflow's tasks, the last `TASK_LOG_BYTES` of each."""
TASK_LOG_BYTES = 200_000
COMMAND_LIMIT_S = 10
SHOWN_VARIABLES = ("OFFLOAD_", "AIRFLOW_", "PYICEBERG_", "SPARK_", "JAVA_HOME")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Collector:
    """One source of files. `collect` appends to its list what it had to leave out."""

    name: str
    collect: Callable[[Settings, list[str]], Iterable[Part]]


def _json(value: object) -> str:
    from include.offload.cli.console import plain

    return json.dumps(plain(value), indent=2, ensure_ascii=False, default=str) + "\n"


def versions(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """Code, Python, its packages, Java, the machine."""
    commands = {
        "commit": ["git", "-C", str(ROOT), "log", "-1", "--format=%H %cI"],
        "java": [
            str(Path(os.environ["JAVA_HOME"]) / "bin" / "java") if "JAVA_HOME" in os.environ else "java",
            "-version",
        ],
    }
    told = {name: _said(words) for name, words in commands.items()}
    disk = shutil.disk_usage(home() if home().exists() else ROOT)
    facts = {
        "made": datetime.now(UTC).isoformat(),
        "python": sys.version,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "disk_free_bytes": disk.free,
        "disk_bytes": disk.total,
        **told,
        "packages": dict(sorted((d.name.lower(), d.version) for d in importlib.metadata.distributions())),
    }
    yield Part("versions.json", _json(facts))


def _said(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not known: {type(error).__name__}"
    return (done.stdout or done.stderr).strip()


def servers(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """The health check, the alerts, and the versions of ClickHouse and PostgreSQL."""
    from include.offload.health import CHECKS, check_health

    report = check_health(settings, CHECKS)
    yield Part("health.json", _json({"ok": report.ok, "seconds": report.seconds, "lines": report.lines}))


def alerts(settings: Settings, missing: list[str]) -> Iterator[Part]:
    from include.offload import monitor

    if settings.server("prometheus") is None:
        missing.append("alerts: no Prometheus is set up")
        return
    yield Part("alerts.json", _json(monitor.alerts(settings)))


def metrics(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """statsd_exporter's page: every metric of the offload and of Airflow."""
    from include.offload import monitor

    if settings.server("metrics") is None:
        missing.append("metrics: no statsd_exporter is set up")
        return
    yield Part("metrics.txt", monitor.metrics_page(settings))


def specs(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """The table specs as they are, and what is wrong with them."""
    from include.offload.spec.load import load_specs

    for path in sorted(settings.tables.rglob("*.yaml")):
        yield Part(f"specs/{path.relative_to(settings.tables)}", path.read_text(encoding="utf-8", errors="replace"))
    yield Part("specs/errors.json", _json([str(e) for e in load_specs(settings.tables, settings.env).errors]))


def status(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """`bin/offload status --json`."""
    from include.offload.cli.overview import overview
    from include.offload.context import open_context
    from include.offload.spec.load import load_specs

    ctx = open_context(settings)
    try:
        yield Part("status.json", _json(overview(ctx, load_specs(settings.tables, settings.env).specs)))
    finally:
        ctx.close()


QUERIES = {
    "revision": "SELECT version_num, version() AS server FROM offload.alembic_version",
    "tables": "SELECT * FROM offload.tables ORDER BY identity",
    "watermarks": "SELECT * FROM offload.watermarks ORDER BY table_name",
    "plans": f"SELECT plan_id, table_id, run_id, generation, predecessor, status, scan::text AS scan, windows, rows,"
    f" snapshot_id, created_at, closed_at FROM offload.plans ORDER BY created_at DESC LIMIT {PLANS}",
    "plan_documents": f"SELECT plan_id, left(document::text, {LARGEST_DOCUMENT}) AS document FROM offload.plans"
    f" ORDER BY created_at DESC LIMIT {DOCUMENTS}",
    "attempts": f"SELECT attempt_id, plan_id, recorded_at, left(outcome::text, 2000) AS outcome FROM offload.attempts"
    f" ORDER BY recorded_at DESC LIMIT {ATTEMPTS}",
    "windows": "SELECT table_id, count(*) AS entries, count(fingerprint) AS shipped, sum(rows) AS rows,"
    " min(lower(span)) AS first_us, max(upper(span)) AS last_us FROM offload.windows GROUP BY table_id",
    "looks": f"SELECT table_id, updated_at, left(document::text, {LARGEST_DOCUMENT}) AS document FROM offload.looks",
    "ttl_guard": "SELECT * FROM offload.ttl_guard",
    "findings": "SELECT table_id, kind, span::text AS span, windows, rows, found_at, accepted_at FROM offload.findings",
    "unmet": "SELECT * FROM offload.unmet",
}


def ledger(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """Watermarks, the newest plans and attempts, sums of the windows."""
    from sqlalchemy import text

    from include.offload.ledger.store import Ledger

    opened = Ledger(settings.ledger())
    try:
        for name, query in QUERIES.items():
            with opened.begin() as c:
                rows = [dict(row) for row in c.execute(text(query)).mappings()]
            yield Part(f"ledger/{name}.json", _json(rows))
    finally:
        opened.close()


def lake(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """The newest snapshots of each Iceberg table with their commit markers."""
    from include.offload.lake.catalog import find_table, open_catalog
    from include.offload.spec.load import load_specs

    wanted = load_specs(settings.tables, settings.env).specs
    if len(wanted) > SNAPSHOT_TABLES:
        missing.append(f"snapshots: only of {SNAPSHOT_TABLES} of {len(wanted)} tables")
    catalog = open_catalog(settings.catalog)
    try:
        for spec in wanted[:SNAPSHOT_TABLES]:
            table = find_table(catalog, (spec.target.namespace, spec.target.table), spec.identity)
            if table is not None:
                yield Part(f"snapshots/{spec.identity}.json", _json(_snapshots(table)))
    finally:
        catalog.close()


def _snapshots(table: Any) -> dict[str, object]:
    newest = sorted(table.metadata.snapshots, key=lambda s: s.timestamp_ms)[-SNAPSHOTS:]
    return {
        "properties": dict(table.properties),
        "schema": str(table.schema()),
        "snapshots": [
            {
                "id": s.snapshot_id,
                "parent": s.parent_snapshot_id,
                "at": datetime.fromtimestamp(s.timestamp_ms / 1000, UTC).isoformat(),
                "summary": s.summary.model_dump() if s.summary else None,
            }
            for s in newest
        ],
    }


def configuration(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """Settings, variables, Airflow's and PyIceberg's configuration; whatever is called a secret has no value."""
    shown = {name: str(getattr(settings, name)) for name in type(settings).model_fields}
    yield Part("config/settings.json", _json(shown))
    variables = {
        name: REMOVED if is_secret(name, value) else value
        for name, value in sorted(os.environ.items())
        if name.startswith(SHOWN_VARIABLES)
    }
    yield Part("config/environment.json", _json(variables))
    path = airflow_config()
    if path.is_file():
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(path.read_text(encoding="utf-8"))
        told = {
            section: {key: REMOVED if is_secret(key, value) else value for key, value in parser[section].items()}
            for section in parser.sections()
        }
        yield Part("config/airflow.json", _json(told))
    from pyiceberg.utils.config import Config

    catalog = Config().get_catalog_config(settings.catalog) or {}
    yield Part(
        "config/catalog.json",
        _json({k: REMOVED if is_secret(k, str(v)) or "key" in k else str(v) for k, v in catalog.items()}),
    )


def logs(settings: Settings, missing: list[str]) -> Iterator[Part]:
    """The end of every server's log, and of the newest task logs of Airflow."""
    folder = home() / "logs"
    for path in sorted(folder.glob("*.log")):
        yield Part(f"logs/{path.name}", _tail(path, LOG_BYTES))
    tasks = Path(os.environ.get("AIRFLOW__LOGGING__BASE_LOG_FOLDER") or folder / "airflow")
    if not tasks.is_dir():
        missing.append(f"task logs: there is no {tasks}")
        return
    found = [(p.stat().st_mtime, p) for p in tasks.rglob("*.log") if p.is_file() and not p.is_symlink()]
    newest = [path for _, path in sorted(found, reverse=True)[:TASK_LOGS]]
    if len(found) > TASK_LOGS:
        missing.append(f"task logs: the newest {TASK_LOGS} of {len(found)}")
    for path in newest:
        yield Part(f"logs/airflow/{path.relative_to(tasks)}", _tail(path, TASK_LOG_BYTES))


def _tail(path: Path, limit: int) -> str:
    """The last `limit` bytes from a line's beginning on: half a secret would not be known as one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        data = file.read(limit)
    if size > limit:
        _, _, data = data.partition(b"\n")
        return f"[the first {size - len(data)} bytes are left out]\n" + data.decode("utf-8", "replace")
    return data.decode("utf-8", "replace")


COLLECTORS: tuple[Collector, ...] = (
    Collector("versions", versions),
    Collector("health", servers),
    Collector("alerts", alerts),
    Collector("status", status),
    Collector("metrics", metrics),
    Collector("specs", specs),
    Collector("ledger", ledger),
    Collector("snapshots", lake),
    Collector("configuration", configuration),
    Collector("logs", logs),
)
