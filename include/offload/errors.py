"""Every refusal of this project: one id, one sentence that says what to do next.

An id leads to one heading of a runbook. The registry below is the single list; `docs/errors.md` is
generated from it, and a test proves that every id that is raised stands here and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One kind of refusal. `next_step`: what to do, as a sentence, with `{table}` in the place of the table.

    `command`: the part of it that can be typed as it is; `hint`: the words behind it, or alone. `retry`: whether the
    same task may succeed when simply run again.
    """

    id: str
    title: str
    next_step: str
    retry: bool = False
    command: str | None = None
    hint: str = ""

    def command_for(self, table: str | None) -> str | None:
        """What to type for this table; None when no command is the next step."""
        return None if self.command is None else self.command.replace("{table}", table or "TABLE")

    def hint_for(self, table: str | None) -> str:
        """The words around it."""
        return self.hint.replace("{table}", table or "TABLE")


REGISTRY: dict[str, ErrorKind] = {}


def _kind(id: str, title: str, *, command: str | None = None, hint: str = "", retry: bool = False) -> ErrorKind:
    if id in REGISTRY:
        raise ValueError(f"error id {id} is defined twice")
    joint = "; " if hint.startswith(("or ", "else ")) else " "
    next_step = joint.join(part for part in (command, hint) if part)
    REGISTRY[id] = ErrorKind(id, title, next_step, retry, command, hint)
    return REGISTRY[id]


