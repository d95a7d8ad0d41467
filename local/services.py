"""Every server of the one-machine stack, in one place: how it is prepared, started, checked and stopped."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from local import airflow, clickhouse, k2, monitoring, ports, postgres, seaweed
from local.paths import ROOT, TOOLS, Home, python


def _nothing(_: Home) -> None:
    return None


def _no_environment(_: Home) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Service:
    """One server. `limit_s`: how long it may take from start to its first right answer.

    `ports`: what it listens on; the first one is what people look at. `after`: services that must answer first;
    `needs`: services that must run too, in any order. `optional`: started only by name.
    `bootstrap` runs once the service answers, and repeats without harm.
    """

    name: str
    command: Callable[[Home], list[str]]
    answers: Callable[[Home], bool]
    ports: tuple[str, ...]
    limit_s: float = 90.0
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    prepare: Callable[[Home], None] = _nothing
    bootstrap: Callable[[Home], None] = _nothing
    environment: Callable[[Home], Mapping[str, str]] = _no_environment
    stop_signal: str = "TERM"
    stop_s: int = 15
    optional: bool = False
    url: str | None = field(default=None)
    """What a person opens, with {port} for the first port."""


def _http_ok(name: str, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{ports.HOST}:{ports.port(name)}{path}", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _statsd_command(_: Home) -> list[str]:
    program = TOOLS / "bin" / "statsd_exporter"
    if not program.exists():
        raise FileNotFoundError(f"{program} is missing: run `make setup`")
    mapping = ROOT / "monitoring" / "statsd-mapping.yaml"
    return [
        str(program),
        f"--statsd.listen-udp={ports.HOST}:{ports.port('STATSD')}",
        "--statsd.listen-tcp=",
        f"--web.listen-address={ports.HOST}:{ports.port('STATSD_METRICS')}",
        *([f"--statsd.mapping-config={mapping}"] if mapping.exists() else []),
    ]


SERVICES: tuple[Service, ...] = (
    Service(
        "postgres",
        command=postgres.command,
        answers=postgres.answers,
        ports=("POSTGRES",),
        prepare=postgres.prepare,
        bootstrap=postgres.bootstrap,
        # fast shutdown: sessions are ended, nothing is lost
        stop_signal="INT",
    ),
    Service(
        "clickhouse",
        command=clickhouse.command,
        answers=lambda _: _http_ok("CLICKHOUSE", "/ping"),
        ports=("CLICKHOUSE",),
        limit_s=120,
        stop_s=30,
        url="http://127.0.0.1:{port}/",
    ),
    Service(
        "seaweedfs",
        command=seaweed.command,
        answers=seaweed.answers,
        ports=(
            "S3",
            "ICEBERG",
            "WEED_MASTER",
            "WEED_FILER",
            "WEED_VOLUME",
            "WEED_ADMIN",
            "WEED_MASTER_GRPC",
            "WEED_FILER_GRPC",
            "WEED_VOLUME_GRPC",
            "WEED_S3_GRPC",
            "WEED_ADMIN_GRPC",
        ),
        prepare=seaweed.prepare,
        limit_s=120,
        url="http://127.0.0.1:{port}/",
    ),
    Service(
        "statsd-exporter",
        command=_statsd_command,
        answers=lambda _: _http_ok("STATSD_METRICS", "/metrics"),
        ports=("STATSD_METRICS", "STATSD"),
        url="http://127.0.0.1:{port}/metrics",
    ),
    Service(
        "prometheus",
        command=monitoring.prometheus_command,
        answers=lambda _: _http_ok("PROMETHEUS", "/-/ready"),
        ports=("PROMETHEUS",),
        prepare=monitoring.prepare_prometheus,
        url="http://127.0.0.1:{port}/alerts",
    ),
    Service(
        "alertmanager",
        command=monitoring.alertmanager_command,
        answers=lambda _: _http_ok("ALERTMANAGER", "/-/ready"),
        ports=("ALERTMANAGER",),
        prepare=monitoring.prepare_alertmanager,
        url="http://127.0.0.1:{port}/",
    ),
    Service(
        "airflow-api-server",
        command=lambda _: airflow.command("api-server"),
        answers=lambda _: _http_ok("AIRFLOW", "/api/v2/monitor/health"),
        ports=("AIRFLOW",),
        after=("postgres",),
        prepare=airflow.prepare,
        bootstrap=airflow.bootstrap,
        environment=airflow.environment,
        limit_s=300,
        url="http://127.0.0.1:{port}/",
    ),
    Service(
        "airflow-scheduler",
        command=lambda _: airflow.command("scheduler"),
        answers=lambda _: airflow.is_healthy("scheduler"),
        ports=(),
        after=("postgres",),
        needs=("airflow-api-server",),
        prepare=airflow.prepare,
        environment=airflow.environment,
        limit_s=300,
        stop_s=30,
    ),
    Service(
        "airflow-dag-processor",
        command=lambda _: airflow.command("dag-processor"),
        answers=lambda _: airflow.is_healthy("dag_processor"),
        ports=(),
        after=("postgres",),
        needs=("airflow-api-server",),
        prepare=airflow.prepare,
        environment=airflow.environment,
        limit_s=300,
    ),
    Service(
        "airflow-triggerer",
        command=lambda _: airflow.command("triggerer"),
        answers=lambda _: airflow.is_healthy("triggerer"),
        ports=(),
        after=("postgres",),
        needs=("airflow-api-server",),
        prepare=airflow.prepare,
        environment=airflow.environment,
        limit_s=300,
    ),
    Service(
        "k2-trickle",
        command=lambda _: [python(), "-m", "local.k2", "trickle"],
        answers=k2.is_trickling,
        ports=(),
        after=("clickhouse",),
        optional=True,
    ),
)
BY_NAME = {service.name: service for service in SERVICES}
GROUPS = {
    "all": tuple(service.name for service in SERVICES if not service.optional),
    "data": ("postgres", "clickhouse", "seaweedfs", "statsd-exporter"),
    "monitoring": ("statsd-exporter", "prometheus", "alertmanager"),
    "airflow": tuple(name for name in BY_NAME if name.startswith("airflow-")),
}
"""Names for several services, accepted wherever one name is."""


def chosen(names: list[str] | tuple[str, ...] | None) -> tuple[Service, ...]:
    """The named services and groups, in start order; all for None. Raises ValueError for an unknown name."""
    wanted: set[str] = set()
    for name in names or ["all"]:
        if name in GROUPS:
            wanted.update(GROUPS[name])
        elif name in BY_NAME:
            wanted.add(name)
        else:
            raise ValueError(f"no server is called {name!r}; there are {', '.join([*GROUPS, *BY_NAME])}")
    return tuple(service for service in SERVICES if service.name in wanted)
