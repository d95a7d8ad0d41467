"""The real catalog, with something happening just before or after the first commit that is sent through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.catalog import Catalog


@dataclass
class Faulty:
    """The real catalog; `before` and `after` happen around the first commit that is sent."""

    catalog: Catalog
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    sent: list[str] = field(default_factory=list)

    def commit_table(self, *arguments: Any) -> Any:
        first = not self.sent
        self.sent.append("commit")
        if first:
            self.before()
        answer = self.catalog.commit_table(*arguments)
        if first:
            self.after()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.catalog, name)
