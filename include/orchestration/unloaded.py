"""Keeps the OpenLineage client out of processes that would never send an event.

Airflow's Spark provider imports the client for two options of its operator, whether OpenLineage is on or off: without
this, 0.7 s of CPU for every parse of the DAG file and every task.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException

CLIENT = "airflow.providers.openlineage.utils.spark"
"""What the Spark provider tries to import; it has an answer for an Airflow without it."""


def openlineage_is_off() -> bool:
    """Whether Airflow's OpenLineage provider has no receiver. What it can't read of its configuration, it reports."""
    try:
        from airflow.providers.openlineage import conf
    except ImportError:
        return False
    try:
        return bool(conf.is_disabled())
    except (AirflowException, ValueError):
        return False


@contextmanager
def without_openlineage() -> Iterator[None]:
    """Inside, an import of the client fails, if it would serve nobody and was not loaded yet."""
    if CLIENT in sys.modules or not openlineage_is_off():
        yield
        return
    sys.modules[CLIENT] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[CLIENT]
