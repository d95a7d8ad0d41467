"""Which things are looked at, in the order in which they are shown, and how long each may take."""

from __future__ import annotations

from include.offload.health import servers, spark, tables
from include.offload.health.lines import Check

SHORT_S = 10.0
"""For one request to one server."""
LONG_S = 20.0
"""For checks that load a database's or PyIceberg's library first, or ask about every table."""
DEEP_S = 21.0
"""For starting Spark: 3 to 6 s on a quiet machine. With what the process itself takes, less than 30 s in all."""

CHECKS: tuple[Check, ...] = (
    Check(servers.AIRFLOW, servers.airflow, SHORT_S, "bin/offload stack status"),
    Check(("statsd_exporter",), servers.exporter, SHORT_S, "bin/offload stack status statsd-exporter"),
    Check(("Prometheus",), servers.prometheus, SHORT_S, "bin/offload stack status"),
    Check(("Alertmanager",), servers.alertmanager, SHORT_S, "bin/offload stack status"),
    Check(("alerts",), servers.alerts, SHORT_S, "bin/offload alerts"),
    Check(("ClickHouse",), servers.clickhouse, LONG_S, "bin/offload stack status clickhouse"),
    Check(("PostgreSQL",), servers.postgres, LONG_S, "bin/offload stack status postgres"),
    Check(("Iceberg catalog",), servers.catalog, LONG_S, "bin/offload stack status seaweedfs"),
    Check(("object store",), servers.store, LONG_S, "bin/offload stack status seaweedfs"),
    Check(("Spark",), spark.installed, SHORT_S, "bin/offload health --deep"),
    Check(("table specs",), tables.specs, SHORT_S, "bin/offload spec check"),
    Check(("last cycles",), tables.cycles, LONG_S, "bin/offload status"),
    Check(("lag",), tables.lag, LONG_S, "bin/offload status"),
    Check(("TTL headroom",), tables.headroom, LONG_S, "bin/offload status"),
    Check((tables.AGREE,), tables.agreement, LONG_S, "bin/offload status"),
    Check(("errors, last hour",), tables.errors, LONG_S, "bin/offload status"),
)
DEEP = Check(("Spark start-up",), spark.starts, DEEP_S, "bin/offload run TABLE shows the job's own lines")
"""With `--deep` instead of the look at what is installed."""
