"""Faults of iceberg-offload-performance.md."""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from collections.abc import Callable
from threading import Event, Thread

import psutil

from local.ports import HOST, port
from local.runbooks import watch
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, pid_of
from local.runbooks.faults.spikes import busiest_window, pour, spec_again
from local.runbooks.proof import insist
from local.runbooks.slow_road import SlowRoad
from local.runbooks.stage import FAST, Stage, write_spec

CYCLE = {"alerts": {**FAST["alerts"], "cycle": "35s"}}  # type: ignore[dict-item]
"""The table's own limit while its cycles are made slow: well above a healthy one, well below the fault's."""
FILE_ROWS = 1_000
"""The least that a spec may say."""
EXCHANGES = 80
"""A file holds whole windows of one partition: of ten seconds and one exchange here, each more than half of
`FILE_ROWS`. So a run of a minute makes 480 files; rows alone make none: a window is never cut."""
SPIKE_ROWS = EXCHANGES * FILE_ROWS * 3 // 5
"""Of a window."""
SPIKE_S = 600
LEFT_OVER_BYTES = 50 * 2**30
QUOTA_BYTES = 2**30
NOTHING_MORE = 1_024
"""The largest file, bytes, that a job may write while the left-over files take the room."""
STOPPED_S, RUNS_S = 3.0, 0.04
DELAY_S = 1.3
"""Each answer of ClickHouse comes so much later. With 3.5 s no cycle ends while its alert is waited for, with 2.5 s
there are minutes in which none ends, and the alert on their mean goes away."""
BETWEEN_S = 300.0
SLOW_S = 1.0
"""A ping of ClickHouse takes milliseconds on a machine that is well."""
PING_S = 30.0


class Background:
    """A thread that repeats something until it is told to end. `alive`: whether it still does."""

    def __init__(self, name: str, act: Callable[[], bool], every_s: float) -> None:
        self._end = Event()
        self._act, self._every_s = act, every_s
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._end.is_set() and self._act():
            self._end.wait(self._every_s)


@fault
def spike_in_small_files(stage: Stage) -> Fault:
    """Many more rows, of many exchanges, while the spec cuts files for quiet days: hundreds of queries a run."""

    def cause() -> None:
        write_spec(stage.tables, slice={"rows": FILE_ROWS, "concurrency": 1}, **CYCLE)
        pour(stage, "performance-spike", SPIKE_ROWS, SPIKE_S, EXCHANGES)

    return Fault(
        cause,
        proof=lambda: busiest_window(stage) >= SPIKE_ROWS and stage.spec.slice.rows == FILE_ROWS,
        undo=lambda: spec_again(stage),
    )


@fault
def no_room_for_jobs(stage: Stage) -> Fault:
    """Jobs that were killed left their temporary files, and a job finds no room for its own.

    No file system is filled, as not every machine lets a test mount one: while the left-over files (sparse) are over
    the quota, the kernel lets a job's driver write no larger file, which fails in the same calls (EFBIG).
    """
    folder = stage.stack.home.root / "spark-tmp" / "blockmgr-left-over"
    watching: list[Background] = []

    def taken() -> int:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0

    def enforce() -> bool:
        scheduler = pid_of(stage, "airflow-scheduler")
        if scheduler is not None and taken() > QUOTA_BYTES:
            for process in _children(scheduler):
                _no_more_room(process)
        return True

    def cause() -> None:
        folder.mkdir(parents=True)
        file = folder / "temp_shuffle_left_over"
        with file.open("wb") as data:
            data.truncate(LEFT_OVER_BYTES)
        long_ago = time.time() - 86_400
        os.utime(file, (long_ago, long_ago))
        os.utime(folder, (long_ago, long_ago))
        watching.append(Background("quota", enforce, 0.1))

    def undo() -> None:
        for one in watching:
            one.stop()
        shutil.rmtree(folder, ignore_errors=True)

    return Fault(cause, lambda: taken() > QUOTA_BYTES, undo)


def _ping_s(at: int) -> float:
    """How long ClickHouse's `/ping` takes at a port of this machine, seconds; `PING_S` when it gives no answer."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://{HOST}:{at}/ping", timeout=PING_S) as answer:  # noqa: S310
            answer.read()
    except OSError:
        return PING_S
    return time.monotonic() - began


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _no_more_room(process: psutil.Process) -> None:
    try:
        words = process.cmdline()
        driver = len(words) > 1 and "python" in words[0] and words[1].endswith("spark_jobs/offload.py")
        if driver and process.rlimit(psutil.RLIMIT_FSIZE)[0] != NOTHING_MORE:
            process.rlimit(psutil.RLIMIT_FSIZE, (NOTHING_MORE, NOTHING_MORE))
    except (psutil.Error, ProcessLookupError):
        # it ended meanwhile
        return


@fault
def slow_road_to_clickhouse(stage: Stage) -> Fault:
    """Somebody led Airflow's connection through a gateway that is far away: every answer comes seconds later."""
    roads: list[SlowRoad] = []

    def leads_through() -> bool:
        found = stage.airflow.connection("offload_clickhouse") or {}
        return bool(roads) and found.get("port") == roads[0].port

    def lead(to: int) -> None:
        stage.airflow.move_connection("offload_clickhouse", "clickhouse", HOST, to)

    def cause() -> None:
        write_spec(stage.tables, **CYCLE)
        roads.append(SlowRoad(port("CLICKHOUSE"), DELAY_S))
        # a plan keeps to the address that it was made at: one that is under way would fail, not be slow
        watch.until(lambda: not stage.under_way(), BETWEEN_S, "a moment between two runs", every_s=0.2)
        lead(roads[0].port)

    def undo() -> None:
        lead(port("CLICKHOUSE"))
        for road in roads:
            road.close()
        spec_again(stage)

    def slow() -> bool:
        """Whether Airflow's connection leads there, and a question on that way takes long."""
        return leads_through() and _ping_s(roads[0].port) > SLOW_S

    return Fault(cause, slow, undo)


@fault
def clickhouse_starved(stage: Stage) -> Fault:
    """ClickHouse gets a twentieth of the time: it answers everything, late."""
    throttles: list[Background] = []
    victims: list[psutil.Process] = []

    def throttle() -> bool:
        try:
            victims[0].suspend()
            time.sleep(STOPPED_S)
            victims[0].resume()
        except psutil.NoSuchProcess:
            return False
        return True

    def cause() -> None:
        write_spec(stage.tables, **CYCLE)
        pid = pid_of(stage, "clickhouse")
        insist(pid is not None, "clickhouse does not run")
        victims.append(psutil.Process(pid))
        throttles.append(Background("throttle", throttle, RUNS_S))

    def undo() -> None:
        for one in throttles:
            one.stop()
        if victims and victims[0].is_running():
            victims[0].resume()
        # what feeds the source may have given up while it was away
        stage.stack.start(["clickhouse", "k2-trickle"])
        spec_again(stage)

    def slow() -> bool:
        """Whether ClickHouse takes long for a ping: of those that follow each other one meets the whole of a stop."""
        end = time.monotonic() + 2 * STOPPED_S
        while throttles and time.monotonic() < end:
            if _ping_s(port("CLICKHOUSE")) > SLOW_S:
                return True
        return False

    return Fault(cause, slow, undo)
