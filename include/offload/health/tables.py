"""One look at the tables: specs, last cycles, lag, headroom and errors, from the ledger and few queries."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.offload import monitor
from include.offload.errors import OffloadError
from include.offload.health.lines import Line, State, absent, good
from include.offload.limits import FAILURES, headroom_limits_s, lag_limits_s, silent_before
from include.offload.redact import without_logins
from include.offload.settings import Settings
from include.offload.spec.load import load_specs
from include.offload.windows import Grid, from_us, to_us

if TYPE_CHECKING:
    from include.offload.ledger.looks import Look, Remembered
    from include.offload.ledger.store import Ledger
    from include.offload.source.client import Client
    from include.offload.spec.model import TableSpec

NAMES_SHOWN = 3
FINDINGS_SHOWN = 4
AGREE = "ClickHouse and Iceberg"
STATUS = "bin/offload status"
ERRORS_OF_THE_HOUR = 'sum by (table) (increase(offload_cycles_total{status="failure"}[1h]))'
CYCLES_KNOWN = "count(offload_cycles_total)"


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
    """How the last run of every table ended, and when; tables that nothing runs."""
    known, wanted = _rows(settings)
    return [cycles_line(known, _looks(settings), wanted, datetime.now(UTC))]


def cycles_line(
    known: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Look], wanted: Sequence[TableSpec], now: datetime
) -> Line:
    """The same, of the rows and looks of the ledger by identity. Each table's silence is its own."""
    name = "last cycles"
    never = [s.identity for s in wanted if s.identity not in known]
    if not known:
        return Line(name, State.WARN, "no run has ended yet", STATUS)
    failing = [r for r in known.values() if r["status"] == "failed"]
    ages = {i: (now - _last(r, seen.get(i))).total_seconds() for i, r in known.items()}
    ran = [s for s in wanted if s.identity in known]
    late = [s.identity for s in ran if now - timedelta(seconds=ages[s.identity]) < silent_before(s.schedule, now)]
    silent = sorted(late, key=lambda i: -ages[i])
    text = f"{len(known) - len(failing)} of {len(wanted)} tables well, the last run was {_span(min(ages.values()))} ago"
    if never:
        text += f"; never ran: {_some(never)}"
    if silent:
        text += f"; silent: {_some(silent)} ({_span(ages[silent[0]])}: paused, or nothing schedules)"
    if failing:
        worst = max(failing, key=lambda r: int(r["failure_count"]))
        text += f"; failed: {_some(str(r['table_name']) for r in failing)}"
        text += f" ({_count(int(worst['failure_count']))}: {without_logins(str(worst['last_error']))[:160]})"
        state = State.FAIL if int(worst["failure_count"]) >= FAILURES else State.WARN
        return Line(name, state, text, f"{STATUS} {worst['table_name']}")
    if silent or never:
        return Line(name, State.WARN, text, "bin/offload stack status airflow")
    return good(name, text)


def _last(row: Mapping[str, Any], look: Look | None) -> datetime:
    """When a run of the table was last heard of: one that ships nothing leaves only its look."""
    ended: datetime = row["updated_at"]
    return ended if look is None else max(ended, from_us(look.seen_us))


def _count(failures: int) -> str:
    return f"{failures} in a row" if failures else "a retry follows"


