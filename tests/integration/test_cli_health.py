"""`health`, `status --watch` and `support-bundle` against real servers, well and broken; no Airflow."""

from __future__ import annotations

import json
import os
import pty
import secrets as random
import signal
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from include.offload.health import CHECKS, Line, State, check_health
from include.offload.settings import ROOT, load
from include.offload.windows import from_us
from local import ports, secrets
from tests.support.canaries import Canaries
from tests.support.fixtures import SESSION
from tests.support.stack import Servers, start
from tests.support.tables import NEVER, Table, finish

pytestmark = pytest.mark.timeout(600)
PROGRAM = str(ROOT / "bin" / "offload")
NOT_HERE = dict.fromkeys(("airflow_url", "prometheus_url", "alertmanager_url"), "")
PUBLIC = {"s3_access_key", "s3_sql_access_key"}


@contextmanager
def watching(words: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program that ends only when it is told to; killed if the test fails before."""
    with subprocess.Popen(words, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def servers(data_stack: Servers) -> Servers:
    start(["statsd-exporter"])
    return data_stack


@pytest.fixture(scope="module")
def table(servers: Servers) -> Iterator[Table]:
    """A table that was offloaded once, alone among the specs."""
    made = Table(servers, f"health_{SESSION}")
    made.create().insert(300).write_spec()
    assert run(made) == (300, [])
    yield made
    finish(made)


@pytest.fixture
def specs(table: Table, tmp_path: Path) -> Path:
    """A directory whose only spec is the table's."""
    folder = tmp_path / "specs" / "it"
    folder.mkdir(parents=True)
    (folder / table.spec_file.name).write_text(table.spec_file.read_text())
    return folder.parent


@pytest.fixture
def only(specs: Path) -> dict[str, str]:
    """An environment with that spec alone, in which neither Airflow nor Prometheus is set up."""
    return {"OFFLOAD_TABLES": str(specs)} | {f"OFFLOAD_{name.upper()}": "" for name in NOT_HERE}


def offload(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, timeout=200, check=False, env=os.environ | environment
    )


def run(table: Table) -> tuple[int, list[Any]]:
    """A whole run: the rows that it shipped, and the windows that it left pending."""
    done = offload("run", "--json", table.identity)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    return said["rows"], said["pending"]


def health(*words: str, code: int, **environment: str) -> dict[str, dict[str, Any]]:
    """What the command says, line by name. Insists on the exit code."""
    done = offload("health", "--json", *words, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    return {line["name"]: line for line in json.loads(done.stdout)["lines"]}


def lines(specs: Path, *names: str, **settings: str) -> dict[str, Line]:
    """The same checks in this process, only those of these names if there are any."""
    checks = [check for check in CHECKS if not names or set(check.names) & set(names)]
    return {line.name: line for line in check_health(load(tables=specs, **NOT_HERE, **settings), checks).lines}


@contextmanager
def stopped(name: str) -> Iterator[None]:
    """A server of the stack is stopped for a while."""
    words = [str(ROOT / ".venv/airflow/bin/python"), "-m", "local"]
    subprocess.run([*words, "stop", name], check=True, capture_output=True, timeout=100, cwd=ROOT)
    try:
        yield
    finally:
        start([name])


def set_watermark(table: Table, sql: str) -> None:
    """Change the table's row of the ledger as the operator of a broken installation would find it."""
    with table.ctx.ledger.begin() as c:
        c.execute(text(f"UPDATE offload.watermarks SET {sql} WHERE table_name = :name"), {"name": table.identity})


def set_look(table: Table, field: str, value: int | None) -> int | None:
    """The same for its look; what stood there."""
    which = "WHERE table_id = (SELECT table_id FROM offload.tables WHERE identity = :name)"
    with table.ctx.ledger.begin() as c:
        names = {"name": table.identity, "field": field}
        sql = f"SELECT document->CAST(:field AS text) FROM offload.looks {which}"
        known = c.execute(text(sql), names).scalar_one()
        c.execute(
            text(
                "UPDATE offload.looks SET document ="
                f" jsonb_set(document, ARRAY[CAST(:field AS text)], CAST(:value AS jsonb)) {which}"
            ),
            names | {"value": json.dumps(value)},
        )
    return None if known is None else int(known)


def test_a_healthy_installation(table: Table, only: dict[str, str]) -> None:
    found = health(code=0, **only)
    states = {name: line["state"] for name, line in found.items()}
    unknown = {"Airflow scheduler", "Airflow DAG processor", "Airflow triggerer", "Airflow database"}
    assert {name for name, state in states.items() if state == "not set up"} >= unknown
    for name in (
        "ClickHouse", "PostgreSQL", "Iceberg catalog", "object store", "statsd_exporter", "table specs", "last cycles",
        "lag", "TTL headroom", "errors, last hour",
    ):  # fmt: skip
        assert states[name] == "ok", found[name]
    assert table.identity in found["object store"]["text"]
    assert states["Spark"] == "ok"


def test_spark_is_started_when_it_is_asked_for(table: Table, only: dict[str, str]) -> None:
    line = health("--deep", code=0, **only)["Spark start-up"]
    # a busy machine may start it slowly: that warns
    assert line["state"] in {"ok", "warn"}
    assert "started and ended in" in line["text"]
    line = health("--deep", code=1, **only, OFFLOAD_SPARK_MASTER="spark://127.0.0.1:1")["Spark start-up"]
    assert (line["state"], line["text"][:8]) == ("fail", "OFL-504 ")


def test_each_server_that_is_away_is_named_and_the_others_are_not(table: Table, specs: Path) -> None:
    with stopped("statsd-exporter"), stopped("postgres"):
        found = lines(specs)
        assert {n for n, line in found.items() if line.state is State.FAIL} == {
            "statsd_exporter", "PostgreSQL", "last cycles", "lag", "TTL headroom", "ClickHouse and Iceberg",
            "errors, last hour",
        }  # fmt: skip
        assert found["PostgreSQL"].text.startswith("OFL-501 ")
        assert str(found["PostgreSQL"].next).startswith("bin/offload stack start if ")
        assert found["statsd_exporter"].text.startswith("OFL-505 ")
        assert str(found["statsd_exporter"].runbook).endswith("#broken-metrics-pipeline")
    away = "http://offload:x@127.0.0.1:1/"
    line = lines(specs, "ClickHouse", clickhouse_uri=away)["ClickHouse"]
    assert (line.state, line.text[:8]) == (State.FAIL, "OFL-201 ")
    both = f"{away},{table.servers.secret('offload_clickhouse_uri')}"
    line = lines(specs, "ClickHouse", clickhouse_uri=both)["ClickHouse"]
    assert (line.state, line.text[:22]) == (State.WARN, "1 of 2 replicas fail: ")


def test_wrong_passwords_fail_their_own_line(table: Table, only: dict[str, str]) -> None:
    found = health(
        code=1,
        **only,
        OFFLOAD_CLICKHOUSE_URI=f"http://offload:wrong@127.0.0.1:{ports.port('CLICKHOUSE')}/",
        OFFLOAD_LEDGER_URI=f"postgresql://offload_ledger:wrong@127.0.0.1:{ports.port('POSTGRES')}/offload",
        PYICEBERG_CATALOG__LAKE__S3__SECRET_ACCESS_KEY="wrong",
    )
    assert found["ClickHouse"]["text"].startswith("OFL-202 ")
    assert found["PostgreSQL"]["text"].startswith("OFL-501 ")
    assert found["Iceberg catalog"]["state"] == "ok"
    assert found["object store"]["text"].startswith("OFL-307 "), found["object store"]


def test_lag_goes_from_ok_to_warn_to_fail_and_is_none_where_nothing_is_new(table: Table, specs: Path) -> None:
    mark = table.watermark_us()
    spec = specs / "it" / table.spec_file.name
    spec.write_text(spec.read_text().replace(NEVER, "*/15 * * * *"))
    try:
        # hours old, and no row lies behind it
        set_watermark(table, "watermark = now() - interval '3 h'")
        assert lines(specs, "lag")["lag"].state is State.OK
        table.insert(200, hours_ago=0.9, step_s=10)
        for minutes, state in ((20, State.OK), (36, State.WARN), (50, State.FAIL)):
            set_watermark(table, f"watermark = now() - interval '{minutes} minutes'")
            line = lines(specs, "lag")["lag"]
            assert line.state is state, (minutes, line)
        assert table.identity in line.text
        assert line.next == f"bin/offload status {table.identity}"
        # the table's own limit wins
        spec.write_text(f"{spec.read_text()}alerts: {{lag: 2h}}\n")
        assert lines(specs, "lag")["lag"].state is State.OK
    finally:
        set_watermark(table, f"watermark = '{from_us(mark):%Y-%m-%d %H:%M:%S.%f}+00'")
    assert run(table) == (200, [])
    assert lines(specs, "lag")["lag"].state is State.OK


def test_failed_cycles_warn_and_then_fail_and_silence_warns(table: Table, specs: Path, only: dict[str, str]) -> None:
    # a try that a retry follows is no failed run
    table.ctx.ledger.failed(table.identity, "OFL-201 once", final=False)
    line = lines(specs, "last cycles")["last cycles"]
    assert (line.state, "(a retry follows: OFL-201 once)" in line.text) == (State.WARN, True)
    for failures, state in ((1, State.WARN), (3, State.FAIL)):
        table.ctx.ledger.failed(table.identity, "OFL-201 by design")
        if failures > 1:
            set_watermark(table, f"failure_count = {failures}")
        found = lines(specs, "last cycles", "errors, last hour")
        assert found["last cycles"].state is state
        assert "OFL-201 by design" in found["last cycles"].text
        assert found["errors, last hour"].state is State.WARN
    set_watermark(
        table, "status = 'success', failure_count = 0, last_error = NULL, updated_at = now() - interval '2 h'"
    )
    # a run that ships nothing leaves only its look
    assert lines(specs, "last cycles")["last cycles"].state is State.OK
    seen = set_look(table, "seen_us", int((time.time() - 7200) * 1e6))
    # its schedule has not been due since
    assert lines(specs, "last cycles")["last cycles"].state is State.OK
    spec = specs / "it" / table.spec_file.name
    spec.write_text(spec.read_text().replace(NEVER, "*/15 * * * *"))
    line = lines(specs, "last cycles")["last cycles"]
    assert (line.state, "nothing schedules" in line.text) == (State.WARN, True)
    # a warning fails the command only when it is asked to
    assert offload("health", "--strict", **only).returncode == 1
    set_watermark(table, "updated_at = now()")
    set_look(table, "seen_us", seen)


def test_a_table_that_never_ran_is_named_by_every_line(table: Table, specs: Path) -> None:
    other = specs / "it" / "never_ran.yaml"
    other.write_text((specs / "it" / table.spec_file.name).read_text())
    found = lines(specs, "last cycles", "lag", "TTL headroom")
    for name in ("last cycles", "lag", "TTL headroom"):
        assert (found[name].state, "it.never_ran" in found[name].text) == (State.WARN, True), found[name]


def test_headroom_warns_below_a_day_and_fails_below_six_hours(table: Table, specs: Path) -> None:
    def expires(hours: int | None) -> None:
        # of the rows that the look saw, and of those that the run left
        for field in ("first_expiry_us", "next_expiry_us"):
            set_look(table, field, None if hours is None else int((time.time() + hours * 3600) * 1e6))

    try:
        for hours, state in ((48, State.OK), (12, State.WARN), (3, State.FAIL)):
            expires(hours)
            line = lines(specs, "TTL headroom")["TTL headroom"]
            assert line.state is state, line
            assert table.identity in line.text
    finally:
        expires(None)


def test_an_invalid_spec_fails(specs: Path) -> None:
    (specs / "it" / "broken.yaml").write_text("window: soon\n")
    line = lines(specs, "table specs")["table specs"]
    assert (line.state, line.text[:18]) == (State.FAIL, "1 of 2 are invalid")


def test_watch_prints_a_document_a_line_and_ends_well_on_an_interrupt(table: Table) -> None:
    words = [PROGRAM, "status", table.identity, "--watch", "--interval", "1", "--json"]
    with watching(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert said == ""
    for line in lines:
        (row,) = json.loads(line)["tables"]
        assert row["table"] == table.identity


def test_watch_goes_on_while_a_server_is_away(table: Table) -> None:
    words = [PROGRAM, "status", table.identity, "--watch", "--interval", "1", "--json"]
    away = {"OFFLOAD_LEDGER_URI": "postgresql://u:p@127.0.0.1:1/x"}
    with watching(words, stdout=subprocess.PIPE, text=True, env=os.environ | away) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert all("OFL-501" in one["problems"][0] for one in seen)


def test_watch_on_a_terminal_redraws_and_gives_it_back(table: Table) -> None:
    master, slave = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200", "LINES": "40"}
    words = [PROGRAM, "status", table.identity, "--watch", "--interval", "1"]
    with watching(words, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        shown, end = b"", time.monotonic() + 60
        # the second look is there
        while shown.count(b"every 1 s; Ctrl-C ends") < 2:
            assert time.monotonic() < end, shown
            shown += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while more := os.read(master, 65536):
                shown += more
        except OSError:
            # the other side closed it
            pass
        assert process.wait(timeout=30) == 0
    os.close(master)
    assert b"Traceback" not in shown
    assert b"\x1b[?1049h" in shown
    # the alternate screen is left, the cursor is back
    assert b"\x1b[?1049l" in shown
    assert b"\x1b[?25h" in shown


@pytest.fixture
def canaries(servers: Servers) -> Canaries:
    own = {name: servers.secret(name) for name in secrets.GENERATED if name not in PUBLIC}
    planted = ("in_a_log", "in_a_header", "in_an_error", "in_a_spec", "in_the_environment", "in_a_connection")
    return Canaries(own | {name: f"canary-{random.token_urlsafe(18)}" for name in planted})


def test_no_secret_is_in_a_support_bundle(
    table: Table, canaries: Canaries, only: dict[str, str], tmp_path: Path
) -> None:
    """Secrets lie in logs, in the ledger's error, in a spec and in the environment; what is packed holds none."""
    value = canaries.values
    home = table.servers.home
    log = home / "logs" / "canary.log"
    every = "\n".join(f"{name} {secret}" for name, secret in value.items() if not name.startswith("in_"))
    log.write_text(
        f"{every}\nfailed: postgresql://u:{value['in_a_log']}@h/d\nAuthorization: Bearer {value['in_a_header']}\n"
    )
    set_watermark(table, f"last_error = 'http://u:{value['in_an_error']}@h:1/ is away'")
    spec = Path(only["OFFLOAD_TABLES"]) / "it" / f"{table.name}.yaml"
    spec.write_text(f"{spec.read_text()}doc: 'see http://u:{value['in_a_spec']}@h/'\n")
    environment = {
        "OFFLOAD_PROMETHEUS_URL": f"http://u:{value['in_the_environment']}@127.0.0.1:1/",
        "AIRFLOW_CONN_X": json.dumps({"conn_type": "http", "password": value["in_a_connection"]}),
    }
    out = tmp_path / "bundle.tar.gz"
    try:
        done = offload("support-bundle", "--out", str(out), "--json", **(only | environment))
    finally:
        log.unlink()
        set_watermark(table, "last_error = NULL")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    folder = tmp_path / "unpacked"
    with tarfile.open(out) as tar:
        names = {member.name.removeprefix("offload-support/") for member in tar}
        # what we packed ourselves; Python before 3.11.4 knows no filter
        tar.extractall(folder)  # noqa: S202
    assert names == set(told["files"])
    assert canaries.in_files(folder) == {}
    assert canaries.find(done.stdout + done.stderr) == set()
    # the search can find: the log was packed, with what stood around the secrets
    packed = (folder / "offload-support" / "logs" / "canary.log").read_text()
    assert "clickhouse_password [removed]" in packed
    assert "failed: postgresql://[removed]@h/d" in packed
    for wanted in (
        "MANIFEST.txt", "versions.json", "health.json", "status.json", "metrics.txt", f"specs/it/{table.name}.yaml",
        "ledger/plans.json", "ledger/watermarks.json", f"snapshots/{table.identity}.json", "config/settings.json",
        "config/catalog.json", "logs/clickhouse.log",
    ):  # fmt: skip
        assert wanted in names, wanted
    plans = json.loads((folder / "offload-support/ledger/plans.json").read_text())
    snapshots = json.loads((folder / f"offload-support/snapshots/{table.identity}.json").read_text())["snapshots"]
    assert snapshots[-1]["summary"]["offload.plan"] in {p["plan_id"] for p in plans}
    assert any("OFL-505" in line for line in told["missing"])
    assert offload("support-bundle", "--out", str(out)).returncode == 2


def test_a_bundle_that_would_hold_a_known_secret_is_never_written(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.offload import redact
    from include.offload.errors import BUNDLE_LEAKS, OffloadError
    from include.offload.support import pack
    from include.offload.support.collect import Collector, Part

    secret = table.servers.secret("clickhouse_password")
    leaky = Collector("leaky", lambda *_: [Part("leaky.txt", f"x {secret} y")])
    out = tmp_path / "b.tar.gz"
    monkeypatch.setattr(redact.Redactor, "clean", lambda self, text: text)
    with pytest.raises(OffloadError) as refused:
        pack(load(), out, [leaky])
    assert refused.value.kind is BUNDLE_LEAKS
    assert "leaky.txt" in refused.value.cause
    assert secret not in str(refused.value)
    assert not out.exists()
