"""Fixtures of the domain's tests; the servers are registered in tests/conftest.py."""

from tests.support.domain import domain, table
from tests.support.ledgers import ledger

__all__ = ["domain", "ledger", "table"]
