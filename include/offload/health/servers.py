"""One look at each server: does it answer, with the login that the offload uses, and does it do its work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include.offload import monitor
from include.offload.errors import OffloadError
from include.offload.health.lines import Line, State, absent, good, refused
from include.offload.runbooks import SLOW_QUERIES, link
from include.offload.settings import Settings
from include.offload.spec.load import load_specs

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

AIRFLOW = ("Airflow scheduler", "Airflow DAG processor", "Airflow triggerer", "Airflow database")
COMPONENTS = dict(zip(("scheduler", "dag_processor", "triggerer", "metadatabase"), AIRFLOW, strict=True))
WORST_SHOWN = 3
SLOW_S = 2.0
"""A login and the smallest query take milliseconds: so much longer, and every query of a run waits too."""
TABLES_TRIED = 5
"""How many specs are looked up for one whose Iceberg table exists; those that the ledger knows come first."""


def airflow(settings: Settings) -> list[Line]:
    """Scheduler, DAG processor, triggerer and database, as Airflow's own health page tells."""
    base = settings.server("airflow")
    if base is None:
        return [absent(name, "OFFLOAD_AIRFLOW_URL is not set") for name in AIRFLOW]
    told = monitor.airflow_health(base)
    return [_component(name, key, told.get(key) or {}) for key, name in COMPONENTS.items()]


def _component(name: str, key: str, told: dict[str, str | None]) -> Line:
    status = told.get("status")
    beat = told.get(f"latest_{key}_heartbeat")
    since = f", last heartbeat {beat}" if beat else ""
    if status == "healthy":
        return good(name, f"healthy{since}")
    # no DAG of this bundle defers: without a triggerer every table is still offloaded
    state = State.WARN if key == "triggerer" else State.FAIL
    command = "postgres" if key == "metadatabase" else f"airflow-{key.replace('_', '-')}"
    return Line(name, state, f"{status or 'never started'}{since}", f"bin/offload stack status {command}")


def exporter(settings: Settings) -> list[Line]:
    """Whether statsd_exporter answers and holds metrics of the offload."""
    name = "statsd_exporter"
    if settings.server("metrics") is None:
        return [absent(name, "OFFLOAD_METRICS_URL is not set")]
    page = monitor.metrics_page(settings)
    series = sum(line.startswith("offload_") for line in page.splitlines())
    if series == 0:
        text = "answers, but holds no metric of the offload: it was restarted, or no run reported yet"
        return [Line(name, State.WARN, text, "bin/offload metrics --declare")]
    return [good(name, f"answers, {series} series of the offload")]


def prometheus(settings: Settings) -> list[Line]:
    """Whether Prometheus answers, reaches its targets, and has rules that work."""
    name = "Prometheus"
    base = settings.server("prometheus")
    if base is None:
        return [absent(name, "OFFLOAD_PROMETHEUS_URL is not set")]
    targets: list[dict[str, Any]] = monitor.prometheus(base, "targets", {"state": "active"})["activeTargets"]
    down = sorted(f"{t['labels'].get('job', '?')} ({t.get('lastError') or t['health']})" for t in targets
                  if t["health"] != "up")  # fmt: skip
    rules = [rule for group in monitor.prometheus(base, "rules")["groups"] for rule in group["rules"]]
    broken = [str(rule["name"]) for rule in rules if rule["health"] == "err"]
    watching = sum(rule["type"] == "alerting" for rule in rules)
    if down or broken or not watching:
        wrong = [f"does not reach {', '.join(down)}"] if down else []
        wrong += [f"rules fail: {', '.join(broken[:WORST_SHOWN])}"] if broken else []
        wrong += [] if watching else ["no alert is loaded"]
        state = State.FAIL if broken or not watching or len(down) == len(targets) else State.WARN
        return [Line(name, state, "; ".join(wrong), "bin/offload stack status")]
    return [good(name, f"reaches {len(targets)} targets, {watching} alerts loaded")]


def alertmanager(settings: Settings) -> list[Line]:
    """Whether Alertmanager answers and hears Prometheus."""
    name = "Alertmanager"
    base = settings.server("alertmanager")
    if base is None:
        return [absent(name, "OFFLOAD_ALERTMANAGER_URL is not set")]
    heard = monitor.ask_json(name, base, "/api/v2/alerts")
    if not any(alert["labels"].get("alertname") == monitor.WATCHDOG for alert in heard):
        text = f"answers, but hears no {monitor.WATCHDOG}: alerts of Prometheus do not arrive"
        return [Line(name, State.FAIL, text, "bin/offload alerts")]
    return [good(name, f"answers and hears Prometheus, {len(heard) - 1} alerts besides the {monitor.WATCHDOG}")]


