"""The code of the previous release, as a process of its own beside this code: the same servers, the same tables.

Which commit that is stands in the file `previous_release` beside this module. Whoever releases writes the id of the
release into it, afterwards: the next one is then tested against it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from include.offload.settings import ROOT

COMMIT = Path(__file__).with_name("previous_release")
LIMIT_S = 120
SCRIPT = """
import sys, uuid
from include.offload.lake import shipping
from include.offload.ledger.migrate import upgrade
from include.offload.settings import load
from include.offload.spec.load import load_spec
from include.offload.steps import RunRequest, check_extent, open_context, ship, update_watermark

what, identity, run_id = sys.argv[1:]
settings = load()
if what == "upgrade":
    upgrade(settings.ledger())
    sys.exit()
ctx = open_context(settings)
spec = load_spec(identity, settings.tables)
plan = check_extent(ctx, spec, RunRequest(run_id)).plan
if what in ("ship", "run") and plan.touches_lake:
    ship(ctx, plan.plan_id, lambda tasks: map(shipping.ship, tasks))
if what == "run":
    update_watermark(ctx, spec, plan.plan_id)
ctx.close()
print(plan.plan_id)
"""
"""Of the previous release it uses what a task of Airflow uses; a step stops where its name says."""


@dataclass(frozen=True)
class Previous:
    """The checked-out tree of the previous release."""

    tree: Path
    ledger_uri: str

    def __call__(self, what: str, identity: str = "", run_id: str = "") -> subprocess.CompletedProcess[str]:
        """`upgrade` the ledger; or `check`, `ship`, `run`: a run up to and with that step. Its plan is on stdout."""
        env = os.environ | {"PYTHONPATH": str(self.tree), "OFFLOAD_LEDGER_URI": self.ledger_uri}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, what, identity, run_id],
            cwd=self.tree, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip


def check_out(folder: Path) -> Path:
    """The previous release's files below `folder`. Raises AssertionError where git does not have the commit."""
    commit = COMMIT.read_text().strip()
    made = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, timeout=LIMIT_S, check=False)
    said = made.stderr.decode(errors="replace").strip()
    assert made.returncode == 0, f"{COMMIT.name} names {commit}: {said}. A shallow clone: git fetch --unshallow"
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder
