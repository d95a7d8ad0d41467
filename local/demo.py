"""`make demo`: the whole job on this machine, from nothing to ten tables in Iceberg, and a live view of it.

`python -m local.demo` shows the live view until Ctrl-C; `ONCE=1` offloads once, verifies and ends; `FRESH=1` empties
the data first; `python -m local.demo crash` kills two jobs and shows what Airflow makes of it. Everything that this
process started, it stops; what ran before goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from include.offload import settings as settings_module
from include.offload.airflow_rest import AirflowRest, AirflowRestError
from include.offload.cli.overview import overview
from include.offload.cli.status import as_table
from include.offload.context import Context, open_context
from include.offload.errors import OffloadError
from include.offload.ledger import migrate
from include.offload.spec.load import load_specs
from include.offload.spec.model import TableSpec
from local import demo_crash, demo_once, k2, secrets
from local.demo_once import DemoError
from local.ports import HOST, port
from local.stack import Progress, Stack, StackError
from local.steplist import StepList

HISTORY_ROWS = int(os.environ.get("OFFLOAD_DEMO_ROWS", "1000000"))
IDLE_LIMIT_S = float(os.environ.get("OFFLOAD_DEMO_LIMIT_S", "300"))
"""How long `ONCE=1` waits while no task in Airflow changes its state, seconds."""
DAGS_LIMIT_S = 120.0
REFRESH_S = 2.0
PIPE_REFRESH_S = 30.0
"""How often the live view is written where there is no terminal, seconds."""
ADMIN = "admin"


class Stopped(BaseException):
    """SIGTERM: leave like Ctrl-C does."""


@dataclass
class Demo:
    """A started demo."""

    stack: Stack
    steps: StepList
    ctx: Context
    specs: tuple[TableSpec, ...]
    airflow: AirflowRest

    @property
    def console(self) -> Console:
        return self.steps.console

    @property
    def crash_dir(self) -> Path:
        return self.stack.home.root / "crash"


def main() -> int:
    """Exit code 0: done or interrupted in the live view; 1: with the reason."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("what", nargs="?", default="live", choices=("live", "crash"))
    parser.add_argument("--once", action="store_true", default=_flag("ONCE"), help="offload, verify, stop; or ONCE=1")
    parser.add_argument("--fresh", action="store_true", default=_flag("FRESH"), help="empty the data first; or FRESH=1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    steps = StepList()
    try:
        with _started(steps, fresh=options.fresh, trickle=options.what == "live" and not options.once) as demo:
            if options.what == "crash":
                demo_crash.crash_demo(demo.ctx, demo.specs, demo.airflow, demo.crash_dir, steps)
            elif options.once:
                _once(demo)
            else:
                _live(demo)
    except (DemoError, StackError, AirflowRestError, OffloadError, TimeoutError) as error:
        steps.console.print(f"[bold red]the demo failed:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except (KeyboardInterrupt, Stopped):
        return 0 if options.what == "live" and not options.once else 130
    steps.console.print(f"done after {steps.total():.0f} s")
    return 0


def _flag(name: str) -> bool:
    return os.environ.get(name, "").lower() not in {"", "0", "no", "false"}


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


@contextmanager
def _started(steps: StepList, *, fresh: bool, trickle: bool) -> Iterator[Demo]:
    """The demo with every server up and the history loaded; at the end what this started is stopped."""
    stack = Stack()
    if fresh:
        with steps.step("data emptied") as step:
            step.say(str(stack.home.root))
            stack.stop()
            stack.purge()
    ran = {s.service for s in stack.status() if s.state == "RUNNING"}
    try:
        _start(stack, steps, ["data"])
        settings = settings_module.load()
        found = load_specs(settings.tables, settings.env)
        if found.errors:
            raise DemoError("\n".join(str(e) for e in found.errors))
        with steps.step("ledger: schema up to date"):
            migrate.upgrade(settings.ledger())
        with steps.step("k2: tables and history in ClickHouse") as step:
            rows = k2.load_history(HISTORY_ROWS, on_progress=step.advance)
            step.say(f"{rows:,} trades".replace(",", " "))
        _start(stack, steps, ["monitoring"])
        _start(stack, steps, ["airflow"])
        if trickle:
            _start(stack, steps, ["k2-trickle"])
        airflow = AirflowRest(
            f"http://{HOST}:{port('AIRFLOW')}", ADMIN, secrets.read(stack.home, "airflow_admin_password")
        )
        with steps.step("Airflow: DAGs found") as step:
            airflow.wait_for_dags({s.dag_id for s in found.specs}, DAGS_LIMIT_S)
            step.say(f"{len(found.specs)} DAGs")
        ctx = open_context(settings)
        with closing(ctx), closing(airflow):
            yield Demo(stack, steps, ctx, found.specs, airflow)
    finally:
        _stop_what_started(stack, steps, ran)


def _start(stack: Stack, steps: StepList, names: list[str]) -> None:
    with steps.step(f"servers: {', '.join(names)}") as step:

        def report(progress: Progress) -> None:
            step.say(f"{progress.service} {progress.state}")
            if progress.state == "ready" and progress.seconds > 0.5:
                steps.console.print(f"           [dim]{progress.service:<22} {progress.seconds:5.1f} s[/]")

        stack.start(names, on_progress=report)
        step.say("ready")


def _stop_what_started(stack: Stack, steps: StepList, ran: set[str]) -> None:
    """Stops the servers that did not run before; a second Ctrl-C does not cut it short."""
    were = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        mine = [s.service for s in stack.status() if s.state != "STOPPED" and s.service not in ran]
        if not mine and ran:
            steps.console.print("the servers ran before and go on")
            return
        with steps.step("servers stopped") as step:
            left = stack.stop(mine if ran else None, on_progress=lambda p: step.say(f"{p.service} {p.state}"))
            step.say(f"data stays in {stack.home.root}" + (f"; {len(left)} left-over processes ended" if left else ""))
    finally:
        for number, handler in were.items():
            signal.signal(number, handler)


def _once(demo: Demo) -> None:
    """Offloads what is settled now, verifies it, prints the table. Raises DemoError."""
    steps = demo.steps
    with steps.step("settled extent recorded"):
        wanted = demo_once.goals(demo.ctx, demo.specs)
    with steps.step("ten runs triggered through the REST API"):
        runs = demo_once.trigger_all(demo.airflow, demo.specs)
    with steps.step("offloaded by Airflow"):
        demo_once.wait(demo.ctx, demo.airflow, wanted, runs, steps.console, IDLE_LIMIT_S)
    with steps.step("verified by ClickHouse and PyIceberg"):
        reports = demo_once.verify_all(demo.ctx, wanted, steps.console)
    seen = overview(demo.ctx, demo.specs)
    steps.console.print(demo_once.result_table(reports, seen))


def _live(demo: Demo) -> None:
    """Unpauses all DAGs and shows where every table stands until Ctrl-C."""
    with demo.steps.step("DAGs unpaused"):
        for spec in demo.specs:
            demo.airflow.pause(spec.dag_id, False)
    demo.console.print(_login(demo))
    if not demo.console.is_terminal:
        while True:
            demo.console.print(_view(demo))
            time.sleep(PIPE_REFRESH_S)
    with Live(console=demo.console, auto_refresh=False, screen=False) as live:
        while True:
            live.update(_view(demo), refresh=True)
            time.sleep(REFRESH_S)


def _view(demo: Demo) -> RenderableType:
    by_dag = {s.dag_id: s.identity for s in demo.specs}
    try:
        seen = overview(demo.ctx, demo.specs)
    except OffloadError as error:
        return Text(str(error), style="yellow")
    try:
        states = {by_dag[d]: s for d, s in demo.airflow.states().items() if d in by_dag and s in {"queued", "running"}}
        # a run that tries again is no reason to hide that the last try failed
        states |= {t.table: f"{t.state}, {states[t.table]}" for t in seen.tables if t.last_error and t.table in states}
        problems: tuple[str, ...] = ()
    except AirflowRestError as error:
        states, problems = {}, (str(error),)
    lines = [Text(p, style="yellow") for p in (*problems, *seen.problems)]
    return Group(as_table(seen, states), *lines, Text("Ctrl-C stops everything; the data stays", style="dim"))


def _login(demo: Demo) -> Text:
    """Where to look, and how to get in; the password only where a person reads it."""
    path = demo.stack.home.secrets / "airflow_admin_password"
    password = secrets.read(demo.stack.home, "airflow_admin_password") if demo.console.is_terminal else f"in {path}"
    text = Text()
    for name, value in (
        ("Airflow", f"{demo.airflow.url}/   user {ADMIN}, password {password}"),
        ("password file", str(path)),
        ("metrics", f"http://{HOST}:{port('STATSD_METRICS')}/metrics"),
        ("alerts", f"http://{HOST}:{port('PROMETHEUS')}/alerts   or bin/offload alerts"),
        (
            "ClickHouse",
            f"http://{HOST}:{port('CLICKHOUSE')}/   URI in {demo.stack.home.secrets / 'offload_clickhouse_uri'}",
        ),
        ("Iceberg REST", f"http://{HOST}:{port('ICEBERG')}/"),
        ("command line", "bin/offload status"),
    ):
        text.append(f"{name:<14}", style="bold").append(f"{value}\n")
    return text


if __name__ == "__main__":
    sys.exit(main())