# 1xx: the spec and the settings
SPEC_INVALID = _kind("OFL-101", "table spec is invalid", command="bin/offload spec check")
SETTING_MISSING = _kind("OFL-102", "a connection or setting is missing", command="bin/offload stack status")
TLS_UNTRUSTED = _kind(
    "OFL-103", "a server's certificate is not trusted", hint="check the CA file and the host name in its connection"
)
SPEC_MISSING = _kind(
    "OFL-104", "no table spec has this name", command="bin/offload spec check --json", hint="lists the tables"
)
# 2xx: the source, ClickHouse
SOURCE_UNREACHABLE = _kind(
    "OFL-201",
    "ClickHouse does not answer",
    command="bin/offload stack start",
    hint="if this machine runs it; else start it where it runs",
    retry=True,
)
SOURCE_REFUSED_LOGIN = _kind(
    "OFL-202", "ClickHouse refuses the login", hint="check the password of the connection offload_clickhouse"
)
SOURCE_TABLE_MISSING = _kind(
    "OFL-203", "the source table does not exist", hint="restore it in ClickHouse, or name the right one in the spec"
)
SOURCE_COLUMN_MISSING = _kind(
    "OFL-204",
    "a column of the spec does not exist in the source",
    hint="correct its name in the spec, or take it out, or add it in ClickHouse",
)
TYPE_NOT_LOSSLESS = _kind(
    "OFL-205", "a column has no lossless mapping", hint="exclude the column or give it an expr and a type in the spec"
)
CURSOR_UNFIT = _kind(
    "OFL-206", "the cursor can not order rows in time", hint="choose a non-Nullable Date, DateTime or DateTime64 column"
)
SOURCE_QUERY_FAILED = _kind(
    "OFL-207", "ClickHouse failed a query", hint="read the ClickHouse message above, then clear the task", retry=True
)
SOURCE_STREAM_BROKEN = _kind(
    "OFL-208",
    "a stream from ClickHouse ended early",
    hint="nothing was committed; the next try reads it again",
    retry=True,
)
SOURCE_CHANGED_IDENTITY = _kind(
    "OFL-209", "the source table was dropped and made again", command="bin/offload accept-source {table}"
)
REPLICA_LAGS = _kind(
    "OFL-210",
    "the pinned replica lags more than settle",
    hint="wait, or take the replica out of the connection",
    retry=True,
)
FINAL_UNSAFE = _kind(
    "OFL-211",
    "`final` can not be read window by window on this table",
    hint="put the cursor and the columns of target.partition into the sorting key, or drop `final`",
)
SOURCE_COLUMNS_CHANGED = _kind(
    "OFL-212",
    "the columns of the source changed while they were read",
    hint="nothing was committed; clear check_extent, or wait: the next run plans with the new columns",
)
VIEW_REFUSED = _kind(
    "OFL-213",
    "ClickHouse refuses to create the view",
    command="bin/offload view {table}",
    hint="prints the statement and the grants; have an administrator grant them, or run the statement",
)
# 3xx: the target, Iceberg and its catalog
CATALOG_UNREACHABLE = _kind(
    "OFL-301", "the Iceberg catalog or its store does not answer", command="bin/offload stack status", retry=True
)
TARGET_SCHEMA_DISAGREES = _kind(
    "OFL-302",
    "the Iceberg table disagrees with the spec",
    command="bin/offload schema diff {table}",
    hint="shows both; change the spec or the table",
)
TARGET_FOREIGN = _kind("OFL-303", "another pipeline owns the Iceberg table", command="bin/offload take-over {table}")
TARGET_WITHOUT_MARKER = _kind(
    "OFL-304",
    "the Iceberg table holds data but no commit marker",
    command="bin/offload ledger rebuild {table}",
    hint="if this pipeline wrote it; if another program did, bin/offload adopt {table} shows what it holds",
)
TARGET_ROLLED_BACK = _kind(
    "OFL-305",
    "the Iceberg table was rolled back or replaced",
    command="bin/offload restore-main {table}",
    hint="undoes that, without loss; if it was meant, or can not be undone: bin/offload ledger rebuild {table}",
)
TARGET_CHANGED = _kind(
    "OFL-306", "the Iceberg table changed between plan and commit", hint="clear check_extent to plan again"
)
STORE_REFUSED = _kind(
    "OFL-307",
    "the object store refused a file",
    hint="check bucket, key and free space, then clear offload",
    retry=True,
)
TARGET_HAS_DELETES = _kind(
    "OFL-308", "a file to rewrite carries row-level deletes", hint="compact the Iceberg table, then clear check_extent"
)
TARGET_MISSING = _kind(
    "OFL-309",
    "the Iceberg table that the ledger knows is gone",
    command="bin/offload ledger rebuild {table}",
    hint="once it is back; bin/offload ledger forget {table} if it is to begin anew",
)
SCHEMA_NEEDS_ACCEPT = _kind(
    "OFL-310",
    "columns or partition fields changed in a way that somebody has to accept",
    command="bin/offload schema diff {table}",
    hint="shows the changes; bin/offload schema accept {table} accepts them",
)
TARGET_ROWS_REMOVED = _kind(
    "OFL-311",
    "somebody else removed or changed rows of the Iceberg table",
    command="bin/offload ledger rebuild {table}",
    hint="takes it as it is now; bin/offload restore-main {table} undoes what they did",
)
TARGET_ROWS_ADDED = _kind(
    "OFL-312",
    "a window to replace holds rows in Iceberg that were never shipped",
    command="bin/offload ledger rebuild {table}",
    hint="keeps them; bin/offload run {table} --force over that range drops them",
)
TARGET_STILL_THERE = _kind(
    "OFL-313",
    "the Iceberg table is still there",
    command="bin/offload ledger rebuild {table}",
    hint="or drop the table first",
)
ADOPT_REFUSED = _kind(
    "OFL-314",
    "the Iceberg table can not be adopted like this",
    command="bin/offload adopt {table}",
    hint="shows what it holds; --until says up to when its history is complete",
)
TABLE_RETIRED = _kind(
    "OFL-315",
    "the table is retired, or it can not be",
    command="bin/offload retire {table}",
    hint="says which and what to do; --undo lets a retired one go on",
)
MARKER_NEWER = _kind(
    "OFL-316",
    "newer code wrote the commit marker",
    hint="run this table with the newest release that ever ran it; nothing was changed",
)
# 4xx: the protocol
PLAN_UNKNOWN = _kind("OFL-401", "the ledger does not know this plan", hint="clear check_extent to plan again")
PLAN_SUPERSEDED = _kind(
    "OFL-402", "another plan passed this one", hint="nothing to mend: the next run picks it up; or clear check_extent"
)
AUDIT_FAILED = _kind(
    "OFL-403", "the files do not hold what was read", hint="nothing was committed; clear offload", retry=True
)
COMMIT_UNKNOWN = _kind(
    "OFL-404",
    "the answer of the commit was lost and the table could not be read",
    hint="clear offload: it looks before it writes",
    retry=True,
)
LEDGER_DISAGREES = _kind("OFL-405", "ledger and Iceberg disagree", command="bin/offload ledger rebuild {table}")
WINDOW_CHANGED = _kind(
    "OFL-406",
    "cursor or window width changed under a table that holds data",
    hint="put the old value back into the spec",
)
RANGE_REFUSED = _kind(
    "OFL-407", "this range can not be offloaded", command="bin/offload plan {table}", hint="shows the windows that can"
)
WATERMARK_MOVED = _kind(
    "OFL-408", "the watermark moved while it was updated", hint="clear update_watermark", retry=True
)
VERIFY_FAILED = _kind(
    "OFL-409", "ClickHouse and Iceberg differ", command="bin/offload verify {table} --json", hint="names the windows"
)
BACKFILL_RUNNING = _kind(
    "OFL-413",
    "another backfill of this table is running",
    hint="wait until it ends, or stop it where it runs; then type yours again",
)
# 5xx: the ledger and the machine
LEDGER_UNREACHABLE = _kind(
    "OFL-501",
    "the ledger's PostgreSQL does not answer",
    command="bin/offload stack start",
    hint="if this machine runs it; else start it where it runs",
    retry=True,
)
LEDGER_OUTDATED = _kind("OFL-502", "the ledger's schema is older than this code", command="bin/offload ledger upgrade")
DISK_FULL = _kind("OFL-503", "no space left", hint="free space, then clear offload", retry=True)
JOB_FAILED = _kind(
    "OFL-504", "the Spark job failed", hint="read the job's last lines above, then clear offload", retry=True
)
MONITORING_UNREACHABLE = _kind(
    "OFL-505", "a server of the monitoring does not answer", command="bin/offload stack status", retry=True
)
BUNDLE_LEAKS = _kind(
    "OFL-506", "a support bundle would hold a secret", hint="leave it unsent, and report which file the message names"
)
LEDGER_DAMAGED = _kind("OFL-507", "tables of the ledger are missing", command="bin/offload ledger recreate")
# 6xx: care for the lake
MAINTENANCE_FAILED = _kind(
    "OFL-601",
    "a step of the maintenance failed",
    hint="read the message; the offload goes on without it, and the next run tries again",
    retry=True,
)
ICEBERG_RUNTIME_MISSING = _kind(
    "OFL-602",
    "Spark has no Iceberg runtime",
    hint="name its jars in OFFLOAD_ICEBERG_JARS, or put them into Spark's own folder of jars",
)
MAINTENANCE_RUNNING = _kind(
    "OFL-603", "another maintenance of this table is running", hint="wait until it ends", retry=True
)
CATALOG_NOT_FOR_SPARK = _kind(
    "OFL-604",
    "Spark can not open this Iceberg catalog",
    hint="set maintenance.enabled to false in the spec, and keep the table by the catalog's own means",
)


class OffloadError(Exception):
    """A refusal with an id. `table`: the identity `db.table`; `cause`: one sentence with the facts."""

    def __init__(self, kind: ErrorKind, cause: str, *, table: str | None = None) -> None:
        self.kind = kind
        self.cause = cause
        self.table = table
        super().__init__(str(self))

    @property
    def id(self) -> str:
        return self.kind.id

    @property
    def next_step(self) -> str:
        return self.kind.next_step.replace("{table}", self.table or "TABLE")

    @property
    def command(self) -> str | None:
        """The part of the next step that can be typed as it is."""
        return self.kind.command_for(self.table)

    def __str__(self) -> str:
        where = f" [{self.table}]" if self.table else ""
        return f"{self.kind.id}{where} {self.kind.title}: {self.cause}. Next: {self.next_step}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.kind.id, self.cause, self.table))


def _rebuild(id: str, cause: str, table: str | None) -> OffloadError:
    return OffloadError(REGISTRY[id], cause, table=table)
