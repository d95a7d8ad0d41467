"""The bench's arithmetic, its page, and its meter on real processes."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from bench import page, report
from bench.goals import goals
from bench.meter import ContenderFailedError, Finished, descendants, measure
from bench.results import Missing, Results, Run, Series, Spread, growth, ratio, speed_up
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
        goals=goals((OURS, JDBC, SMALL)),
    )


def test_a_speed_up_compares_neighbours_in_time() -> None:
    assert speed_up(OURS, JDBC) == Spread(2.0, 3.0, 4.0)


def test_a_ratio_pairs_rounds_whatever_their_order() -> None:
    turned = series("x", 4_000_000, *reversed(JDBC.runs))
    assert ratio(OURS, turned, lambda r: r.copy_s) == speed_up(OURS, JDBC)


def test_a_ratio_is_per_row_where_a_contender_moves_fewer() -> None:
    slow = series("spark-jdbc-2", 1_000_000, run(1, 4.0), run(2, 4.0), run(3, 5.0))
    assert speed_up(OURS, slow) == Spread(2.0, 4.0, 4.0)


def test_growth_is_of_median_peaks() -> None:
    assert growth(SMALL, OURS) == pytest.approx(500 / 440)


def test_a_goal_is_met_at_its_limit_be_it_a_floor_or_a_ceiling() -> None:
    speed, memory = goals((OURS, JDBC, SMALL))
    assert (speed.value, speed.limit, speed.met) == (3.0, 5.0, False)
    assert speed.model_copy(update={"value": 5.0}).met
    assert not speed.model_copy(update={"value": 4.99}).met
    assert (memory.value, memory.met) == (1.14, False)
    assert memory.model_copy(update={"value": 1.1}).met
    assert not memory.model_copy(update={"value": 1.11}).met


def test_every_goal_of_the_bulk_load_is_looked_at() -> None:
    others = [series(name, 4_000_000, run(1, 16.0, server_cpu_s=8.0)) for name in (
        "clickhouse-insert", "pyiceberg", "dlt", "spark-jdbc-2", "limit")]  # fmt: skip
    one = series("offload", 4_000_000, run(1, 4.0))
    silver = [s.model_copy(update={"table": "silver_trades"}) for s in (one, *others)]
    found = goals((one, *others, series("offload", 500_000, run(1, 1.0)), *silver))
    assert [(goal.limit, goal.at_least, goal.value) for goal in found] == [
        *((floor, True, 4.0) for floor in (1.25, 1.5, 2.5, 5.0, 0.43)),
        (0.4, False, 0.25),
        (0.7, False, 1.0),
        (1.0, True, 2.33),
        (1.1, False, 1.0),
        (0, False, 0),
    ]


def test_contenders_that_change_places_on_silver_are_counted() -> None:
    def table(name: str, ours: float, theirs: float) -> list[Series]:
        both = (series("offload", 4_000_000, run(1, ours)), series("dlt", 4_000_000, run(1, theirs)))
        return [s.model_copy(update={"table": name}) for s in both]

    assert goals([*table("bronze_trades", 4.0, 8.0), *table("silver_trades", 8.0, 4.0)])[-1].value == 1
    assert goals([*table("bronze_trades", 4.0, 8.0), *table("silver_trades", 4.0, 8.0)])[-1].value == 0


def test_the_page_says_a_missed_goal_plainly() -> None:
    assert "**missed**" in page.page(results())
    assert report.goal_line(results().goals[0]).startswith("missed: ")
    fast = JDBC.model_copy(update={"runs": tuple(run(n, 60.0) for n in (1, 2, 3))})
    assert "**missed**" not in page.page(results().model_copy(update={"goals": goals((OURS, fast))}))


def test_the_page_says_what_is_wrong_and_who_is_missing() -> None:
    wrong = JDBC.model_copy(update={"runs": (run(1, 6.0).model_copy(update={"wrong": ("0 rows",)}), *JDBC.runs[1:])})
    away = Missing(name="sling", title="Sling", table="bronze_trades", why="no binary", failed=False)
    text = page.page(results().model_copy(update={"series": (OURS, wrong), "missing": (away,)}))
    assert "- the spark-jdbc-2, bronze_trades: 0 rows." in text
    assert "- Sling, bronze_trades: no binary" in text


def test_results_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(results().model_dump_json())
    assert report.read(path) == results()


def test_the_page_is_the_one_that_the_recorded_figures_give() -> None:
    # without recorded figures there is no page to believe
    recorded = page.page(report.read()) if report.RESULTS.exists() else None
    assert (report.PAGE.read_text() if report.PAGE.exists() else None) == recorded


def test_the_plots_were_drawn_from_the_recorded_figures() -> None:
    digest = hashlib.sha256(report.RESULTS.read_bytes()).hexdigest().encode()
    for name in page.PLOTS:
        for suffix in (".svg", ".png"):
            assert digest in (report.IMAGES / f"{name}{suffix}").read_bytes(), f"{name}{suffix}: make bench draws it"


def measured(program: str, timeout_s: float = 30.0) -> Finished:
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


def test_cpu_of_a_child_that_its_parent_ignores_is_counted_once() -> None:
    # as PySpark's daemon does with its workers
    program = (
        "import os, signal, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 1.0: pass\n"
        "    os._exit(0)\n"
        "try: os.wait()\n"
        "except ChildProcessError: pass\n"
    )
    finished = measured(program)
    assert 0.8 <= finished.usage.cpu_s <= 1.6


def test_cpu_of_an_ignored_child_that_outlives_its_parent_is_counted_once() -> None:
    program = (
        "import os, signal, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    while time.process_time() < 1.0: pass\n"
        "    os._exit(0)\n"
        "time.sleep(0.5)\n"
    )
    finished = measured(program)
    assert 1.0 <= finished.usage.cpu_s <= 1.6


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
    assert summable(table.schema()) == {"at": "timestamptz", "price": "decimal(18, 8)", "part": "int"}
