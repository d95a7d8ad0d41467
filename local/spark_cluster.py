"""A Spark standalone cluster on this machine: a master and workers as processes of their own, from the installed Spark.

For tests and for `bench.scaling`; the stack itself runs its jobs in local mode. Each process gets a directory of its
own and nothing of this process's environment. Where this process is root, they run as a user that cannot read what
only root may: what a job leaves in its driver's scratch directory is as far away as on another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import java
from local.paths import SPARK_VENV
from local.spark import spark_home

HOST = "127.0.0.1"
START_S, STOP_S = 60.0, 20.0
"""How long a start and a stop are waited for, seconds."""
POLL_S = 0.1
OTHER_USER = "nobody"
QUICK = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Of each JVM: they schedule, and move no row."""
DAEMON_MEMORY, EXECUTOR_MEMORY_MIB = "256m", 512


@dataclass(frozen=True)
class Server:
    """A master or a worker. `home`: its directory, which no other process of the cluster uses."""

    home: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """SIGKILL for it and all that it started, as when its machine goes. Raises TimeoutError."""
        _wait(lambda: not self._members(signal.SIGKILL), STOP_S, f"{self.home.name} outlives SIGKILL")
        self.process.wait(STOP_S)

    def stop(self) -> None:
        """Ask it to end, and kill what does not."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.kill()

    def log(self) -> str:
        """The last it wrote."""
        return (self.home / "log").read_text(errors="replace")[-4000:]

    def _members(self, send: signal.Signals) -> list[int]:
        """The processes of its session that still run, after this signal was sent to them."""
        running = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
        found = [pid for pid in running if _in_session(pid, self.process)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, send)
        return found


@dataclass
class SparkCluster:
    """A running cluster. `uri`: what `--master` takes; `cores`: of each worker."""

    uri: str
    cores: int
    master: Server
    workers: list[Server] = field(default_factory=list)

    def submit_options(self) -> list[str]:
        """Options of spark-submit for a job that begins when all workers are there, an executor on each."""
        conf = {
            "spark.executor.memory": f"{EXECUTOR_MEMORY_MIB}m",
            "spark.executor.cores": str(self.cores),
            "spark.executor.extraJavaOptions": QUICK,
            "spark.cores.max": str(self.cores * len(self.workers)),
            "spark.scheduler.minRegisteredResourcesRatio": "1.0",
            "spark.scheduler.maxRegisteredResourcesWaitingTime": f"{START_S:.0f}s",
        }
        return ["--master", self.uri, *(word for key, value in conf.items() for word in ("--conf", f"{key}={value}"))]


@contextlib.contextmanager
def spark_cluster(workers: int = 2, cores: int = 1) -> Iterator[SparkCluster]:
    """Start it, and stop it at the end with all that it runs. Raises TimeoutError with the log of who did not come."""
    port, page = _free_port(), _free_port()
    started: list[Server] = []
    # not below this process's own temporary directory, which the other user may not even enter
    home = Path(tempfile.mkdtemp(prefix="offload-spark-", dir="/tmp"))  # noqa: S108
    home.chmod(0o711)
    try:
        master = _start(
            home / "master", ["master.Master", "--host", HOST, "--port", str(port), "--webui-port", str(page)]
        )
        started.append(master)
        cluster = SparkCluster(f"spark://{HOST}:{port}", cores, master)
        _wait(lambda: _alive(page) is not None, START_S, "no answer", master)
        for number in range(1, workers + 1):
            # the executor's own memory and what Spark adds to it
            size = ["--cores", str(cores), "--memory", f"{2 * EXECUTOR_MEMORY_MIB}M"]
            where = home / f"worker-{number}"
            place = ["--host", HOST, "--webui-port", "0", "--work-dir", str(where / "work")]
            one = _start(where, ["worker.Worker", *size, *place, cluster.uri])
            started.append(one)
            cluster.workers.append(one)
        for one in cluster.workers:
            _wait(lambda: _alive(page) == workers, START_S, "the workers did not register", one)
        yield cluster
    finally:
        for one in reversed(started):
            one.stop()
        shutil.rmtree(home)


def _start(home: Path, words: Sequence[str]) -> Server:
    """A daemon of Spark in a session of its own, so that all that it starts is found."""
    options: dict[str, Any] = {}
    scratch = home / "tmp"
    scratch.mkdir(parents=True)
    if os.geteuid() == 0:
        other = pwd.getpwnam(OTHER_USER)
        options = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        for folder in (home, scratch):
            os.chown(folder, other.pw_uid, other.pw_gid)
    for folder in (home, scratch):
        folder.chmod(0o700)
    environment = {
        "HOME": str(home),
        "JAVA_HOME": str(java.java_home()),
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYSPARK_PYTHON": str(SPARK_VENV / "bin" / "python"),
        "SPARK_DAEMON_JAVA_OPTS": f"{QUICK} -Djava.io.tmpdir={scratch}",
        "SPARK_DAEMON_MEMORY": DAEMON_MEMORY,
        "SPARK_HOME": str(spark_home()),
        "SPARK_LOCAL_DIRS": str(scratch),
        "SPARK_LOCAL_IP": HOST,
        "TMPDIR": str(scratch),
    }
    name, *arguments = words
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(spark_home() / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            **options,
        )
    return Server(home, process)


def _alive(page: int) -> int | None:
    """How many workers the master counts as alive; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{page}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
    except OSError:
        return None


def _in_session(pid: int, leader: subprocess.Popen[bytes]) -> bool:
    """Whether a process runs in the session of another; one that only waits to be collected does not."""
    try:
        # proc(5): after the name, in parentheses, come state, parent, group and session
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return False
    return int(session) == leader.pid and state not in {"Z", "X"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait(done: Callable[[], bool], limit_s: float, what: str, server: Server | None = None) -> None:
    """Raises TimeoutError; RuntimeError when the server that it waits for has ended."""
    end = time.monotonic() + limit_s
    while not done():
        if server is not None and server.process.poll() is not None:
            raise RuntimeError(f"{server.home.name} ended with {server.process.returncode}:\n{server.log()}")
        if time.monotonic() > end:
            raise TimeoutError(f"{what} after {limit_s:.0f} s" + (f":\n{server.log()}" if server else ""))
        time.sleep(POLL_S)
