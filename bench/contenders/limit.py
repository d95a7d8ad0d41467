"""What no contender can pass: ClickHouse's ArrowStream, read to nowhere."""

from __future__ import annotations

import os
from typing import Any

from bench.contenders.base import Job, PythonContender, connections, select
from bench.world import World
from include.offload.source.sql import quote


class Limit(PythonContender):
    """The same SELECT as everyone's, a connection a core, each with its part of the rows; the bytes are thrown away."""

    name = "limit"
    title = "the limit, ArrowStream to nowhere"
    script = "limit"
    writes = False

    def prepare(self, world: World, job: Job) -> None:
        """Nothing is written."""

    def document(self, world: World, job: Job) -> dict[str, Any]:
        spec = self.spec(world, job)
        rows, cursor = select(world, spec, job.source), quote(spec.cursor)
        edges = world.cursor_edges(job.source, cursor, os.cpu_count() or 1)
        at = [f"fromUnixTimestamp64Micro(toInt64({edge}))" for edge in edges]
        lows = ["", *(f"{cursor} >= {edge}" for edge in at)]
        highs = [*(f"{cursor} < {edge}" for edge in at), ""]
        parts = [" AND ".join(filter(None, pair)) for pair in zip(lows, highs, strict=True)]
        return connections(world, job) | {"queries": [f"{rows} WHERE {part}" if part else rows for part in parts]}

    def check(self, world: World, job: Job) -> tuple[str, ...]:
        """There is nothing to look at: the job itself fails unless every connection ended well."""
        return ()
