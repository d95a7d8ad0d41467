"""The gate of `make bench-quick` sees a ratio that regressed, and a record that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import gate
from bench.results import Results, Run, Series


def series(name: str, copy_s: float, **changes: float) -> Series:
    figures = {
        "round": 1, "copy_s": copy_s, "process_s": copy_s + 5, "client_cpu_s": 2.0, "server_cpu_s": 2.0,
        "tree_bytes": 1, "process_bytes": 1, "files": 3, "bytes": 100, "load": 0.5,
    }  # fmt: skip
    return Series(name=name, title=name, rows=1000, runs=(Run.model_validate(figures | changes),))


def results(*all_series: Series) -> Results:
    return Results(
        made="now", commit="abc", rows=1000, rounds=1, machine={}, versions={}, series=all_series, goals=()
    )  # fmt: skip


RECORDED = results(series("offload", 4.0), series("pyiceberg", 8.0), series("limit", 2.0, bytes=0))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "quick.json"
    gate.record(RECORDED, path)
    return path


def test_the_same_ratios_pass(recorded: Path) -> None:
    code, lines = gate.judge(RECORDED, recorded)
    assert code == 0
    assert all(line.startswith("held: ") for line in lines)
    assert len(lines) == 6


def test_a_slower_machine_passes(recorded: Path) -> None:
    slow = results(series("offload", 40.0, process_s=90.0), series("pyiceberg", 80.0, process_s=130.0),
                   series("limit", 20.0, bytes=0))  # fmt: skip
    assert gate.judge(slow, recorded)[0] == 0


@pytest.mark.parametrize(("copy_s", "code"), [(4.0 / 0.71, 0), (4.0 / 0.69, 1)])
def test_a_copy_that_is_slower_by_more_than_30_percent_fails(recorded: Path, copy_s: float, code: int) -> None:
    slower = results(series("offload", copy_s, process_s=9.0), *RECORDED.series[1:])
    found, lines = gate.judge(slower, recorded)
    assert found == code
    assert ("REGRESSED by more than 30%: rows/s of the copy, against pyiceberg" in "\n".join(lines)) == bool(code)


@pytest.mark.parametrize("figure", ["process_s", "client_cpu_s", "server_cpu_s", "bytes"])
def test_every_other_figure_is_held_too(recorded: Path, figure: str) -> None:
    worse = results(series("offload", 4.0, **{figure: 1000}), *RECORDED.series[1:])
    assert gate.judge(worse, recorded)[0] == 1


def test_a_contender_that_ran_no_more_fails(recorded: Path) -> None:
    code, lines = gate.judge(results(*RECORDED.series[:2]), recorded)
    assert code == 1
    assert "REGRESSED by more than 30%: rows/s of the copy, against limit: no figure (recorded 0.50×)" in lines


def test_a_ratio_that_nobody_recorded_is_said(recorded: Path) -> None:
    code, lines = gate.judge(results(*RECORDED.series, series("dlt", 9.0)), recorded)
    assert code == 0
    assert "not recorded: rows/s of the copy, against dlt: 2.25×" in lines


def test_without_a_record_it_fails_and_says_how_to_make_one(tmp_path: Path) -> None:
    code, lines = gate.judge(RECORDED, tmp_path / "quick.json")
    assert code == 1
    assert lines == ["quick.json is missing: make bench-quick ARGS=--record writes it"]
