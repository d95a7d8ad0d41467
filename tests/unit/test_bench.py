"""The bench's arithmetic, its page, and its meter on real processes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bench import report
from bench.meter import ContenderFailedError, descendants, measure
from bench.results import Results, Run, Series, Spread, goals, growth, ratio, speed_up
from bench.world import free_base, summable
from local import ports

MIB = 2**20


def run(round_: int, copy_s: float, tree_mib: int = 500, **changes: float) -> Run:
    figures = {
        "round": round_,
        "copy_s": copy_s,
        "process_s": copy_s + 5,
        "client_cpu_s": 2 * copy_s,
        "server_cpu_s": 2.0,
        "tree_bytes": tree_mib * MIB,
        "process_bytes": 200 * MIB,
        "files": 3,
        "bytes": 100_000_000,
        "load": 0.5,
    }
    return Run.model_validate(figures | changes)


def series(name: str, rows: int, *runs: Run) -> Series:
    return Series(name=name, title=f"the {name}", rows=rows, runs=runs)


OURS = series("offload", 4_000_000, run(1, 4.0), run(2, 8.0), run(3, 5.0))
JDBC = series("spark-jdbc-2", 4_000_000, run(1, 16.0), run(2, 16.0), run(3, 15.0))
SMALL = series("offload", 1_000_000, run(1, 2.0, 400), run(2, 2.0, 450), run(3, 2.0, 440))


def results() -> Results:
    return Results(
        made="2026-01-31T12:00:00Z",
        commit="abc",
        rows=4_000_000,
        rounds=3,
        machine={"cores": "2"},
        versions={"Spark": "4.1"},
        series=(OURS, JDBC, SMALL),
        goals=goals(OURS, [JDBC], SMALL),
    )


def test_a_speed_up_compares_neighbours_in_time() -> None:
    assert speed_up(OURS, JDBC) == Spread(2.0, 3.0, 4.0)


def test_a_ratio_pairs_rounds_whatever_their_order() -> None:
    turned = series("x", 4_000_000, *reversed(JDBC.runs))
    assert ratio(OURS, turned, lambda r: r.copy_s) == speed_up(OURS, JDBC)


def test_growth_is_of_median_peaks_in_percent() -> None:
    assert growth(SMALL, OURS) == pytest.approx(100 * (500 / 440 - 1))


def test_a_goal_is_met_at_its_limit_when_it_is_a_floor_and_below_it_when_it_is_a_ceiling() -> None:
    speed, memory = goals(OURS, [JDBC], SMALL)
    assert speed.value == 3.0
    assert speed.met
    assert memory.met
    assert not speed.model_copy(update={"value": 2.99}).met
    assert not memory.model_copy(update={"value": 20.0}).met


def test_the_page_says_a_missed_goal_plainly() -> None:
    slow = JDBC.model_copy(update={"runs": tuple(run(n, 6.0) for n in (1, 2, 3))})
    missed = results().model_copy(update={"goals": goals(OURS, [slow], SMALL)})
    assert "**missed**" in report.page(missed)
    assert report.goal_line(missed.goals[0]).startswith("missed: ")
    assert "**missed**" not in report.page(results())


def test_results_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(results().model_dump_json())
    assert report.read(path) == results()


def test_the_page_is_the_one_that_the_recorded_figures_give() -> None:
    # without recorded figures there is no page to believe
    recorded = report.page(report.read()) if report.RESULTS.exists() else None
    assert (report.PAGE.read_text() if report.PAGE.exists() else None) == recorded


def measured(program: str, timeout_s: float = 30.0) -> object:
    argv = [sys.executable, "-c", program]
    return measure(argv, os.environ, server_pid=os.getpid(), timeout_s=timeout_s)


def test_cpu_of_an_orphan_is_counted() -> None:
    # the child starts a grandchild that works on after the child has ended
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    finished = measure(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"],
        os.environ,
        server_pid=os.getpid(),
        timeout_s=30.0,
    )
    assert finished.usage.cpu_s >= 0.5


def test_memory_of_a_process_is_seen() -> None:
    finished = measure(
        [
            sys.executable,
            "-c",
            "x = bytearray(150 << 20); x[::4096] = b'x' * len(x[::4096]); import time; time.sleep(1)",
        ],
        os.environ,
        server_pid=os.getpid(),
        timeout_s=30.0,
    )
    assert finished.usage.process_bytes > 150 * MIB
    assert finished.usage.tree_bytes > 150 * MIB


def test_a_failed_contender_says_its_last_words() -> None:
    with pytest.raises(ContenderFailedError, match="code 3") as failure:
        measured("import sys; print('last words', file=sys.stderr); sys.exit(3)")
    assert "last words" in str(failure.value)


def test_nothing_is_left_of_a_contender_that_ran_out_of_time() -> None:
    before = set(descendants(os.getpid()))
    began = time.monotonic()
    with pytest.raises(ContenderFailedError, match="no end after"):
        measured("import time; time.sleep(600)", timeout_s=1.0)
    assert time.monotonic() - began < 30
    assert set(descendants(os.getpid())) <= before


def test_free_base_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLOAD_PORT_BASE", "28100")
    base = free_base()
    assert os.environ["OFFLOAD_PORT_BASE"] == "28100"
    monkeypatch.setenv("OFFLOAD_PORT_BASE", str(base))
    assert all(ports.port(name) < 32_768 for name in ports.OFFSETS)


def test_only_columns_with_a_meaningful_sum_are_summed() -> None:
    from pyiceberg.catalog.memory import InMemoryCatalog
    from pyiceberg.schema import Schema
    from pyiceberg.types import DecimalType, IntegerType, NestedField, StringType, TimestamptzType

    catalog = InMemoryCatalog("test")
    catalog.create_namespace("bench")
    schema = Schema(
        NestedField(1, "at", TimestamptzType()),
        NestedField(2, "name", StringType()),
        NestedField(3, "price", DecimalType(18, 8)),
        NestedField(4, "part", IntegerType()),
    )
    table = catalog.create_table("bench.t", schema)
    assert summable(table) == {"at": "timestamptz", "price": "decimal(18, 8)", "part": "int"}
