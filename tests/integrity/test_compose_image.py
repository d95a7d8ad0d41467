"""The three images of docker-compose.yaml, as far as they can be proved without Docker.

The quick tests read the Dockerfiles. The long one runs their install steps, as they are written, below a directory in
place of `/opt`: two clean virtual environments from the lock files, Spark's class data archive and a Java that
really maps it, and Iceberg's jars, which a driver and an executor really load. What it leaves out needs root and
Debian: `apt-get`, `useradd` and the directories of that user.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from local import iceberg, java, spark
from tests.support.compose import IMAGES, NAMES, OWNER, ROOT, SERVICES, environment, mounts, submit_options

BUILT = {
    str(SERVICES[name]["build"]["dockerfile"]): SERVICES[name]["build"] for name in NAMES if "build" in SERVICES[name]
}
MARK = "# ---- the same up to here ----\n"
FINDER = """
from pyspark.sql import SparkSession

spark = SparkSession.builder.config("spark.sql.catalog.lake", "org.apache.iceberg.spark.SparkCatalog").config(
    "spark.sql.catalog.lake.type", "hadoop").config("spark.sql.catalog.lake.warehouse", "warehouse").getOrCreate()
spark.sql("CREATE TABLE lake.db.t USING iceberg AS SELECT 1 AS n")
assert spark.table("lake.db.t").count() == 1
print("runtime on both")
"""
"""The driver plans with Iceberg's classes, an executor writes and reads with them."""
AS_ROOT = re.compile(r"\b(apt-get|useradd)\b")


def text_of(name: str) -> str:
    return (IMAGES / f"{name}.Dockerfile").read_text(encoding="utf-8")


def instructions(name: str) -> list[tuple[str, str]]:
    """Word and arguments of each instruction of a Dockerfile, its lines joined."""
    bare = "".join(line for line in text_of(name).splitlines(keepends=True) if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", bare).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line]


def env_of(name: str) -> dict[str, str]:
    """What the image's `ENV` says."""
    pairs = [pair for word, rest in instructions(name) if word == "ENV" for pair in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def test_every_dockerfile_is_built_from_this_repository() -> None:
    assert {ROOT / file for file in BUILT} == set(IMAGES.glob("*.Dockerfile"))
    assert {build["context"] for build in BUILT.values()} == {"."}


@pytest.mark.parametrize("name", ["airflow", "spark", "seaweedfs"])
def test_base_images_are_pinned_and_the_user_is_not_root(name: str) -> None:
    steps = instructions(name)
    (base,) = [rest for word, rest in steps if word == "FROM"]
    repository, _, tag = base.rpartition(":")
    assert re.match(r"\d+(\.\d+)+", tag) and "." not in repository, base
    assert steps[-1] == ("USER", f"${{{OWNER}}}:0")
    assert ("ARG", f"{OWNER}=50000") in steps
    # secrets are mounted when a container starts, never built in
    assert not re.search(r"secret|password|token", text_of(name).split("\n", 3)[3], re.IGNORECASE)


def test_driver_and_executors_have_the_same_python_java_and_packages() -> None:
    airflow, spark_ = (text_of(name).split(MARK)[0].split("\n\n", 1)[1] for name in ("airflow", "spark"))
    assert airflow == spark_
    assert "requirements-spark.txt" in airflow and "archive.sh" in airflow


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for name in ("airflow", "spark", "seaweedfs")
        for word, rest in instructions(name)
        if word == "COPY"
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).is_file() for source in copied)


def test_packages_are_installed_with_their_hashes() -> None:
    script = (IMAGES / "venv.sh").read_text(encoding="utf-8")
    installs = [line for line in script.splitlines() if "pip" in line and ("install" in line or "sync" in line)]
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in re.sub(r"\\\n\s*", "", script).splitlines() if " -m pip " in line)
    assert all("--require-hashes" in line for line in installs if "pip sync" in line)
    assert not re.search(r"pip3? install", "".join(text_of(name) for name in ("airflow", "spark", "seaweedfs")))


def test_the_python_of_the_images_is_the_one_that_the_locks_are_for() -> None:
    (base,) = [rest for word, rest in instructions("spark") if word == "FROM"]
    minor = re.match(r"python:(3\.\d+)\.", base)
    assert minor is not None
    assert f"--python-version {minor[1]} " in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"/lib/python{minor[1]}/site-packages/pyspark" in text_of("spark")


def test_the_archive_that_is_baked_is_the_one_that_jobs_are_told_of() -> None:
    for name in ("airflow", "spark"):
        (baked,) = [rest.split()[2] for word, rest in instructions(name) if word == "RUN" and "archive.sh" in rest]
        assert [o.partition("=")[2] for o in submit_options() if o.startswith("-XX:SharedArchiveFile")] == [baked]
    script = (IMAGES / "archive.sh").read_text(encoding="utf-8")
    assert f'SPARK_SUBMIT_OPTS="{" ".join(spark.JVM)}"' in script


