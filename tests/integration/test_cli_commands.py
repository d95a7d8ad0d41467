"""`bin/offload` against the running stack: every command that asks or changes something, without Airflow."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from include.offload.steps import RunRequest, check_extent, ship, update_watermark
from local import ports
from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import poll
from tests.support.domain import inline
from tests.support.fixtures import SESSION
from tests.support.stack import Servers, start
from tests.support.tables import MakeTable, Table, finish

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def servers(data_stack: Servers) -> Servers:
    """No Airflow: the command line does without."""
    start(["statsd-exporter"])
    return data_stack


@pytest.fixture
def make_table(servers: Servers) -> Iterator[MakeTable]:
    """Makes tables by name; what still has a spec when the test ends is read by both verifiers."""
    made: list[Table] = []

    def make(name: str) -> Table:
        made.append(Table(servers, f"{name}_{SESSION}"))
        return made[-1]

    yield make
    for table in made:
        finish(table)


def offload(*args: str, code: int = 0) -> Any:
    """Runs a command with `--json`; what it printed. Fails on another exit code, with everything it said."""
    done = subprocess.run(
        [str(ROOT / "bin" / "offload"), *args, "--json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def scrape() -> dict[str, float]:
    """The exporter's page: series to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.port('STATSD_METRICS')}/metrics", timeout=5) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return {k: float(v) for k, _, v in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def test_a_table_from_plan_to_proof(make_table: MakeTable) -> None:
    """plan, run, status, verify; then a run that finds nothing, late rows, and a run that replaces their windows."""
    table = make_table("cli_path").create().insert(2_000).write_spec()
    (seen,) = offload("status", table.identity)["tables"]
    assert (seen["state"], seen["clickhouse_rows"], seen["iceberg_rows"]) == ("new", 2_000, 0)

    planned = offload("plan", table.identity)
    assert planned["rows"] == 2_000
    assert sum(s["rows"] for s in planned["slices"]) == 2_000
    assert all(s["sql"].startswith("SELECT ") for s in planned["slices"])
    assert table.ctx.ledger.head(table.identity).plan_id is None  # type: ignore[union-attr]

    ran = offload("run", table.identity)
    assert (ran["status"], ran["rows"], ran["generation"]) == ("committed", 2_000, 1)
    (seen,) = offload("status", table.identity)["tables"]
    assert (seen["state"], seen["iceberg_rows"], seen["unshipped_rows"]) == ("ok", 2_000, 0)
    assert seen["snapshot_id"] == ran["snapshot_id"]
    assert seen["lag_seconds"] == 0

    checked = offload("verify", table.identity)
    assert checked["ok"]
    assert checked["source_rows"] == checked["lake_rows"] == checked["pyiceberg_rows"] == 2_000

    assert offload("run", table.identity)["status"] == "nothing"
    table.insert(100, hours_ago=5)
    replaced = offload("plan", table.identity)
    assert {w["action"] for w in replaced["windows"]} == {"replace"}
    assert offload("run", table.identity)["status"] == "committed"
    table.whole()

    page = scrape()
    label = f'{{table="{table.identity}"}}'
    assert page[f"offload_late_rows_total{label}"] == 100
    assert page[f"watermark_timestamp_seconds{label}"] == table.watermark_us() / 1e6
    assert page[f"offload_duration_seconds_count{label}"] == 2
    assert page[f'offload_cycles_total{{status="success",table="{table.identity}"}}'] == 3


def test_a_range_is_shipped_alone(make_table: MakeTable) -> None:
    table = make_table("cli_range").create().insert(1_000).write_spec()
    lo = offload("plan", table.identity)["windows"][0]["window"] * 300
    offload("run", table.identity)
    span = ("--from", _iso(lo), "--to", _iso(lo + 600))
    assert len(offload("plan", table.identity, *span, "--force")["windows"]) == 2
    assert offload("run", table.identity, *span)["status"] == "nothing"
    assert offload("run", table.identity, *span, "--force")["windows"] == 2
    assert offload("verify", table.identity, *span)["windows"] == 2
    table.whole()


def test_a_refusal_names_its_id_and_shows_in_status(make_table: MakeTable) -> None:
    table = make_table("cli_refusal").create().insert(100).write_spec()
    offload("run", table.identity)
    table.command("DROP TABLE {name} SYNC")
    said = offload("run", table.identity, code=1)["error"]
    assert (said["id"], said["table"]) == ("OFL-203", table.identity)
    seen = offload("status", table.identity, code=1)
    assert seen["tables"][0]["state"] == "failed"
    assert seen["tables"][0]["failures"] == 1
    assert "OFL-203" in seen["tables"][0]["last_error"]
    assert seen["tables"][0]["clickhouse_rows"] is None
    assert scrape()[f'offload_errors_total{{step="check_extent",table="{table.identity}"}}'] == 1
    table.spec_file.unlink()


