"""The Offload page in a real Airflow, seen by a real browser."""

from __future__ import annotations

import re
import time
from functools import partial

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, Route, expect

from tests.support.ledger_story import Story
from tests.support.stack import Servers
from tests.ui.conftest import PHONE, Keep, OpenPage, frame, log_in

pytestmark = pytest.mark.timeout(600)
SILVER = "/plugin/offload/offload/dags/offload__k2__silver_trades"


def ours(page: Page | FrameLocator) -> Locator:
    """The rows of the ten tables; a shared stack may have those of other tests too."""
    return page.locator("tbody tr", has_text="k2.")


def test_log_in_and_find_it_in_the_navigation(
    chrome: Browser, full_stack: Servers, airflow_url: str, ten: list[Story]
) -> None:
    context = chrome.new_context()
    page = context.new_page()
    log_in(page, airflow_url, full_stack.secret("airflow_admin_password"))
    page.get_by_role("link", name="Offload").first.click()
    expect(frame(page).get_by_role("heading", name="Offload", exact=True)).to_be_visible()
    expect(ours(frame(page))).to_have_count(10)
    context.close()


def test_the_endangered_come_first(opened: OpenPage, ten: list[Story], keep: Keep) -> None:
    page = opened("/plugin/offload")
    rows = ours(frame(page)).get_by_role("rowheader")
    expect(rows).to_have_count(10)
    expect(rows.nth(0)).to_contain_text("k2.bronze_trades_binance")
    first = ours(frame(page)).first
    expect(first).to_contain_text("5 failures in a row")
    expect(first).to_contain_text("unshipped rows expire soon")
    expect(ours(frame(page)).nth(1)).to_contain_text("3 windows differ from ClickHouse")
    expect(rows.nth(2)).to_contain_text("k2.bronze_trades_coinbase")
    expect(rows.nth(9)).to_contain_text("k2.ohlcv_1d")
    keep(page, "offload-tables")


def test_filter_and_refresh(opened: OpenPage, ten: list[Story], ledger_uri: str) -> None:
    """The filter outlives a refresh, and what the ledger says now shows without a reload."""
    page = opened("/plugin/offload")
    inside = frame(page)
    inside.get_by_role("searchbox").fill("ohlcv")
    expect(inside.locator("tbody tr:visible")).to_have_count(6)
    inside.get_by_text("Act now").click()
    expect(inside.locator("tbody tr:visible")).to_have_count(1)
    inside.get_by_text("All", exact=False).first.click()
    with psycopg.connect(ledger_uri) as c:
        c.execute("UPDATE offload.watermarks SET generation = 99 WHERE table_name = 'k2.ohlcv_5m'")
        c.execute("UPDATE offload.watermarks SET failure_count = 1, status = 'failed' WHERE table_name = 'k2.ohlcv_5m'")
    try:
        # going on after a pause asks at once
        inside.get_by_role("button", name="refreshes every").click()
        inside.get_by_role("button", name="paused").click()
        changed = inside.locator("tbody tr", has_text="k2.ohlcv_5m")
        expect(changed).to_contain_text("the last run failed", timeout=30_000)
        expect(inside.locator("tbody tr:visible")).to_have_count(6)
        inside.get_by_role("searchbox").fill("no such table")
        expect(inside.get_by_text("No table matches")).to_be_visible()
    finally:
        with psycopg.connect(ledger_uri) as c:
            c.execute(
                "UPDATE offload.watermarks SET failure_count = 0, status = 'success' WHERE table_name = 'k2.ohlcv_5m'"
            )


def test_a_window_says_what_became_of_it(opened: OpenPage, ten: list[Story], keep: Keep) -> None:
    page = opened("/plugin/offload")
    frame(page).get_by_role("link", name="k2.silver_trades").click()
    inside = frame(page)
    expect(inside.get_by_role("heading", name="k2.silver_trades")).to_be_visible()
    expect(inside.locator(".heat .cell")).to_have_count(7 * 288)
    expect(inside.locator(".heat .healed")).to_have_count(6)
    assert inside.locator(".heat .expired").count() > 100
    healed = inside.locator(".heat .healed").first
    healed.hover()
    tip = inside.get_by_role("tooltip")
    expect(tip).to_contain_text("before it was healed")
    expect(tip).to_contain_text("rows")
    expect(tip).to_contain_text("snapshot 42")
    expect(tip).to_contain_text("plan ")
    keep(page, "offload-table")
    # also what a plan made that is too old for the list of plans: the map shows seven days
    inside.locator(".heat .expired").last.hover()
    expect(tip).to_contain_text("snapshot 42")
    expect(tip).to_contain_text("generation ")
    # the keyboard says the same
    healed.focus()
    healed.press("ArrowRight")
    expect(inside.locator(":focus")).to_have_attribute("data-i", str(int(healed.get_attribute("data-i") or 0) + 1))
    expect(inside.locator(":focus")).to_have_attribute("aria-label", re.compile("UTC, (healed: )?shipped"))
    expect(inside.get_by_role("tooltip")).to_be_visible()


