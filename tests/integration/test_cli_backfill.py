"""`bin/offload backfill` over three days of history: bounded plans, its bar, an end at any moment, and going on."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import poll
from tests.support.fixtures import SESSION
from tests.support.stack import Servers, start
from tests.support.tables import MakeTable, Table, finish

pytestmark = pytest.mark.timeout(600)

BIN = str(ROOT / "bin" / "offload")
DAYS = 3
ROWS = 720
"""A row every six minutes, three days long."""
BOUND = "plan: {rows: 250}\n"
"""With windows of an hour, ten rows each: three plans."""


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


def behind(make: MakeTable, name: str) -> Table:
    """Three days that nobody offloaded; they end an hour and more ago, so that all of it is settled."""
    made = make(name).create().insert(ROWS, hours_ago=DAYS * 24 + 2, step_s=360)
    return made.write_spec(window="1h", more=BOUND)


def words(table: Table, *more: str) -> list[str]:
    """A backfill of all that the table holds."""
    first = datetime.fromtimestamp((table.first_us or 0) / 1e6, UTC)
    return [BIN, "backfill", table.identity, "--from", f"{first:%Y-%m-%dT%H:%M:%SZ}", *more]


def ended(table: Table, *more: str, code: int = 0) -> Any:
    """A whole backfill; its report."""
    done = subprocess.run([*words(table, *more), "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def plans(table: Table) -> list[str]:
    """The states of the plans with rows, oldest first."""
    with table.ctx.ledger.begin() as c:
        rows = c.execute(
            text(
                "SELECT p.status FROM offload.plans p JOIN offload.tables t USING (table_id)"
                " WHERE t.identity = :identity AND p.windows > 0 ORDER BY p.created_at"
            ),
            {"identity": table.identity},
        )
        return [str(status) for (status,) in rows]


def in_the_second_plan(table: Table) -> bool:
    """The first plan has landed, the next is on its way."""
    return plans(table) == ["committed", "open"]


def test_three_days_are_shipped_in_bounded_plans_and_a_second_start_ships_nothing(make_table: MakeTable) -> None:
    table = behind(make_table, "bf_whole")
    done = ended(table, "--parallel", "3")
    assert done["rows"] == ROWS
    assert len(done["plans"]) == 3
    assert (done["replaced"], done["left"], done["pending"]) == (0, 0, [])
    with table.ctx.ledger.begin() as c:
        specs = c.execute(
            text(
                "SELECT p.document ->> 'spec_json' FROM offload.plans p JOIN offload.tables t USING (table_id)"
                " WHERE t.identity = :identity"
            ),
            {"identity": table.identity},
        )
        assert {json.loads(s)["slice"]["concurrency"] for (s,) in specs} == {3}
    table.whole()
    before = table.lake()
    again = ended(table)
    assert (again["rows"], again["plans"]) == (0, [])
    assert table.lake() == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_stopped_in_the_middle_it_goes_on_and_is_exact(make_table: MakeTable, how: signal.Signals) -> None:
    """The first plan stays; the second is undone, or lands by itself when only the command line died; no row twice."""
    table = behind(make_table, f"bf_{how.name.lower()}")
    with subprocess.Popen(words(table), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        poll(lambda: in_the_second_plan(table), 240, "no second plan was made", every_s=0.05)
        running.send_signal(how)
        said, log = running.communicate(timeout=60)
    if how is signal.SIGINT:
        assert running.returncode == 130, said + log
        assert "type the same command again to go on" in log
        assert "Traceback" not in log
    else:
        assert running.returncode == -how
    landed = table.lake().rows
    assert 0 < landed < ROWS
    done = ended(table)
    assert done["rows"] <= ROWS - landed, "what landed is not shipped again"
    table.whole()
    seen = table.lake()
    assert ended(table)["rows"] == 0
    assert table.lake() == seen


def test_two_at_once_the_second_is_refused_and_names_the_first(make_table: MakeTable) -> None:
    table = behind(make_table, "bf_two")
    with subprocess.Popen(words(table, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        poll(lambda: plans(table), 120, "nothing was planned", every_s=0.05)
        refused = ended(table, code=1)["error"]
        assert refused["id"] == "OFL-413"
        assert f"process {running.pid} on " in refused["cause"]
        said, log = running.communicate(timeout=240)
    assert running.returncode == 0, said + log
    assert json.loads(said)["rows"] == ROWS
    table.whole()


def test_the_bar_shows_how_far_it_is(make_table: MakeTable) -> None:
    """On a terminal: a percentage that grows to 100, over all plans, and one line a plan."""
    table = behind(make_table, "bf_bar")
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        words(table), stdout=subprocess.PIPE, stderr=secondary, env={**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    ) as running:
        os.close(secondary)
        log = _read(primary)
        running.wait(60)
    assert running.returncode == 0, log
    shares = [int(s) for s in re.findall(r"(\d+)%", log)]
    assert shares[0] == 0
    assert max(shares) >= 95
    assert len(set(shares)) >= 3
    assert log.count("rows so far") >= 3
    table.whole()


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (("--from", "yesterday"), "no ISO 8601 instant"),
        (("--from", "2026-01-02", "--to", "2026-01-01"), "is not before"),
        (("--from", "2026-01-01", "--parallel", "0"), "greater than or equal to 1"),
    ],
)
def test_a_wrong_call_is_told_what_is_wrong(span: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [BIN, "backfill", "k2.silver_trades", *span], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_without_a_range_it_goes_from_the_watermark_on(make_table: MakeTable) -> None:
    table = behind(make_table, "bf_watermark")
    call = [BIN, "backfill", table.identity, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no watermark yet" in " ".join(done.stderr.split())
    first = subprocess.run(
        [BIN, "run", table.identity, "--json"], capture_output=True, text=True, timeout=120, check=True
    )
    done = subprocess.run(call, capture_output=True, text=True, timeout=200, check=True)
    report = json.loads(done.stdout)
    assert report["rows"] == ROWS - json.loads(first.stdout)["rows"] > 0
    assert len(report["plans"]) == 2
    table.whole()


def test_a_range_that_can_not_be_shipped_is_refused_with_its_id(make_table: MakeTable) -> None:
    table = behind(make_table, "bf_range")
    table.write_spec(window="1h", more=f"{BOUND}start: 2026-01-02T00:00:00Z\n")
    calls = {
        ("--from", "2026-01-01T00:00:00Z"): "it begins before `start`",
        ("--from", f"{datetime.now(UTC).year + 1}-01-01", "--to", f"{datetime.now(UTC).year + 1}-01-02"): "is settled",
    }
    for span, cause in calls.items():
        done = subprocess.run(
            [BIN, "backfill", table.identity, *span, "--json"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert json.loads(done.stdout)["error"]["id"] == "OFL-407"
        assert cause in json.loads(done.stdout)["error"]["cause"]


def _read(terminal: int) -> str:
    """All that is written to a terminal until its writer ends."""
    seen = b""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    os.close(terminal)
    return seen.decode(errors="replace")
