"""The secrets of docker-compose.yaml: made by one program, 0600, given to those who need them, read by real readers."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compose import (
    NAMES,
    OWNER,
    ROOT,
    SECRETS,
    SERVICES,
    compose,
    defaults,
    environment,
    mounts,
    secret_maker,
    secrets_of,
    targets,
)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that make_secrets.py writes."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    secret_maker().write(folder)
    return folder


def test_every_secret_has_a_file_that_set_up_makes(secrets: Path) -> None:
    own = defaults()[SECRETS]
    for name, secret in compose()["secrets"].items():
        assert secret["file"].startswith(own + "/"), name
        assert (secrets / secret["file"].removeprefix(own + "/")).is_file(), name


def test_every_secret_is_used() -> None:
    assert {source for name in NAMES for source in secrets_of(name).values()} == set(compose()["secrets"])


def test_secrets_keep_their_values_and_belong_to_one_user_who_is_not_root(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    secret_maker().write(secrets)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o600}
    owners = {path.stat().st_uid for path in (secrets, *secrets.iterdir())}
    assert owners == {secret_maker().owner()}
    assert owners != {0}


def test_compose_is_told_who_owns_them(tmp_path: Path) -> None:
    env, owner = tmp_path / ".env", secret_maker().owner()
    secret_maker().tell_compose(env, ROOT / ".env.example")
    assert f"\n{OWNER}={owner}\n" in env.read_text()
    assert len(env.read_text().splitlines()) == len((ROOT / ".env.example").read_text().splitlines())
    # what somebody changed stays, and what is missing comes
    env.write_text("OFFLOAD_ENV=prod")
    secret_maker().tell_compose(env, ROOT / ".env.example")
    assert env.read_text() == f"OFFLOAD_ENV=prod\n{OWNER}={owner}\n"


def test_secrets_go_where_compose_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRETS, raising=False)
    env, find = tmp_path / ".env", secret_maker().folder_of
    assert find(env) == ROOT / defaults()[SECRETS]
    env.write_text(f"{SECRETS}=./elsewhere\n")
    assert find(env) == ROOT / "elsewhere"
    monkeypatch.setenv(SECRETS, str(tmp_path))
    assert find(env) == tmp_path


def test_the_program_runs_alone_and_prints_no_secret(tmp_path: Path) -> None:
    """As a newcomer types it, in a copy of what it needs, with an interpreter that has no packages."""
    for part in ("deploy", "local"):
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    (tmp_path / ".env.example").write_bytes((ROOT / ".env.example").read_bytes())
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OFFLOAD_")}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "deploy/compose/make_secrets.py"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ,
    )
    made = tmp_path / ".run" / "compose-secrets"
    assert f"{len(list(made.iterdir()))} files" in done.stdout
    assert not [p.name for p in made.iterdir() if p.read_text().strip() in done.stdout + done.stderr]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_service_reads_below_run_secrets_is_given_to_it(name: str) -> None:
    """Paths in its environment, its command and the files that are mounted into it."""
    texts = [*environment(name).values(), str(SERVICES[name].get("command", ""))]
    for source, target in mounts(name):
        folder = ROOT / source
        if source.startswith("./deploy/") and not (target == "/opt/compose" and name != "airflow-init"):
            texts += [p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    wanted = {found for text in texts for found in re.findall(r"/run/secrets/([A-Za-z0-9_.-]+[a-z])", text)}
    assert wanted <= set(secrets_of(name))


def test_clickhouse_gets_the_users_and_grants_that_are_shipped(secrets: Path) -> None:
    """From `deploy/sql/clickhouse.sql`, by the module that the one-machine stack uses; passwords only as hashes."""
    from local.clickhouse_access import shipped

    text = (secrets / "clickhouse-users.xml").read_text()
    for name, access in shipped().items():
        user = text[text.index("<users>") :].split(f"<{name}>")[1].split(f"</{name}>")[0]
        assert re.findall(r"<query>(.*?)</query>", user) == list(access.grants)
    assert not [n for n in secret_maker().GENERATED if (secrets / n).read_text() in text]
    assert "/etc/clickhouse-server/users.d/offload.xml" in targets("clickhouse")


def test_airflow_reads_the_connections_from_their_file(secrets: Path, tmp_path: Path) -> None:
    """A real Airflow, with the secrets backend of the compose file, in a worker's mode."""
    settings = {
        name: value.replace("/run/secrets", str(secrets))
        for name, value in environment("airflow-scheduler").items()
        if name.startswith("AIRFLOW__SECRETS__")
    }
    program = (
        "from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded\n"
        "backend = ensure_secrets_backend_loaded()[0]\n"
        "for name in ('offload_clickhouse', 'offload_ledger', 'offload_spark'):\n"
        "    c = backend.get_connection(name)\n"
        "    print(name, c.conn_type, c.host, c.port)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **settings, "AIRFLOW_HOME": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-3:] == [
        "offload_clickhouse clickhouse clickhouse 8123",
        "offload_ledger postgres postgres 5432",
        "offload_spark spark spark://spark-master 7077",
    ]


def test_pyiceberg_reads_its_configuration(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / ".pyiceberg.yaml").write_text((secrets / "pyiceberg.yaml").read_text())
    program = "from pyiceberg.utils.config import Config; print(Config().get_catalog_config('lake')['uri'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYICEBERG_HOME": str(tmp_path)},
    )
    assert done.stdout.strip() == "http://seaweedfs:8181"


def test_the_domain_reads_its_settings_from_the_mounted_file(secrets: Path, tmp_path: Path) -> None:
    program = (
        "from include.offload.settings import load; s = load(); url = s.required_server('airflow');"
        " print(len(s.clickhouse_uris()), s.ledger()[:10], url[:13], url.rpartition('@')[2])"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OFFLOAD_")}
    environ |= {"OFFLOAD_SECRETS_FILE": str(secrets / "offload.env"), "OFFLOAD_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environ, cwd=ROOT
    )
    assert done.stdout.strip() == "1 postgresql http://admin: airflow-api-server:8080"
