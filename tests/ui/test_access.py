"""Who sees what: Airflow's own permissions, on a real API server whose auth manager looks at DAG ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.api_server import DENIED, DENIED_RUNS, NO_ERRORS, NOBODY, api_server
from tests.support.ledger_story import Story
from tests.support.stack import Servers
from tests.ui.conftest import Gone, Keep, log_in

pytestmark = pytest.mark.timeout(600)
MINE, THEIRS = "offload__k2__ohlcv_5m", "offload__k2__silver_trades"
UNSEEN_RUNS = "offload__k2__bronze_trades_kraken"
SOME_PLAN = "11111111-1111-1111-1111-111111111111"
PATHS = (
    "/",
    "/tree",
    f"/dags/{MINE}",
    f"/dags/{MINE}/plans/{SOME_PLAN}",
    f"/dags/{MINE}/runs/r/events",
    "/errors/OFL-201",
)


@pytest.fixture(scope="module")
def strict(full_stack: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An API server on which one DAG is denied to all, and every DAG to one user."""
    passwords = tmp_path_factory.mktemp("strict") / "passwords.json"
    passwords.write_text(
        json.dumps(dict.fromkeys(("admin", NOBODY, NO_ERRORS), full_stack.secret("airflow_admin_password")))
    )
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.support.denying.DenyingAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"admin:admin,{NOBODY}:viewer,{NO_ERRORS}:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        DENIED: THEIRS,
        DENIED_RUNS: UNSEEN_RUNS,
    }
    with api_server(full_stack, **env) as url:
        yield url


@pytest.fixture
def user(strict: str, full_stack: Servers) -> Iterator[httpx.Client]:
    """Somebody who is logged in there."""
    with logged_in(strict, full_stack, "admin") as client:
        yield client


@contextmanager
def logged_in(url: str, servers: Servers, name: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        login = {"username": name, "password": servers.secret("airflow_admin_password")}
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


@pytest.mark.parametrize("path", PATHS)
def test_anonymous_is_sent_away(strict: str, path: str) -> None:
    answer = httpx.get(f"{strict}/offload{path}", trust_env=False, timeout=60)
    assert answer.status_code == 401
    assert "k2." not in answer.text


@pytest.mark.parametrize("token", ["", "nonsense", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."])
def test_a_forged_token_is_refused(strict: str, token: str) -> None:
    answer = httpx.get(f"{strict}/offload/", cookies={"_token": token}, trust_env=False, timeout=60)
    assert answer.status_code in {401, 403}


def test_a_denied_table_is_neither_shown_nor_listed(user: httpx.Client, ten: list[Story]) -> None:
    listed = user.get("/offload/")
    assert listed.status_code == 200
    assert "k2.<wbr>ohlcv_<wbr>5m" in listed.text
    assert THEIRS not in listed.text
    assert "silver" not in listed.text
    for path in (f"/dags/{THEIRS}", f"/dags/{THEIRS}/plans/{SOME_PLAN}", f"/dags/{THEIRS}/runs/r/events"):
        assert user.get(f"/offload{path}").status_code == 403
    assert user.get(f"/offload/dags/{MINE}").status_code == 200


def test_what_runs_did_is_for_those_who_may_read_runs(user: httpx.Client, ten: list[Story]) -> None:
    """The DAG itself may be read: Airflow's own page of it answers."""
    assert user.get(f"/api/v2/dags/{UNSEEN_RUNS}").status_code == 200
    assert user.get(f"/api/v2/dags/{UNSEEN_RUNS}/dagRuns").status_code == 403
    listed = user.get("/offload/").raise_for_status().text
    assert MINE in listed
    assert UNSEEN_RUNS not in listed
    for path in (
        f"/dags/{UNSEEN_RUNS}",
        f"/dags/{UNSEEN_RUNS}/plans/{SOME_PLAN}",
        f"/dags/{UNSEEN_RUNS}/runs/r/events",
    ):
        assert user.get(f"/offload{path}").status_code == 403


def test_import_errors_are_for_those_who_may_read_them(
    user: httpx.Client, strict: str, full_stack: Servers, gone: Gone
) -> None:
    gone.imports("gone/t.yaml\n  line 4: window: 'sooner' is no duration\n")
    path = f"/offload/dags/{gone.dag_id}"
    assert "sooner" in user.get(path).raise_for_status().text
    with logged_in(strict, full_stack, NO_ERRORS) as other:
        page = other.get(path).raise_for_status().text
    assert "sooner" not in page
    assert "nothing runs it: its spec is broken" in page


def test_a_plan_of_another_table_is_not_found(user: httpx.Client, ten: list[Story], ledger_uri: str) -> None:
    """The DAG that is asked for is the one that was checked."""
    import psycopg

    with psycopg.connect(ledger_uri) as c:
        found = c.execute(
            "SELECT plan_id FROM offload.plans JOIN offload.tables USING (table_id)"
            " WHERE identity = 'k2.silver_trades' LIMIT 1"
        ).fetchone()
    assert found is not None
    assert user.get(f"/offload/dags/{MINE}/plans/{found[0]}").status_code == 404


def test_what_is_no_offload_table(user: httpx.Client) -> None:
    assert user.get("/offload/dags/somebody_elses").status_code == 404
    assert user.get("/offload/errors/OFL-000").status_code == 404
    assert user.get("/offload/dags/x/plans/1; DROP TABLE").status_code == 422


def test_headers_of_every_answer(user: httpx.Client, strict: str) -> None:
    for answer in (user.get("/offload/"), user.get("/offload/static/offload.css"), httpx.get(f"{strict}/offload/")):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert user.get("/offload/").headers["Cache-Control"] == "no-store"


def test_no_schema_is_published(strict: str) -> None:
    for path in ("docs", "redoc", "openapi.json"):
        assert httpx.get(f"{strict}/offload/{path}", trust_env=False, timeout=60).status_code == 404


def test_a_user_without_any_table(strict: str, full_stack: Servers, chrome: Browser, keep: Keep) -> None:
    """The empty page says how a table gets there."""
    context = chrome.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    log_in(page, strict, full_stack.secret("airflow_admin_password"), NOBODY)
    page.goto(f"{strict}/plugin/offload")
    inside = page.frame_locator("iframe[title=Offload]")
    expect(inside.get_by_role("heading", name="No tables yet")).to_be_visible()
    keep(page, "offload-empty")
    context.close()
