"""The registry of metrics, the names on the wire, and the mapping file that repeats the registry."""

import dataclasses
import logging
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from include.offload import metrics
from include.offload.cli import app
from include.offload.errors import REGISTRY as ERRORS
from include.offload.metrics import DURATION_BUCKETS, MAX_NAME, REGISTRY, Kind, Metrics, stat_name
from include.offload.model import Action, Outcome, Plan, PlannedWindow, WindowState
from include.offload.settings import Settings
from include.offload.spec.interval import interval_s
from include.offload.spec.model import TableSpec
from include.orchestration import bundle
from monitoring.records import REMEMBERED

MAPPING = Path(__file__).resolve().parents[2] / "monitoring" / "statsd-mapping.yaml"

SEEDS = {
    "offload_rows_total",
    "offload_cycles_total",
    "offload_errors_total",
    "offload_duration_seconds",
    "offload_cycle_duration_seconds",
    "offload_rows_per_second",
    "offload_last_success_timestamp",
    "offload_last_failure_timestamp",
    "watermark_timestamp_seconds",
    "offload_tables_configured",
    "offload_info",
}


@pytest.fixture
def wire() -> Iterator[tuple[Metrics, socket.socket]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2)
        emitter = Metrics(Settings(statsd_port=receiver.getsockname()[1]))
        yield emitter, receiver
        emitter.close()


def read(receiver: socket.socket) -> list[str]:
    return receiver.recv(65536).decode().split("\n")


def mapping() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(MAPPING)
    return loaded


def test_the_names_of_the_seeds_are_kept() -> None:
    assert set(REGISTRY) >= SEEDS
    assert all("table" in REGISTRY[n].labels for n in SEEDS - {"offload_tables_configured", "offload_info"})


@pytest.mark.parametrize("metric", REGISTRY.values(), ids=list(REGISTRY))
def test_a_counter_ends_in_total_and_says_how_it_starts(metric: metrics.Metric) -> None:
    assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
    assert bool(metric.zero) == (metric.kind is Kind.COUNTER)
    for labels in metric.zero:
        assert set(labels) == set(metric.labels) - {"table"}


@pytest.mark.parametrize("metric", REGISTRY.values(), ids=list(REGISTRY))
def test_the_mapping_repeats_the_registry(metric: metrics.Metric) -> None:
    (rule,) = [m for m in mapping()["mappings"] if m["match"] == metric.name]
    assert rule == {
        "match": metric.name,
        "match_metric_type": "observer" if metric.kind is Kind.TIMING else metric.kind.value,
        "name": metric.name,
        "help": f"{metric.meaning} [{metric.unit}]",
    }


def test_the_mapping_holds_no_metric_that_nobody_sends_and_ends_by_dropping_the_rest() -> None:
    rules = mapping()["mappings"]
    assert {r["name"] for r in rules[:-1] if not r["match"].startswith("airflow.")} == set(REGISTRY)
    assert rules[-1] == {"match": ".", "match_type": "regex", "action": "drop", "name": "dropped"}
    assert tuple(mapping()["defaults"]["histogram_options"]["buckets"]) == DURATION_BUCKETS


