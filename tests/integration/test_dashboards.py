"""Every query of every dashboard, asked of a real Prometheus after one run that ends well and one that fails.

A query has data then, or says in code why it may have none while all is well; and in the end each of those was made to
have some, so none is silent because it is wrong. Grafana itself is not here: what is proved is the questions.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from statsd import StatsClient

from include.offload.metrics import Metrics
from include.offload.settings import ROOT, Settings
from local import ports
from monitoring.generate import RULES
from monitoring.panels import OVERVIEW, TABLE, Overview, Pipeline, Table
from tests.support.airflow_driver import Driver, poll
from tests.support.dashboards import ANY, PAGES, Prometheus, Question, filled, questions
from tests.support.stack import Servers
from tests.support.tables import DDL, MakeTable

pytestmark = pytest.mark.timeout(600)
LIMIT_S = 40


@pytest.fixture
def prometheus(full_stack: Servers, tmp_path: Path) -> Iterator[Prometheus]:
    """One with the stack's configuration and production's rules, but every second: nothing is waited for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = yaml.safe_load((full_stack.home / "etc" / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(tmp_path / "rules" / "*.yaml")]
    shutil.copytree(RULES / "production", tmp_path / "rules")
    for path in (tmp_path / "rules").iterdir():
        path.write_text(re.sub(r"interval: \w+", "interval: 1s", path.read_text(encoding="utf-8")))
    (itself,) = (job for job in config["scrape_configs"] if job["job_name"] == "prometheus")
    itself["static_configs"] = [{"targets": [address]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        str(ROOT / ".venv/tools/bin/prometheus"),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command)
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(10)


def answer_all(
    prometheus: Prometheus,
    open_ones: list[Question],
    needed: Callable[[Question], bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Question]:
    """Asks until every needed question has data, and does something before each try; those that have none then."""
    end = time.monotonic() + LIMIT_S
    while True:
        meanwhile()
        open_ones = [one for one in open_ones if not one.answered(prometheus)]
        missing = [str(one) for one in open_ones if needed(one)]
        if not missing:
            return open_ones
        assert time.monotonic() < end, f"no data after {LIMIT_S} s:\n" + "\n".join(missing)
        time.sleep(0.5)


def shown(prometheus: Prometheus, uid: str, panel: int, table: str) -> float:
    """The one number of a panel."""
    (found,) = (one for one in PAGES[uid].panels() if one.id == panel)
    (number,) = prometheus.numbers(filled(found.queries[0].expr, table))
    return number


def test_every_query_has_data_after_a_success_and_a_failure(
    airflow: Driver, make_table: MakeTable, prometheus: Prometheus
) -> None:
    good = make_table("dash_good").create().insert(600).write_spec(schedule="*/15 * * * *")
    # its rows are from 6 hours ago on and the job can not start: two hours are left to ship them
    ill = make_table("dash_ill").create(f"{DDL.rstrip()} TTL toDateTime(ts) + INTERVAL 8 HOUR").insert(200)
    ill.write_spec(more="connections: {spark: it_nobody}")
    emitter = Metrics(Settings(statsd_port=ports.port("STATSD")))
    statsd = StatsClient("127.0.0.1", ports.port("STATSD"), prefix="airflow")
    try:
        airflow.discover(ill.dag_id)
        failed = airflow.ask(ill.dag_id)
        airflow.discover(good.dag_id)
        run = poll(lambda: next(iter(airflow.runs(good.dag_id)), None), 90, "no scheduled run appeared")
        assert airflow.finished(failed)["offload"] == "failed"
        airflow.green(run)

        def loud(one: Question) -> bool:
            return not one.query.quiet

        rest = answer_all(prometheus, questions(good.identity, ill.identity), loud)
        assert shown(prometheus, TABLE, Table.SAFE, good.identity) == 0
        assert shown(prometheus, TABLE, Table.SAFE, ill.identity) == 1
        assert shown(prometheus, OVERVIEW, Overview.SAFE, good.identity) == 0
        assert shown(prometheus, OVERVIEW, Overview.SAFE, f"{good.identity}|{ill.identity}") == 1
        assert shown(prometheus, OVERVIEW, Overview.HEARD, ANY) >= 1
        assert 3600 < shown(prometheus, TABLE, Table.EXPIRES, ill.identity) < 7200 + 600

        def stir() -> None:
            """What the two runs do not do: a second event of each kind, a million rows, what Airflow seldom counts."""
            for name in ("scheduler.tasks.killed_externally", "task_instances_without_heartbeats_killed"):
                statsd.incr(name, 0)
            statsd.incr(f"deadline_alerts.deadline_missed,dag_id={good.dag_id}", 0)
            statsd.timing(f"dagrun.schedule_delay,dag_id={good.dag_id}", 1000)
            statsd.timing(f"task.queued_duration,dag_id={good.dag_id},task_id=offload,queue=default", 1000)
            emitter.count("offload_rows_total", 2_000_000, table=good.identity)
            emitter.timing("offload_duration_seconds", 1.5, table=good.identity)
            emitter.timing("offload_cycle_duration_seconds", 2.5, table=good.identity)
            emitter.maintained(good.identity, success=True)
            emitter.lake(good.identity, "after", {"files": 3, "small_files": 1})

        silent = {id(one.query) for one in rest} - {
            id(one.query) for one in questions(good.identity, ill.identity) if one not in rest
        }
        # none of these fires within a test: a dead scheduler must be dead for minutes. The other two lists had alerts.
        silent -= {id(one.query) for one in rest if one.panel.id is Pipeline.FIRING}
        unproven = [one for one in rest if id(one.query) in silent and one.table != ill.identity]
        answer_all(prometheus, unproven, bool, stir)

        asked = {v.name: v for page in PAGES.values() for v in page.variables}
        tables = prometheus.get("series", **{"match[]": "offload:tables"})
        assert {good.identity, ill.identity} <= {one["table"] for one in tables}
        assert asked["table"].query == "label_values(offload:tables, table)"
        assert value_of(prometheus, asked["dag"].query, asked["dag"].regex, good.identity) == good.dag_id
    finally:
        emitter.check(ill.identity, settle_us=0, pending_windows=0, pending_rows=0)
        emitter.close()
        statsd.close()


def value_of(prometheus: Prometheus, asked: str, regex: str, table: str) -> str:
    """The value of a variable of the form `query_result(…)`, picked by its regex as Grafana does."""
    expr = filled(asked.removeprefix("query_result(").removesuffix(")"), table)
    (one,) = prometheus.get("query", query=expr)["result"]
    labels = ", ".join(f'{k}="{v}"' for k, v in one["metric"].items() if k != "__name__")
    line = f"{one['metric'].get('__name__', '')}{{{labels}}} {one['value'][1]} {one['value'][0] * 1000:.0f}"
    found = re.search(regex.strip("/"), line)
    assert found, line
    return found[1]
