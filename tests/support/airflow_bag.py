"""A DagBag over a bundle, parsed in-process without scheduler, database or network."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TEN = frozenset(
    f"offload__k2__{table}"
    for table in (
        "bronze_trades_binance",
        "bronze_trades_coinbase",
        "bronze_trades_kraken",
        "silver_trades",
        "ohlcv_1m",
        "ohlcv_5m",
        "ohlcv_15m",
        "ohlcv_30m",
        "ohlcv_1h",
        "ohlcv_1d",
    )
)


def parse(dags: Path) -> Any:
    """The DagBag of one absolute folder. Needs `AIRFLOW_HOME` to be set before Airflow's first import."""
    if not dags.is_absolute():
        raise ValueError(f"{dags} is relative: a DagBag would silently load nothing from it")
    if "AIRFLOW_HOME" not in os.environ:
        raise RuntimeError("AIRFLOW_HOME is not set: Airflow would write into the home directory")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(dags), safe_mode=True, bundle_path=dags, bundle_name="offload")


def copy_bundle(to: Path) -> Path:
    """The DAG files and specs of this bundle below `to`, free to be broken. Returns its `dags` folder."""
    return shutil.copytree(ROOT / "dags", to / "dags", ignore=shutil.ignore_patterns("__pycache__"))
