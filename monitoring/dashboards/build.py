"""All dashboards, and the JSON that Grafana's provisioning reads."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards.overview import overview
from monitoring.dashboards.parts import Page
from monitoring.dashboards.pipeline import pipeline
from monitoring.dashboards.table import table
from monitoring.values import Values, load

FOLDER = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"


def pages(v: Values) -> tuple[Page, ...]:
    """The dashboards of a profile."""
    return (overview(v), table(v), pipeline(v))


def text(page: Page) -> str:
    """The JSON of one dashboard; the same for the same values."""
    return json.dumps(page.built, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def files() -> dict[Path, str]:
    """Every dashboard file with its text. Grafana shows production's limits."""
    return {FOLDER / f"{page.uid}.json": text(page) for page in pages(load("production"))}
