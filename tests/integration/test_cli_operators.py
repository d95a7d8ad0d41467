"""What a runbook of lag and performance asks of `bin/offload`, against real servers; no Airflow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import psycopg
import pytest

from include.offload.health import CHECKS, State, check_health
from include.offload.ledger.sessions import blockers
from include.offload.ledger.store import Ledger
from include.offload.settings import ROOT, load
from include.offload.source.client import parse_uri
from local import ports, secrets
from local.paths import home
from local.runbooks.slow_road import SlowRoad
from tests.support.airflow_driver import poll
from tests.support.fixtures import SESSION
from tests.support.stack import Servers
from tests.support.tables import Table, finish

pytestmark = pytest.mark.timeout(300)
LOCK = "SELECT 1 FROM offload.pipeline FOR UPDATE"
SLOWNESS_S = 1.5


@pytest.fixture
def table(data_stack: Servers) -> Iterator[Table]:
    made = Table(data_stack, f"operators_{SESSION}")
    yield made
    finish(made)


@pytest.fixture
def ledger(data_stack: Servers) -> Iterator[Ledger]:
    with closing(Ledger(load().ledger())) as opened:
        yield opened


def offload(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "bin" / "offload"), *words],
        # wide enough for a table and a sentence in one line
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def waiting(ledger: Ledger) -> bool:
    return bool(blockers(ledger))


def test_a_forgotten_transaction_is_named_and_ended(ledger: Ledger) -> None:
    assert "no session holds the ledger up" in offload("ledger", "sessions").stdout
    uri = load().ledger()
    # the lock is let go first also when an assert fails: `late` can not be closed while it waits
    with psycopg.connect(uri) as late, psycopg.connect(uri, application_name="somebody's client") as forgotten:
        forgotten.execute(LOCK)
        waits = Thread(target=late.execute, args=(LOCK,), daemon=True)
        waits.start()
        poll(lambda: waiting(ledger), 20, "nobody waits for the lock", every_s=0.1)

        said = offload("ledger", "sessions")
        assert said.returncode == 0, said.stderr
        shape = LOCK.replace("1", "?")
        for word in ("somebody's client", "idle in transaction", shape, str(forgotten.info.backend_pid)):
            assert word in said.stdout
        # without a yes, and with nobody to give one, nothing is ended
        assert offload("ledger", "sessions", "--end", "--idle", "0").returncode == 1
        # nor one that was busy a moment ago
        fresh = offload("ledger", "sessions", "--end", "--yes", "--idle", "600")
        assert (fresh.returncode, "busy a moment ago" in fresh.stderr) == (1, True)
        assert waits.is_alive()

        done = offload("ledger", "sessions", "--end", "--yes", "--idle", "0")
        assert (done.returncode, "is ended" in done.stderr) == (0, True), done.stdout + done.stderr
        waits.join(20)
        assert not waits.is_alive()
        with pytest.raises(psycopg.OperationalError):
            forgotten.execute("SELECT 1")
    assert not waiting(ledger)


def test_a_session_of_another_user_is_left_to_its_owner(ledger: Ledger) -> None:
    theirs = secrets.read(home(), "postgres_uri").rpartition("/")[0] + "/offload"
    uri = load().ledger()
    with psycopg.connect(uri) as late, psycopg.connect(theirs) as owner:
        owner.execute(LOCK)
        waits = Thread(target=late.execute, args=(LOCK,), daemon=True)
        waits.start()
        poll(lambda: waiting(ledger), 20, "nobody waits for the lock", every_s=0.1)
        done = offload("ledger", "sessions", "--end", "--yes", "--idle", "0")
        assert done.returncode == 1
        assert "its owner ends it" in done.stderr
        assert waits.is_alive()
        owner.rollback()
        waits.join(20)
        assert not waits.is_alive()


def test_a_backlog_beyond_the_bound_is_said_until_it_is_shipped(table: Table) -> None:
    table.create().insert(300).write_spec(more="plan: {rows: 200}")
    note = "the backlog is larger than one run may ship (plan.rows is 200)"
    planned = json.loads(offload("plan", table.identity, "--json").stdout)
    assert any(note in line for line in planned["notes"]), planned["notes"]
    assert planned["rows"] <= 200
    assert note in " ".join(offload("plan", table.identity, "--no-sql").stdout.split())
    offload("run", table.identity)
    assert note not in str(json.loads(offload("plan", table.identity, "--json").stdout)["notes"])
    offload("run", table.identity)
    table.whole()


def test_a_clickhouse_that_answers_late_warns(data_stack: Servers) -> None:
    login = parse_uri(load().clickhouse_uris()[0])
    (check,) = (one for one in CHECKS if one.names == ("ClickHouse",))
    (line,) = check_health(load(), (check,)).lines
    assert line.state is State.OK, line
    road = SlowRoad(ports.port("CLICKHOUSE"), SLOWNESS_S)
    try:
        uri = f"http://{login.user}:{login.password}@{ports.HOST}:{road.port}/"
        (line,) = check_health(load(clickhouse_uri=uri), (check,)).lines
    finally:
        road.close()
    assert line.state is State.WARN, line
    assert line.text.startswith("answers slowly: ")
    assert (line.runbook or "").endswith("iceberg-offload-performance.md#slow-clickhouse-queries")
