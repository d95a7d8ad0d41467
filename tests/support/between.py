"""Something happens while slices are read: after one of them, or in the middle of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from include.offload.lake import shipping
from include.offload.lake.shipping import SliceTask
from include.offload.model import ShippedFile
from tests.support.domain import RunTasks


def between(happens: Callable[[], object], after: int = 1) -> RunTasks:
    """Runs the slices one after the other, as tasks of one lane are; once, after so many, something happens.

    Slices that are read again in another round meet nothing. Raises AssertionError when there are too few slices.
    """
    return _Disturbed(happens, after, inside=False)


def mid_stream(happens: Callable[[], object], slice_: int = 1) -> RunTasks:
    """The same in the middle of the n-th slice: its first batch came, and more are on their way."""
    return _Disturbed(happens, slice_, inside=True)


class _Disturbed:
    def __init__(self, happens: Callable[[], object], number: int, *, inside: bool) -> None:
        self._happens = happens
        self._number = number
        self._inside = inside
        self._happened = False

    def __call__(self, tasks: Sequence[SliceTask]) -> Iterator[ShippedFile]:
        met = self._happened
        needed = self._number if self._inside else self._number + 1
        assert met or len(tasks) >= needed, f"{len(tasks)} slices, the test needs {needed}"
        for number, task in enumerate(tasks, 1):
            if met or number != self._number:
                yield shipping.ship(task)
                continue
            self._happened = True
            if self._inside:
                yield self._ship(task)
            else:
                yield shipping.ship(task)
                self._happens()

    def _ship(self, task: SliceTask) -> ShippedFile:
        real = shipping.batches
        seen = 0

        def disturbed(stream: Any, table: str) -> Iterator[pa.RecordBatch]:
            nonlocal seen
            for batch in real(stream, table):
                if seen == 0:
                    self._happens()
                seen += 1
                yield batch

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shipping, "batches", disturbed)
            file = shipping.ship(task)
        assert seen > 1, "one batch was all: nothing happened in the middle"
        return file
