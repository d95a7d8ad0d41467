"""What is told of a failed task, and how each kind of channel is told: to real receivers on loopback."""

from __future__ import annotations

import email
import email.policy
import json
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException

from include.offload.errors import SOURCE_UNREACHABLE, OffloadError
from include.offload.settings import ROOT, Settings
from include.offload.spec.load import load_specs
from include.orchestration import notify
from include.orchestration.dag import build_dag
from include.orchestration.failures import RefusedForNow
from include.orchestration.notify import FailureNotifier, Refused, describe, tell
from tests.support.receivers import Heard, smtp, webhook

SPEC = load_specs(ROOT / "dags" / "tables").specs[0]
REFUSAL = OffloadError(SOURCE_UNREACHABLE, "no answer from 10.0.0.1:8123 <b>&</b> {{ ds }}", table=SPEC.identity)
PLAN = {
    "plan_id": "0c6f2f04-7a55-4f43-9d3a-8a3a0b0b7e39",
    "from": "2026-01-31T12:00:00Z",
    "to": "2026-01-31T12:15:00Z",
    "windows": 3,
    "rows": 1234,
}


def context(error: object, plan: dict[str, Any] | None = None) -> Any:
    """As much of Airflow's context as the message is made from."""
    return {
        "ti": SimpleNamespace(
            dag_id=SPEC.dag_id, run_id="manual__1", task_id="offload", try_number=2, log_url="http://airflow/log",
            xcom_pull=lambda **_: plan,
        ),
        "exception": error,
        "data_interval_start": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "data_interval_end": datetime(2026, 1, 31, 12, 15, tzinfo=UTC),
    }  # fmt: skip


def failure(error: object = None, plan: dict[str, Any] | None = PLAN, **settings: Any) -> notify.Failure:
    return describe(SPEC, context(error or RefusedForNow(REFUSAL), plan), Settings(**settings))


def connection(**fields: Any) -> Connection:
    extra = json.dumps(fields.pop("extra", {}))
    return Connection(conn_id="channel", extra=extra, **fields)


def test_the_message_names_table_window_id_next_step_and_runbook() -> None:
    told = failure(runbooks_url="https://ex.org/runbooks/")
    assert told.title == f"{SPEC.identity}: offload failed, OFL-201 ClickHouse does not answer"
    rows = dict(told.rows())
    assert rows["window"] == "2026-01-31T12:00:00Z to 2026-01-31T12:15:00Z, 3 windows, 1234 rows"
    assert rows["cause"] == REFUSAL.cause
    assert rows["next"].startswith("bin/offload stack start if ")
    assert rows["runbook"] == "https://ex.org/runbooks/iceberg-offload-failure.md#clickhouse-connectivity"
    assert rows["plan"] == PLAN["plan_id"]
    assert rows["log"] == "http://airflow/log"
    assert "try 2" in rows["run"]


def test_before_a_plan_the_run_s_interval_stands_for_the_window() -> None:
    assert failure(plan=None).window == (
        "none planned yet; the run's interval is 2026-01-31T12:00:00Z to 2026-01-31T12:15:00Z"
    )


def test_a_foreign_error_is_named_by_its_type_alone_and_a_killed_task_as_such() -> None:
    told = failure(ValueError("password=never-seen"))
    assert told.id is None
    assert "ValueError" in told.title
    assert "never-seen" not in json.dumps(asdict(told))
    assert told.runbook.endswith("iceberg-offload-failure.md#diagnosis")
    killed = describe(SPEC, context(None), Settings())
    assert "stopped from outside" in killed.title


def test_a_login_in_a_cause_is_taken_out() -> None:
    error = OffloadError(SOURCE_UNREACHABLE, "http://u:never-seen@h:1/ is away")
    assert "never-seen" not in failure(RefusedForNow(error)).cause


def test_a_webhook_gets_every_field_with_headers_and_login() -> None:
    with webhook() as heard:
        told = failure()
        tell(
            connection(
                conn_type="http", host=f"http://127.0.0.1:{heard.port}/hooks", login="me", password="secret-1",
                extra={"path": "offload", "headers": {"X-Team": "data"}},
            ),
            told,
        )  # fmt: skip
        tell(connection(conn_type="http", schema="http", host="127.0.0.1", port=heard.port, password="token-1"), told)
    assert heard.paths == ["/hooks/offload", "/"]
    assert heard.documents[0] == {"title": told.title, **asdict(told)}
    assert heard.headers[0]["x-team"] == "data"
    assert heard.headers[0]["authorization"].startswith("Basic ")
    assert heard.headers[1]["authorization"] == "Bearer token-1"


