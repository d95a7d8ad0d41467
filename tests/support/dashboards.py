"""What the dashboards ask, and a Prometheus that answers: every query of every panel, as Grafana would send it."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import timeseries

from monitoring import values
from monitoring.dashboards.build import pages
from monitoring.dashboards.parts import Panel, Query
from monitoring.panels import TABLE

PAGES = {page.uid: page for page in pages(values.load("production"))}
ANY = ".*"
"""Every table, where a page shows many."""


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def get(self, path: str, **words: str) -> Any:
        """What its API answers; a refused query is an AssertionError with Prometheus' words."""
        body = urllib.parse.urlencode(words).encode()
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/{path}", body, timeout=10) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{refused.read().decode()}: {words}") from None

    def numbers(self, expr: str, *, over_time: bool = False) -> list[float]:
        """All values of a query that are numbers: now, or of the last two minutes."""
        if over_time:
            now = time.time()
            found = self.get("query_range", query=expr, start=str(now - 120), end=str(now), step="5")["result"]
            samples = [value for one in found for _, value in one["values"]]
        else:
            samples = [one["value"][1] for one in self.get("query", query=expr)["result"]]
        return [float(sample) for sample in samples if sample != "NaN"]


def filled(text: str, table: str) -> str:
    """A query as Grafana would send it: its variables filled in, what it does not know left alone."""
    known = {"table": table, "__range": "1h", "__interval": "15m"}
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: known.get(m[1] or m[2], m[0]), text)


@dataclass(frozen=True)
class Question:
    """A query of a panel, for a table."""

    uid: str
    panel: Panel
    query: Query
    table: str

    def answered(self, prometheus: Prometheus) -> bool:
        over_time = isinstance(self.panel.built, timeseries.Panel)
        return bool(prometheus.numbers(filled(self.query.expr, self.table), over_time=over_time))

    def __str__(self) -> str:
        return f"{self.uid}/{self.panel.title} for {self.table}: {filled(self.query.expr, self.table)}"


def questions(*tables: str) -> list[Question]:
    """Every query of every panel; those of the page of one table for each of these."""
    return [
        Question(page.uid, panel, query, table)
        for page in PAGES.values()
        for table in (tables if page.uid == TABLE else (ANY,))
        for panel in page.panels()
        for query in panel.queries
    ]
