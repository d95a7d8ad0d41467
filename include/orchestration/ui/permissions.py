"""How often an auth manager is asked what a user may read: many DAGs at once, and not at every refresh of a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

PERMISSIONS_KEPT_S = 60.0
"""How long what a user may read is remembered: an open page asks every 15 s, and an auth manager may be a server."""
USERS_KEPT = 256


@dataclass
class Permissions:
    """What users may read of which DAGs, for a minute. A DAG that came or went is asked about at once."""

    clock: Callable[[], float] = time.monotonic
    _lock: Lock = field(default_factory=Lock)
    _known: dict[str, tuple[float, frozenset[str], frozenset[str]]] = field(default_factory=dict)

    def of(self, user: str, dags: frozenset[str], ask: Callable[[], set[str]]) -> frozenset[str]:
        """Those of the DAGs that the user may read."""
        now = self.clock()
        with self._lock:
            asked_at, of, allowed = self._known.get(user, (-PERMISSIONS_KEPT_S, frozenset[str](), frozenset[str]()))
        if of == dags and now - asked_at < PERMISSIONS_KEPT_S:
            return allowed
        allowed = frozenset(ask())
        with self._lock:
            self._known.pop(user, None)
            while len(self._known) >= USERS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[user] = (now, dags, allowed)
        return allowed


def sifted(names: Sequence[str], all_allowed: Callable[[Sequence[str]], bool]) -> list[str]:
    """Those that are allowed, by asking about many at once: mostly the answer is yes, and else a half is asked."""
    if not names or all_allowed(names):
        return list(names)
    if len(names) == 1:
        return []
    middle = len(names) // 2
    return [*sifted(names[:middle], all_allowed), *sifted(names[middle:], all_allowed)]