def test_the_jars_that_maintenance_is_told_of_are_fetched_into_both_images() -> None:
    told = environment("airflow-scheduler")["OFFLOAD_ICEBERG_JARS"].split(",")
    for name in ("airflow", "spark"):
        (fetched,) = [rest.split()[2:] for word, rest in instructions(name) if word == "RUN" and "jars.sh" in rest]
        directory, *packages = fetched
        assert tuple(packages) == iceberg.PACKAGES
        # the same path for the driver in one image and for the executors in the other
        assert told == [f"local:{directory}/{path.name}" for path in iceberg.paths(packages)]


def test_named_volumes_of_own_images_begin_as_directories_of_their_user() -> None:
    made = {}
    for name in ("airflow", "spark"):
        text = " ".join(rest for word, rest in instructions(name) if word == "RUN")
        for found in re.finditer(r"install --directory --owner=\"\$OFFLOAD_UID\" --group=0 --mode=0770 ([^&]+)", text):
            made |= dict.fromkeys(found[1].split(), name)
    for service in NAMES:
        image = SERVICES[service]["image"].split("/")[-1].split(":")[0]
        for source, target in mounts(service):
            if "/" not in source and image in {"airflow", "spark"}:
                assert made.get(target) == image, f"{service}: {target}"


def test_programs_that_services_start_are_in_their_images() -> None:
    spark_home = env_of("spark")["SPARK_HOME"]
    for name in ("spark-master", "spark-worker"):
        assert SERVICES[name]["command"][0] == f"{spark_home}/bin/spark-class"
    assert (spark.spark_home() / "bin" / "spark-class").is_file()
    home = env_of("airflow")["AIRFLOW_HOME"]
    scheduler = environment("airflow-scheduler")
    assert scheduler["AIRFLOW__LOGGING__BASE_LOG_FOLDER"].startswith(f"{home}/")
    assert env_of("airflow")["PATH"].startswith("/opt/airflow-venv/bin:")


def run(command: str, env: dict[str, str], where: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command],
        check=False,
        cwd=where,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}"
    return done.stdout


def locked(file: str) -> set[str]:
    """`name==version` of every package of a lock file that is for this machine."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {line.split(" ")[0].lower() for line in lines if re.match(r"[a-z0-9].*==", line) and " ; " not in line}


def installed(python: Path, env: dict[str, str], where: Path) -> set[str]:
    program = "import importlib.metadata as m; [print(f'{d.name}=={d.version}') for d in m.distributions()]"
    said = run(f"{python} -c {shlex.quote(program)}", env, where)
    return {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() + "==" + line.split("==")[1] for line in said.split()}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_install_steps_run_in_clean_virtual_environments(tmp_path: Path) -> None:
    """Everything in the Airflow image's Dockerfile that needs no root; the Spark image's steps are its first part."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_", "OFFLOAD_", "VIRTUAL_ENV"))}
    # `python3` is the one that this project's environments are made with
    env["PATH"] = f"{sys.base_prefix}/bin:{env['PATH']}"
    opt = tmp_path / "opt"
    opt.mkdir()
    (opt / "java").symlink_to(java.java_home())
    left_out = 0
    for word, rest in instructions("airflow"):
        here = rest.replace("/opt/", f"{opt}/")
        if word == "COPY":
            *sources, target = here.split()
            Path(target).mkdir(parents=True, exist_ok=True)
            for source in sources:
                (Path(target) / Path(source).name).write_bytes((ROOT / source).read_bytes())
        elif word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(here))
            env |= {name: value.replace("$PATH", env["PATH"]) for name, value in pairs.items()}
        elif word == "RUN" and AS_ROOT.search(here):
            left_out += 1
        elif word == "RUN":
            # the cache of this machine saves a gigabyte of downloads
            run(here.replace("UV_NO_CACHE=1 ", ""), env, tmp_path)
    assert left_out == 2
    for venv, file in (("airflow-venv", "requirements.txt"), ("spark-venv", "requirements-spark.txt")):
        assert installed(opt / venv / "bin" / "python", env, tmp_path) >= locked(file)
    airflow = run("airflow version", {**env, "AIRFLOW_HOME": str(tmp_path / "airflow")}, tmp_path)
    assert re.search(r"^3\.3\.", airflow, re.MULTILINE)
    # as docker-compose.yaml starts a job, and Java says where each class came from
    told = [option.replace("/opt/", f"{opt}/") for option in submit_options() if option.startswith("-X")]
    told = [option for option in told if not option.startswith("-Xlog")]
    loaded = tmp_path / "classes.log"
    job = {**env, "SPARK_SUBMIT_OPTS": " ".join([*told, f"-Xlog:class+load:file={loaded}"])}
    run("spark-submit --version", job, tmp_path)
    assert loaded.read_text().count("shared objects file (top)") > 100
    # the default of OFFLOAD_ICEBERG_JARS, for a driver and an executor of its own
    jars = environment("airflow-scheduler")["OFFLOAD_ICEBERG_JARS"].replace("/opt/", f"{opt}/")
    finder = tmp_path / "finder.py"
    finder.write_text(FINDER)
    cluster = "spark-submit --master 'local-cluster[1,1,512]' --conf spark.executor.memory=512m"
    plain = {**env, "SPARK_LOCAL_IP": "127.0.0.1"}
    assert "runtime on both" in run(f"{cluster} --jars {jars} {finder}", plain, tmp_path)
