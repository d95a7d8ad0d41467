"""Ledgers of their own for a test: another pipeline, or one that may be lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from include.offload.context import Context
from include.offload.ledger.migrate import upgrade
from tests.support.domain import Domain, DomainTable
from tests.support.stack import Servers

MakeLedger = Callable[[], Context]


@contextmanager
def own_ledger(servers: Servers) -> Iterator[str]:
    """The URI of a ledger in a database of its own, which is dropped at the end."""
    name, admin = f"ledger_{uuid.uuid4().hex}", servers.secret("postgres_uri")
    with psycopg.connect(admin, autocommit=True) as c:
        c.execute(sql.SQL("CREATE DATABASE {} OWNER offload_ledger").format(sql.Identifier(name)))
    uri = servers.secret("offload_ledger_uri").rsplit("/", 1)[0] + f"/{name}"
    try:
        upgrade(uri)
        yield uri
    finally:
        with psycopg.connect(admin, autocommit=True) as c:
            c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def ledger(domain: Domain) -> Iterator[MakeLedger]:
    """Makes ledgers of their own, each in a new database."""
    with ExitStack() as made:

        def make() -> Context:
            ctx = domain.context(ledger_uri=made.enter_context(own_ledger(domain.servers)))
            made.callback(ctx.close)
            return ctx

        yield make


def with_ledger(t: DomainTable, ctx: Context) -> DomainTable:
    """The same table, driven by another ledger. The first one's view of it is no longer checked."""
    t.unverifiable = "driven by another ledger"
    return replace(t, ctx=ctx, unverifiable=None)


def check_end(t: DomainTable) -> None:
    """What the fixture does for tables of the shared ledger."""
    t.verified()
    head = t.ctx.ledger.head(t.identity)
    assert head is not None and head.watermark_us is not None
    (row,) = [r for r in t.ctx.ledger.watermark_rows() if r["table_name"] == t.identity]
    assert row["row_count"] == len(t.lake_ids())
