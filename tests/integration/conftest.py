"""Fixtures of the domain's tests; the servers are registered in tests/conftest.py."""

from tests.support.domain import domain, table

__all__ = ["domain", "table"]