def lag(settings: Settings) -> list[Line]:
    """The greatest lag. ClickHouse is asked only about tables whose watermark is old: for one unshipped row."""
    name = "lag"
    known, wanted = _rows(settings)
    # of one that no check has met yet nobody knows whether there is a row
    known = {i: row for i, row in known.items() if row["met"]}
    never = [s.identity for s in wanted if s.identity not in known]
    marks = {i: r["watermark"] for i, r in known.items() if r["watermark"] is not None}
    chosen = [spec for spec in wanted if spec.identity in marks]
    # it ran and found nothing settled; if rows are there now, nobody knows how old they are
    bare = [spec for spec in wanted if spec.identity in known and spec.identity not in marks]
    if not chosen and not bare:
        return [Line(name, State.WARN, "no table has a watermark yet", STATUS)]
    late: list[tuple[float, float, TableSpec]] = []
    with _clickhouse(settings) as client:
        now = client.now_us()
        for spec in chosen:
            mark = to_us(marks[spec.identity])
            behind = max(0, now - spec.settle_us - mark) / 1e6
            warns, fails = lag_limits_s(spec.window_us, spec.alerts.lag_s, spec.schedule)
            if behind > warns and _unshipped(client, spec, mark, now):
                late.append((behind / fails, behind, spec))
        never += [s.identity for s in bare if _unshipped(client, s, s.start_us, now)]
    return [lag_line(len(chosen), len(wanted), never, late)]


def lag_line(marked: int, wanted: int, never: Sequence[str], late: Sequence[tuple[float, float, TableSpec]]) -> Line:
    """marked: tables with a watermark; never: those that never shipped; late: share of the limit, seconds, table."""
    name = "lag"
    bare = f"; never shipped, so not known: {_some(never)}" if never else ""
    if not late:
        text = f"{marked} of {wanted} tables have a watermark, none is beyond its limit{bare}"
        return Line(name, State.WARN, text, f"{STATUS} {never[0]}") if never else good(name, text)
    late = sorted(late, reverse=True, key=lambda found: found[0])
    share, behind, worst = late[0]
    text = f"{len(late)} late: {_some(s.identity for _, _, s in late)}; {worst.identity} is {_span(behind)} behind"
    state = State.FAIL if share > 1 else State.WARN
    return Line(name, state, text + bare, f"{STATUS} {worst.identity}")


def _unshipped(client: Client, spec: TableSpec, mark: int | None, now: int) -> bool:
    """Whether a settled row lies at or behind the watermark; whether there is one at all for None."""
    from include.offload.source.sql import instant_sql, quote

    cursor = quote(spec.cursor)
    until = Grid(spec.window_us).settled_until(now, spec.settle_us)
    since = "" if mark is None else f"{cursor} >= {instant_sql(mark)} AND "
    found = client.query(
        f"SELECT 1 FROM {quote(spec.source.database)}.{quote(spec.source.table)}"
        f" WHERE {since}{cursor} < {instant_sql(until)} LIMIT 1"
    )
    return bool(found)


def headroom(settings: Settings) -> list[Line]:
    """When ClickHouse deletes the first row that may not be in Iceberg, by the last look at each source."""
    from include.offload.ledger import looks

    wanted = load_specs(settings.tables, settings.env).specs
    with _ledger(settings) as ledger:
        known = looks.all_remembered(ledger)
    return [headroom_line(known, wanted, datetime.now(UTC))]


def headroom_line(known: Mapping[str, Remembered], wanted: Sequence[TableSpec], now: datetime) -> Line:
    """The same, of what the ledger knows by identity. A source that nobody looked at may lose rows unseen."""
    name = "TTL headroom"
    ends: list[tuple[int, float, float, str]] = []
    blind: list[str] = []
    for spec in wanted:
        past = known.get(spec.identity)
        if past is not None and past.look is not None and past.first_expiry_us is not None:
            left = past.first_expiry_us / 1e6 - now.timestamp()
            fails, warns = headroom_limits_s(spec.alerts.ttl_headroom_s)
            ends.append(((left > fails) + (left > warns), left / fails, left, spec.identity))
        elif past is None or past.look is None or past.look.expires is not False:
            blind.append(spec.identity)
    unknown = f"; no look saw how long rows live, so not known: {_some(blind)}" if blind else ""
    if ends:
        well, _, left, table = min(ends)
        when = f"in {_span(left)}" if left > 0 else f"{_span(-left)} ago"
        text = f"the first unshipped row of {table} expires {when}{unknown}"
        if well < 2:
            return Line(name, State.WARN if well else State.FAIL, text, f"bin/offload run {table}")
    else:
        text = f"no row that is not in Iceberg expires in {len(wanted) - len(blind)} of {len(wanted)} tables{unknown}"
    return Line(name, State.WARN, text, f"bin/offload run {blind[0]}") if blind else good(name, text)


