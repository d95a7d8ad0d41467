"""Holds no DAG: shows every invalid spec as one import error in Airflow, without stopping the valid DAGs."""

from pathlib import Path

from include.orchestration.bundle import InvalidSpecsError, bundle_specs

found = bundle_specs(Path(__file__).parent)
if found.errors:
    raise InvalidSpecsError(found)
