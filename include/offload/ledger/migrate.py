"""Bring the ledger's schema up to this code, with Alembic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from include.offload.errors import LEDGER_DAMAGED, LEDGER_OUTDATED, LEDGER_UNREACHABLE, OffloadError
from include.offload.ledger.store import engine_for, first_line

TABLES = (
    "attempts",
    "findings",
    "looks",
    "pipeline",
    "plans",
    "tables",
    "ttl_guard",
    "unmet",
    "verifications",
    "verified",
    "watermarks",
    "windows",
)
"""What the newest revision has; a test holds it against a fresh schema."""
LOCK_S = 5.0
"""How long a migration waits for runs to let a table go, seconds: while it waits, whatever comes later waits too."""
_NO_LOCK = "55P03"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def upgrade(uri: str, revision: str = "head", lock_s: float = LOCK_S) -> None:
    """Create or upgrade the schema `offload`. Safe to repeat.

    Raises OFL-501 when PostgreSQL does not answer, OFL-502 when its tables are in use for longer than `lock_s` seconds:
    then nothing was changed.
    """
    _run(uri, lambda config: command.upgrade(config, revision), lock_s)


def revisions() -> tuple[str, ...]:
    """All revisions that this code knows, the oldest first."""
    found = ScriptDirectory.from_config(_config()).walk_revisions()
    return tuple(reversed([script.revision for script in found]))


def check_whole(uri: str) -> None:
    """Raises OFL-507 when a table of the ledger is missing: at the right revision no upgrade brings it back."""
    engine = engine_for(uri)
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'offload'"))
            missing = sorted({*TABLES} - {str(name) for (name,) in found})
    finally:
        engine.dispose()
    if missing:
        raise OffloadError(LEDGER_DAMAGED, ", ".join(f"offload.{name}" for name in missing))


def downgrade(uri: str, revision: str) -> None:
    """Take the schema back to `revision` (`base`: nothing is left but the empty schema)."""
    _run(uri, lambda config: command.downgrade(config, revision))


def upgrade_on(connection: Connection, revision: str) -> None:
    """The same as `upgrade` in the caller's transaction; the schema itself must be there."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def was_busy(error: Exception) -> bool:
    """Whether PostgreSQL gave up waiting for a table that others use."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == _NO_LOCK


def _run(uri: str, act: Callable[[Config], None], lock_s: float = LOCK_S) -> None:
    config = _config()
    engine = engine_for(uri)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET lock_timeout = {round(lock_s * 1000)}"))
            # asked first: IF NOT EXISTS wants the right to make schemas even when there is nothing to make
            if connection.execute(text("SELECT to_regnamespace('offload')")).scalar_one() is None:
                connection.execute(text("CREATE SCHEMA offload"))
            config.attributes["connection"] = connection
            act(config)
    except OperationalError as error:
        if not was_busy(error):
            raise OffloadError(LEDGER_UNREACHABLE, first_line(error)) from error
        busy = f"its tables were in use for {lock_s:g} s and nothing was changed; upgrade again when no run is at work"
        raise OffloadError(LEDGER_OUTDATED, busy) from error
    finally:
        engine.dispose()
