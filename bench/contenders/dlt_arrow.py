"""dlt: a pipeline with an Arrow resource."""

from __future__ import annotations

from typing import Any

from bench.contenders.base import Job, PythonContender
from bench.world import World
from local import secrets


class DltArrow(PythonContender):
    """A resource of Arrow tables into dlt's `filesystem` destination, table format Iceberg, through the same catalog.

    Its Iceberg table is there before, partitioned as everyone's; what dlt keeps beside it goes to a plain bucket.
    """

    name = "dlt"
    title = "dlt, Arrow resource to Iceberg"
    script = "dlt_arrow"

    def document(self, world: World, job: Job) -> dict[str, Any]:
        lake = world.catalog.properties
        keys = {
            "aws_access_key_id": secrets.read(world.home, "s3_sql_access_key"),
            "aws_secret_access_key": secrets.read(world.home, "s3_sql_secret_key"),
            "endpoint_url": str(lake["s3.endpoint"]),
            "region_name": str(lake["s3.region"]),
        }
        bucket = {"url": f"s3://{secrets.SQL_BUCKET}/dlt/{job.target}", "credentials": keys}
        return super().document(world, job) | {"bucket": bucket}
