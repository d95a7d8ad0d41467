"""docker-compose.yaml by itself: schema, variables, pins, users, limits, ports, start order, profiles.

What a container engine would do is not tested here. docs/howto-docker-compose.md says so.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.support.compose import (
    FIRST_PARTY,
    LONG_RUNNING,
    NAMES,
    OWNER,
    ROOT,
    SERVICES,
    VARIABLE,
    compose,
    defaults,
    environment,
    memory,
    raw,
    reads_secrets,
    size,
    unfilled,
)

CORE = {
    "airflow-api-server",
    "airflow-dag-processor",
    "airflow-init",
    "airflow-scheduler",
    "airflow-triggerer",
    "clickhouse",
    "postgres",
    "seaweedfs",
    "spark-master",
    "spark-worker",
    "statsd-exporter",
}
MONITORING = {"alertmanager", "grafana", "prometheus", "statsd-exporter"}
BY_COMPOSE_ITSELF = {"COMPOSE_PROFILES"}
"""What Compose reads from .env though the file does not name it."""
HIDDEN = re.compile(r"PASSWORD|SECRET_KEY|JWT|FERNET|SQL_ALCHEMY_CONN|TOKEN|ACCESS_KEY|CREDENTIAL")
LOGIN = re.compile(r"://[^/\s\"'@]+:[^/\s\"'@]+@")


def schema_errors(document: dict[str, Any]) -> list[str]:
    schema = json.loads((ROOT / "tests/support/schemas/compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(document)]


def test_the_file_follows_the_compose_schema() -> None:
    # Compose itself ignores what begins with x-
    assert not schema_errors(compose())


def test_the_schema_refuses_a_wrong_file() -> None:
    assert schema_errors({"services": {"x": {"image": "a:1", "healthchek": {}}}})


def test_the_file_says_that_it_was_never_run() -> None:
    assert "NEVER RUN" in raw().split("\nname:")[0]


def test_every_variable_is_in_env_example_with_the_same_default() -> None:
    values = defaults()
    used = VARIABLE.findall(raw())
    assert {name for name, _, _ in used} | BY_COMPOSE_ITSELF == set(values)
    for name, kind, default in used:
        # the owner of the secrets has no default: a wrong one would be told of by every container in its own words
        assert kind == ("?" if name == OWNER else "-"), name
        assert name == OWNER or default == values[name], name
    assert not re.search(r"(?<!\$)\$[A-Za-z]", raw()), "a variable without braces"


def test_profiles_hold_what_they_should_and_what_their_services_wait_for() -> None:
    by_profile: dict[str, set[str]] = {}
    for name in NAMES:
        for profile in SERVICES[name]["profiles"]:
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {"core": CORE, "monitoring": MONITORING}
    for profile, members in by_profile.items():
        for name in members:
            # Compose refuses to start a service that waits for one outside of the chosen profiles
            assert set(SERVICES[name].get("depends_on", {})) <= members, f"{name} in {profile}"
    assert defaults()["COMPOSE_PROFILES"] == "core"


@pytest.mark.parametrize("name", NAMES)
def test_images_are_pinned_by_version_and_name_no_registry(name: str) -> None:
    image = SERVICES[name]["image"]
    repository, _, tag = image.rpartition(":")
    assert re.match(r"^v?\d+(\.\d+)+", tag), image
    first = repository.split("/")[0]
    assert "." not in first and ":" not in first and first != "localhost", image
    assert ("build" in SERVICES[name]) == image.startswith(FIRST_PARTY)


def test_no_secret_is_in_an_environment_or_a_command_line() -> None:
    for name in NAMES:
        service = SERVICES[name]
        for variable, value in environment(name).items():
            if HIDDEN.search(variable):
                assert variable.endswith(("_FILE", "_CMD")), f"{name}: {variable}"
                assert re.fullmatch(r"(cat )?/(run/secrets|opt/airflow/auth)/[\w.]+", value), f"{name}: {variable}"
        shown = json.dumps([service.get(key) for key in ("command", "entrypoint", "healthcheck", "labels", "build")])
        assert not re.search(r"--?(password|secret|token|credential)", shown, re.IGNORECASE), name
    assert not LOGIN.search(json.dumps(unfilled()))


@pytest.mark.parametrize("name", NAMES)
def test_no_container_is_root_or_may_become_it(name: str) -> None:
    service, written = SERVICES[name], unfilled()["services"][name]
    user, group = service["user"].split(":")
    assert user.isdigit() and int(user) > 0
    # who reads a file of mode 0600 is its owner
    assert written["user"].startswith(f"${{{OWNER}:") == (reads_secrets(name) or "build" in service), name
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    # `clickhouse su` in the image's entrypoint refuses group 0
    assert (group == "0") == (written["user"].startswith("${") and name != "clickhouse"), name


def test_own_images_are_built_for_the_owner_of_the_secrets() -> None:
    for name in NAMES:
        if "build" in SERVICES[name]:
            assert SERVICES[name]["build"]["args"] == {OWNER: int(defaults()[OWNER])}, name


@pytest.mark.parametrize("name", NAMES)
def test_every_container_is_bounded(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    # Docker refuses more cores than the machine has, and two are what the project asks for
    assert isinstance(limits["cpus"], str) and 0 < float(limits["cpus"]) <= 2
    assert memory(name) >= 128 * 2**20
    assert 100 <= limits["pids"] <= 4096


def test_limits_leave_room_for_what_the_services_are_told_to_use() -> None:
    sql = (ROOT / "deploy/sql/clickhouse.sql").read_text(encoding="utf-8")
    query = re.search(r"max_memory_usage = (\d+)", sql)
    assert query is not None
    # ClickHouse itself takes nine tenths of what it may
    assert 0.9 * memory("clickhouse") > int(query[1])
    lent, daemon = (
        size(defaults()["OFFLOAD_SPARK_WORKER_MEMORY"]),
        size(environment("spark-worker")["SPARK_DAEMON_MEMORY"]),
    )
    # beside Java there are the Python processes that encode, up to half a GB for each core
    python = 2**29 * int(defaults()["OFFLOAD_SPARK_WORKER_CORES"])
    assert memory("spark-worker") >= lent + daemon + python
    drivers = int(defaults()["OFFLOAD_SPARK_SLOTS"]) * size(environment("airflow-scheduler")["SPARK_DRIVER_MEMORY"])
    tasks = int(environment("airflow-scheduler")["AIRFLOW__CORE__PARALLELISM"]) * 300 * 2**20
    assert memory("airflow-scheduler") >= drivers + tasks
    assert size(SERVICES["postgres"]["shm_size"].removesuffix("b")) < memory("postgres")


@pytest.mark.parametrize("name", NAMES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert "network_mode" not in SERVICES[name]
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port)), port


def test_only_user_interfaces_are_published_and_no_port_twice() -> None:
    published = {name: SERVICES[name]["ports"] for name in NAMES if "ports" in SERVICES[name]}
    assert set(published) == {"airflow-api-server", "alertmanager", "grafana", "prometheus", "spark-master"}
    hosts = [str(port).split(":")[1] for ports in published.values() for port in ports]
    assert len(hosts) == len(set(hosts))


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_server_has_a_health_check_a_restart_policy_and_bounded_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["logging"]["options"]["max-size"]


def test_services_wait_for_healthy_ones_and_never_for_each_other() -> None:
    waits = {name: SERVICES[name].get("depends_on", {}) for name in NAMES}
    for name, needed in waits.items():
        for other, how in needed.items():
            assert other in SERVICES, f"{name} waits for {other}"
            expected = "service_completed_successfully" if other == "airflow-init" else "service_healthy"
            assert how["condition"] == expected, f"{name} waits for {other}"
    started: set[str] = set()
    while len(started) < len(NAMES):
        ready = {name for name in NAMES if name not in started and set(waits[name]) <= started}
        assert ready, f"a circle among {set(NAMES) - started}"
        started |= ready


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("airflow-init", {"postgres"}),
        ("airflow-api-server", {"airflow-init", "postgres"}),
        ("airflow-dag-processor", {"airflow-init", "postgres", "airflow-api-server"}),
        ("airflow-triggerer", {"airflow-init", "postgres", "airflow-api-server"}),
        (
            "airflow-scheduler",
            {
                "airflow-init",
                "postgres",
                "airflow-api-server",
                "clickhouse",
                "seaweedfs",
                "spark-worker",
                "statsd-exporter",
            },
        ),
        ("spark-worker", {"spark-master"}),
        ("prometheus", {"alertmanager", "statsd-exporter"}),
        ("grafana", {"prometheus"}),
    ],
)
def test_start_order(name: str, after: set[str]) -> None:
    assert set(SERVICES[name]["depends_on"]) == after


def test_no_named_volume_is_of_two_users() -> None:
    owners: dict[str, set[str]] = {}
    for name in NAMES:
        for volume in SERVICES[name].get("volumes", []):
            source = str(volume).split(":")[0]
            if "/" not in source:
                owners.setdefault(source, set()).add(SERVICES[name]["user"])
    assert set(owners) == set(compose()["volumes"])
    assert all(len(users) == 1 for users in owners.values()), owners
