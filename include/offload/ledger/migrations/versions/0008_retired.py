"""Tables that were ended on purpose: nothing plans them any more."""

from alembic import op

revision = "0008"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE offload.tables ADD COLUMN retired_at timestamptz")
    op.execute(
        "COMMENT ON COLUMN offload.tables.retired_at IS 'when `retire` ended it; the marker in Iceberg says so too'"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE offload.tables DROP COLUMN retired_at")
