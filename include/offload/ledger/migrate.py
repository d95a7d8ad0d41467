"""Bring the ledger's schema up to this code, with Alembic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from include.offload.ledger.store import engine_for


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def upgrade(uri: str, revision: str = "head") -> None:
    """Create or upgrade the schema `offload`. Safe to repeat. Raises OFL-501 when PostgreSQL does not answer."""
    _run(uri, lambda config: command.upgrade(config, revision))


def downgrade(uri: str, revision: str) -> None:
    """Take the schema back to `revision` (`base`: nothing is left but the empty schema)."""
    _run(uri, lambda config: command.downgrade(config, revision))


def _run(uri: str, act: Callable[[Config], None]) -> None:
    config = _config()
    engine = engine_for(uri)
    try:
        with engine.begin() as connection:
            # asked first: IF NOT EXISTS wants the right to make schemas even when there is nothing to make
            if connection.execute(text("SELECT to_regnamespace('offload')")).scalar_one() is None:
                connection.execute(text("CREATE SCHEMA offload"))
            config.attributes["connection"] = connection
            act(config)
    finally:
        engine.dispose()
