"""An exercise proves what it says, or ends."""

from __future__ import annotations


class UnprovenError(AssertionError):
    """The exercise shows nothing, or something else than it says; the message says what."""


def insist(holds: object, what: str) -> None:
    """Raises UnprovenError with `what` unless it holds."""
    if not holds:
        raise UnprovenError(what)