def alerts(settings: Settings) -> list[Line]:
    """Whether anything fires; a missing watchdog means that nobody knows."""
    name = "alerts"
    if settings.server("prometheus") is None:
        return [absent(name, "without Prometheus nothing raises an alert")]
    found = monitor.alerts(settings)
    if not found.watchdog:
        text = f"{monitor.WATCHDOG} does not fire: no rules are evaluated, so nobody knows what else should"
        return [Line(name, State.FAIL, text, "bin/offload alerts")]
    if not found.firing:
        return [good(name, f"none fires, {len(found.pending)} pending")]
    names = list(dict.fromkeys(f"{a.name}{f' ({a.table})' if a.table else ''}" for a in found.firing))
    more = f" and {len(names) - WORST_SHOWN} more" if len(names) > WORST_SHOWN else ""
    text = f"{len(found.firing)} fire: {', '.join(names[:WORST_SHOWN])}{more}"
    state = State.FAIL if any(a.severity == "critical" for a in found.firing) else State.WARN
    return [Line(name, state, text, "bin/offload alerts", found.firing[0].runbook)]


def clickhouse(settings: Settings) -> list[Line]:
    """Whether every replica answers a query of the offload's own user."""
    from include.offload.source.client import Client, parse_uri

    name = "ClickHouse"
    endpoints = [parse_uri(uri) for uri in settings.clickhouse_uris()]
    failures: list[OffloadError] = []
    version, slowest = "", 0.0
    for endpoint in endpoints:
        began = time.monotonic()
        try:
            with Client(endpoint, settings={"max_execution_time": 2}, comment="offload health", table=None) as client:
                ((version,),) = client.query("SELECT version()")
        except OffloadError as error:
            failures.append(error)
        slowest = max(slowest, time.monotonic() - began)
    if len(failures) == len(endpoints):
        return [refused(name, failures[0], settings)]
    if failures:
        text = f"{len(failures)} of {len(endpoints)} replicas fail: {failures[0].cause}"
        return [Line(name, State.WARN, text, failures[0].next_step)]
    if slowest > SLOW_S:
        text = f"answers slowly: {slowest:.1f} s for a login and the smallest query"
        more = link(SLOW_QUERIES.path, settings.runbooks_url)
        return [Line(name, State.WARN, text, "bin/offload stack status clickhouse", more)]
    return [good(name, f"version {version}, {len(endpoints)} of {len(endpoints)} replicas answer")]


def postgres(settings: Settings) -> list[Line]:
    """Whether the ledger answers and has the schema of this code."""
    from include.offload.ledger.store import SCHEMA_REVISION, Ledger

    ledger = Ledger(settings.ledger())
    try:
        ledger.check_schema()
    finally:
        ledger.close()
    return [good("PostgreSQL", f"the ledger answers, schema {SCHEMA_REVISION}")]


def catalog(settings: Settings) -> list[Line]:
    """Whether the catalog answers about a table: what the offload asks it, so no other right is needed."""
    from include.offload.lake.catalog import find_table

    name = "Iceberg catalog"
    specs = load_specs(settings.tables, settings.env).specs
    if not specs:
        return [absent(name, f"there is no table spec in {settings.tables} to ask about")]
    with reaching_catalog(settings) as found:
        find_table(found, (specs[0].target.namespace, specs[0].target.table), specs[0].identity)
    return [good(name, f"`{settings.catalog}` answers")]


def store(settings: Settings) -> list[Line]:
    """Whether the store gives a table's metadata with the key that is configured."""
    from include.offload.lake.catalog import find_table

    name = "object store"
    shipped = _shipped(settings)
    specs = sorted(load_specs(settings.tables, settings.env).specs, key=lambda spec: spec.identity not in shipped)
    with reaching_catalog(settings) as found:
        for spec in specs[:TABLES_TRIED]:
            table = find_table(found, (spec.target.namespace, spec.target.table), spec.identity)
            if table is not None:
                with table.io.new_input(table.metadata_location).open() as stream:
                    stream.read(1)
                return [good(name, f"gives {spec.identity}'s metadata")]
    return [absent(name, "no table has been offloaded yet, so there is nothing to read")]


def _shipped(settings: Settings) -> set[str]:
    """The tables that have a commit, as the ledger knows; none when it is away, which another line says."""
    from include.offload.ledger.store import Ledger

    try:
        ledger = Ledger(settings.ledger())
        try:
            return {str(row["table_name"]) for row in ledger.watermark_rows() if row["snapshot_id"] is not None}
        finally:
            ledger.close()
    except OffloadError:
        return set()


@contextmanager
def reaching_catalog(settings: Settings) -> Iterator[Catalog]:
    """The catalog; what goes wrong leaves as OFL-102, OFL-103, OFL-301 or OFL-307."""
    from include.offload.lake.catalog import open_catalog
    from include.offload.lake.reach import reaching

    with reaching():
        found = open_catalog(settings.catalog)
        try:
            yield found
        finally:
            found.close()
