"""Sling: a program for moving tables that is configured, not programmed."""

from __future__ import annotations

import json
import os

from bench.contenders.base import BENCH_VENV, JOBS, Command, Contender, Job, connections, select, settings_file
from bench.world import DATABASE, World
from local.paths import venv_bin

BINARY = "lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"


class Sling(Contender):
    """`sling run --mode full-refresh` through the same catalog.

    It makes its Iceberg table itself, without partitions: it knows none. Its copy is its whole process: its own words
    give whole seconds only.
    """

    name = "sling"
    title = "Sling 1.4.11, not partitioned"
    slow = True

    def absent(self) -> str | None:
        if not any(BENCH_VENV.glob(BINARY)):
            return "its last release on PyPI with a binary is for Linux on x86-64; newer ones download it from GitHub"
        return None

    def prepare(self, world: World, job: Job) -> None:
        """The namespace; the table is Sling's own affair."""
        self.spec(world, job)
        world.catalog.create_namespace_if_not_exists(DATABASE)

    def command(self, world: World, job: Job) -> Command:
        document = connections(world, job)
        source, lake = document["clickhouse"], document["catalog"]
        address = f"{source['host']}:{source['port']}/{DATABASE}"
        client, _, secret = lake["credential"].partition(":")
        s3 = {k: lake[k] for k in ("s3.endpoint", "s3.access-key-id", "s3.secret-access-key", "s3.region")}
        streams = {
            "BENCH_SOURCE": {
                "type": "clickhouse",
                "http_url": f"http://{source['username']}:{source['password']}@{address}",
            },
            "BENCH_LAKE": {
                "type": "iceberg",
                "catalog_type": "rest",
                "rest_uri": lake["uri"].rstrip("/"),
                "rest_warehouse": lake["warehouse"],
                "rest_oauth_client_id": client,
                "rest_oauth_client_secret": secret,
                "rest_oauth_server_uri": lake["oauth2-server-uri"],
                "rest_extra_props": json.dumps(s3 | {"s3.path-style-access": "true"}),
                **{k.replace(".", "_").replace("-", "_"): v for k, v in s3.items()},
            },
        }
        (binary,) = BENCH_VENV.glob(BINARY)
        path = settings_file(
            world,
            job,
            {
                "argv": [
                    str(binary), "run", "--src-conn", "BENCH_SOURCE", "--tgt-conn", "BENCH_LAKE",
                    "--src-stream", select(world, self.spec(world, job), job.source),
                    "--tgt-object", job.identity, "--mode", "full-refresh",
                ],
                "env": {
                    **{name: json.dumps(value) for name, value in streams.items()},
                    "SLING_HOME_DIR": str(world.home.run / "sling"),
                    "SLING_DISABLE_TELEMETRY": "TRUE",
                },
            },
        )  # fmt: skip
        return Command([str(venv_bin("python", BENCH_VENV)), str(JOBS / "sling_run.py"), str(path)], dict(os.environ))
