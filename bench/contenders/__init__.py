"""The contenders: what each one runs, and how its own words become figures. To add one: a module, and its line here."""

from __future__ import annotations

from bench.contenders.base import RESULT, Command, Contender, Job
from bench.contenders.clickhouse_insert import ClickHouseInsert
from bench.contenders.dlt_arrow import DltArrow
from bench.contenders.limit import Limit
from bench.contenders.offload import Offload
from bench.contenders.pyiceberg_alone import PyIcebergAlone
from bench.contenders.sling import Sling
from bench.contenders.spark_jdbc import SparkJdbc

__all__ = ["CONTENDERS", "OURS", "QUICK", "RESULT", "Command", "Contender", "Job"]

CONTENDERS: tuple[Contender, ...] = (
    Offload(),
    ClickHouseInsert(),
    PyIcebergAlone(),
    DltArrow(),
    SparkJdbc(2),
    SparkJdbc(1),
    Sling(),
    Limit(),
)
OURS = CONTENDERS[0]
QUICK = ("offload", "clickhouse-insert", "pyiceberg", "limit")
"""Whom `make bench-quick` looks at: the fast ones, whose ratios a slower job of ours shows in at once."""
