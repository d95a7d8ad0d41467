"""One Airflow DAG that compares Iceberg with ClickHouse for every valid spec in `tables/` that wants the habit."""

from pathlib import Path

from include.orchestration.bundle import bundle_specs
from include.orchestration.verification import build_verify_dag

for spec in bundle_specs(Path(__file__).parent).specs:
    if spec.verify.enabled:
        globals()[spec.verify_dag_id] = build_verify_dag(spec)
