"""Reading and writing the ledger. Every write that matters is one transaction with a compare-and-swap."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, RowMapping, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from include.offload.crashpoint import reached
from include.offload.errors import (
    LEDGER_DISAGREES,
    LEDGER_OUTDATED,
    LEDGER_UNREACHABLE,
    PLAN_SUPERSEDED,
    PLAN_UNKNOWN,
    SOURCE_CHANGED_IDENTITY,
    TLS_UNTRUSTED,
    WATERMARK_MOVED,
    WINDOW_CHANGED,
    OffloadError,
)
from include.offload.ledger.accounting import Change, Entry, apply
from include.offload.model import EXPIRED_LONG_AGO, Outcome, Plan, WindowState
from include.offload.planning import LedgerWindow
from include.offload.redact import without_logins
from include.offload.trust import is_untrusted
from include.offload.windows import Grid, Span, from_us, gapless_end, to_us

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5
ALONE_S = 60
"""How long a job waits for another that makes the Iceberg table, seconds: a creation is one request."""
ALONE_KEY = 0x0FF10AD
"""The first key of our advisory locks, which the ledger's database may share with others; the second is `table_id`."""
SCHEMA_REVISION = "0009"
"""The migration that this code expects; a test holds it against include/offload/ledger/migrations."""

_PLAN = TypeAdapter(Plan)
_OUTCOME = TypeAdapter(Outcome)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody waits for the ledger, seconds, who has others to serve meanwhile; how many wait at once."""

    statement_s: float = 5.0
    connection_s: float = 5.0
    connections: int = 4


def engine_for(uri: str, patience: Patience | None = None) -> Engine:
    """An engine for `postgresql://…` through psycopg 3, with short waits. The password never shows in its repr."""
    scheme, _, rest = uri.partition("://")
    if scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise OffloadError(LEDGER_UNREACHABLE, "the ledger URI must read postgresql://user:password@host:port/database")
    return create_engine(
        f"postgresql+psycopg://{rest}",
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "offload"},
        pool_pre_ping=True,
        pool_size=1,
        **(
            {}
            if patience is None
            else {"max_overflow": patience.connections - 1, "pool_timeout": patience.connection_s}
        ),
    )


@dataclass(frozen=True, slots=True)
class Head:
    """Where the ledger believes the chain of a table ends. Instants µs UTC. `retired`: nothing plans it any more."""

    table_id: int
    origin_us: int | None
    watermark_us: int | None
    generation: int
    plan_id: uuid.UUID | None
    target_uuid: str | None
    snapshot_id: int | None
    sequence_number: int | None
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Landed:
    """The commit as the marker in Iceberg tells it; None for a plan that touches only the ledger."""

    target_uuid: str
    snapshot_id: int
    sequence_number: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """What recording a plan changed. `first`: this call recorded it (an Asset event is due)."""

    first: bool
    watermark_us: int | None
    generation: int
    rows: int
    windows: int


class Ledger:
    """The schema `offload` in PostgreSQL. Raises OFL-501 when it is away, OFL-502 when it is outdated.

    patience: when it counts as away; None: a statement may take its time.
    """

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        self._engine = engine_for(uri, patience)
        self._patience = patience

    def close(self) -> None:
        """Close the connections that are kept open between calls."""
        self._engine.dispose()

    @contextmanager
    def begin(self, table: str | None = None) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                if self._patience is not None:
                    # not in the connection's options: PgBouncer refuses those
                    limit_ms = round(self._patience.statement_s * 1000)
                    connection.execute(text(f"SET LOCAL statement_timeout = {limit_ms}"))
                yield connection
        except NoConnectionFree as error:
            busy = "all connections to it were busy for too long"
            raise OffloadError(LEDGER_UNREACHABLE, busy, table=table) from error
        except OperationalError as error:
            kind = TLS_UNTRUSTED if is_untrusted(error) else LEDGER_UNREACHABLE
            raise OffloadError(kind, first_line(error), table=table) from error
        except IntegrityError as error:
            raise OffloadError(LEDGER_DISAGREES, first_line(error), table=table) from error
        except ProgrammingError as error:
            raise OffloadError(LEDGER_OUTDATED, first_line(error), table=table) from error

    def check_schema(self) -> None:
        """Raises OFL-502 unless the schema is at the revision that this code expects."""
        with self.begin() as c:
            found = c.execute(text("SELECT version_num FROM offload.alembic_version")).scalar_one_or_none()
        if found != SCHEMA_REVISION:
            raise OffloadError(LEDGER_OUTDATED, f"it is at revision {found}, this code expects {SCHEMA_REVISION}")

    def pipeline(self) -> uuid.UUID:
        """The UUID that this ledger signs its commits with."""
        with self.begin() as c:
            return uuid.UUID(str(c.execute(text("SELECT pipeline_id FROM offload.pipeline")).scalar_one()))

    @contextmanager
    def alone(self, table: str) -> Iterator[None]:
        """Of all processes with this ledger only one at a time is in here for a table; others wait up to a minute.

        Raises OFL-501 when that is over.
        """
        with ExitStack() as lock:
            c = lock.enter_context(self.begin(table))
            c.execute(text(f"SET LOCAL lock_timeout = '{ALONE_S}s'"))
            # it is idle as long as the catalog takes
            c.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            c.execute(
                text("SELECT pg_advisory_xact_lock(:key, table_id) FROM offload.tables WHERE identity = :identity"),
                {"key": ALONE_KEY, "identity": table},
            )
            held = lock.pop_all()
        try:
            yield
        finally:
            try:
                held.close()
            except OffloadError as error:
                # what was done in here is done: a lock whose session died is free already
                log.warning("%s: the session of its lock died: %s", table, error.cause)

    # tables -------------------------------------------------------------------------------------------------------

    def register(
        self, identity: str, *, cursor: str, width_us: int, source: str, target: str, origin_us: int | None
    ) -> Head:
        """The head of a table, made on first sight and anchored at `origin_us` once.

        Raises OFL-406 and OFL-209 when its frozen facts changed.
        """
        with self.begin(identity) as c:
            row = c.execute(
                text(
                    "INSERT INTO offload.tables (identity, cursor_column, width_us, origin_us, source_identity, target)"
                    " VALUES (:identity, :cursor, :width, :origin, :source, :target)"
                    " ON CONFLICT (identity) DO UPDATE SET origin_us = coalesce(tables.origin_us, excluded.origin_us)"
                    " RETURNING table_id, cursor_column, width_us, source_identity, target"
                ),
                {"identity": identity, "cursor": cursor, "width": width_us, "origin": origin_us}
                | {"source": source, "target": target},
            ).mappings()
            known = row.one()
            c.execute(
                text(
                    # what failed before is failures in a row, if the next step fails too
                    "WITH unmet AS (DELETE FROM offload.unmet WHERE identity = :name"
                    " RETURNING failure_count, last_error)"
                    " INSERT INTO offload.watermarks (table_id, table_name, status, failure_count, last_error)"
                    " SELECT :id, :name, CASE WHEN u.failure_count IS NULL THEN 'initialized' ELSE 'failed' END,"
                    " coalesce(u.failure_count, 0), u.last_error FROM (SELECT 1) one LEFT JOIN unmet u ON true"
                    " ON CONFLICT DO NOTHING"
                ),
                {"id": known["table_id"], "name": identity},
            )
        if (known["cursor_column"], known["width_us"], known["target"]) != (cursor, width_us, target):
            raise OffloadError(
                WINDOW_CHANGED,
                f"cursor, window, target are {cursor}, {width_us} µs, {target}; the ledger holds"
                f" {known['cursor_column']}, {known['width_us']} µs, {known['target']}",
                table=identity,
            )
        if known["source_identity"] != source:
            raise OffloadError(
                SOURCE_CHANGED_IDENTITY, f"it was {known['source_identity']}, now it is {source}", table=identity
            )
        head = self.head(identity)
        assert head is not None  # noqa: S101 - inserted above
        return head

    def accept_source(self, identity: str, source: str, *, never_replaced: Sequence[Span], expiry_us: int) -> None:
        """Let a table go on from a source that was dropped and made again (rule 2).

        never_replaced: shipped windows that get `expiry_us`, so that rule 18 protects them.
        """
        with self.begin(identity) as c:
            table_id = c.execute(
                text(
                    "UPDATE offload.tables SET source_identity = :source, lost_at = clock_timestamp()"
                    " WHERE identity = :identity RETURNING table_id"
                ),
                {"source": source, "identity": identity},
            ).scalar_one_or_none()
            if never_replaced:
                c.execute(
                    text(
                        "UPDATE offload.windows SET expiry_us = :expiry"
                        " WHERE table_id = :table_id AND span = int8range(:lo, :hi)"
                    ),
                    [{"table_id": table_id, "lo": s.lo, "hi": s.hi, "expiry": expiry_us} for s in never_replaced],
                )

    def head(self, identity: str) -> Head | None:
        """Where the chain of a table ends; None when the ledger has never seen it."""
        with self.begin(identity) as c:
            row = c.execute(_HEAD, {"identity": identity}).mappings().one_or_none()
        return None if row is None else _head(row)

    def retire(self, table_id: int, at_us: int | None) -> None:
        """Record when a table was retired, µs UTC, or None that it goes on, as the marker in Iceberg says."""
        with self.begin() as c:
            c.execute(
                text("UPDATE offload.tables SET retired_at = CAST(:at AS timestamptz) WHERE table_id = :id"),
                {"at": None if at_us is None else from_us(at_us), "id": table_id},
            )

    def watermark_rows(self) -> list[dict[str, Any]]:
        """All of `offload.watermarks`, the way `status` shows it, with when each table was retired.

        And the failures of tables that no check has met yet (`met` False), of which all else is None or 0.
        """
        with self.begin() as c:
            known = c.execute(
                text(
                    "SELECT w.*, t.retired_at, true AS met FROM offload.watermarks w"
                    " JOIN offload.tables t USING (table_id) ORDER BY table_name"
                )
            )
            names = list(known.keys())
            rows = [dict(r) for r in known.mappings()]
            met = {r["table_name"] for r in rows}
            unmet = c.execute(
                text(
                    "SELECT identity AS table_name, 'failed' AS status, failure_count, last_error, updated_at,"
                    " 0 AS generation, 0 AS row_count, false AS met FROM offload.unmet ORDER BY identity"
                )
            )
            return rows + [dict.fromkeys(names) | dict(r) for r in unmet.mappings() if r["table_name"] not in met]

    # windows ------------------------------------------------------------------------------------------------------

    def windows(self, head: Head, grid: Grid, spans: Sequence[Span]) -> tuple[dict[int, LedgerWindow], list[Span]]:
        """The shipped windows and the verified-empty time that overlap `spans`."""
        shipped: dict[int, LedgerWindow] = {}
        empty: list[Span] = []
        with self.begin() as c:
            for span in spans:
                for row in c.execute(_OVERLAPPING, _range(head, span)).mappings():
                    entry = _entry(row, grid)
                    if entry.shipped is None:
                        empty.append(entry.span)
                    else:
                        shipped[entry.shipped.window] = LedgerWindow(entry.shipped, row["fingerprint"])
        return shipped, empty

    # plans --------------------------------------------------------------------------------------------------------

    def freeze(self, plan: Plan) -> None:
        """Store a plan; from here on it is immutable."""
        with self.begin(plan.table) as c:
            c.execute(
                text(
                    "INSERT INTO offload.plans (plan_id, table_id, run_id, generation, predecessor, status, scan,"
                    " windows, rows, replaced_rows, document) SELECT :plan_id, table_id, :run_id, :generation,"
                    " :predecessor, 'open', int8range(:lo, :hi), :windows, :rows, :replaced, CAST(:document AS jsonb)"
                    " FROM offload.tables WHERE identity = :identity"
                ),
                {
                    "plan_id": plan.plan_id,
                    "run_id": plan.run_id,
                    "generation": plan.generation,
                    "predecessor": plan.predecessor,
                    "lo": plan.scan.lo,
                    "hi": plan.scan.hi,
                    "windows": len(plan.windows),
                    "rows": plan.rows,
                    "replaced": sum(w.ledger_rows or 0 for w in plan.windows),
                    "document": _PLAN.dump_json(plan).decode(),
                    "identity": plan.table,
                },
            )

    def plan(self, plan_id: uuid.UUID) -> tuple[Plan, str]:
        """A frozen plan and its status. Raises OFL-401."""
        with self.begin() as c:
            row = c.execute(
                text("SELECT document, status FROM offload.plans WHERE plan_id = :id"), {"id": plan_id}
            ).one_or_none()
        if row is None:
            raise OffloadError(PLAN_UNKNOWN, f"plan {plan_id}")
        return _PLAN.validate_python(row.document, strict=False), str(row.status)

    def first_scan(self, identity: str, run_id: str) -> Span | None:
        """What the first plan of a DAG run looked at: clearing the run looks at it again (rule 8)."""
        with self.begin(identity) as c:
            row = c.execute(
                text(
                    "SELECT lower(p.scan) AS lo, upper(p.scan) AS hi FROM offload.plans p JOIN offload.tables t"
                    " USING (table_id) WHERE t.identity = :identity AND p.run_id = :run_id AND NOT isempty(p.scan)"
                    " ORDER BY p.created_at LIMIT 1"
                ),
                {"identity": identity, "run_id": run_id},
            ).one_or_none()
        return None if row is None else Span(row.lo, row.hi)

    def record_attempt(self, attempt: uuid.UUID, outcome: Outcome) -> None:
        """Keep what an attempt shipped, before its commit is sent: the marker then names the attempt."""
        with self.begin() as c:
            c.execute(
                text(
                    "INSERT INTO offload.attempts (attempt_id, plan_id, outcome)"
                    " VALUES (:attempt, :plan, CAST(:outcome AS jsonb))"
                    " ON CONFLICT (attempt_id) DO UPDATE SET outcome = excluded.outcome, recorded_at = now()"
                ),
                {"attempt": attempt, "plan": outcome.plan_id, "outcome": _OUTCOME.dump_json(outcome).decode()},
            )

    def attempt(self, attempt: uuid.UUID) -> Outcome | None:
        """What an attempt shipped, None when the ledger does not know it."""
        with self.begin() as c:
            found = c.execute(
                text("SELECT outcome FROM offload.attempts WHERE attempt_id = :id"), {"id": attempt}
            ).scalar_one_or_none()
        return None if found is None else _OUTCOME.validate_python(found, strict=False)

    # after the commit ---------------------------------------------------------------------------------------------

    def promote(self, plan: Plan, outcome: Outcome, landed: Landed | None) -> Promotion:
        """Record what a plan did, and move the watermark: one transaction, idempotent (rules 7 and 21).

        landed: the commit; None for a plan without rows. Raises OFL-402 when another plan passed this one, OFL-405
        when the ledger's head is not the plan's predecessor.
        """
        grid = Grid(plan.width_us)
        with self.begin(plan.table) as c:
            head = _head(c.execute(_HEAD_LOCKED, {"identity": plan.table}).mappings().one())
            status = c.execute(
                text("SELECT status FROM offload.plans WHERE plan_id = :id"), {"id": plan.plan_id}
            ).scalar_one()
            if plan.generation >= head.generation:
                # a retry that finds all recorded is a success too; what raises below takes this back
                c.execute(_SUCCEEDED, {"table_id": head.table_id})
            if status in {"committed", "empty"}:
                return Promotion(False, head.watermark_us, head.generation, outcome.rows, len(outcome.windows))
            if landed is None and status == "superseded":
                raise OffloadError(PLAN_SUPERSEDED, f"a rebuild closed plan {plan.plan_id}", table=plan.table)
            if landed is not None and head.plan_id != plan.predecessor:
                raise OffloadError(
                    LEDGER_DISAGREES if status == "open" else PLAN_SUPERSEDED,
                    f"plan {plan.plan_id} follows {plan.predecessor}, the ledger's head is {head.plan_id}",
                    table=plan.table,
                )
            if c.execute(_LOST_SINCE, {"id": plan.plan_id}).scalar_one():
                # a later look saw rows go while this plan was open, and could not mark windows that were not here yet
                outcome = _protected(outcome)
            added = self._account(c, head, plan, outcome, grid)
            reached("windows-written")
            moved = self._watermark(c, head, plan)
            c.execute(
                _CLOSE_PLAN,
                {
                    "id": plan.plan_id,
                    "status": "empty" if landed is None else "committed",
                    "snapshot": None if landed is None else landed.snapshot_id,
                },
            )
            if landed is not None:
                c.execute(_SUPERSEDE, {"table_id": head.table_id, "generation": plan.generation})
            changed = c.execute(
                _ADVANCE,
                {
                    "table_id": head.table_id,
                    "seen": head.generation,
                    "generation": head.generation if landed is None else plan.generation,
                    "plan_id": head.plan_id if landed is None else plan.plan_id,
                    "target": head.target_uuid if landed is None else landed.target_uuid,
                    "snapshot": head.snapshot_id if landed is None else landed.snapshot_id,
                    "number": head.sequence_number if landed is None else landed.sequence_number,
                    "watermark": None if moved is None else from_us(moved),
                    "max_sequence": plan.max_sequence,
                    "rows": added,
                    "seconds": outcome.seconds,
                },
            ).rowcount
            if changed != 1:
                raise OffloadError(WATERMARK_MOVED, f"generation {head.generation} was passed", table=plan.table)
        return Promotion(
            True, moved, head.generation if landed is None else plan.generation, outcome.rows, len(outcome.windows)
        )

    def _account(self, c: Connection, head: Head, plan: Plan, outcome: Outcome, grid: Grid) -> int:
        spans = [*plan.append, *(grid.span(w.window) for w in outcome.windows)]
        existing: dict[Span, Entry] = {}
        for span in spans:
            touching = Span(span.lo - 1, span.hi + 1)
            for row in c.execute(_OVERLAPPING, _range(head, touching)).mappings():
                entry = _entry(row, grid)
                existing[entry.span] = entry
        change = apply(list(existing.values()), outcome.windows, plan.append, outcome.pending, grid)
        self._write(c, head, change, plan)
        gone = set(change.delete)
        before = sum(e.shipped.rows for s, e in existing.items() if s in gone and e.shipped)
        return sum(e.shipped.rows for e in change.insert if e.shipped) - before

    @staticmethod
    def _write(c: Connection, head: Head, change: Change, plan: Plan) -> None:
        if change.delete:
            c.execute(
                text("DELETE FROM offload.windows WHERE table_id = :table_id AND span = int8range(:lo, :hi)"),
                [_range(head, span) for span in change.delete],
            )
        if change.insert:
            c.execute(
                _INSERT_WINDOW,
                [
                    _range(head, e.span)
                    | {
                        "rows": e.shipped.rows if e.shipped else 0,
                        "hash": e.shipped.hash if e.shipped else 0,
                        "expiry": e.shipped.expiry_us if e.shipped else None,
                        "fingerprint": plan.projection.fingerprint if e.shipped else None,
                        "plan_id": plan.plan_id,
                    }
                    for e in change.insert
                ],
            )

    @staticmethod
    def _watermark(c: Connection, head: Head, plan: Plan) -> int | None:
        start = head.origin_us if head.watermark_us is None else head.watermark_us
        if start is None:
            return None
        rows = c.execute(
            text(
                "SELECT lower(span) AS lo, upper(span) AS hi FROM offload.windows"
                " WHERE table_id = :table_id AND span && int8range(:start, NULL)"
            ),
            {"table_id": head.table_id, "start": start},
        )
        return gapless_end(start, [Span(max(r.lo, start), r.hi) for r in rows])

    def failed(self, identity: str, message: str, *, final: bool = True) -> None:
        """Record a failed try of a table, the seeds' way; a success sets the count back to 0.

        final: no retry follows, so the run has failed. Only these count, a run with three retries is one failure.
        What looks like a secret is taken out: a driver may quote a URI with its login, and pages show it.
        """
        said = {"identity": identity, "message": without_logins(message)[:2000], "counted": int(final)}
        with self.begin(identity) as c:
            known = c.execute(
                text(
                    "UPDATE offload.watermarks SET status = 'failed', failure_count = failure_count + :counted,"
                    " last_error = :message, updated_at = now() WHERE table_name = :identity"
                ),
                said,
            ).rowcount
            if not known:
                # wrong password, no such table, a type that is refused: the usual ends of a new table's first check
                c.execute(
                    text(
                        "INSERT INTO offload.unmet AS u (identity, failure_count, last_error)"
                        " VALUES (:identity, :counted, :message) ON CONFLICT (identity) DO UPDATE SET"
                        " failure_count = u.failure_count + excluded.failure_count, last_error = excluded.last_error,"
                        " updated_at = now()"
                    ),
                    said,
                )

    def said(self, head: Head, grid: Grid, spans: Sequence[Span]) -> dict[int, tuple[int, int | None]]:
        """What open plans saw in windows that they would append, by number: the most rows, and the first expiry.

        Only within `spans`. A plan stays open until a newer one lands: what it saw is in ClickHouse alone.
        """
        if not spans:
            return {}
        lo, hi = grid.number(spans[0].lo), grid.number(spans[-1].hi)
        with self.begin() as c:
            rows = c.execute(_SAID, {"table_id": head.table_id, "lo": lo, "hi": hi})
            return {int(r.number): (int(r.rows), r.expiry) for r in rows}


_LOST_SINCE = text(
    "SELECT coalesce(p.created_at <= t.lost_at, false) FROM offload.plans p JOIN offload.tables t USING (table_id)"
    " WHERE p.plan_id = :id FOR SHARE OF t"
)
_HEAD_COLUMNS = (
    "SELECT t.table_id, t.origin_us, w.watermark, w.generation, w.plan_id, w.target_uuid, w.snapshot_id,"
    " w.sequence_number, t.retired_at IS NOT NULL AS retired"
    " FROM offload.tables t JOIN offload.watermarks w USING (table_id) WHERE t.identity = :identity"
)
_HEAD = text(_HEAD_COLUMNS)
_HEAD_LOCKED = text(_HEAD_COLUMNS + " FOR UPDATE OF w")
_OVERLAPPING = text(
    "SELECT lower(span) AS lo, upper(span) AS hi, rows, hash, fingerprint, expiry_us FROM offload.windows"
    " WHERE table_id = :table_id AND span && int8range(:lo, :hi)"
)
_SAID = text(
    "SELECT (w ->> 'window')::bigint AS number, max((w ->> 'rows')::bigint) AS rows,"
    " min((w ->> 'expiry_us')::bigint) AS expiry FROM offload.plans p,"
    " jsonb_path_query(p.document, '$.windows[*] ? (@.action == \"append\")') w"
    " WHERE p.table_id = :table_id AND p.status = 'open' AND p.windows > 0"
    " AND (w ->> 'window')::bigint >= :lo AND (w ->> 'window')::bigint < :hi GROUP BY 1"
)
_INSERT_WINDOW = text(
    "INSERT INTO offload.windows (table_id, span, rows, hash, fingerprint, expiry_us, plan_id)"
    " VALUES (:table_id, int8range(:lo, :hi), :rows, :hash, :fingerprint, :expiry, :plan_id)"
)
_CLOSE_PLAN = text(
    "UPDATE offload.plans SET status = :status, snapshot_id = :snapshot, closed_at = now() WHERE plan_id = :id"
)
_SUPERSEDE = text(
    "UPDATE offload.plans SET status = 'superseded', closed_at = now()"
    " WHERE table_id = :table_id AND status = 'open' AND windows > 0 AND generation <= :generation"
)
_SUCCEEDED = text(
    "UPDATE offload.watermarks SET status = 'success', failure_count = 0, last_error = NULL, updated_at = now()"
    " WHERE table_id = :table_id AND status = 'failed'"
)
_ADVANCE = text(
    "UPDATE offload.watermarks SET generation = greatest(generation, :generation), plan_id = :plan_id,"
    " target_uuid = :target, snapshot_id = :snapshot, sequence_number = :number,"
    " watermark = greatest(watermark, CAST(:watermark AS timestamptz)),"
    " max_sequence = greatest(max_sequence, CAST(:max_sequence AS numeric)), row_count = row_count + :rows,"
    " status = 'success', last_offload_timestamp = now(), last_successful_run = now(), duration_seconds = :seconds,"
    " failure_count = 0, last_error = NULL, updated_at = now()"
    " WHERE table_id = :table_id AND generation = :seen"
)


def _protected(outcome: Outcome) -> Outcome:
    """The same, with windows that are never replaced: nobody knows which of their rows ClickHouse still holds."""
    return replace(outcome, windows=tuple(replace(w, expiry_us=EXPIRED_LONG_AGO) for w in outcome.windows))


def _range(head: Head, span: Span) -> dict[str, Any]:
    return {"table_id": head.table_id, "lo": span.lo, "hi": span.hi}


def _entry(row: RowMapping, grid: Grid) -> Entry:
    span = Span(row["lo"], row["hi"])
    if row["fingerprint"] is None:
        return Entry(span, None)
    return Entry(span, WindowState(grid.number(span.lo), row["rows"], int(row["hash"]), row["expiry_us"]))


def _head(row: RowMapping) -> Head:
    watermark: datetime | None = row["watermark"]
    return Head(
        table_id=row["table_id"],
        origin_us=row["origin_us"],
        watermark_us=None if watermark is None else to_us(watermark),
        generation=row["generation"],
        plan_id=row["plan_id"],
        target_uuid=None if row["target_uuid"] is None else str(row["target_uuid"]),
        snapshot_id=row["snapshot_id"],
        sequence_number=row["sequence_number"],
        retired=row["retired"],
    )


def first_line(error: Exception) -> str:
    """What PostgreSQL says, without the statement and the hints below it."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
