"""docker-compose.yaml as Compose reads it, and the secrets that belong to it; nothing is started."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::([-?])([^}]*))?\}")
"""Name, then `-` with a default or `?` with what to say when it is not set."""
SECRETS = "OFFLOAD_COMPOSE_SECRETS"
OWNER = "OFFLOAD_UID"
FIRST_PARTY = "clickhouse-iceberg-offload/"
IMAGES = ROOT / "deploy" / "compose" / "image"
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


@cache
def defaults() -> dict[str, str]:
    """`.env.example` as a mapping."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@cache
def raw() -> str:
    return (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")


@cache
def compose() -> dict[str, Any]:
    """The file with the defaults of `.env.example` filled in and YAML's anchors and merges resolved."""
    values = defaults()
    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda m: values.get(m[1], ""), raw()))
    return found


@cache
def unfilled() -> dict[str, Any]:
    """The file with its variables as they are written."""
    found: dict[str, Any] = yaml.safe_load(raw())
    return found


@cache
def secret_maker() -> ModuleType:
    """`deploy/compose/make_secrets.py`, which is no package."""
    found = importlib.util.spec_from_file_location("make_secrets", ROOT / "deploy" / "compose" / "make_secrets.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


SERVICES: dict[str, dict[str, Any]] = compose()["services"]
NAMES = sorted(SERVICES)
LONG_RUNNING = [name for name in NAMES if name != "airflow-init"]
AIRFLOW = [name for name in NAMES if name.startswith("airflow-")]


def environment(name: str) -> dict[str, str]:
    return {variable: str(value) for variable, value in SERVICES[name].get("environment", {}).items()}


def mounts(name: str) -> list[tuple[str, str]]:
    """Source and target of every mount of a service."""
    parts = [str(volume).split(":") for volume in SERVICES[name].get("volumes", [])]
    return [(part[0], part[1]) for part in parts]


def targets(name: str) -> dict[str, str]:
    """The same, the source of each target."""
    return {target: source for source, target in mounts(name)}


def secrets_of(name: str) -> dict[str, str]:
    """The secrets of a service: name under /run/secrets to the key at the top of the file."""
    out = {}
    for entry in SERVICES[name].get("secrets", []):
        source, target = (entry, entry) if isinstance(entry, str) else (entry["source"], entry["target"])
        out[target] = source
    return out


def reads_secrets(name: str) -> bool:
    """Whether a file that make_secrets.py wrote is given to the service, as a secret or as a mount."""
    return bool(secrets_of(name)) or any(source.startswith(defaults()[SECRETS]) for source, _ in mounts(name))


def size(text: str) -> int:
    """Bytes of `512m` and its like."""
    return int(text[:-1]) * _UNITS[text[-1]]


def memory(name: str) -> int:
    """The most memory of a service, bytes."""
    return size(str(SERVICES[name]["deploy"]["resources"]["limits"]["memory"]))


def mini_conf() -> dict[str, str]:
    """SeaweedFS's options."""
    lines = (ROOT / "deploy/compose/seaweedfs/mini.conf").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


def submit_options() -> list[str]:
    """`SPARK_SUBMIT_OPTS` of Airflow's services, as Spark's launcher splits it: by blanks, outside of quotes."""
    return shlex.split(environment("airflow-scheduler")["SPARK_SUBMIT_OPTS"])
