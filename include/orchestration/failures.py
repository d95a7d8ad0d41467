"""Turns a refusal of the domain into the right end of an Airflow task: fail now, or try again.

A wrong password does not get better by waiting, so a kind with `retry=False` fails the task at once;
an unreachable server may come back, so the others use up the task's retries first.

The log of a failed task is read from its end: what led to the error comes first, then id, cause and next
command, and last Airflow's own stack trace, kept short.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.offload.errors import OffloadError

log = logging.getLogger(__name__)


class RefusedForNow(AirflowException):  # noqa: N818 - Airflow prints the name, it should read as a verdict
    """A refusal that trying again may heal. `refusal`: the domain's error."""

    def __init__(self, refusal: OffloadError) -> None:
        self.refusal = refusal
        super().__init__(str(refusal))


class RefusedForGood(AirflowFailException):  # noqa: N818
    """A refusal that somebody has to mend; Airflow does not try again. `refusal`: the domain's error."""

    def __init__(self, refusal: OffloadError) -> None:
        self.refusal = refusal
        super().__init__(str(refusal))


def as_airflow(error: OffloadError) -> RefusedForNow | RefusedForGood:
    """The exception that makes Airflow retry (`kind.retry`) or fail the task for good."""
    return RefusedForNow(error) if error.kind.retry else RefusedForGood(error)


def refusal_of(error: object) -> OffloadError | None:
    """The domain's refusal behind an exception that Airflow saw, None for any other failure."""
    if isinstance(error, RefusedForNow | RefusedForGood):
        return error.refusal
    return error if isinstance(error, OffloadError) else None


def explain(error: OffloadError) -> None:
    """Write the id, the cause and the next command as log lines of their own."""
    if error.__cause__ is not None:
        log.info("what led to it", exc_info=error.__cause__)
    log.error("%s %s", error.id, error.kind.title)
    log.error("cause: %s", error.cause)
    log.error("next:  %s", error.next_step)
    log.error("more:  docs/errors.md#%s", error.id.lower())


@contextmanager
def refusals() -> Iterator[None]:
    """Run a step of the domain; an `OffloadError` leaves as an Airflow exception with the same text."""
    try:
        yield
    except OffloadError as error:
        explain(error)
        raise as_airflow(error) from None
