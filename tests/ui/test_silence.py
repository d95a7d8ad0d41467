"""What nobody runs, or nobody has heard of for long, is no healthy table: silence is never health."""

from __future__ import annotations

import httpx
import psycopg
import pytest

from include.offload.ledger import Ledger, findings
from include.offload.ledger.findings import Finding, Kind
from include.offload.windows import Grid
from tests.support.airflow_driver import Driver, poll
from tests.support.ledger_story import DAY_US, MINUTE_US, Story, forget, tell
from tests.support.tables import MakeTable
from tests.ui.conftest import Gone, row_of

pytestmark = pytest.mark.timeout(600)
WATCH = 'data-danger="1"'
IDLE = 'data-danger="3"'


def row(client: httpx.Client, dag_id: str) -> str:
    found = row_of(client, dag_id)
    assert found is not None, f"{dag_id} is not on the page"
    return found


def test_a_table_whose_dag_is_gone_stays_and_says_so(client: httpx.Client, gone: Gone) -> None:
    shown = row(client, gone.dag_id)
    assert WATCH in shown
    assert "nothing runs it: its spec is broken, or was taken away" in shown
    page = client.get(f"/offload/dags/{gone.dag_id}").raise_for_status().text
    assert 'data-copy="bin/offload spec check"' in page
    assert "nothing runs it" in page
    gone.airflow("UPDATE dag SET has_import_errors = true WHERE dag_id = %s", gone.dag_id)
    assert "the file of its DAG can&#39;t be imported" in row(client, gone.dag_id)
    gone.airflow("UPDATE dag SET is_stale = false, has_import_errors = false WHERE dag_id = %s", gone.dag_id)
    assert "nothing runs it" not in row(client, gone.dag_id)


def test_a_table_that_was_taken_away_before_it_ran_is_not_missed(client: httpx.Client, gone: Gone) -> None:
    forget(gone.ledger_uri, [gone.table])
    assert row_of(client, gone.dag_id) is None
    # but one that is wanted, and broken
    gone.imports("gone/t.yaml\n  line 4: window: 'sooner' is no duration\n")
    assert "its spec is broken, line 4: window: &#39;sooner&#39; is no duration" in row(client, gone.dag_id)


def test_a_spec_that_breaks_is_named_with_its_mistake(
    client: httpx.Client, airflow: Driver, make_table: MakeTable, ledger_uri: str
) -> None:
    """All of it real: the file, Airflow's parser, its import error, the page."""
    table = make_table("breaks").write_spec()
    airflow.discover(table.dag_id)
    tell(ledger_uri, Story(table.identity, rows=40))
    try:
        assert "nothing runs it" not in row(client, table.dag_id)
        good = table.spec_file.read_text()
        table.spec_file.write_text(good.replace("window: 5m", "window: five minutes"))
        poll(lambda: "line 4: window" in row(client, table.dag_id), 120, "the page did not name the mistake")
        shown = row(client, table.dag_id)
        assert WATCH in shown
        assert "nothing runs it: its spec is broken" in shown
        table.spec_file.write_text(good)
        poll(lambda: "nothing runs it" not in row(client, table.dag_id), 120, "the mended spec is still broken")
    finally:
        forget(ledger_uri, [table.identity])


def test_a_silent_table_is_not_green(client: httpx.Client, gone: Gone) -> None:
    gone.airflow("UPDATE dag SET is_stale = false WHERE dag_id = %s", gone.dag_id)
    with psycopg.connect(gone.ledger_uri) as c:
        c.execute(
            "UPDATE offload.watermarks SET updated_at = now() - interval '5 hours',"
            " watermark = now() - interval '1 minute' WHERE table_name = %s",
            [gone.table],
        )
        c.execute(
            "UPDATE offload.looks SET document = document || jsonb_build_object('seen_us',"
            " (extract(epoch FROM now() - interval '5 hours') * 1e6)::bigint) FROM offload.tables t"
            " WHERE t.table_id = looks.table_id AND identity = %s",
            [gone.table],
        )
    shown = row(client, gone.dag_id)
    assert WATCH in shown
    assert "no run for 5 h" in shown


def test_a_new_table_that_should_have_run_is_not_idle(client: httpx.Client, gone: Gone) -> None:
    forget(gone.ledger_uri, [gone.table])
    gone.airflow("UPDATE dag SET is_stale = false WHERE dag_id = %s", gone.dag_id)
    gone.airflow(
        "INSERT INTO dag_version SELECT (jsonb_populate_record(v, jsonb_build_object('id', gen_random_uuid(),"
        " 'dag_id', %s::text, 'created_at', now() - interval '3 hours'))).* FROM dag_version v"
        " WHERE v.dag_id = 'offload__k2__silver_trades' LIMIT 1",
        gone.dag_id,
    )
    shown = row(client, gone.dag_id)
    assert WATCH in shown
    assert "no run has come this far in 3 h" in shown
    page = client.get(f"/offload/dags/{gone.dag_id}").raise_for_status().text
    assert "whether a run failed before it got this far" in page
    gone.airflow("UPDATE dag SET is_paused = true WHERE dag_id = %s", gone.dag_id)
    assert IDLE in row(client, gone.dag_id)
    gone.airflow("UPDATE dag SET is_paused = false, timetable_summary = '0 0 * * 0' WHERE dag_id = %s", gone.dag_id)
    assert IDLE in row(client, gone.dag_id)


