"""What the last look at a source saw, and which tables have their TTL merges stopped."""

from alembic import op

revision = "0002"
down_revision = "0001"

_UP = """
CREATE TABLE offload.looks (
    table_id integer PRIMARY KEY REFERENCES offload.tables,
    document jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE offload.looks IS 'data blocks, TTL and late rows of the source, as the last check_extent saw them';

CREATE TABLE offload.ttl_guard (
    table_id integer PRIMARY KEY REFERENCES offload.tables,
    since timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    applied_at timestamptz,
    last_error text
);
COMMENT ON TABLE offload.ttl_guard IS 'tables whose TTL merges the offload stopped; each run stops them again';
COMMENT ON COLUMN offload.ttl_guard.applied_at IS 'when ClickHouse last obeyed; NULL: not yet';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    for table in ("ttl_guard", "looks"):
        op.execute(f"DROP TABLE offload.{table}")
