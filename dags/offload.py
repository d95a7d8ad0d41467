"""One Airflow DAG for every valid spec in `tables/`; `spec_errors.py` reports the invalid ones."""

from pathlib import Path

from include.orchestration.bundle import bundle_specs
from include.orchestration.dag import build_dag

for spec in bundle_specs(Path(__file__).parent).specs:
    globals()[spec.dag_id] = build_dag(spec)