def test_a_webhook_is_told_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "localhost")
        tell(connection(conn_type="http", schema="http", host="hooks.example.invalid"), failure())
    assert proxy.paths == ["http://hooks.example.invalid/"]


def test_a_connection_that_does_not_come_about_is_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at the first try, and a receiver does at the second."""
    with webhook() as gone:
        port = gone.port
    heard, pauses = list[Heard](), list[float]()
    with ExitStack() as later:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            heard.append(later.enter_context(webhook(port)))

        monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=pause))
        tell(connection(conn_type="http", schema="http", host="127.0.0.1", port=port), failure())
    assert pauses == [notify.PAUSE_S]
    assert [len(one.documents) for one in heard] == [1]


def test_slack_gets_one_text_in_its_own_escapes() -> None:
    with webhook() as heard:
        conn = connection(
            conn_type="slackwebhook", host=f"http://127.0.0.1:{heard.port}/services", password="T0/B0/never-seen"
        )
        tell(conn, failure())
    assert heard.paths == ["/services/T0/B0/never-seen"]
    (document,) = heard.documents
    assert set(document) == {"text"}
    text = document["text"]
    assert text.startswith(f"*{SPEC.identity}: offload failed, OFL-201")
    assert "&lt;b&gt;&amp;&lt;/b&gt; {{ ds }}" in text
    assert "docs/operations/runbooks/iceberg-offload-failure.md#clickhouse-connectivity" in text


def test_an_e_mail_goes_through_airflow_s_smtp_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    with smtp() as heard:
        extra = {"to": "a@example.org, b@example.org", "from_email": "offload@example.org"}
        extra |= {"disable_tls": True, "disable_ssl": True}  # type: ignore[dict-item]
        conn = connection(conn_type="smtp", host="127.0.0.1", port=heard.port, extra=extra)
        monkeypatch.setenv("AIRFLOW_CONN_CHANNEL", conn.as_json())
        tell(conn, failure())
    (text,) = heard.mails
    mail = email.message_from_string(text, policy=email.policy.default)
    assert str(mail["Subject"]).startswith(f"{SPEC.identity}: offload failed, OFL-201")
    assert len(heard.recipients) == 2
    body = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "&lt;b&gt;&amp;&lt;/b&gt; {{ ds }}" in body
    assert "bin/offload stack start" in body


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conn_type": "postgres", "host": "h"}, "type 'postgres' is none of slackwebhook"),
        ({"conn_type": "http"}, "names no host"),
        ({"conn_type": "smtp", "host": "h"}, "`to`"),
    ],
)
def test_a_channel_that_can_not_be_told_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        tell(connection(**fields), failure())


def test_every_channel_is_told_and_what_fails_is_said_without_its_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    with webhook() as bad, webhook() as good:
        bad.answer = 404
        for name, port in (("BAD", bad.port), ("GOOD", good.port), ("GONE", 1)):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", f"http://:never-seen@127.0.0.1:{port}")
        monkeypatch.setenv("OFFLOAD_NOTIFY", "bad, gone, good, unknown")
        with pytest.raises(RuntimeError) as raised:
            FailureNotifier(SPEC)(context(RefusedForNow(REFUSAL), PLAN))
    assert len(good.documents) == 1
    said = str(raised.value)
    for part in ("bad (answered 404)", "gone (ConnectError)", "unknown (AirflowNotFoundException)"):
        assert part in said
    assert "never-seen" not in said
    assert "127.0.0.1" not in said


def test_nobody_is_told_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    monkeypatch.delenv("OFFLOAD_NOTIFY", raising=False)
    FailureNotifier(SPEC)(context(AirflowException("x"), PLAN))


def test_every_task_of_a_table_tells_after_ledger_and_metrics() -> None:
    dag = build_dag(SPEC)
    for task in dag.tasks:
        *first, last = task.on_failure_callback
        assert len(first) == 1
        assert isinstance(last, FailureNotifier)
        assert not any(isinstance(c, FailureNotifier) for c in task.on_retry_callback)
