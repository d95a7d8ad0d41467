"""What an operator wants to know of an error id beyond its one sentence: usual causes, and what is safe.

docs/errors.md is made from it and from the registry in include/offload/errors.py; `bin/offload errors ID` prints it.
Links are relative to docs/. An id without a note is fine.
"""

from __future__ import annotations

import posixpath
import re

LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)(?:#[^)]*)?\)")

NOTES: dict[str, str] = {
    "OFL-101": """
        A file below `dags/tables/` does not follow the rules of [spec.md](spec.md). The other tables go on. Airflow
        shows one import error for `dags/spec_errors.py` that lists every mistake of every file with line and what to
        write instead; `bin/offload spec check` prints the same list.""",
    "OFL-102": """
        A task found no Airflow connection (`offload_clickhouse`, `offload_ledger`, `offload_spark`), or the command
        line found neither the environment variable nor the file in `$OFFLOAD_HOME/secrets/`. The message names the one
        that is missing. `ttl_guard: stop` in a spec needs a login of its own, `OFFLOAD_CLICKHOUSE_GUARD_URI`.""",
    "OFL-103": """
        TLS is on, and the certificate that the server showed is not signed by the CA that the connection names, is for
        another host name, has expired, or the CA file is missing on the machine that runs the task. Nothing was sent:
        no password, no query. The settings are in [howto-production.md](howto-production.md#tls).""",
    "OFL-104": """
        The name of a table is `db.table`, the path of its file `dags/tables/<db>/<table>.yaml`. Nothing is wrong with
        any spec: the name is mistyped, the file was moved, or `OFFLOAD_TABLES` names another directory.""",
    "OFL-201": """
        No replica of the connection answers within five seconds. Nothing was planned or committed. A plan keeps to the
        replica that it was made on; while that one is away, a retry reads another of the same table. While a table's
        rows wait, their time to live runs: look at the oldest pending expiry in `bin/offload status`.""",
    "OFL-202": """
        The password was rotated on one side only, or the user may not read the table: every table needs its line in
        [`clickhouse.sql`](../deploy/sql/clickhouse.sql). What else is granted, and why, is in
        [permissions.md](permissions.md).""",
    "OFL-203": """
        The table was dropped or renamed, or the spec names another database: the path `dags/tables/<db>/<table>.yaml`
        is the identity unless `source` says otherwise.""",
    "OFL-204": """
        A column that the spec uses (cursor, sequence, partition, sort, include, exclude, an `expr`) is not in the
        table.""",
    "OFL-205": """
        The type has no Iceberg type that holds every value exactly, so nothing is shipped rather than something
        rounded. Choose what to lose yourself: `exclude` the column, or give it an `expr` and a `type`. The same id
        stops a single value that its column's type does not promise: text that is no UTF-8, a decimal with too many
        digits, a map with a key twice, a number too large for an override. [types.md](types.md) has an override for
        each.""",
    "OFL-206": """
        The cursor decides which window a row belongs to. A Nullable cursor would leave rows in no window, a type that
        is no time has no windows.""",
    "OFL-207": """
        ClickHouse accepted the query and failed it: memory limit, time limit, too many queries. The limits are in the
        spec under `source.limits`. Each query carries a `query_id` that begins with `offload-` and a `log_comment`
        with table and run: search `system.query_log` for them. A limit of the user's profile fails a query too, also
        where the profile says to return what there is by then.""",
    "OFL-208": """
        The connection broke, or ClickHouse failed after it had answered 200. A stream without its end-of-stream mark
        is never registered, however many rows came. The same for an answer of no bytes to a question that has rows:
        something between here and ClickHouse lost it.""",
    "OFL-209": """
        The table has another UUID (or another ZooKeeper path) than the one that was offloaded. A dropped and
        re-created table may hold other rows under the same name, so the pipeline stops before it mistakes missing rows
        for deleted ones. If the new table is meant to go on where the old one ended, accept it.""",
    "OFL-210": """
        The replica that this run would read is further behind than the `settle` time of the spec: rows of a window
        that counts as settled may not have arrived on it.""",
    "OFL-211": """
        `FINAL` merges rows of one key. When the cursor is not part of the sorting key, versions of one row may lie in
        different windows, and reading one window alone gives another answer than reading the whole table. A column of
        `target.partition` that is not part of it can differ between versions just so: each partition is read by a
        query of its own.""",
    "OFL-212": """
        Somebody added, dropped or changed a column between planning and the end of reading. Rows that came in between
        may hold values that this plan does not read, so it commits nothing. No row is lost; the next plan reads them
        all.""",
    "OFL-213": """
        `bin/offload view TABLE --apply` runs as the user of `OFFLOAD_CLICKHOUSE_VIEW_URI`, never as the offload's own,
        which may only read. It may create a view, but lacks a grant, or ClickHouse has no database of the engine
        DataLakeCatalog under the name that the view reads. How to make both is in
        [howto-query-hot-and-cold.md](howto-query-hot-and-cold.md). An older view stays as it was, and stays exact.""",
    "OFL-301": """
        Neither planning nor committing is possible; nothing is lost. A commit request that was already sent counts as
        unknown (OFL-404), and the next try looks before it writes.""",
    "OFL-302": """
        A column has a type that Iceberg never turns into the other (long into decimal, date into timestamp, anything
        nested), or two names differ only in case. Nothing is changed in the table. Exclude the column, or give it an
        override with the type that Iceberg has; [howto-change-the-schema.md](howto-change-the-schema.md) has the
        list.""",
    "OFL-303": """
        The commit marker carries the id of another ledger. Two pipelines on one table would both append. Stop the
        other one, then take the table over.""",
    "OFL-304": """
        The table holds snapshots, and none of them carries a marker: someone else filled it, or all of our snapshots
        have expired and the properties were removed. What another program filled can be
        [adopted](howto-adopt.md).""",
    "OFL-305": """
        The marker names a snapshot that is not in the history of `main`, and an older one is: somebody rolled the
        table back, switched branches or replaced it. `restore-main` sets `main` to the marker's snapshot, while that
        has not expired: nothing is lost, and the next run goes on. Rebuilding takes what the table holds now as the
        truth and offloads the rest again as far as `horizon` reaches; of what is older `reconcile` ships the range that
        is said as late rows. Rows that have expired in ClickHouse do not survive that.""",
    "OFL-306": """
        Schema, partition spec or files of the table changed after the plan was frozen. Planning again sees the new
        state.""",
    "OFL-307": """
        Wrong key, missing bucket, no space. Files of the failed attempt are removed or left for orphan removal; they
        are in no snapshot.""",
    "OFL-308": """
        To replace a window, a data file is rewritten as a whole. Rewriting one with row-level deletes would need to
        apply them first; compaction does that.""",
    "OFL-309": """
        The ledger says that rows were shipped, the catalog knows no such table. If it was renamed or the catalog was
        restored, bring it back. If it was dropped on purpose, `ledger forget` lets the ledger start anew: the next run
        makes the table again and ships what ClickHouse still holds. What had expired there is gone.""",
    "OFL-310": """
        A column left the source or the spec, was renamed, or holds a narrower type now, or `target.partition` is
        another. New columns and wider types need nothing. Accepting keeps all history: a dropped column stays and reads
        NULL in new rows, a renamed one keeps its field id (`--rename old=new`), a narrowed one keeps Iceberg's wider
        type. Until then the table's rows wait in ClickHouse.""",
    "OFL-311": """
        After our last commit somebody deleted, updated or overwrote rows of the table: a snapshot in the history of
        `main` without our marker took data files out or added delete files. The ledger still counts those rows as
        shipped. Rebuilding counts what the table holds now; the next run brings back what ClickHouse still has and is
        within `horizon`. Rows that ClickHouse no longer holds stay as the other writer left them; `restore-main` brings
        those back too, and keeps what it takes off `main` by a tag. Appends and compaction of others are no reason to
        stop.""",
    "OFL-312": """
        A late row asks for a window to be replaced, and Iceberg holds more rows in it than this pipeline ever shipped:
        somebody appended rows there. A replace would take them out. `run --force` over the range does so, since it
        was asked to. `ledger rebuild` counts them as shipped instead: the window then looks shrunk in ClickHouse and
        stays as it is (`deletes: keep`). Until one of the two is done, plans that hold such a window are refused
        whole.""",
    "OFL-313": """
        `ledger forget` is for a table that was dropped on purpose. While Iceberg holds rows, forgetting them would ship
        them twice.""",
    "OFL-314": """
        `adopt` wrote nothing. Rows lie at or after the border and would be written twice, the border is not settled
        yet, rows have no cursor, or ClickHouse holds nothing that the history could be compared with and nobody said
        up to when it is complete. [howto-adopt.md](howto-adopt.md) has each case.""",
    "OFL-315": """
        A run met a table that was retired: its spec file and its DAG are still there. Or `retire` was asked for while
        settled rows are in ClickHouse alone: ship them, or leave so many behind.
        [howto-retire.md](howto-retire.md).""",
    "OFL-316": """
        A newer release has worked on this table and says in the marker something that this one does not understand.
        Nothing was planned or committed. Going back to an older release is safe only to one that knows the marker.""",
    "OFL-401": """
        The run's plan is not in the ledger: the ledger was rebuilt or restored since.""",
    "OFL-402": """
        A newer plan landed, or planning again closed this one. This is how a forgotten job of an older run is kept
        from writing: it is no loss, the newer plan covers the same rows or the next one will.""",
    "OFL-403": """
        A file's rows, size or windows are not what was counted while it was written, or windows kept changing while
        they were read. Nothing is registered.""",
    "OFL-404": """
        The commit may or may not be in the table. Only the table can tell, and it could not be read. Clearing is safe:
        the next try reads the marker first.""",
    "OFL-405": """
        Ledger and marker name different plans, tables or snapshots and no rule says which is right: usually one of
        them was restored from a backup. Iceberg is the truth; a rebuild makes the ledger follow it.""",
    "OFL-406": """
        Windows are the unit of accounting. With another cursor or width, what was shipped could no longer be
        compared.""",
    "OFL-407": """
        The range lies before `start`, is not settled yet, or is about to expire in ClickHouse: replacing a window
        whose rows are being deleted would delete them from the lake too. `force` does not override it. A job ends
        with it when a partition was dropped or the TTL changed while it read windows again; nothing was committed, and
        the next run looks anew.""",
    "OFL-408": """
        Two runs recorded a plan at once; one of them won. Running the task again reads the new state.""",
    "OFL-409": """
        Count, content hash or a column's sum differ between ClickHouse and Iceberg. The report names each window with
        both sides. A window that was changed in ClickHouse after it was shipped is replaced by the next run while it
        is within `horizon`; `bin/offload repair TABLE WINDOW` replaces one of any age, and looks at it again.""",
    "OFL-413": """
        Two backfills of one table would only pass each other again and again; the cause names the process that has the
        table, its machine and its session of the ledger. When that process dies, PostgreSQL lets the table go at once;
        when its machine does, within minutes. The DAG's own runs go on beside a backfill.""",
    "OFL-501": """
        Nothing can be planned or recorded. A job that already has its plan also needs the ledger, before it
        commits.""",
    "OFL-502": """
        The code is newer than the schema, or a table or column of it is missing. Upgrading is safe to repeat and
        keeps the data; when something is missing it says so (OFL-507).""",
    "OFL-503": """
        A disk that a task writes to is full. Data files are streamed to the object store and not kept on disk.""",
    "OFL-504": """
        The job ended without saying why: killed, out of memory, no Java, no Spark master. Its last lines stand above
        the error.""",
    "OFL-505": """
        Prometheus, Alertmanager, statsd_exporter or Airflow's API server gives no answer, or none that it should give;
        the cause names which. Whether an alert fires is then unknown: silence is never health. The offload does not
        need them, except for Airflow's: no task can begin or end without it, so start that one first.""",
    "OFL-506": """
        After everything that looks like a secret was removed, one that this installation knows was still in a file.
        Nothing was written.""",
    "OFL-507": """
        The ledger is at the revision of this code, and a table of it is gone: upgrading does not bring that back.
        `ledger recreate` keeps what is left in a file and makes the ledger anew; `ledger rebuild TABLE` then fills it
        from Iceberg. With a whole backup, `ledger restore FILE` does.""",
    "OFL-601": """
        One of Iceberg's procedures failed; the cause is its own message. Steps that ended before it are committed,
        the others are not. The offload needs none of them, and no row is in danger.""",
    "OFL-602": """
        Maintenance runs Iceberg's own procedures in Spark; the offload needs no Iceberg in Spark. `make setup` fetches
        the jars for one machine.""",
    "OFL-603": """
        A lock in the ledger lets one maintenance of a table work at a time. It goes with the connection of the one that
        holds it, so a job that was killed holds nobody up.""",
    "OFL-604": """
        Maintenance translates the catalog of PyIceberg's configuration into Spark's settings: `rest`, `hive`, `glue`
        and `sql`. The offload works with any catalog that PyIceberg opens.""",
}


def note(error_id: str) -> str:
    """The note of an id as one paragraph of plain text, a link as its path in this repository; empty without one."""
    text = " ".join(NOTES.get(error_id, "").split())
    return LINK.sub(lambda link: posixpath.normpath(f"docs/{link[1]}"), text)
