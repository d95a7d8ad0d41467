"""The one-machine stack as the runbooks' exercises need it: every server, the fast alert rules, one table a minute."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from include.offload import settings as settings_module
from include.offload.airflow_rest import AirflowRest
from include.offload.context import Context, open_context
from include.offload.errors import PLAN_SUPERSEDED
from include.offload.ledger import migrate
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.verify import verify
from local import k2, secrets
from local.paths import ROOT
from local.ports import HOST, port
from local.runbooks import watch
from local.runbooks.proof import insist
from local.stack import Stack

TABLE = "k2.silver_trades"
"""The table that the runbooks' commands name."""
DAG = "offload__k2__silver_trades"
HISTORY_ROWS = 3_000
FAST = {
    # a run a minute, of windows that settle within seconds; a failed run is not tried again
    "window": "10s",
    "settle": "2s",
    "horizon": "2h",
    "schedule": "* * * * *",
    "retries": 0,
    # on a quiet machine the lag is at most 95 s, before a run lands: one more that does not is an incident here
    "alerts": {"lag": "120s", "cycle": "90s"},
    # the pages are about Spark too: executors, as large plans have them
    "plan": {"driver_rows": 0},
}
"""What differs from the table's own spec in dags/tables."""
DAGS_LIMIT_S = 120.0
SETTLED_S = 300.0
"""Several runs, on a machine that is busy with something else."""
OVER = ("success", "failed")
"""The states of a run that has ended."""


@dataclass
class Stage:
    """A running stack with its one table, unpaused."""

    stack: Stack
    ctx: Context
    airflow: AirflowRest
    tables: Path

    @property
    def spec(self) -> TableSpec:
        return load_spec(TABLE, self.tables)

    @property
    def spec_file(self) -> Path:
        return self.tables / "k2" / "silver_trades.yaml"

    def tidy(self) -> None:
        """Undo what a page that broke off may have left beside its fault: a paused DAG. Raises AirflowRestError."""
        self.airflow.pause(DAG, False)

    def one_more_run(self, since: datetime, after: datetime) -> bool | None:
        """Whether a run that began after `since` ended after `after`; None while the DAG is paused: none comes."""
        for run in self.airflow.runs(DAG, 5):
            if run.began and run.ended and run.began >= since and run.ended >= after:
                return True
        return None if self.airflow.dags()[DAG] else False

    def failed_otherwise(self, since: datetime) -> list[str]:
        """Each task that failed after an instant for another reason than that its plan was passed, and why."""
        found = []
        for run in self.airflow.runs(DAG, 10):
            if run.state != "failed" or run.ended is None or run.ended < since:
                continue
            for task, (state, number) in self.airflow.tasks(run).items():
                if state == "failed" and PLAN_SUPERSEDED.id not in (log := self.airflow.task_log(run, task, number)):
                    found.append(f"{task} of {run.run_id}: {(log.strip().splitlines() or ['no log'])[-1]}")
        return found

    def settle(self) -> None:
        """Waits until what a page before left under way is over: its runs have ended, and the last one ended well.

        A run that stood between two tasks while its page paused the DAG is refused when it goes on (OFL-402): that is
        right, and no fault of the next scenario. Raises LateError.
        """
        before = {run.run_id for run in self.airflow.runs(DAG, 5) if run.state not in OVER}

        def over() -> bool:
            runs = self.airflow.runs(DAG, 5)
            ended = [run for run in runs if run.state in OVER]
            return not before & {run.run_id for run in runs if run.state not in OVER} and (
                not ended or ended[0].state == "success"
            )

        watch.until(over, SETTLED_S, "an end of the runs of before, and a run that ends well")

    def pause_between_runs(self) -> None:
        """Pause the DAG while no run is under way: one that stands between two tasks would go on, and fail, later.

        Raises LateError.
        """

        def paused() -> bool:
            if self.under_way():
                return False
            self.airflow.pause(DAG, True)
            if not self.under_way():
                return True
            self.airflow.pause(DAG, False)
            return False

        watch.until(paused, SETTLED_S, "a moment between two runs", every_s=0.2)

    def under_way(self) -> bool:
        """Whether a run has begun and not ended."""
        return any(run.state not in OVER for run in self.airflow.runs(DAG, 3))

    def secret(self, name: str) -> str:
        return secrets.read(self.stack.home, name)

    def prove_data(self) -> None:
        """Both verifiers, over all that the table ever shipped. Raises UnprovenError with the differences."""
        report = verify(self.ctx, self.spec)
        insist(report.ok, str(report))
        insist(report.lake_rows > 0, "nothing was ever offloaded: the exercise proves nothing")


def write_spec(tables: Path, **changes: object) -> Path:
    """The fast spec of the table, with `changes` on top."""
    own = yaml.safe_load((ROOT / "dags" / "tables" / "k2" / "silver_trades.yaml").read_text(encoding="utf-8"))
    path = tables / "k2" / "silver_trades.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(own | FAST | changes, sort_keys=False), encoding="utf-8")
    return path


def environment(home: Path) -> dict[str, str]:
    """What the stack, the command line and the commands of the pages find it by."""
    return {
        "OFFLOAD_HOME": str(home),
        "OFFLOAD_TABLES": str(home / "tables"),
        "OFFLOAD_ALERT_PROFILE": "fast",
        "PYICEBERG_HOME": str(home / "secrets"),
    }


@contextmanager
def staged(*, keep: bool = False) -> Iterator[Stage]:
    """The stage in `OFFLOAD_HOME`; needs `environment` in this process. It is stopped at the end, unless it is kept."""
    tables = Path(os.environ["OFFLOAD_TABLES"])
    write_spec(tables)
    stack = Stack()
    try:
        stack.start(["data", "monitoring"])
        settings = settings_module.load()
        migrate.upgrade(settings.ledger())
        k2.load_history(HISTORY_ROWS)
        stack.start(["k2-trickle", "airflow"])
        airflow = AirflowRest(
            f"http://{HOST}:{port('AIRFLOW')}", "admin", secrets.read(stack.home, "airflow_admin_password")
        )
        with closing(open_context(settings)) as ctx, closing(airflow):
            airflow.wait_for_dags({DAG}, DAGS_LIMIT_S)
            airflow.pause(DAG, False)
            _first_run(ctx)
            yield Stage(stack, ctx, airflow, tables)
    finally:
        if not keep:
            stack.stop()


def _first_run(ctx: Context, limit_s: float = 180.0) -> None:
    end = time.monotonic() + limit_s
    while (head := ctx.ledger.head(TABLE)) is None or head.watermark_us is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{TABLE} was not offloaded within {limit_s:.0f} s of its first schedule")
        time.sleep(1)
