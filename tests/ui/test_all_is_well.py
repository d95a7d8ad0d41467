"""Ten tables that run as they should: nothing on the page says anything else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.support.ledger_story import DAY_US, MINUTE_US, Story, forget, tell, ten_tables
from tests.ui.conftest import OpenPage, frame

pytestmark = pytest.mark.timeout(300)
AGO_US = 14 * MINUTE_US
"""How long ago the last run ended: right before the next one, when a healthy table is at its latest."""


@pytest.fixture(scope="module")
def ten_well(ledger_uri: str) -> Iterator[list[Story]]:
    stories = [
        Story(s.table, days=s.days, width_us=s.width_us, behind_us=AGO_US, rows=s.rows, ttl_us=s.ttl_us, quiet=s.quiet)
        for s in ten_tables()
    ]
    # rows of the shortest TTL wait for a run at most, and the one that has not run in the other story
    stories = [replace(s, ttl_us=max(s.ttl_us or 0, 2 * DAY_US)) for s in stories]
    stories.append(Story("k2.ohlcv_1d", width_us=DAY_US, days=60, rows=36, ttl_us=None, behind_us=AGO_US))
    names = [s.table for s in stories]
    forget(ledger_uri, names)
    for story in stories:
        tell(ledger_uri, story)
    yield stories
    forget(ledger_uri, names)


def test_ten_green_tables(opened: OpenPage, ten_well: list[Story]) -> None:
    inside = frame(opened("/plugin/offload"))
    rows = inside.locator("tbody tr", has_text="k2.")
    expect(rows).to_have_count(10)
    for at in range(10):
        expect(rows.nth(at)).to_have_attribute("data-danger", "2")
    # no reason for anything else, and no error
    expect(rows.locator(".why")).to_have_count(0)
    expect(rows.get_by_text("OFL-")).to_have_count(0)


def test_one_of_ten_that_is_not(opened: OpenPage, ten_well: list[Story], ledger_uri: str) -> None:
    """A run late by one interval is no longer fine: the page above was not green for want of looking."""
    late = replace(ten_well[0], behind_us=50 * MINUTE_US)
    forget(ledger_uri, [late.table])
    tell(ledger_uri, late)
    rows = frame(opened("/plugin/offload")).locator("tbody tr", has_text="k2.")
    expect(rows).to_have_count(10)
    expect(rows.first).to_contain_text(late.table)
    expect(rows.first).to_have_attribute("data-danger", "0")
    expect(rows.first.locator(".why")).to_contain_text("overdue")
