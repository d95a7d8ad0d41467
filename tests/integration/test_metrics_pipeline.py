"""Every metric of the registry, through the real emitter and the real exporter, to its /metrics page."""

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from statsd import StatsClient

from include.offload.metrics import REGISTRY, Kind, Metrics
from include.offload.settings import ROOT, Settings

MAPPING = ROOT / "monitoring" / "statsd-mapping.yaml"
TABLE = "k2.silver_trades"
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
