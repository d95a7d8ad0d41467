"""A browser that is logged in to a real Airflow, and ten tables with a past in its ledger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from local import ports
from tests.support.ledger_story import Story, forget, tell, ten_tables
from tests.support.stack import Servers

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
# Airflow's own page around ours takes longer than Playwright's five seconds where tests share two cores
expect.set_options(timeout=20_000)
OpenPage = Callable[..., Page]
Keep = Callable[[Page, str], None]
SCREENSHOTS = os.environ.get("OFFLOAD_SCREENSHOTS") == "1"


@pytest.fixture(scope="session")
def airflow_url(full_stack: Servers) -> str:
    return f"http://127.0.0.1:{ports.port('AIRFLOW')}"


@pytest.fixture(scope="session")
def ledger_uri(full_stack: Servers) -> str:
    return full_stack.secret("offload_ledger_uri")


@pytest.fixture
def client(full_stack: Servers, airflow_url: str) -> Iterator[httpx.Client]:
    """Somebody who is logged in, without a browser."""
    with httpx.Client(base_url=airflow_url, timeout=60, trust_env=False) as api:
        login = {"username": "admin", "password": full_stack.secret("airflow_admin_password")}
        token = api.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        api.headers["Authorization"] = f"Bearer {token}"
        yield api


def row_of(client: httpx.Client, dag_id: str) -> str | None:
    """The row of a table on the page of all, as HTML; None when it has none."""
    page = client.get("/offload/").raise_for_status().text
    return next((row for row in page.split("<tr ")[1:] if f'/dags/{dag_id}"' in row), None)


@pytest.fixture(scope="module")
def ten(ledger_uri: str) -> Iterator[list[Story]]:
    """The ledger of ten tables of which one fails, one is behind and one has not run."""
    stories = ten_tables()
    names = [s.table for s in stories]
    forget(ledger_uri, names)
    for story in stories:
        tell(ledger_uri, story)
    yield stories
    forget(ledger_uri, names)


@dataclass(frozen=True)
class Gone:
    """A table that ran once, whose DAG Airflow keeps as stale."""

    airflow_uri: str
    ledger_uri: str
    table: str = "gone.t"
    dag_id: str = "offload__gone__t"

    def airflow(self, sql: str, *values: object) -> None:
        with psycopg.connect(self.airflow_uri) as c:
            c.execute(sql, values)

    def imports(self, text: str) -> None:
        """An import error of the file that checks all specs."""
        self.airflow(
            "INSERT INTO import_error (timestamp, filename, stacktrace) VALUES (now(), 'gone.py', %s)",
            f"Traceback\ninclude.orchestration.bundle.InvalidSpecsError: OFL-101 1 mistake\n\n/x/{text}",
        )

    def forget(self) -> None:
        forget(self.ledger_uri, [self.table])
        self.airflow("DELETE FROM import_error WHERE filename = 'gone.py'")
        self.airflow("DELETE FROM dag_version WHERE dag_id = %s", self.dag_id)
        self.airflow("DELETE FROM dag WHERE dag_id = %s", self.dag_id)


@pytest.fixture
def gone(full_stack: Servers, ledger_uri: str) -> Iterator[Gone]:
    found = Gone(full_stack.secret("airflow_db_uri"), ledger_uri)
    found.forget()
    tell(ledger_uri, Story(found.table, rows=40))
    found.airflow(
        "INSERT INTO dag SELECT (jsonb_populate_record(d, jsonb_build_object('dag_id', %s::text, 'is_stale', true,"
        " 'is_paused', false))).* FROM dag d WHERE d.dag_id = 'offload__k2__silver_trades'",
        found.dag_id,
    )
    yield found
    found.forget()


def log_in(page: Page, url: str, password: str, user: str = "admin") -> None:
    """Through Airflow's own form."""
    page.goto(url)
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(password)
    page.locator("button[type=submit]").click()
    page.wait_for_url(lambda at: "/auth/login" not in at)


@pytest.fixture(scope="session")
def session_state(chrome: Browser, full_stack: Servers, airflow_url: str) -> Any:
    """The cookies of one log-in, so that not every test types a password."""
    context = chrome.new_context()
    log_in(context.new_page(), airflow_url, full_stack.secret("airflow_admin_password"))
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def opened(chrome: Browser, session_state: Any, airflow_url: str) -> Iterator[OpenPage]:
    """Opens a path of Airflow, logged in; when the test ends, no page may have complained."""
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def open_page(path: str, size: dict[str, int] = DESK, scheme: str = "light", theme: str | None = None) -> Page:
        context = chrome.new_context(
            storage_state=session_state, viewport=size, color_scheme=scheme, reduced_motion="reduce"
        )
        context.on("console", lambda m: said.append(f"{m.text} {m.location}") if m.type == "error" else None)
        context.on("weberror", lambda e: said.append(str(e.error)))
        contexts.append(context)
        if theme is not None:
            # an empty frame has no storage, and needs none
            context.add_init_script(f"try {{ localStorage.setItem('theme', '{theme}') }} catch {{}}")
        page = context.new_page()
        page.goto(f"{airflow_url}{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def frame(page: Page) -> FrameLocator:
    """Our page inside Airflow's."""
    return page.frame_locator("iframe[title=Offload]")


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Keep:
    """Writes a screenshot into docs/img/, when `make screenshots` asks for it."""

    def write(page: Page, name: str) -> None:
        if SCREENSHOTS:
            page.screenshot(path=Path(request.config.rootpath) / "docs" / "img" / f"{name}.png")

    return write
