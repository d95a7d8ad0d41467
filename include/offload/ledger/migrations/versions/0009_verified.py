"""What verify saw: each window's last comparison, and the verifications of late."""

from alembic import op

revision = "0009"
down_revision = "0008"

_UP = """
CREATE TABLE offload.verified (
    table_id integer NOT NULL REFERENCES offload.tables ON DELETE CASCADE,
    lo bigint NOT NULL,
    source_rows bigint NOT NULL CHECK (source_rows >= 0),
    lake_rows bigint NOT NULL CHECK (lake_rows >= 0),
    equal boolean NOT NULL,
    verified_at timestamptz NOT NULL,
    PRIMARY KEY (table_id, lo)
);
COMMENT ON TABLE offload.verified IS 'the last comparison of each window, whatever came of it';
COMMENT ON COLUMN offload.verified.lo IS 'where the window begins, microseconds since the epoch, UTC';
COMMENT ON COLUMN offload.verified.verified_at IS 'when that comparison began';

CREATE TABLE offload.verifications (
    verification_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_id integer NOT NULL REFERENCES offload.tables ON DELETE CASCADE,
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now(),
    windows integer NOT NULL CHECK (windows >= 0),
    differing integer NOT NULL CHECK (differing >= 0),
    equal boolean NOT NULL,
    snapshot_id bigint
);
COMMENT ON TABLE offload.verifications IS 'the last verifications of each table';
COMMENT ON COLUMN offload.verifications.equal IS 'also false when no window differs, and a sum or the whole does';
CREATE INDEX verifications_recent ON offload.verifications (table_id, began_at);
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    for table in ("verifications", "verified"):
        op.execute(f"DROP TABLE offload.{table}")
