"""One look at the tables: specs, last cycles, lag, headroom and errors, from the ledger and few queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.offload import monitor
from include.offload.errors import OffloadError
from include.offload.health.lines import Line, State, absent, good
from include.offload.limits import LAG_FAILED_S, WARN_SHARE, lag_limit_s
from include.offload.settings import Settings
from include.offload.spec.load import load_specs
from include.offload.windows import Grid, to_us

if TYPE_CHECKING:
    from include.offload.ledger.store import Ledger
    from include.offload.source.client import Client
    from include.offload.spec.model import TableSpec

FAILURES = 3
"""Failed tries in a row from which a table counts as failing, as the alert on consecutive failures has it."""
SILENT_S = 45 * 60
"""No run of any table ended for so long: three intervals."""
HEADROOM_S = 6 * 3600
"""Headroom that is a failure; four times as much is a warning. `alerts.ttl_headroom` of the spec wins."""
HEADROOM_WARN_TIMES = 4
NAMES_SHOWN = 3
STATUS = "bin/offload status"
ERRORS_OF_THE_HOUR = 'sum by (table) (increase(offload_cycles_total{status="failure"}[1h]))'


def specs(settings: Settings) -> list[Line]:
    """Whether every spec is valid: the table of an invalid one is not offloaded at all."""
    name = "table specs"
    found = load_specs(settings.tables, settings.env)
    if found.errors:
        files = len({e.path for e in found.errors})
        text = f"{files} of {len(found.specs) + files} are invalid, their tables are not offloaded"
        return [Line(name, State.FAIL, text, "bin/offload spec check")]
    if not found.specs:
        return [absent(name, f"there is none in {settings.tables}")]
    return [good(name, f"{len(found.specs)} valid")]


def cycles(settings: Settings) -> list[Line]:
    """How the last run of every table ended, and when."""
    name = "last cycles"
    known, _ = _rows(settings)
    if not known:
        return [Line(name, State.WARN, "no run has ended yet", STATUS)]
    failing = [r for r in known.values() if r["status"] == "failed"]
    last: datetime = max(r["updated_at"] for r in known.values())
    age = (datetime.now(UTC) - last).total_seconds()
    text = f"{len(known) - len(failing)} of {len(known)} tables well, the last run ended {_span(age)} ago"
    if failing:
        worst = max(failing, key=lambda r: int(r["failure_count"]))
        text += f"; failed: {_some(str(r['table_name']) for r in failing)}"
        text += f" ({worst['failure_count']} in a row: {str(worst['last_error'])[:160]})"
        state = State.FAIL if int(worst["failure_count"]) >= FAILURES else State.WARN
        return [Line(name, state, text, f"{STATUS} {worst['table_name']}")]
    if age > SILENT_S:
        return [Line(name, State.WARN, f"{text}: paused, or nothing schedules", "bin/offload stack status airflow")]
    return [good(name, text)]


def lag(settings: Settings) -> list[Line]:
    """The greatest lag. ClickHouse is asked only about tables whose watermark is old: for one unshipped row."""
    name = "lag"
    known, wanted = _rows(settings)
    marks = {i: r["watermark"] for i, r in known.items() if r["watermark"] is not None}
    chosen = [spec for spec in wanted if spec.identity in marks]
    if not chosen:
        return [Line(name, State.WARN, "no table has a watermark yet", STATUS)]
    late: list[tuple[float, float, TableSpec]] = []
    with _clickhouse(settings) as client:
        now = client.now_us()
        for spec in chosen:
            mark = to_us(marks[spec.identity])
            behind = max(0, now - spec.settle_us - mark) / 1e6
            warns, fails = lag_limits_s(spec)
            if behind > warns and _unshipped(client, spec, mark, now):
                late.append((behind / fails, behind, spec))
    if not late:
        return [good(name, f"{len(chosen)} of {len(wanted)} tables have a watermark, none is beyond its limit")]
    late.sort(reverse=True, key=lambda found: found[0])
    share, behind, worst = late[0]
    text = f"{len(late)} late: {_some(s.identity for _, _, s in late)}; {worst.identity} is {_span(behind)} behind"
    state = State.FAIL if share > 1 else State.WARN
    return [Line(name, state, text, f"{STATUS} {worst.identity}")]


def lag_limits_s(spec: TableSpec) -> tuple[float, float]:
    """The lags that warn and that fail, in seconds."""
    if own := spec.alerts.lag_s:
        return own * WARN_SHARE, float(own)
    return lag_limit_s(spec.window_us), lag_limit_s(spec.window_us, LAG_FAILED_S)


def _unshipped(client: Client, spec: TableSpec, mark: int, now: int) -> bool:
    """Whether a settled row lies at or behind the watermark."""
    from include.offload.source.sql import instant_sql, quote

    cursor = quote(spec.cursor)
    until = Grid(spec.window_us).settled_until(now, spec.settle_us)
    found = client.query(
        f"SELECT 1 FROM {quote(spec.source.database)}.{quote(spec.source.table)}"
        f" WHERE {cursor} >= {instant_sql(mark)} AND {cursor} < {instant_sql(until)} LIMIT 1"
    )
    return bool(found)


def headroom(settings: Settings) -> list[Line]:
    """When ClickHouse deletes the first row that is not in Iceberg, as the last look at each source saw it."""
    from include.offload.ledger import looks

    name = "TTL headroom"
    wanted = {s.identity: s for s in load_specs(settings.tables, settings.env).specs}
    with _ledger(settings) as ledger:
        seen = looks.all_looks(ledger)
    now = datetime.now(UTC).timestamp()
    ends = [
        (look.first_expiry_us / 1e6 - now, float(wanted[table].alerts.ttl_headroom_s or HEADROOM_S), table)
        for table, look in seen.items()
        if table in wanted and look.first_expiry_us is not None
    ]
    if not ends:
        return [good(name, "no row that is not in Iceberg expires")]
    left, limit, table = min(ends, key=lambda found: found[0] / found[1])
    when = f"in {_span(left)}" if left > 0 else f"{_span(-left)} ago"
    text = f"the first unshipped row of {table} expires {when}"
    if left > limit * HEADROOM_WARN_TIMES:
        return [good(name, text)]
    return [Line(name, State.FAIL if left <= limit else State.WARN, text, f"bin/offload run {table}")]


def errors(settings: Settings) -> list[Line]:
    """Failed runs of the last hour: from Prometheus, else from the ledger, which forgets a failure with a success."""
    name = "errors, last hour"
    base = settings.server("prometheus")
    if base is not None:
        found = monitor.prometheus(base, "query", {"query": ERRORS_OF_THE_HOUR})["result"]
        counts = {str(one["metric"].get("table", "?")): round(float(one["value"][1])) for one in found}
        return [_errors(name, {t: n for t, n in counts.items() if n > 0}, "failed runs")]
    known, _ = _rows(settings)
    since = datetime.now(UTC) - timedelta(hours=1)
    recent = {
        i: int(r["failure_count"]) for i, r in known.items() if r["status"] == "failed" and r["updated_at"] > since
    }
    return [_errors(name, recent, "failed tries that no success followed (no Prometheus counts the others)")]


def _errors(name: str, counts: dict[str, int], what: str) -> Line:
    if not counts:
        return good(name, f"no {what}")
    worst = max(counts, key=lambda table: counts[table])
    text = f"{sum(counts.values())} {what}: {_some(sorted(counts, key=lambda t: -counts[t]))}"
    return Line(name, State.WARN, text, f"{STATUS} {worst}")


def _rows(settings: Settings) -> tuple[dict[str, dict[str, Any]], Sequence[TableSpec]]:
    """The watermark rows of tables that have a spec, by identity, without those that never ran; and all specs."""
    wanted = load_specs(settings.tables, settings.env).specs
    with _ledger(settings) as ledger:
        rows = {str(r["table_name"]): r for r in ledger.watermark_rows()}
    ran = {s.identity: rows[s.identity] for s in wanted if s.identity in rows}
    return {i: r for i, r in ran.items() if r["status"] != "initialized"}, wanted


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    from include.offload.ledger.store import Ledger

    ledger = Ledger(settings.ledger())
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _clickhouse(settings: Settings) -> Iterator[Client]:
    """The first replica that answers. Raises the last one's refusal."""
    from include.offload.source.client import Client, parse_uri

    failure: OffloadError | None = None
    for uri in settings.clickhouse_uris():
        try:
            client = Client(parse_uri(uri), settings={"max_execution_time": 5}, comment="offload health", table=None)
        except OffloadError as error:
            failure = error
            continue
        with client:
            yield client
        return
    assert failure is not None  # noqa: S101 - clickhouse_uris names one at least
    raise failure


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > NAMES_SHOWN else ""
    return ", ".join(listed[:NAMES_SHOWN]) + more


def _span(seconds: float) -> str:
    from include.offload.cli.console import span_of_time

    return span_of_time(seconds)
