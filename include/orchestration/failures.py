"""Turns a refusal of the domain into the right end of an Airflow task: fail now, or try again.

A wrong password does not get better by waiting, so a kind with `retry=False` fails the task at once;
an unreachable server may come back, so the others use up the task's retries first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from include.offload.errors import OffloadError

log = logging.getLogger(__name__)


def as_airflow(error: OffloadError) -> AirflowException:
    """The exception that makes Airflow retry (`kind.retry`) or fail the task for good."""
    kind = AirflowException if error.kind.retry else AirflowFailException
    return kind(str(error))


def explain(error: OffloadError) -> None:
    """Write the id, the cause and the next command as log lines of their own, above any stack trace."""
    log.error("%s %s", error.id, error.kind.title)
    log.error("cause: %s", error.cause)
    log.error("next:  %s", error.next_step)
    log.error("runbook: docs/operations/runbooks, heading %s", error.id)


@contextmanager
def refusals() -> Iterator[None]:
    """Run a step of the domain; an `OffloadError` leaves as an Airflow exception with the same text."""
    try:
        yield
    except OffloadError as error:
        explain(error)
        raise as_airflow(error) from error
