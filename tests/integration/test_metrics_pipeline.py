"""Every metric through the real emitter, the real exporter and the real Prometheus: ours, and Airflow's that matter.

Airflow's are sent by Airflow's own code, with the tags that it gives them, and each must be in Airflow's own registry
of metrics with the same type: a name that a new version changes fails here.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from statsd import StatsClient

from include.offload.metrics import REGISTRY, Kind, Metrics
from include.offload.settings import ROOT, Settings

MAPPING = ROOT / "monitoring" / "statsd-mapping.yaml"
TABLE = "k2.silver_trades"
PROMETHEUS = ROOT / ".venv" / "tools" / "bin" / "prometheus"
DAG = "offload__k2__silver_trades"
LIMIT_S = 15


def binary() -> Path:
    """The exporter that set-up built, else the one on PATH."""
    built = ROOT / ".venv" / "tools" / "bin" / "statsd_exporter"
    found = str(built) if built.is_file() else shutil.which("statsd_exporter")
    assert found, f"no {built} and none on PATH: run `make setup`"
    return Path(found)


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text


def wait_for(port: int, *wanted: str) -> str:
    """The page, once it holds every wanted piece; else an AssertionError that names the missing ones."""
    end = time.monotonic() + LIMIT_S
    page = ""
    while time.monotonic() < end:
        try:
            page = scrape(port)
        except (urllib.error.URLError, ConnectionError):
            page = ""
        if page and all(w in page for w in wanted):
            return page
        time.sleep(0.1)
    raise AssertionError(f"not on the page after {LIMIT_S} s: {[w for w in wanted if w not in page]}")


@pytest.fixture(scope="module")
def exporter() -> Iterator[tuple[int, int]]:
    """A running statsd_exporter with our mapping: its UDP port and its web port."""
    udp, web = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    process = subprocess.Popen(
        [
            str(binary()),
            f"--statsd.mapping-config={MAPPING}",
            f"--statsd.listen-udp=127.0.0.1:{udp}",
            "--statsd.listen-tcp=",
            f"--web.listen-address=127.0.0.1:{web}",
            "--log.level=error",
        ],
        env={"PATH": os.environ["PATH"]},
    )
    try:
        wait_for(web, "statsd_exporter_build_info")
        yield udp, web
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def emitter(exporter: tuple[int, int]) -> Iterator[Metrics]:
    emitter = Metrics(Settings(statsd_host="127.0.0.1", statsd_port=exporter[0]))
    yield emitter
    emitter.close()


def test_the_exporter_accepts_the_mapping() -> None:
    done = subprocess.run(
        [str(binary()), "--check-config", f"--statsd.mapping-config={MAPPING}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr


def test_counters_start_at_zero(emitter: Metrics, exporter: tuple[int, int]) -> None:
    emitter.declare(["k2.idle"], configured=1)
    wait_for(
        exporter[1],
        'offload_rows_total{table="k2.idle"} 0',
        'offload_cycles_total{status="failure",table="k2.idle"} 0',
        'offload_errors_total{step="offload",table="k2.idle"} 0',
        'offload_errors_by_id_total{error="OFL-101"} 0',
        "offload_tables_configured 1",
        'offload_info{version="0.1.0"} 1',
    )


@pytest.mark.parametrize("metric", REGISTRY.values(), ids=list(REGISTRY))
def test_every_metric_arrives_with_labels_and_unit(metric, emitter: Metrics, exporter: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    labels = {k: {"table": TABLE, "version": "9.9"}.get(k, "x") for k in metric.labels}
    shown = "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}" if labels else ""
    kind = metric.kind.value
    head = f"# HELP {metric.name} {metric.meaning} [{metric.unit}]\n# TYPE {metric.name} {kind}\n"
    if metric.kind is Kind.COUNTER:
        emitter.count(metric.name, 3, **labels)
        emitter.count(metric.name, 4, **labels)
        wait_for(exporter[1], head, f"{metric.name}{shown} 7\n")
    elif metric.kind is Kind.GAUGE:
        emitter.gauge(metric.name, 1_763_770_800.25, **labels)
        wait_for(exporter[1], head, f"{metric.name}{shown} 1.76377080025e+09\n")
    else:
        emitter.timing(metric.name, 45.5, **labels)
        bucket = f'{metric.name}_bucket{{table="{TABLE}",le='
        wait_for(
            exporter[1],
            head,
            f'{bucket}"30"}} 0',
            f'{bucket}"60"}} 1',
            f'{bucket}"1800"}} 1',
            f"{metric.name}_sum{shown} 45.5",
        )


def test_a_gauge_can_be_set_below_zero_and_again(emitter: Metrics, exporter: tuple[int, int]) -> None:
    for value in (10.0, -5.0, -7.0):
        emitter.gauge("watermark_timestamp_seconds", value, table="k2.old")
    wait_for(exporter[1], 'watermark_timestamp_seconds{table="k2.old"} -7\n')


def test_hostile_labels_arrive_harmless(emitter: Metrics, exporter: tuple[int, int]) -> None:
    emitter.count("offload_rows_total", 1, table="a b:c|d,e=f#g")
    emitter.count("offload_rows_total", 1, table="n" * 400)
    page = wait_for(exporter[1], 'offload_rows_total{table="a_b_c_d_e_f_g"} 1', 'offload_rows_total{table="nnn')
    assert "\nstatsd_exporter_tag_errors_total 0\n" in page


def test_airflow_metrics_pass_with_tags_and_the_rest_is_dropped(exporter: tuple[int, int]) -> None:
    client = StatsClient("127.0.0.1", exporter[0], prefix="airflow")
    client.incr("some.unknown.metric")
    client.timing("scheduler.scheduler_loop_duration", 1500)
    client.incr("ti.finish,dag_id=offload__k2__a,task_id=offload,state=success")
    page = wait_for(
        exporter[1],
        "airflow_scheduler_loop_duration_seconds_sum 1.5",
        'airflow_ti_finish_total{dag_id="offload__k2__a",state="success",task_id="offload"} 1',
    )
    client.close()
    assert "unknown_metric" not in page


# ----- and on into Prometheus


@pytest.fixture(scope="module")
def prometheus(exporter: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes the exporter five times a second; its address."""
    home, port = tmp_path_factory.mktemp("prometheus"), free_port(socket.SOCK_STREAM)
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
    jobs = [j for j in config["scrape_configs"] if j["job_name"] == "statsd-exporter"]
    jobs[0]["static_configs"] = [{"targets": [f"127.0.0.1:{exporter[1]}"]}]
    (home / "prometheus.yml").write_text(yaml.safe_dump({"global": config["global"], "scrape_configs": jobs}))
    process = subprocess.Popen(
        [
            str(PROMETHEUS),
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def ask(prometheus: str, path: str, **query: str) -> Any:
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        return json.load(answer)["data"]


def series(prometheus: str, selector: str) -> list[dict[str, Any]]:
    """The series of a selector once there are some; else an AssertionError."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        try:
            if found := ask(prometheus, "query", query=selector)["result"]:
                return list(found)
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus does not have {selector} after {LIMIT_S} s")


def about(prometheus: str, name: str) -> dict[str, Any]:
    """Type and help of a metric as Prometheus knows it."""
    (found,) = ask(prometheus, "metadata", metric=name)[name]
    return dict(found)


def own_labels(one: dict[str, Any]) -> dict[str, str]:
    return {k: v for k, v in one["metric"].items() if k not in {"__name__", "job", "instance"}}


@pytest.mark.parametrize("metric", REGISTRY.values(), ids=list(REGISTRY))
def test_prometheus_has_every_metric_with_labels_and_unit(metric, emitter: Metrics, prometheus: str) -> None:  # type: ignore[no-untyped-def]
    labels = {k: {"table": "k2.into_prometheus", "version": "7.7"}.get(k, "y") for k in metric.labels}
    send = {Kind.COUNTER: emitter.count, Kind.GAUGE: emitter.gauge, Kind.TIMING: emitter.timing}[metric.kind]
    send(metric.name, 7, **labels)
    name = f"{metric.name}_sum" if metric.kind is Kind.TIMING else metric.name
    matchers = ",".join(f'{k}="{v}"' for k, v in labels.items())
    (found,) = series(prometheus, f"{name}{{{matchers}}} == 7")
    assert own_labels(found) == labels
    told = about(prometheus, metric.name)
    assert (told["type"], told["help"]) == (metric.kind.value, f"{metric.meaning} [{metric.unit}]")


AIRFLOW_TAGS: dict[str, dict[str, str]] = {
    "dagrun.duration.success": {"dag_id": DAG, "run_type": "scheduled"},
    "dagrun.duration.failed": {"dag_id": DAG, "run_type": "manual"},
    "dagrun.schedule_delay": {"dag_id": DAG},
    "task.duration": {"dag_id": DAG, "task_id": "offload"},
    "task.queued_duration": {"dag_id": DAG, "task_id": "offload", "queue": "default"},
    "ti.finish": {"dag_id": DAG, "task_id": "offload", "state": "success"},
    "pool.open_slots": {"pool_name": "offload_spark"},
    "pool.running_slots": {"pool_name": "offload_spark"},
    "pool.queued_slots": {"pool_name": "offload_spark"},
    "pool.starving_tasks": {"pool_name": "offload_spark"},
    "executor.open_slots": {"status": "open", "executor_class_name": "LocalExecutor"},
    "executor.queued_tasks": {"status": "queued", "executor_class_name": "LocalExecutor"},
    "executor.running_tasks": {"status": "running", "executor_class_name": "LocalExecutor"},
    "deadline_alerts.deadline_missed": {"dag_id": DAG, "dagrun_id": "scheduled__2026-11-22T06:15:00+00:00"},
}
"""The tags that Airflow 3.3 gives these metrics; the others have none."""
UNREGISTERED = {"run_type", "queue", "status", "dagrun_id"}
"""Tags that no variable of Airflow's registry names: it knows those that were once part of a metric's name."""
DROPPED_TAGS = {"dagrun_id"}
SEND = """
import json, sys
from airflow._shared.observability.metrics import stats
from airflow._shared.observability.metrics.metrics_registry import MetricsRegistry
from airflow.configuration import conf
from airflow.observability.metrics.stats_utils import get_stats_factory
stats.initialize(factory=get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on"))
registry = MetricsRegistry()
types = {}
for name, tags in json.load(sys.stdin).items():
    types[name] = (registry.get(name) or {}).get("type")
    if types[name] == "counter":
        stats.incr(name, 7, tags=tags)
    elif types[name] == "gauge":
        stats.gauge(name, 7, tags=tags)
    elif types[name] == "timer":
        stats.timing(name, 7000.0, tags=tags)
print(json.dumps(types))
"""


def airflow_rules() -> dict[str, dict[str, str]]:
    """The rules of the mapping that are for Airflow, by Airflow's name."""
    rules = yaml.safe_load(MAPPING.read_text(encoding="utf-8"))["mappings"]
    return {r["match"].removeprefix("airflow."): r for r in rules if r["match"].startswith("airflow.")}


def stack_settings(port: int) -> dict[str, str]:
    """The section [metrics] of the one-machine stack as environment variables, sending to this port."""
    text = (ROOT / "local/airflow.py").read_text(encoding="utf-8")
    assert '"statsd_disabled_tags": "job_id,run_id,dagrun_id"' in text
    options = {
        "statsd_on": "True",
        "statsd_host": "127.0.0.1",
        "statsd_port": str(port),
        "statsd_prefix": "airflow",
        "statsd_influxdb_enabled": "True",
        "legacy_names_on": "False",
        "statsd_disabled_tags": "job_id,run_id,dagrun_id",
    }
    return {f"AIRFLOW__METRICS__{k.upper()}": v for k, v in options.items()}


@pytest.fixture(scope="module")
def airflow_types(exporter: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Every metric of Airflow that the mapping names, sent once by Airflow; their types in Airflow's registry."""
    home = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}
    done = subprocess.run(
        [sys.executable, "-c", SEND],
        input=json.dumps({name: AIRFLOW_TAGS.get(name, {}) for name in airflow_rules()}),
        env=home | stack_settings(exporter[0]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    types: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return types


def test_the_tags_are_those_of_mapped_metrics() -> None:
    assert set(AIRFLOW_TAGS) <= set(airflow_rules())


def test_the_tags_have_the_names_of_airflows_registry() -> None:
    from airflow._shared.observability.metrics.metrics_registry import MetricsRegistry

    registry = MetricsRegistry()
    found = {name: set((registry.get(name) or {}).get("name_variables", ())) for name in airflow_rules()}
    assert {n: v for n, v in found.items() if v} == {
        n: set(t) - UNREGISTERED for n, t in AIRFLOW_TAGS.items() if set(t) - UNREGISTERED and found[n]
    }


@pytest.mark.parametrize("name", list(airflow_rules()))
def test_prometheus_has_airflows_metrics_by_the_names_of_its_registry(
    name: str, airflow_types: dict[str, str | None], prometheus: str
) -> None:
    rule = airflow_rules()[name]
    assert airflow_types[name], f"Airflow's registry has no metric {name}: it was renamed or removed"
    as_mapped = {"counter": "counter", "gauge": "gauge", "timer": "observer"}[str(airflow_types[name])]
    assert rule["match_metric_type"] == as_mapped
    histogram = as_mapped == "observer"
    (found,) = series(prometheus, rule["name"] + ("_sum" if histogram else "") + "> 6")
    assert float(found["value"][1]) >= 7
    wanted = {k: v for k, v in AIRFLOW_TAGS.get(name, {}).items() if k not in DROPPED_TAGS}
    assert own_labels(found) == wanted
    assert about(prometheus, rule["name"])["type"] == ("histogram" if histogram else as_mapped)
    if histogram:
        assert rule["name"].endswith("_seconds")
