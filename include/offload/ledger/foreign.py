"""The watermark of another pipeline, from its PostgreSQL table: up to when its history claims to be complete."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
from psycopg import sql

from include.offload.errors import ADOPT_REFUSED, OffloadError
from include.offload.ledger.store import CONNECT_TIMEOUT_S, first_line
from include.offload.windows import to_us

TABLE_COLUMN = (2, 3)
"""Parts of `TABLE.COLUMN` and `SCHEMA.TABLE.COLUMN`."""


def complete_until_us(uri: str, column: str, key: str, value: str, *, table: str) -> int:
    """The first instant (µs UTC) that a watermark does not cover: the greatest in `column` where `key` is `value`.

    column: `TABLE.COLUMN` or `SCHEMA.TABLE.COLUMN` of type timestamptz, or timestamp, which counts as UTC. The
    watermark is the cursor of the last row that was shipped, so that row itself is covered. Raises OFL-314 when there
    is no such row or it can't be read.
    """
    *where, name = column.split(".")
    if len(where) + 1 not in TABLE_COLUMN or not all((*where, name)):
        raise OffloadError(ADOPT_REFUSED, f"{column!r} is no TABLE.COLUMN", table=table)
    query = sql.SQL("SELECT max({}) FROM {} WHERE {} = %s").format(
        sql.Identifier(name), sql.Identifier(*where), sql.Identifier(key)
    )
    try:
        with psycopg.connect(uri, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as c:
            found = c.execute(query, [value]).fetchone()
    except psycopg.Error as error:
        raise OffloadError(ADOPT_REFUSED, f"the watermark can't be read: {first_line(error)}", table=table) from error
    moment = found[0] if found else None
    if not isinstance(moment, datetime):
        said = "there is none" if moment is None else f"{moment!r} is no timestamp"
        raise OffloadError(ADOPT_REFUSED, f"watermark {column} where {key} = {value!r}: {said}", table=table)
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC)) + 1