def test_a_refresh_keeps_what_somebody_marked_and_where_the_focus_was(
    chrome: Browser, session_state: object, airflow_url: str, ten: list[Story]
) -> None:
    """Every 15 seconds, or a command could not be copied by hand, nor read by who goes there with the keyboard."""
    context = chrome.new_context(storage_state=session_state, viewport=PHONE)  # type: ignore[arg-type]
    broken: list[str] = []
    context.on("weberror", lambda e: broken.append(str(e.error)))
    page = context.new_page()
    page.clock.install()
    page.goto(f"{airflow_url}/offload/dags/offload__k2__silver_trades")
    command = page.locator(".commands code").first
    page.evaluate("document.querySelector('h1').dataset.old = 'yes'")
    copy = page.locator("[data-copy]").first
    copy.focus()
    chart = page.locator("[data-chart]").first

    def refreshed() -> None:
        with page.expect_response(lambda r: r.request.headers.get("x-offload-part") == "1"):
            page.clock.fast_forward(15_000)

    refreshed()
    expect(page.locator("h1[data-old]")).to_have_count(0)
    expect(copy).to_be_focused()
    # the oldest reading: the newest are of now, and change from one answer to the next
    readings = chart.evaluate("plot => JSON.parse(plot.querySelector('script').textContent)")
    assert len(readings) > 2
    chart.focus()
    for _ in readings:
        chart.press("ArrowLeft")
    expect(chart).to_have_attribute("data-at", "0")
    said = chart.locator("output").inner_text()
    assert said != readings[-1][1]
    page.evaluate("document.querySelector('h1').dataset.old = 'yes'")
    refreshed()
    expect(page.locator("h1[data-old]")).to_have_count(0)
    expect(chart).to_be_focused()
    expect(chart.locator("output")).to_have_text(said)
    page.evaluate("document.querySelector('h1').dataset.old = 'yes'")
    command.select_text()
    refreshed()
    expect(page.locator("h1[data-old]")).to_have_count(1)
    assert page.evaluate("getSelection().toString()") == command.inner_text()
    page.evaluate("getSelection().removeAllRanges()")
    refreshed()
    expect(page.locator("h1[data-old]")).to_have_count(0)
    assert broken == []
    context.close()


def test_the_tab_on_a_dag(opened: OpenPage, ten: list[Story]) -> None:
    page = opened("/dags/offload__k2__silver_trades")
    page.locator("a[href*=offload_table]").click()
    expect(frame(page).get_by_role("heading", name="k2.silver_trades")).to_be_visible()
    frame(page).locator(".heat .healed").first.hover()
    expect(frame(page).get_by_role("tooltip")).to_be_visible()


def test_a_failing_table_and_its_runbook(opened: OpenPage, ten: list[Story], keep: Keep) -> None:
    page = opened("/plugin/offload/offload/dags/offload__k2__bronze_trades_binance")
    inside = frame(page)
    expect(inside.locator(".alarm")).to_contain_text("Connection refused")
    first = inside.locator(".commands li").first
    expect(first).to_contain_text("… if this machine runs it; else start it where it runs")
    expect(first.locator("code")).to_have_text("bin/offload stack start")
    expect(first.locator("[data-copy]")).to_have_attribute("data-copy", "bin/offload stack start")
    keep(page, "offload-failing")
    inside.get_by_role("link", name="OFL-201").click()
    expect(inside.get_by_role("heading", name="OFL-201")).to_be_visible()
    expect(inside.get_by_text("ClickHouse does not answer").first).to_be_visible()
    expect(inside.locator(".prose")).to_contain_text("docs/")


def test_a_plan(opened: OpenPage, ten: list[Story]) -> None:
    page = opened(SILVER)
    frame(page).locator(".plans tbody th a").first.click()
    expect(frame(page).get_by_role("heading", name="Iceberg snapshot")).to_be_visible()
    expect(frame(page).locator("pre").first).to_contain_text("VERSION AS OF 42")