def agreement(settings: Settings) -> list[Line]:
    """Whether Iceberg holds what ClickHouse holds, as runs, verify and reconcile last saw it; every table ever met."""
    from include.offload.ledger import looks

    wanted = {s.identity for s in load_specs(settings.tables, settings.env).specs}
    with _ledger(settings) as ledger:
        known = looks.all_remembered(ledger)
    return [agreement_line(known, wanted)]


def agreement_line(known: Mapping[str, Remembered], wanted: Container[str]) -> Line:
    """The same, of what the ledger knows by identity. A table without a spec only warns: somebody took it out."""
    bad: list[tuple[str, str, str]] = []
    doubtful: list[tuple[str, str, str]] = []
    for table, past in sorted(known.items()):
        look, found, guard = past.look, past.found, past.guard
        differs = sum(x.differs for x in look.left) if look else 0
        if found.lost:
            bad.append((table, f"lost rows of up to {found.lost} windows before they were shipped", "accept-loss"))
        if guard is not None and guard.refused:
            bad.append((table, "ClickHouse does not stop its TTL merges", "status"))
        if differs:
            bad.append((table, f"{differs} windows differ", "reconcile --dry-run"))
        if found.differing:
            bad.append((table, f"{found.differing} windows differ, as verify or reconcile saw", "verify"))
        if look and look.late_rows:
            bad.append((table, f"{look.late_rows} rows came after the horizon", "status"))
        if look and look.late_unknown:
            doubtful.append((table, f"{look.late_unknown} windows lost rows, late ones may be missing", "verify"))
        if guard is not None and not guard.refused:
            doubtful.append((table, "its TTL merges are stopped", "status"))
    doubtful += [(table, f"{what} (it has no spec)", command) for table, what, command in bad if table not in wanted]
    bad = [one for one in bad if one[0] in wanted]
    if not bad and not doubtful:
        return good(AGREE, f"no difference is known of {len(known)} tables")
    said = [f"{table}: {what}" for table, what, _ in (*bad, *doubtful)]
    table, _, command = (*bad, *doubtful)[0]
    word, _, option = command.partition(" ")
    next_one = f"bin/offload {word} {table} {option}".rstrip()
    return Line(AGREE, State.FAIL if bad else State.WARN, "; ".join(said[:FINDINGS_SHOWN]) + _more(said), next_one)


def _more(said: Sequence[str]) -> str:
    return f"; and {len(said) - FINDINGS_SHOWN} more" if len(said) > FINDINGS_SHOWN else ""


def errors(settings: Settings) -> list[Line]:
    """Failed runs of the last hour: from Prometheus, else from the ledger, which forgets a failure with a success."""
    name = "errors, last hour"
    base = settings.server("prometheus")
    if base is not None:
        found = monitor.prometheus(base, "query", {"query": ERRORS_OF_THE_HOUR})["result"]
        if not found and not monitor.prometheus(base, "query", {"query": CYCLES_KNOWN})["result"]:
            return [Line(name, State.WARN, "not known: Prometheus has no cycle of any table", "bin/offload metrics")]
        counts = {str(one["metric"].get("table", "?")): round(float(one["value"][1])) for one in found}
        return [_errors(name, {t: n for t, n in counts.items() if n > 0}, "failed runs")]
    known, _ = _rows(settings)
    since = datetime.now(UTC) - timedelta(hours=1)
    recent = {
        i: max(1, int(r["failure_count"]))
        for i, r in known.items()
        if r["status"] == "failed" and r["updated_at"] > since
    }
    return [_errors(name, recent, "failures that no success followed (no Prometheus counts the others)")]


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


def _looks(settings: Settings) -> dict[str, Look]:
    from include.offload.ledger import looks

    with _ledger(settings) as ledger:
        return looks.all_looks(ledger)


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
