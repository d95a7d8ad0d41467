"""What leaves the machine holds no secret: known ones in every form, and what looks like one."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from include.offload.redact import REMOVED, Redactor, known_secrets, secrets_in, without_logins
from include.offload.settings import load
from include.offload.support.collect import configuration
from tests.support.canaries import Canaries

SECRET = "p@ss/wörd-%41+x&y"
CANARIES = Canaries({"one": SECRET})


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own and no setting from outside; the secrets directory."""
    for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "PYICEBERG_", "AIRFLOW"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path / "secrets"))
    (tmp_path / "secrets").mkdir()
    return tmp_path / "secrets"


@pytest.mark.parametrize(
    "text",
    [
        f"before {SECRET} after",
        f"Authorization-like {base64.b64encode(f'user:{SECRET}'.encode()).decode()} end",
        f"x{base64.b64encode(f'us:{SECRET}'.encode()).decode()}y",
        json.dumps({"deep": ["a", SECRET]}),
        "postgresql+psycopg://u:p%40ss%2Fw%C3%B6rd-%2541%2Bx%26y@host/db",
        "quoted p%40ss/w%C3%B6rd-%2541%2Bx%26y in a path",
    ],
)
def test_a_known_secret_is_removed_in_every_form(text: str) -> None:
    redactor = Redactor({"one": SECRET})
    assert redactor.leaks(text.encode()) == {"one"}
    cleaned = redactor.clean(text)
    assert CANARIES.find(cleaned) == set()
    assert redactor.leaks(cleaned.encode()) == set()
    assert REMOVED in cleaned


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("error at http://user:never-seen@host:8123/path", f"error at http://{REMOVED}@host:8123/path"),
        ("password=never-seen rest", f"password={REMOVED} rest"),
        ('{"s3.secret-access-key": "never-seen"}', f'{{"s3.secret-access-key": "{REMOVED}"}}'),
        ("Authorization: Bearer abcdefghijkl", f"Authorization: Bearer {REMOVED}"),
        ("GET /x?X-Amz-Signature=0123456789abcdef&a=1", f"GET /x?X-Amz-Signature={REMOVED}&a=1"),
        ("to https://hooks.slack.com/services/T0/B0/xyz now", f"to https://hooks.slack.com/{REMOVED} now"),
        ("a eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl b", f"a {REMOVED} b"),
        ("to https://0123456789abcdef0123@o1.ingest.example.org/2", f"to https://{REMOVED}@o1.ingest.example.org/2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", REMOVED),
    ],
)
def test_what_looks_like_a_secret_is_removed(text: str, wanted: str) -> None:
    assert without_logins(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "OFL-201 [k2.silver_trades] ClickHouse does not answer: connecting to 127.0.0.1:18101",
        "plan 0c6f2f04-7a55-4f43-9d3a-8a3a0b0b7e39: generation 7, watermark 2026-01-31T12:00:00Z",
        "http://127.0.0.1:18106/api/v2/monitor/health answered 500",
        "cursor: ts\npartition: [day(ts), symbol]",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor({"one": SECRET}).clean(text) == text


@pytest.mark.parametrize(
    ("place", "text", "wanted"),
    [
        ("clickhouse_password", "a-long-password\n", {"a-long-password"}),
        ("offload_ledger_uri", "postgresql://u:pa%2Fssword@h:5432/d", {"pa%2Fssword", "pa/ssword"}),
        ("offload_airflow_url", "http://127.0.0.1:18106", set()),
        ("offload_statsd_port", "18104", set()),
        ("airflow_passwords.json", '{"admin": "a-long-password"}', {"a-long-password"}),
        ("s3.json", '{"identities": [{"name": "offload-lake", "secretKey": "a-secret-key"}]}', {"a-secret-key"}),
        ("connections.json", '{"c": {"host": "a-long-host-name", "password": "a-long-password"}}', {"a-long-password"}),
        ("offload.env", "OFFLOAD_X_URI='http://u:pass-word@h:1/'\nA=b\n", {"pass-word"}),
        (
            "pyiceberg.yaml",
            "catalog:\n  lake:\n    warehouse: 's3://lake/'\n    credential: 'key-number:secret-number'\n",
            {"key-number:secret-number", "key-number", "secret-number"},
        ),
        ("clickhouse-users.xml", "<users><u><password>a-long-password</password></u></users>", {"a-long-password"}),
        ("airflow.cfg", "[core]\nfernet_key = abcdefgh12345\nauth_manager = a.b.Manager\n", {"abcdefgh12345"}),
        (
            "offload_alert_webhook",
            "https://h.example.org/hook/T0KEN-canary",
            {"https://h.example.org/hook/T0KEN-canary"},
        ),
        ("alert_webhook", "http://127.0.0.1:18106/", set()),
        ("offload_runbooks_url", "https://docs.example.org/runbooks/18106", set()),
        ("config.json", '{"hook_url": "https://h/hook/T0KEN-canary?a"}', {"https://h/hook/T0KEN-canary?a"}),
        ("x.env", "A=b\nMY_WEBHOOK='https://h/hook/T0KEN-canary'\n", {"/hook/T0KEN-canary"}),
        (
            "airflow.cfg",
            "[sentry]\nsentry_dsn = https://0123456789abcdef@o1.example.org/2\n",
            {"0123456789abcdef", "https://0123456789abcdef@o1.example.org/2"},
        ),
        (
            "airflow_connections.json",
            '{"a": {"conn_type": "http", "host": "h.example.org/hook/host-canary"}, '
            '"b": {"conn_type": "http", "host": "a-long-host-name", "extra": {"headers": {"X-Any": "header-canary"}}}, '
            '"c": {"conn_type": "http", "extra": "{\\"path\\": \\"path-canary\\", \\"m\\": \\"spark-host-name\\"}"}, '
            '"d": "http://h/?headers=x&__extra__=%7B%22headers%22%3A%20%7B%22X%22%3A%20%22Key%20uri-canary%22%7D%7D"}',
            {"h.example.org/hook/host-canary", "header-canary", "path-canary", "uri-canary"},
        ),
        ("AIRFLOW_CONN_X", "http://h.example.org%2Fhook%2Fhost-canary/", {"h.example.org/hook/host-canary"}),
        ("broken.json", '{"password": "a-long-password"\n', {"a-long-password"}),
    ],
)
def test_secrets_are_found_where_they_stand(place: str, text: str, wanted: set[str]) -> None:
    found = secrets_in(place, text)
    assert wanted <= found
    assert not {value for value in found - wanted if "host-name" in value or "18106" in value}
    if not wanted:
        assert found == set()


def test_every_place_is_searched(monkeypatch: pytest.MonkeyPatch, clean: Path) -> None:
    (clean / "clickhouse_password").write_text("from-the-home-folder")
    (clean / ".pyiceberg.yaml").write_text("catalog:\n  lake:\n    credential: a:from-the-catalog\n    x: y\n")
    env_file = clean.parent / "offload.env"
    env_file.write_text("OFFLOAD_CLICKHOUSE_URI='http://u:from-the-env-file@h:1/'\nX=1\n")
    monkeypatch.setenv("OFFLOAD_SECRETS_FILE", str(env_file))
    monkeypatch.setenv("AIRFLOW_CONN_MAIL", '{"conn_type": "smtp", "password": "from-a-connection"}')
    monkeypatch.setenv("OFFLOAD_PROMETHEUS_URL", "https://u:from-a-setting@h/")
    monkeypatch.setenv("SOME_PROXY", "http://u:from-a-proxy@h:3128")
    config = clean.parent / "airflow.cfg"
    config.write_text("[database]\nsql_alchemy_conn = postgresql://a:from-airflows-config@h/a\n")
    monkeypatch.setenv("AIRFLOW_CONFIG", str(config))
    found = set(known_secrets(load()).values())
    assert {
        "from-the-home-folder",
        "from-the-catalog",
        "from-the-env-file",
        "from-a-connection",
        "from-a-setting",
        "from-a-proxy",
        "from-airflows-config",
    } <= found


def test_addresses_that_can_be_used_by_whoever_knows_them_are_in_no_configuration(
    monkeypatch: pytest.MonkeyPatch, clean: Path
) -> None:
    values = {
        "OFFLOAD_ALERT_WEBHOOK": "https://alerts.example.org/hook/canary-in-a-webhook",
        "AIRFLOW__SENTRY__SENTRY_DSN": "https://canary0in0a0dsn0@o1.ingest.example.org/2",
        "AIRFLOW__CELERY__BROKER_URL": "redis://:canary-in-a-login@redis:6379/0",
        "OFFLOAD_METRICS_URL": "https://metrics.example.org/?key=canary-in-a-query",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OFFLOAD_AIRFLOW_URL", "http://127.0.0.1:18106")
    (clean / "airflow_connections.json").write_text(
        json.dumps(
            {
                "hook": {"conn_type": "http", "host": "https://h.example.org/hook/canary-in-a-host"},
                "other": {
                    "conn_type": "http",
                    "host": "h",
                    "extra": '{"headers": {"X": "canary-in-header"}}',
                },
            }
        )
    )
    settings = load()
    parts = {part.name: part.text for part in configuration(settings, [])}
    shown = json.loads(parts["config/environment.json"])
    assert {shown[name] for name in values} == {REMOVED}
    assert shown["OFFLOAD_AIRFLOW_URL"] == "http://127.0.0.1:18106"
    redactor = Redactor(known_secrets(settings))
    log = "\n".join([*values.values(), "POST https://h.example.org/hook/canary-in-a-host", "X: canary-in-header"])
    for text in (*parts.values(), log):
        assert "canary" not in redactor.clean(text)


def test_a_secret_may_be_longer_than_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "x" * 300)
    assert "x" * 300 in known_secrets(load()).values()
