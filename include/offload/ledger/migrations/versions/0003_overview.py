"""What a page about all tables asks: plans of the last day, what a plan shipped, a look without its long lists."""

from alembic import op

revision = "0003"
down_revision = "0002"

# the lists of a look are long: reading 1,000 documents to leave them away took half of the page's time
_UP = """
CREATE INDEX plans_recent ON offload.plans (table_id, created_at) INCLUDE (rows, status);
CREATE INDEX attempts_of_plan ON offload.attempts (plan_id);
ALTER TABLE offload.looks
    ADD COLUMN brief jsonb GENERATED ALWAYS AS (document - 'blocks' - 'left') STORED,
    ADD COLUMN differing integer GENERATED ALWAYS AS (jsonb_array_length(
        jsonb_path_query_array(document, '$.left[*] ? (@.reason != "unknown-fingerprint")'))) STORED;
COMMENT ON COLUMN offload.looks.differing IS 'windows that differ and were left as they are';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("ALTER TABLE offload.looks DROP COLUMN differing, DROP COLUMN brief")
    op.execute("DROP INDEX offload.attempts_of_plan")
    op.execute("DROP INDEX offload.plans_recent")
