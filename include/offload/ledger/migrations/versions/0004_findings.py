"""What stays wrong until somebody mends or accepts it, failures before a table's first plan, and what shipped anew."""

from alembic import op

revision = "0004"
down_revision = "0003"

# documents of older code do not say of a window whether it differs: those count as they did
_DIFFERING = '$.left[*] ? (@.differs == true || (!exists(@.differs) && @.reason != "unknown-fingerprint"))'
_BEFORE = '$.left[*] ? (@.reason != "unknown-fingerprint")'
_COLUMN = """
ALTER TABLE offload.looks ADD COLUMN differing integer
    GENERATED ALWAYS AS (jsonb_array_length(jsonb_path_query_array(document, '{path}'))) STORED;
COMMENT ON COLUMN offload.looks.differing IS 'windows that differ and were left as they are';
"""

_UP = """
CREATE TABLE offload.findings (
    table_id integer NOT NULL REFERENCES offload.tables ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('verify', 'reconcile', 'total', 'lost')),
    span int8range NOT NULL CHECK (NOT isempty(span)),
    windows integer NOT NULL CHECK (windows > 0),
    rows bigint NOT NULL DEFAULT 0 CHECK (rows >= 0),
    found_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    PRIMARY KEY (table_id, kind, span)
);
COMMENT ON TABLE offload.findings IS 'what is wrong until it is seen to be right, or accepted';
COMMENT ON COLUMN offload.findings.kind IS
    'verify, reconcile: windows that differ; total: rows of no window; lost: expired before they were shipped';
COMMENT ON COLUMN offload.findings.rows IS 'at least so many are lost; 0: nobody counted them';

CREATE TABLE offload.unmet (
    identity text PRIMARY KEY,
    failure_count integer NOT NULL DEFAULT 0,
    last_error text,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE offload.unmet IS 'failures of tables that no check has met yet';

ALTER TABLE offload.ttl_guard
    ADD COLUMN wanted text NOT NULL DEFAULT 'stop' CHECK (wanted IN ('stop', 'start'));
COMMENT ON COLUMN offload.ttl_guard.wanted IS 'what ClickHouse was last told; refused while last_error says so';

ALTER TABLE offload.plans ADD COLUMN replaced_rows bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN offload.plans.replaced_rows IS 'rows that the lake held in the windows that the plan replaces';
DROP INDEX offload.plans_recent;
CREATE INDEX plans_recent ON offload.plans (table_id, created_at) INCLUDE (rows, replaced_rows, status);

ALTER TABLE offload.tables ADD COLUMN lost_at timestamptz;
COMMENT ON COLUMN offload.tables.lost_at IS
    'when a look last saw rows go without a delete: what a plan that is older ships is never replaced';

ALTER TABLE offload.looks DROP COLUMN differing;
"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_COLUMN.format(path=_DIFFERING))


def downgrade() -> None:
    op.execute("ALTER TABLE offload.looks DROP COLUMN differing")
    op.execute(_COLUMN.format(path=_BEFORE))
    op.execute("ALTER TABLE offload.tables DROP COLUMN lost_at")
    op.execute("DROP INDEX offload.plans_recent")
    op.execute("ALTER TABLE offload.plans DROP COLUMN replaced_rows")
    op.execute("CREATE INDEX plans_recent ON offload.plans (table_id, created_at) INCLUDE (rows, status)")
    op.execute("ALTER TABLE offload.ttl_guard DROP COLUMN wanted")
    for table in ("unmet", "findings"):
        op.execute(f"DROP TABLE offload.{table}")
