"""Asks all checks at once and waits no longer than their limits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from threading import Thread

from include.offload.errors import OffloadError
from include.offload.health.lines import Check, Line, Report, State, refused
from include.offload.settings import Settings


def check_health(settings: Settings, checks: Iterable[Check]) -> Report:
    """The lines of all checks, in their order. Takes as long as the largest limit at most; never raises."""
    began = time.monotonic()
    asked = [(check, _start(check, settings)) for check in checks]
    lines: list[Line] = []
    hung = False
    for check, answer in asked:
        try:
            found, seconds = answer.result(max(0.0, began + check.limit_s - time.monotonic()))
        except TimeoutError:
            text = f"gave no answer within {check.limit_s:.0f} s"
            found = [Line(name, State.FAIL, text, check.next) for name in check.names]
            seconds, hung = time.monotonic() - began, True
        lines += [replace(line, seconds=round(seconds, 3)) for line in found]
    return Report(tuple(lines), round(time.monotonic() - began, 3), hung)


def _start(check: Check, settings: Settings) -> Future[tuple[list[Line], float]]:
    """The check in a thread of its own: one that hangs is left behind and does not keep the process alive."""
    answer: Future[tuple[list[Line], float]] = Future()

    def look() -> None:
        began = time.monotonic()
        try:
            found = check.look(settings)
        except OffloadError as error:
            found = [refused(name, error, settings) for name in check.names]
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the others; its line says so
            text = f"the check itself failed: {type(error).__name__}: {error}"
            found = [Line(name, State.FAIL, text, check.next) for name in check.names]
        answer.set_result((found, time.monotonic() - began))

    Thread(target=look, name=f"health-{check.names[0]}", daemon=True).start()
    return answer
