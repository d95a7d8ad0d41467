"""Alembic's entry: the connection comes from the caller, the version table lives in our own schema."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="offload",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