def test_a_run_that_leaves_windows_pending_says_which_and_ends_with_1(make_table: MakeTable) -> None:
    """Rows of a window that is to be replaced are deleted before Spark has started; the lake keeps what it has."""
    table = make_table("cli_pending").create().insert(100).write_spec()
    plan = check_extent(table.ctx, table.spec, RunRequest("the first")).plan
    ship(table.ctx, plan.plan_id, inline)
    update_watermark(table.ctx, table.spec, plan.plan_id)
    table.command("INSERT INTO {name} SELECT * REPLACE ('late' AS note) FROM {name} WHERE seq IN (0, 40)")
    words = [str(ROOT / "bin" / "offload"), "run", table.identity]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        poll(lambda: planned(table), 60, "nothing was planned", every_s=0.05)
        table.command("ALTER TABLE {name} DELETE WHERE seq < 10 SETTINGS mutations_sync = 2")
        said, log = running.communicate(timeout=200)
    assert "1 windows changed while they were read and are not shipped" in " ".join(said.split()), said + log
    assert running.returncode == 1, said + log
    assert table.lake().rows == 100
    assert table.first_us is not None
    span = ("--from", _iso(table.first_us // 1_000_000), "--to", _iso(table.first_us // 1_000_000 + 300), "--dry-run")
    (refused,) = offload("reconcile", table.identity, *span, "--force", code=1)["refused"]
    assert (refused["reason"], refused["clickhouse_rows"], refused["iceberg_rows"]) == ("shrunk", 34, 43)
    assert offload("reconcile", table.identity, *span, "--follow-deletes")["rows"] == 34
    table.spec_file.unlink()


def planned(table: Table) -> bool:
    """Whether a plan that replaces something is frozen and open."""
    with table.ctx.ledger.begin() as c:
        found = c.execute(
            text(
                "SELECT count(*) FROM offload.plans JOIN offload.tables USING (table_id) WHERE identity = :identity"
                " AND status = 'open' AND windows > 0"
            ),
            {"identity": table.identity},
        ).scalar_one()
    return bool(found)


@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
def test_a_killed_job_is_made_good_by_the_next_run(servers: Servers, make_table: MakeTable, point: str) -> None:
    table = make_table(f"cli_{point.replace('-', '_')}").create().insert(500).write_spec()
    (servers.crashes / point).touch()
    said = offload("run", table.identity, code=1)["error"]
    assert said["id"] == "OFL-504"
    assert not (servers.crashes / point).exists()
    offload("run", table.identity)
    assert offload("verify", table.identity)["ok"]
    table.whole()


def test_the_ledger_is_rebuilt_from_the_lake(make_table: MakeTable) -> None:
    table = make_table("cli_rebuild").create().insert(700).write_spec()
    offload("run", table.identity)
    before = table.watermark_us()
    rebuilt = offload("ledger", "rebuild", table.identity)
    assert rebuilt["rows"] == 700
    assert rebuilt["generation"] > 1_000
    assert table.watermark_us() <= before
    table.insert(50, hours_ago=4)
    offload("run", table.identity)
    table.whole()


def test_all_ledgers_are_rebuilt_and_one_that_is_refused_holds_up_no_other(make_table: MakeTable) -> None:
    good = make_table("cli_rebuild_all").create().insert(70).write_spec()
    never = make_table("cli_rebuild_never").create().insert(70).write_spec()
    gone = make_table("cli_rebuild_gone").create().insert(70).write_spec()
    for table in (good, gone):
        offload("run", table.identity)
    gone.command(f"DROP TABLE {gone.identity} SYNC")
    done = offload("ledger", "rebuild", "--all", code=1)
    assert {one["table"]: one["rows"] for one in done["tables"]} == {good.identity: 70}
    assert never.identity in done["without_iceberg_table"]
    assert not {good.identity, gone.identity} & set(done["without_iceberg_table"])
    assert ["OFL-203" in error and gone.identity in error for error in done["errors"]] == [True]
    for table in (never, gone):
        table.spec_file.unlink()
    good.insert(5, hours_ago=4)
    offload("run", good.identity)
    good.whole()


def test_a_drafted_spec_is_good_at_once(servers: Servers, make_table: MakeTable) -> None:
    table = make_table("cli_draft").create().insert(300)
    drafted = offload("spec", "new", table.identity)
    assert not table.spec_file.exists()
    assert drafted["yaml"].count("cursor: ts") == 1
    assert offload("spec", "new", table.identity, "--write")["path"] == str(table.spec_file)
    assert offload("spec", "new", table.identity, "--write", code=1)["error"]["id"] == "OFL-101"
    checked = offload("spec", "check", table.identity, "--source")
    assert (checked["tables"], checked["errors"], checked["source_errors"]) == ([table.identity], [], [])


def test_spec_check_holds_the_spec_against_the_source(make_table: MakeTable) -> None:
    table = make_table("cli_source").create().write_spec(more="columns:\n  include: [ts, seq, symbol, nowhere]\n")
    found = offload("spec", "check", table.identity, "--source", code=1)
    assert [e["id"] for e in found["source_errors"]] == ["OFL-204"]
    assert "nowhere" in found["source_errors"][0]["cause"]
    table.spec_file.unlink()


def test_the_stack_says_how_it_is(servers: Servers) -> None:
    found = {s["service"]: s for s in offload("stack", "status", "postgres", "clickhouse")}
    assert found.keys() == {"postgres", "clickhouse"}
    assert all(s["answers"] for s in found.values())


def test_the_ledger_upgrade_repeats_without_harm(servers: Servers) -> None:
    assert offload("ledger", "upgrade") == offload("ledger", "upgrade")


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
