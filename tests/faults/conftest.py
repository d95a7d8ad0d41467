"""Fixtures of the fault tests: the domain's tables, and the wire to the catalog. The servers: tests/conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyiceberg.catalog.rest import RestCatalog

from tests.support.domain import Domain, domain, table
from tests.support.ledgers import ledger
from tests.support.wire import CatalogProxy, catalog_proxy

__all__ = ["domain", "ledger", "table"]


@pytest.fixture
def proxy(domain: Domain) -> Iterator[CatalogProxy]:
    """A way to the real catalog on which commits can be held, dropped or replayed."""
    ctx = domain.context()
    assert isinstance(ctx.catalog, RestCatalog)
    with catalog_proxy(ctx.catalog.uri) as running:
        yield running
    ctx.close()
