"""Every error id leads to one heading of a runbook, and no heading is a dead end of the mapping."""

from __future__ import annotations

import re

import pytest

from include.offload import runbooks
from include.offload.errors import REGISTRY
from include.offload.runbooks import FOLDER, OF_ERROR, SCENARIOS, UNKNOWN, anchor, link, path_of
from monitoring import alerts, values

SEEDS_SCENARIOS = {
    "iceberg-offload-failure.md": 5,
    "iceberg-offload-lag.md": 4,
    "iceberg-offload-performance.md": 4,
    "iceberg-offload-watermark-recovery.md": 5,
    "iceberg-scheduler-recovery.md": 5,
}


def test_every_error_id_has_a_heading_and_nothing_else_has() -> None:
    assert set(OF_ERROR) == set(REGISTRY)
    assert set(OF_ERROR.values()) <= set(SCENARIOS)


def test_no_error_stands_under_two_headings() -> None:
    source = re.sub(r"\s+", "", str(runbooks.__loader__.get_source(runbooks.__name__)))  # type: ignore[union-attr]
    named = re.findall(r"\be\.([A-Z_]+)\b", source.split("OF_ERROR:")[1])
    assert len(named) == len(REGISTRY)


def test_all_scenarios_of_the_origin_are_there_and_paths_are_distinct() -> None:
    assert len({s.path for s in SCENARIOS}) == len(SCENARIOS)
    for file, least in SEEDS_SCENARIOS.items():
        assert sum(s.file == file for s in SCENARIOS) >= least, file


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [
        ("ClickHouse connectivity", "clickhouse-connectivity"),
        ("Time-outs", "time-outs"),
        ("Wrong spec, setting or certificate", "wrong-spec-setting-or-certificate"),
        ("IcebergOffloadLagCritical", "icebergoffloadlagcritical"),
    ],
)
def test_anchors_are_those_of_github(heading: str, wanted: str) -> None:
    assert anchor(heading) == wanted


def test_alerts_lead_to_the_same_pages() -> None:
    assert set(alerts.RUNBOOKS.values()) <= {s.file for s in SCENARIOS} | {runbooks.INDEX}
    assert values.load("production").text("runbooks") == FOLDER


def test_links() -> None:
    assert link(path_of("OFL-201")) == f"{FOLDER}/iceberg-offload-failure.md#clickhouse-connectivity"
    assert link(path_of("OFL-501"), "https://ex.org/rb/") == (
        "https://ex.org/rb/iceberg-offload-watermark-recovery.md#postgresql-connection"
    )
    assert path_of(None) == UNKNOWN
    with pytest.raises(KeyError):
        path_of("OFL-999")
