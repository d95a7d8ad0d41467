"""A browser that is logged in to a real Airflow, and ten tables with a past in its ledger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, sync_playwright

from local import chromium, ports
from tests.support.ledger_story import Story, forget, tell, ten_tables
from tests.support.stack import Servers

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
OpenPage = Callable[..., Page]
Keep = Callable[[Page, str], None]
SCREENSHOTS = os.environ.get("OFFLOAD_SCREENSHOTS") == "1"


@pytest.fixture(scope="session")
def airflow_url(full_stack: Servers) -> str:
    return f"http://127.0.0.1:{ports.port('AIRFLOW')}"


@pytest.fixture(scope="session")
def ledger_uri(full_stack: Servers) -> str:
    return full_stack.secret("offload_ledger_uri")


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


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # root, as in a container, can not have Chromium's own sandbox
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        yield browser
        browser.close()


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
            for part in page.frames:
                # the DAGs of a test stack are paused, those of a reader's are not
                part.evaluate("document.querySelectorAll('.asleep').forEach(mark => mark.remove())")
            page.screenshot(path=Path(request.config.rootpath) / "docs" / "img" / f"{name}.png")

    return write