def test_tags_follow_the_name(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.count("offload_rows_total", 12, table="k2.silver_trades")
    assert read(receiver) == ["offload_rows_total,table=k2.silver_trades:12|c"]


def test_a_duration_travels_in_milliseconds(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.timing("offload_duration_seconds", 1.5, table="k2.a")
    assert read(receiver) == ["offload_duration_seconds,table=k2.a:1500.000000|ms"]


def test_a_negative_gauge_is_set_and_not_subtracted(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.gauge("watermark_timestamp_seconds", -5.0, table="k2.a")
    assert read(receiver) == [
        "watermark_timestamp_seconds,table=k2.a:0|g",
        "watermark_timestamp_seconds,table=k2.a:-5.0|g",
    ]


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        ("k2.a", "k2.a"),
        ("a b:c|d@e#f,g=h", "a_b_c_d_e_f_g_h"),
        ("größe", "gr__e"),
        ("two\nlines", "two_lines"),
        ("", "_"),
    ],
)
def test_what_statsd_reads_as_syntax_never_reaches_the_wire(value: str, safe: str) -> None:
    assert stat_name(REGISTRY["offload_rows_total"], {"table": value}) == f"offload_rows_total,table={safe}"


def test_a_long_name_is_cut_and_stays_unique() -> None:
    metric = REGISTRY["offload_windows_total"]
    one, two = (stat_name(metric, {"table": "k" * 300 + end, "action": "append"}) for end in "ab")
    assert len(one) == len(two) == MAX_NAME
    assert one != two
    assert one.endswith(",action=append")


def test_every_counter_of_a_table_starts_at_zero(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.declare(["k2.a", "k2.b"], configured=2)
    lines: set[str] = set()
    while "offload_maintenance_runs_total,table=k2.b,status=failure:0|c" not in lines:
        lines |= set(read(receiver))
    want = {f"offload_info,version={metrics.VERSION}:1|g", "offload_tables_configured:2|g"}
    want |= {f"offload_errors_by_id_total,error={id}:0|c" for id in (*ERRORS, "unknown")}
    for table in ("k2.a", "k2.b"):
        want |= {f"offload_{n}_total,table={table}:0|c" for n in ("rows", "bytes", "files", "late_rows")}
        want |= {f"offload_windows_total,table={table},action={a}:0|c" for a in ("append", "replace")}
        want |= {f"offload_cycles_total,table={table},status={s}:0|c" for s in ("success", "failure")}
        want |= {f"offload_maintenance_runs_total,table={table},status={s}:0|c" for s in ("success", "failure")}
        want |= {f"offload_verify_windows_total,table={table},result={r}:0|c" for r in ("equal", "differs")}
        want |= {f"offload_errors_total,table={table},step={s}:0|c" for s in metrics.STEPS}
    assert lines == want


def plan_of(windows: tuple[PlannedWindow, ...]) -> Plan:
    """A plan of which only table and windows matter here."""
    spare = dict.fromkeys((f.name for f in dataclasses.fields(Plan)), None) | {"table": "k2.a", "windows": windows}
    return Plan(**spare)  # type: ignore[arg-type]


def test_a_landed_plan_tells_late_rows_from_new_ones(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    plan = plan_of((PlannedWindow(1, Action.REPLACE, 7, 0, ledger_rows=4), PlannedWindow(2, Action.APPEND, 5, 0)))
    shipped = (WindowState(1, 7, 0), WindowState(2, 5, 0))
    emitter.landed(plan, Outcome(uuid.uuid4(), "committed", 1, 12, 2, 99, shipped, (), 0, 1.0))
    assert [line for _ in range(4) for line in read(receiver)] == [
        "offload_rows_total,table=k2.a:12|c",
        "offload_windows_total,table=k2.a,action=append:1|c",
        "offload_windows_total,table=k2.a,action=replace:1|c",
        "offload_late_rows_total,table=k2.a:3|c",
    ]


def test_a_repeated_end_counts_a_cycle_and_no_rows(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.watermark("k2.a", watermark_us=1_500_000)
    seen = [line for _ in range(7) for line in read(receiver)]
    assert "watermark_timestamp_seconds,table=k2.a:1.5|g" in seen
    assert "offload_cycles_total,table=k2.a,status=success:1|c" in seen
    assert not any(line.startswith("offload_rows_total") for line in seen)


@pytest.mark.parametrize(
    ("expiry_us", "sent"),
    [
        (
            90_000_000,
            (
                "offload_expiry_timestamp_seconds,table=k2.a:90.0|g",
                "offload_ttl_headroom_seconds,table=k2.a:30.0|g",
            ),
        ),
        (
            None,
            (
                "offload_expiry_timestamp_seconds,table=k2.a:0.0|g",
                f"offload_ttl_headroom_seconds,table=k2.a:{metrics.NO_EXPIRY_S}|g",
            ),
        ),
    ],
)
def test_data_at_risk_is_sent_as_an_instant_and_as_what_is_left(
    wire: tuple[Metrics, socket.socket], expiry_us: int | None, sent: tuple[str, str]
) -> None:
    emitter, receiver = wire
    emitter.expiry("k2.a", expiry_us, now_us=60_000_000)
    assert tuple(line for _ in range(2) for line in read(receiver)) == sent


def test_rows_that_no_run_ships_are_sent(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.check(
        "k2.a", settle_us=0, pending_windows=0, pending_rows=0,
        late_beyond_horizon=3, rows_before_start=4, rows_in_future=5, late_unknown=6,
    )  # fmt: skip
    seen = [line for _ in range(10) for line in read(receiver)]
    assert "offload_late_rows_beyond_horizon,table=k2.a:3|g" in seen
    assert "offload_rows_before_start,table=k2.a:4|g" in seen
    assert "offload_rows_in_future,table=k2.a:5|g" in seen
    assert "offload_late_unknown_windows,table=k2.a:6|g" in seen


def test_a_guard_that_clickhouse_does_not_obey_holds_nothing(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.guarded("k2.a", stopped=False, refused=True)
    emitter.guarded("k2.a", stopped=True)
    assert [line for _ in range(4) for line in read(receiver)] == [
        "offload_ttl_guard_stopped,table=k2.a:0|g",
        "offload_ttl_guard_refused,table=k2.a:1|g",
        "offload_ttl_guard_stopped,table=k2.a:1|g",
        "offload_ttl_guard_refused,table=k2.a:0|g",
    ]


def test_an_unknown_error_is_counted_as_unknown(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.failure("k2.a", "offload", None, final=True)
    seen = [line for _ in range(4) for line in read(receiver)]
    assert "offload_errors_by_id_total,error=unknown:1|c" in seen
    assert "offload_cycles_total,table=k2.a,status=failure:1|c" in seen


def test_without_a_port_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        emitter = Metrics(Settings(statsd_port=None))
        emitter.count("offload_rows_total", table="k2.a")
        emitter.declare(["k2.a"])
    assert [r.message for r in caplog.records] == ["no metrics: OFFLOAD_STATSD_PORT is not set"]


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.gauge("offload_rows_total", 1, table="k2.a"),
        lambda m: m.count("offload_rows_total", 1),
        lambda m: m.count("offload_rows_total", -1, table="k2.a"),
    ],
)
def test_a_call_that_the_registry_does_not_know_is_a_mistake_in_the_code(call: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        call(Metrics(Settings(statsd_port=None)))


def spec(identity: str, **alerts: str) -> TableSpec:
    return TableSpec.model_validate({"identity": identity, "cursor": "ts", "alerts": alerts})


def test_a_table_is_announced_with_what_its_spec_fixes(wire: tuple[Metrics, socket.socket]) -> None:
    emitter, receiver = wire
    emitter.announce([spec("k2.a", lag="1h"), spec("k2.b")], configured=2)
    sent: set[str] = set()
    while "offload_ttl_headroom_objective_seconds,table=k2.b:0|g" not in sent:
        sent |= set(read(receiver))
    assert sent >= {
        "offload_tables_configured:2|g",
        "offload_cycles_total,table=k2.b,status=success:0|c",
        "offload_settle_seconds,table=k2.a:120.0|g",
        "offload_window_seconds,table=k2.a:300.0|g",
        "offload_interval_seconds,table=k2.a:900.0|g",
        "offload_lag_objective_seconds,table=k2.a:3600|g",
        "offload_lag_objective_seconds,table=k2.b:0|g",
    }


def test_all_that_keeps_an_alert_on_a_retired_table_firing_is_said_to_be_nothing(
    wire: tuple[Metrics, socket.socket],
) -> None:
    emitter, receiver = wire
    emitter.retire("k2.gone")
    sent: set[str] = set()
    while "offload_maintenance_last_success_timestamp,table=k2.gone:0|g" not in sent:
        sent |= set(read(receiver))
    fixed = {m for m in REMEMBERED if m.endswith(("settle_seconds", "window_seconds", "interval_seconds"))}
    fixed |= {m for m in REMEMBERED if m.endswith("_objective_seconds")}
    # a schedule of 0 wants no maintenance, and is not overdue
    fixed -= {"offload_maintenance_interval_seconds"}
    assert sent == {f"{m},table=k2.gone:0|g" for m in set(REMEMBERED) - fixed}


def test_only_a_table_without_a_spec_is_retired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k2").mkdir()
    (tmp_path / "k2" / "there.yaml").write_text("cursor: [broken")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        monkeypatch.setenv("OFFLOAD_TABLES", str(tmp_path))
        monkeypatch.setenv("OFFLOAD_STATSD_PORT", str(receiver.getsockname()[1]))
        refused = CliRunner().invoke(app, ["metrics", "--retire", "k2.there"])
        assert refused.exit_code == 2
        done = CliRunner().invoke(app, ["metrics", "--retire", "k2.gone"])
        assert done.exit_code == 0, done.output
        assert read(receiver)[0] == "watermark_timestamp_seconds,table=k2.gone:0|g"


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        ("*/15 * * * *", 0.25),
        ("* * * * *", 1 / 60),
        ("0,50 * * * *", 50 / 60),
        ("0 * * * *", 1),
        ("0 6,18,20 * * *", 12),
        ("30 2 * * *", 24),
        ("*/15 8-18 * * 1-5", 48 + 13.25),
        ("0 3 1 * *", 31 * 24),
        ("0 0 31 2 *", 0),
    ],
)
def test_the_interval_of_a_schedule_is_its_longest_pause(schedule: str, hours: float) -> None:
    assert interval_s(schedule) == pytest.approx(hours * 3600)


def test_a_run_announces_its_neighbours_so_that_a_table_that_never_runs_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specs = [spec(f"k2.t{n:04}") for n in range(1000)]
    monkeypatch.setattr(bundle, "_parsed", tuple(specs))
    chosen, configured = bundle.to_announce(specs[995])
    assert [s.identity for s in chosen] == [f"k2.t{n % 1000:04}" for n in range(995, 1016)]
    assert configured == 1000
    monkeypatch.setattr(bundle, "_parsed", tuple(specs[:10]))
    assert len(bundle.to_announce(specs[4])[0]) == 10
    assert bundle.to_announce(spec("k2.other")) == ((spec("k2.other"),), None)


def test_series_are_counted_as_prometheus_has_them() -> None:
    assert metrics.series(REGISTRY["offload_info"], 1000) == 1
    assert metrics.series(REGISTRY["offload_errors_total"], 1000) == 3 * 1000
    assert metrics.series(REGISTRY["offload_duration_seconds"], 10) == (11 + 1 + 2) * 10
