"""PyIceberg and clickhouse-connect: the script that a Python programmer would write."""

from __future__ import annotations

from typing import Any

from bench.contenders.base import Job, PythonContender
from bench.world import World

COMMITS = 8
"""All rows in one commit would be in memory at once."""


class PyIcebergAlone(PythonContender):
    """clickhouse-connect streams Arrow batches, `Table.append` writes them, an eighth of the rows a commit."""

    name = "pyiceberg"
    title = f"PyIceberg and clickhouse-connect, {COMMITS} commits"
    script = "pyiceberg_append"

    def document(self, world: World, job: Job) -> dict[str, Any]:
        return super().document(world, job) | {"commits": COMMITS}
