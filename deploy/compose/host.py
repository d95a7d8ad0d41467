"""`bin/offload` on the host of a Docker Compose installation, where there is no environment of this checkout.

So that a runbook has one text: `stack …` becomes `docker compose up|stop|ps|logs` of the services of the same names,
everything else runs in a container of Airflow: in the scheduler's while that runs, else in one of its own. Standard
library only. NEVER RUN with a Docker engine: tests/unit/test_compose_host.py looks at the commands that it gives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ["docker", "compose", "--project-directory", str(ROOT)]
AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
DATA = ("postgres", "clickhouse", "seaweedfs", "statsd-exporter")
MONITORING = ("statsd-exporter", "prometheus", "alertmanager")
SPARK = ("spark-master", "spark-worker")
GROUPS = {
    "all": (*DATA, *MONITORING[1:], *SPARK, *AIRFLOW),
    "data": DATA,
    "monitoring": MONITORING,
    "airflow": AIRFLOW,
}
"""The groups of the one-machine stack; `prometheus` and `alertmanager` are in the profile `monitoring`."""
STATES = {"running": "RUNNING", "restarting": "BACKOFF", "paused": "PAUSED", "dead": "FATAL"}
HOME_OF_COMMANDS = "airflow-scheduler"


def main(argv: Sequence[str]) -> int:
    """The exit code of what was run."""
    if argv[:1] == ["stack"]:
        return _stack(argv[1:])
    # without a terminal, e.g. from cron, docker refuses to make one
    tty = [] if sys.stdin.isatty() and sys.stdout.isatty() else ["-T"]
    up = _said("ps", "--status", "running", "--services").split()
    if HOME_OF_COMMANDS in up:
        return _do("exec", *tty, HOME_OF_COMMANDS, "bin/offload", *argv)
    return _do("run", "--rm", "--no-deps", *tty, HOME_OF_COMMANDS, "bin/offload", *argv)


def _stack(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bin/offload stack", description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "status", "log"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"a service, or one of {', '.join(GROUPS)}")
    parser.add_argument("-n", "--lines", type=int, default=40)
    options = parser.parse_args(argv)
    names = [one for name in options.names or ["all"] for one in GROUPS.get(name, (name,))]
    if options.action == "log":
        return _do("logs", "--no-log-prefix", "--tail", str(options.lines), *names)
    if options.action == "stop":
        # all: also what is in no group
        if (code := _do("stop", *(names if options.names else ()))) == 0:
            _tell(names, "stopped")
        return code
    if options.action == "start":
        # not `start`: that knows only containers that are there, and does not wait
        code = _do("--profile", "monitoring", "up", "--detach", "--no-build", "--no-recreate", "--wait", *names)
        if code != 0:
            return code
        _tell(names, "ready")
    return _status(names)


def _in_order(names: Sequence[str]) -> list[str]:
    """As on one machine, where a server stands before those that need it; what is in no group last."""
    known = GROUPS["all"]
    return sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in known else len(known))


def _tell(names: Sequence[str], state: str) -> None:
    """What docker says goes to a terminal, in words of its own; these are the runbooks'."""
    for name in _in_order(names):
        _say(f"{name}  {state}")


def _status(names: Sequence[str]) -> int:
    """Exit code 0: all answer; 3: one does not, as on one machine."""
    names = _in_order(names)
    found = {}
    # one document a line, or one list of them: that depends on the version
    for line in _said("--profile", "monitoring", "ps", "--all", "--format", "json").splitlines():
        document = json.loads(line)
        for one in document if isinstance(document, list) else [document]:
            found[str(one["Service"])] = one
    width = max(map(len, ("server", *names)))
    _say(f"{'server':<{width}}  {'state':<8}  answers")
    healthy = True
    for name in names:
        one = found.get(name, {})
        state = STATES.get(str(one.get("State", "")), "STOPPED")
        answers = state == "RUNNING" and one.get("Health", "") in ("", "healthy")
        healthy = healthy and answers
        _say(f"{name:<{width}}  {state:<8}  {'yes' if answers else 'no'}")
    return 0 if healthy else 3


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _do(*words: str) -> int:
    return subprocess.run([*COMPOSE, *words], check=False).returncode


def _said(*words: str) -> str:
    done = subprocess.run([*COMPOSE, *words], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
