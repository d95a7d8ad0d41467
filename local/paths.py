"""Where the one-machine stack keeps things: state in `OFFLOAD_HOME`, tools in `.venv/` (both outside git)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW_VENV = ROOT / ".venv" / "airflow"
SPARK_VENV = ROOT / ".venv" / "spark"
TOOLS = ROOT / ".venv" / "tools"
"""What set-up builds once for all stacks of this checkout: statsd_exporter, Prometheus, Alertmanager, Spark's
class data archive."""


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one stack. `purge` removes `root`; nothing is written anywhere else."""

    root: Path

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def etc(self) -> Path:
        """Generated configuration: written again at every start, never edited."""
        return self.root / "etc"

    @property
    def run(self) -> Path:
        """Process ids and sockets of the supervisor."""
        return self.root / "run"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def clickhouse(self) -> Path:
        return self.root / "clickhouse"

    @property
    def seaweed(self) -> Path:
        return self.root / "seaweedfs"

    @property
    def airflow(self) -> Path:
        return self.root / "airflow"

    @property
    def prometheus(self) -> Path:
        return self.root / "prometheus"

    @property
    def alertmanager(self) -> Path:
        return self.root / "alertmanager"

    @property
    def own(self) -> tuple[Path, ...]:
        """Everything that the stack writes below `root`; whatever else lies there belongs to somebody else."""
        state = (
            self.secrets,
            self.logs,
            self.etc,
            self.run,
            self.postgres,
            self.clickhouse,
            self.seaweed,
            self.airflow,
            self.prometheus,
            self.alertmanager,
        )
        return (*state, *(self.root / name for name in ("spark-tmp", "spark-warehouse", "crash", "test")))

    def make(self) -> Home:
        """Create the directories that every service needs; the root is for its owner only."""
        for path in (self.root, self.secrets, self.logs, self.etc, self.run):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self


def home(root: Path | None = None) -> Home:
    """The stack's state: `root`, else `OFFLOAD_HOME`, else `.run/` beside the code."""
    chosen = root or Path(os.environ.get("OFFLOAD_HOME") or ROOT / ".run")
    return Home(chosen.expanduser().resolve())


def venv_bin(name: str, venv: Path = AIRFLOW_VENV) -> Path:
    """A program of a virtual environment. Raises FileNotFoundError that names the command to run."""
    found = venv / "bin" / name
    if not found.exists():
        raise FileNotFoundError(f"{found} is missing: run `make setup`")
    return found


def python() -> str:
    """The interpreter that runs the stack's own services."""
    return str(AIRFLOW_VENV / "bin" / "python") if (AIRFLOW_VENV / "bin" / "python").exists() else sys.executable
