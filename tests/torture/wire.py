"""The real catalog, with something happening just before or after the first commit that is sent through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyiceberg.catalog import Catalog


@dataclass
class Wire:
    """`before` and `after` happen once."""

    catalog: Catalog
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    sent: int = 0

    def commit_table(self, *arguments: Any) -> Any:
        self.sent += 1
        first = self.sent == 1
        if first:
            self.before()
        answer = self.catalog.commit_table(*arguments)
        if first:
            self.after()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.catalog, name)


def losing() -> None:
    """An answer that does not come."""
    raise ConnectionError("reset by peer")