def test_a_login_in_an_old_error_is_not_shown(client: httpx.Client, gone: Gone) -> None:
    with psycopg.connect(gone.ledger_uri) as c:
        c.execute(
            "UPDATE offload.watermarks SET status = 'failed', failure_count = 1, last_error = %s WHERE table_name = %s",
            ["OFL-501 [gone.t] connect to postgresql://joe:hunter2@h/x: refused", gone.table],
        )
    for page in (row(client, gone.dag_id), client.get(f"/offload/dags/{gone.dag_id}").text):
        assert "refused" in page
        assert "hunter2" not in page


def test_what_expired_before_it_was_shipped_is_not_pending(client: httpx.Client, gone: Gone) -> None:
    forget(gone.ledger_uri, [gone.table])
    tell(gone.ledger_uri, Story(gone.table, rows=40, days=0.5, ttl_us=DAY_US, behind_us=2 * DAY_US))
    path = f"/offload/dags/{gone.dag_id}"
    assert 'class="cell lost"' not in client.get(path).text, "the ledger has just met it"
    with psycopg.connect(gone.ledger_uri) as c:
        c.execute("UPDATE offload.tables SET created_at = now() - interval '9 days' WHERE identity = %s", [gone.table])
    page = client.get(path).raise_for_status().text
    # a day of five minutes, and what the last plan left
    assert 280 <= page.count('class="cell lost" data-i') <= 300
    assert 'class="cell pending" data-i' in page
    assert "lost <b>" in page
    assert "unshipped rows have begun to expire" in page


def test_a_new_table_whose_first_check_fails_shows_its_error(client: httpx.Client, gone: Gone) -> None:
    """Before the ledger has met it: sorted as the danger that it is, with the runbook and what to type."""
    forget(gone.ledger_uri, [gone.table])
    gone.airflow("UPDATE dag SET is_stale = false WHERE dag_id = %s", gone.dag_id)
    ledger = Ledger(gone.ledger_uri)
    for _ in range(3):
        ledger.failed(gone.table, "OFL-203 [gone.t] the source table does not exist: http://u:hunter2@h/")
    ledger.close()
    shown = row(client, gone.dag_id)
    assert 'data-danger="0"' in shown
    assert "3 failures in a row" in shown
    page = client.get(f"/offload/dags/{gone.dag_id}").raise_for_status().text
    for html in (shown, page):
        assert "/offload/errors/OFL-203" in html
        assert "the source table does not exist" in html
        assert "hunter2" not in html
    assert "This table has not run" not in page
    assert 'class="commands"' in page


def test_rows_that_expired_unshipped_stay_until_somebody_accepts_it(client: httpx.Client, gone: Gone) -> None:
    """The run after them has seen their windows empty, and all else is well."""
    gone.airflow("UPDATE dag SET is_stale = false WHERE dag_id = %s", gone.dag_id)
    forget(gone.ledger_uri, [gone.table])
    tell(gone.ledger_uri, Story(gone.table, rows=40, quiet=(3, 4, 5)))
    path = f"/offload/dags/{gone.dag_id}"
    assert 'data-danger="2"' in row(client, gone.dag_id)
    assert 'class="cell lost"' not in client.get(path).text
    ledger = Ledger(gone.ledger_uri)
    head = ledger.head(gone.table)
    assert head is not None
    assert head.watermark_us is not None
    grid = Grid(5 * MINUTE_US)
    last = grid.number(head.watermark_us) - 1
    findings.lose(ledger, head.table_id, grid, {last - 3: 7, last - 4: 0})
    shown, page = row(client, gone.dag_id), client.get(path).text
    assert 'data-danger="0"' in shown
    assert "rows expired before they were shipped, in up to 2 windows, 7 rows at least" in shown
    assert page.count('class="cell lost" data-i') == 2
    assert f'data-copy="bin/offload accept-loss {gone.table}"' in page
    findings.accept(ledger, head.table_id)
    assert 'data-danger="2"' in row(client, gone.dag_id)
    assert 'class="cell lost" data-i' not in client.get(path).text
    # the next run finds the same again, and says nothing of it
    findings.lose(ledger, head.table_id, grid, {last - 3: 7, last - 4: 0})
    assert 'data-danger="2"' in row(client, gone.dag_id)
    ledger.close()


def test_what_verify_found_is_on_the_page(client: httpx.Client, gone: Gone) -> None:
    gone.airflow("UPDATE dag SET is_stale = false WHERE dag_id = %s", gone.dag_id)
    ledger = Ledger(gone.ledger_uri)
    head = ledger.head(gone.table)
    assert head is not None
    assert head.watermark_us is not None
    grid = Grid(5 * MINUTE_US)
    span = grid.span(grid.number(head.watermark_us) - 9)
    findings.compared(ledger, head.table_id, grid, {}, [Finding(Kind.VERIFY, span, 1)])
    ledger.close()
    shown, page = row(client, gone.dag_id), client.get(f"/offload/dags/{gone.dag_id}").text
    assert 'data-danger="0"' in shown
    assert "verify or reconcile saw 1 window differ" in shown
    assert page.count('class="cell differs') == 2, "the window, and the legend"