def test_dark_as_airflow_says(opened: OpenPage, ten: list[Story], keep: Keep) -> None:
    """Airflow's own choice wins over the browser's; without one the browser's counts."""

    def ground(page: Page | FrameLocator) -> str:
        expect(page.get_by_role("heading", name="k2.silver_trades")).to_be_visible()
        return str(page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))

    page = opened(SILVER, scheme="light", theme="dark")
    dark = ground(frame(page))
    keep(page, "offload-table-dark")
    alone = SILVER.removeprefix("/plugin/offload")
    light = ground(opened(alone, scheme="light"))
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert ground(opened(alone, scheme="dark")) == dark
    assert ground(opened(alone, scheme="dark", theme="light")) == light


def test_a_phone(opened: OpenPage, ten: list[Story], keep: Keep) -> None:
    page = opened("/offload/", size=PHONE)
    expect(ours(page)).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    keep(page, "offload-phone")
    page.get_by_role("link", name="k2.silver_trades").click()
    expect(page.get_by_role("heading", name="k2.silver_trades")).to_be_visible()
    page.wait_for_load_state()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_table_that_never_ran(opened: OpenPage, ten: list[Story]) -> None:
    page = opened("/plugin/offload/offload/dags/offload__k2__ohlcv_1d")
    expect(frame(page).get_by_text("This table has not run")).to_be_visible()
    # out of the sandboxed frame, into Airflow itself
    frame(page).get_by_role("link", name="Open the DAG in Airflow").click()
    page.wait_for_url("**/dags/offload__k2__ohlcv_1d")


def test_a_server_that_hangs_and_a_proxy_that_answers_for_it(
    chrome: Browser, session_state: object, airflow_url: str, ten: list[Story]
) -> None:
    """The page keeps what it shows, says that it is old, asks no second time meanwhile, and comes back by itself."""
    context = chrome.new_context(storage_state=session_state)  # type: ignore[arg-type]
    page = context.new_page()
    page.clock.install()
    page.goto(f"{airflow_url}/offload/")
    expect(ours(page)).to_have_count(10)
    said = page.locator("[data-live-text]")
    asked: list[Route] = []
    page.route("**/offload/", lambda route: asked.append(route))  # noqa: PLW0108 - a built-in method takes no attribute
    page.clock.run_for(15_000)
    expect(said).to_have_text("refreshes every 15 s")
    # going on after a pause asks at once, but not while a question is open
    page.locator("[data-live]").click()
    page.locator("[data-live]").click()
    assert len(asked) == 1
    page.clock.run_for(10_000)
    expect(said).to_contain_text("does not answer; what you see is old")
    assert len(asked) == 1
    expect(ours(page)).to_have_count(10)
    page.unroute("**/offload/")
    html = "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>"
    for status, words in ((503, "not refreshed: HTTP 503"), (200, "something else answered")):
        page.route("**/offload/", partial(Route.fulfill, status=status, content_type="text/html", body=html))
        # not run_for: the page's patience would run out before the answer is there
        page.clock.fast_forward(15_000)
        expect(said).to_contain_text(words)
        expect(ours(page)).to_have_count(10)
        page.unroute("**/offload/")
    page.clock.fast_forward(15_000)
    expect(said).to_have_text("refreshes every 15 s")
    context.close()


def test_a_ledger_that_hangs_is_not_waited_for(client: httpx.Client, ledger_uri: str, ten: list[Story]) -> None:
    """Somebody locks it, e.g. to upgrade it: an answer with an error id, in time; no thread is kept."""
    with psycopg.connect(ledger_uri) as c:
        c.execute("LOCK TABLE offload.looks IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        answer = client.get("/offload/")
        assert time.monotonic() - started < 15
    assert answer.status_code == 503
    assert "OFL-501" in answer.text
    assert "statement timeout" in answer.text
    assert client.get("/offload/").status_code == 200


def test_a_ledger_that_can_not_be_read(
    chrome: Browser, session_state: object, airflow_url: str, ten: list[Story], ledger_uri: str
) -> None:
    """The page says so with an error id, and comes back by itself."""
    with psycopg.connect(ledger_uri) as c:
        c.execute("ALTER TABLE offload.looks RENAME TO looks_away")
    try:
        context = chrome.new_context(storage_state=session_state)  # type: ignore[arg-type]
        other = context.new_page()
        answer = other.goto(f"{airflow_url}/offload/")
        assert answer is not None
        assert answer.status == 503
        expect(other.get_by_role("alert")).to_contain_text("OFL-502")
    finally:
        with psycopg.connect(ledger_uri) as c:
            c.execute("ALTER TABLE offload.looks_away RENAME TO looks")
    expect(ours(other)).to_have_count(10, timeout=30_000)
    context.close()
