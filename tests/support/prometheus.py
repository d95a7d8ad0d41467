"""A Prometheus and an Alertmanager of a test's own, with rules that it gives them: fast, and nothing else in them."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local import ports
from local.paths import TOOLS

LIMIT_S = 60
OFFSETS = (90, 91)
"""Of the test's port base: beside the ports of the stack."""


@dataclass
class Monitoring:
    """Both servers. `rules`: the file that Prometheus reads; `reload` after a change."""

    prometheus: str
    alertmanager: str
    rules: Path

    def reload(self, *alerts: dict[str, Any]) -> None:
        """Replace all alerts and wait until Prometheus has evaluated them."""
        group = {"name": "test", "interval": "1s", "rules": list(alerts)}
        self.rules.write_text(yaml.safe_dump({"groups": [group]}))
        request = urllib.request.Request(f"{self.prometheus}/-/reload", method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            return


def ask(server: str, path: str, **query: str) -> Any:
    """What PROMETHEUS or ALERTMANAGER of the stack of this process's settings answers."""
    url = f"http://{ports.HOST}:{ports.port(server)}{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def _base() -> int:
    return int(os.environ.get("OFFLOAD_TEST_PORT_BASE", "27300"))


@contextmanager
def monitoring(folder: Path, scrape: dict[str, str] | None = None) -> Iterator[Monitoring]:
    """Both servers, until the block ends. scrape: job to `host:port`."""
    at_prometheus, at_alertmanager = (f"{ports.HOST}:{_base() + offset}" for offset in OFFSETS)
    found = Monitoring(f"http://{at_prometheus}", f"http://{at_alertmanager}", folder / "rules.yaml")
    found.rules.write_text("groups: []\n")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(found.rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in (scrape or {}).items()
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [at_alertmanager]}]}]},
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    routes = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))
    with ExitStack() as stack:
        stack.enter_context(
            _running(
                folder, "alertmanager", f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}", f"--web.listen-address={at_alertmanager}",
                "--cluster.listen-address=", url=found.alertmanager,
            )
        )  # fmt: skip
        # Alertmanager lets an alert end that was not repeated for four delays: a busy machine may be silent for seconds
        stack.enter_context(
            _running(
                folder, "prometheus", f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={at_prometheus}",
                "--web.enable-lifecycle", "--rules.alert.resend-delay=10s", url=found.prometheus,
            )
        )  # fmt: skip
        yield found


@contextmanager
def _running(folder: Path, name: str, *options: str, url: str) -> Iterator[None]:
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen([str(TOOLS / "bin" / name), *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + LIMIT_S
        while not _ready(url):
            assert process.poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
            assert time.monotonic() < end, f"{name} gave no answer: {log.read_text()[-2000:]}"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
