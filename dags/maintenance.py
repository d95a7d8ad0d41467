"""One Airflow DAG that takes care of the Iceberg table of every valid spec in `tables/` that wants it."""

from pathlib import Path

from include.orchestration.bundle import bundle_specs
from include.orchestration.maintenance import build_maintenance_dag

for spec in bundle_specs(Path(__file__).parent).specs:
    if spec.maintenance.enabled:
        globals()[spec.maintenance_dag_id] = build_maintenance_dag(spec)
