"""The ledger: pipeline, tables, plans, attempts, windows, watermarks."""

from alembic import op

revision = "0001"
down_revision = None

# The exclusion constraint pairs the table with the span through a one-element int4range, because the btree_gist
# extension, which would take a plain integer, is not installed everywhere.
_UP = """
CREATE TABLE offload.pipeline (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    pipeline_id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO offload.pipeline DEFAULT VALUES;

CREATE TABLE offload.tables (
    table_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity text NOT NULL UNIQUE,
    cursor_column text NOT NULL,
    width_us bigint NOT NULL CHECK (width_us > 0),
    origin_us bigint,
    source_identity text NOT NULL,
    target text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN offload.tables.origin_us IS 'where accounting begins, µs UTC; NULL until a row is seen';

CREATE TABLE offload.plans (
    plan_id uuid PRIMARY KEY,
    table_id integer NOT NULL REFERENCES offload.tables,
    run_id text NOT NULL,
    generation bigint NOT NULL,
    predecessor uuid,
    status text NOT NULL CHECK (status IN ('open', 'committed', 'empty', 'superseded')),
    scan int8range NOT NULL,
    windows integer NOT NULL,
    rows bigint NOT NULL,
    document jsonb NOT NULL,
    snapshot_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz
);
CREATE INDEX plans_of_run ON offload.plans (table_id, run_id, created_at);
CREATE INDEX plans_open ON offload.plans (table_id) WHERE status = 'open';

CREATE TABLE offload.attempts (
    attempt_id uuid PRIMARY KEY,
    plan_id uuid NOT NULL REFERENCES offload.plans,
    outcome jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE offload.attempts IS 'what an attempt shipped, written before its commit is sent';

CREATE TABLE offload.windows (
    table_id integer NOT NULL REFERENCES offload.tables,
    span int8range NOT NULL CHECK (NOT isempty(span)),
    rows bigint NOT NULL CHECK (rows >= 0),
    hash numeric(20) NOT NULL,
    fingerprint text,
    expiry_us bigint,
    plan_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    EXCLUDE USING gist (int4range(table_id, table_id, '[]') WITH &&, span WITH &&)
);
COMMENT ON COLUMN offload.windows.rows IS '0: a run of windows verified empty';
CREATE INDEX windows_by_start ON offload.windows (table_id, lower(span));

CREATE TABLE offload.watermarks (
    table_id integer PRIMARY KEY REFERENCES offload.tables,
    table_name text NOT NULL UNIQUE,
    watermark timestamptz,
    generation bigint NOT NULL DEFAULT 0,
    plan_id uuid,
    target_uuid uuid,
    snapshot_id bigint,
    sequence_number bigint,
    last_offload_timestamp timestamptz,
    max_sequence numeric(39),
    row_count bigint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'initialized' CHECK (status IN ('initialized', 'success', 'failed')),
    last_successful_run timestamptz,
    duration_seconds double precision,
    failure_count integer NOT NULL DEFAULT 0,
    last_error text,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN offload.watermarks.row_count IS 'rows of this table in the lake, as shipped';
COMMENT ON COLUMN offload.watermarks.failure_count IS 'failures since the last success';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    for table in ("watermarks", "windows", "attempts", "plans", "tables", "pipeline"):
        op.execute(f"DROP TABLE offload.{table}")
