"""This project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from bench.contenders.base import Command, Contender, Job
from bench.meter import ContenderFailedError
from bench.world import World
from include.offload.verify import verify
from local.paths import ROOT, python


class Offload(Contender):
    """`bin/offload run`: plan, Spark job and watermark, as a user starts them."""

    name = "offload"
    title = "this project, `bin/offload run`"

    def prepare(self, world: World, job: Job) -> None:
        """The spec only: the job creates its Iceberg table itself."""
        self.spec(world, job)

    def command(self, world: World, job: Job) -> Command:
        return Command([python(), str(ROOT / "bin" / "offload"), "run", job.identity, "--json"], dict(os.environ))

    def copied(self, stdout: str) -> float:
        report: Mapping[str, Any] = json.loads(stdout)
        if report["status"] != "committed":
            raise ContenderFailedError(f"offload ended as {report['status']}")
        return float(report["job_seconds"])

    def check(self, world: World, job: Job) -> tuple[str, ...]:
        """The project's own verify, two readers; then the same check as everyone's."""
        report = verify(world.context, self.spec(world, job))
        return (*report.findings(), *super().check(world, job))
