"""Faults of servers: killed with SIGKILL by their process id, and started again by supervisord."""

from __future__ import annotations

import os
import signal
import time

import psutil

from include.offload.errors import OffloadError
from include.offload.steps import ship
from local.stack import Stack
from tests.support.domain import inline, meanwhile
from tests.torture.acts import go_on, wired, work
from tests.torture.story import Fault
from tests.torture.world import World, tried

COMES_BACK_S = 120


def kill_server(name: str) -> None:
    """SIGKILL of the server's process; supervisord starts it again."""
    (status,) = Stack().status([name])
    assert status.pid is not None
    process = psutil.Process(status.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def come_back(name: str) -> None:
    """Wait until it answers again."""
    until = time.monotonic() + COMES_BACK_S
    while True:
        Stack().start([name])
        (status,) = Stack().status([name])
        if status.answers:
            return
        assert time.monotonic() < until, f"{name} does not come back"


def server_killed(w: World, fault: Fault) -> bool:
    name = fault.kind.split()[0].lower()
    plan = work(w)
    w.fresh()
    _ = w.table.ctx.catalog, w.table.ctx.pipeline
    if fault.pick % 2 and name == "seaweedfs":
        with wired(w, **{("before", "after")[fault.pick // 2 % 2]: lambda: kill_server(name)}):
            done = tried(lambda: ship(w.table.ctx, plan.plan_id, inline))
    else:
        done = tried(lambda: ship(w.table.ctx, plan.plan_id, meanwhile(lambda: kill_server(name))))
    assert not isinstance(done, OffloadError) or done.kind.retry, str(done)
    come_back(name)
    w.arrive(fault.during)
    go_on(w, plan, fault.pick)
    return True
